"""Write rows to a file, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from diabolo.checks import refuse
from diabolo.files.pictures import write_images

__all__ = ["WRITABLE", "as_table", "check_output", "replacing", "write_table"]

WRITABLE = (".csv", ".tsv", ".parquet", ".npy")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed onto it when the block ends well, removed when it fails."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def check_output(path: str | Path, endings: Iterable[str] = WRITABLE, *, folder: bool = False) -> Path:
    """Refuse a path that could not be written: before the work, not after it.

    `folder` also admits a path without an ending, for pictures: a new folder, or an empty one.
    """
    path, endings = Path(path), list(endings)
    what, ending = f"output {path}", path.suffix.lower()
    if ending not in endings and not (folder and not ending):
        got = f"the ending {ending!r}" if ending else "no ending"
        want = " or ".join(endings) + (", or no ending for a folder of images" if folder else "")
        raise refuse(what, got=got, want=want)
    if not path.parent.is_dir():
        raise refuse(what, got=f"no folder {str(path.parent)!r}", want="a folder that exists")
    if path.is_dir() and (ending or any(path.iterdir())):
        raise refuse(what, got="a folder that is not empty", want="a new file or folder")
    if not os.access(path.parent, os.W_OK):
        raise refuse(what, got=f"no permission to write in {str(path.parent)!r}", want="a folder of yours")
    return path


def write_table(
    path: str | Path, data: Any, *, index: pa.Table | None = None, names: Sequence[str] | None = None
) -> Path:
    """Write rows by the ending of `path`.

    Parameters
    ----------
    path : .csv, .tsv, .parquet or .npy; without an ending, a folder of PNG files (images only)
    data : pyarrow.Table, data frame, or array (n, p), (n, h, w) or (n, h, w, channels)
    index : columns to put in front (CSV, Parquet), or the names of the PNG files; npy has no place for it
    names : the columns' names where `data` is an array
    """
    path = check_output(path, folder=isinstance(data, np.ndarray) and data.ndim > 2)
    ending = path.suffix.lower()
    with replacing(path) as partial:
        if not ending:
            write_images(partial, data, index.column(0).to_pylist() if index is not None else None)
        elif ending == ".npy":
            with partial.open("wb") as file:  # given a name, numpy would add a second ending
                np.save(file, _as_array(path, data), allow_pickle=False)
        elif ending == ".parquet":
            table = _note_index(_with_index(as_table(data, names), index), index)
            pyarrow.parquet.write_table(table, partial)
        else:
            options = pyarrow.csv.WriteOptions(delimiter="\t" if ending == ".tsv" else ",")
            pyarrow.csv.write_csv(_for_text(_with_index(as_table(data, names), index)), partial, options)
    return path


def as_table(data: Any, names: Sequence[str] | None = None) -> pa.Table:
    """Rows as a pyarrow table; images become one column per pixel."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, np.ndarray):
        flat = data.reshape(len(data), -1)
        names = list(names) if names is not None else [f"x{number}" for number in range(flat.shape[1])]
        return pa.table({name: pa.array(column) for name, column in zip(names, flat.T, strict=True)})
    import narwhals as nw

    return nw.from_native(data, eager_only=True).to_arrow()


def _as_array(path: Path, data: Any) -> np.ndarray:
    """Rows as one array; text has no place in an npy file without pickle."""
    if not isinstance(data, np.ndarray):
        data = np.column_stack([column.to_numpy() for column in as_table(data).columns])
    if data.dtype == object:
        fix = "Write CSV or Parquet instead."
        raise refuse(
            f"output {path}", got="columns that are no numbers", want="numbers in an npy file", fix=fix
        )
    return data


def _with_index(table: pa.Table, index: pa.Table | None) -> pa.Table:
    """The index in front; where a result has its name already, the index gives way, or fills it if empty."""
    if index is None:
        return table
    empty = [name for name in index.column_names if name in table.column_names]
    empty = [name for name in empty if table.column(name).null_count == len(table)]
    table = table.drop_columns(empty)
    taken = set(table.column_names)
    names = [f"{name}_index" if name in taken else name for name in index.column_names]
    return pa.table([*index.columns, *table.columns], names=[*names, *table.column_names])


def _note_index(table: pa.Table, index: pa.Table | None) -> pa.Table:
    """Tell pandas which columns are the index, in the metadata that its `to_parquet` writes."""
    if index is None:
        return table
    names = table.column_names
    fields = [name or "__index_level_0__" for name in names[: index.num_columns]]
    columns = []
    for field, column in zip(fields, table.columns, strict=False):
        shown = None if field.startswith("__index_level_") else field
        dtype = str(np.dtype(column.type.to_pandas_dtype()))
        entry = {
            "name": shown,
            "field_name": field,
            "pandas_type": dtype,
            "numpy_type": dtype,
            "metadata": None,
        }
        columns.append(entry)
    noted = {"index_columns": fields, "column_indexes": [], "columns": columns}
    table = table.rename_columns([*fields, *names[index.num_columns :]])
    return table.replace_schema_metadata({"pandas": json.dumps(noted)})


def _for_text(table: pa.Table) -> pa.Table:
    """Gaps as empty cells (pyarrow would write `nan`), categories as text, an unnamed index unnamed."""
    columns = []
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            single = column.cast(pa.float32(), safe=False)
            if pc.all(pc.equal(single.cast(pa.float64()), column)).as_py():  # no more digits than it has
                column = single
        columns.append(column)
    names = ["" if name.startswith("__index_level_") else name for name in table.column_names]
    return pa.table(columns, names=names)
