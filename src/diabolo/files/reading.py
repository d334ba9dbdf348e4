"""Read a file of rows: which reader its ending asks for, and what is set aside as its index."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from diabolo.checks import InputError, nearest, refuse
from diabolo.files.delimited import Dialect, parse, records
from diabolo.files.pictures import read_images

__all__ = ["FileTable", "nearest_file", "read_table"]

SEPARATED = {".csv", ".tsv", ".txt"}
READABLE = "CSV, TSV, Parquet, npy, npz or a folder of images"


@dataclass(frozen=True)
class FileTable:
    """What a file held.

    Attributes
    ----------
    data : pyarrow.Table, or array (n, p), (n, h, w) or (n, h, w, channels)
    path : the file or folder
    form : "CSV", "Parquet", "npy", "npz" or "images"
    index : the columns set aside, to be written beside every result; None without one
    notes : what was guessed or left out, to be shown to the user
    dialect : how the text was read; None where the file is no text
    """

    data: Any
    path: Path
    form: str
    index: pa.Table | None = None
    notes: tuple[str, ...] = ()
    dialect: Dialect | None = None

    def __len__(self) -> int:
        return len(self.data)

    def without(self, names: Iterable[str]) -> FileTable:
        """The same rows without some columns; a column that is not there is refused."""
        names = list(names)
        for name in names:
            _column(self, name, "column to exclude")
        return dataclasses.replace(self, data=self.data.drop_columns(names)) if names else self

    def select(self, names: Sequence[str]) -> FileTable:
        """The same rows with these columns, in this order."""
        return dataclasses.replace(self, data=self.data.select(list(names)))

    def appended(self, name: str, column: pa.ChunkedArray | None) -> FileTable:
        """The same rows with one more column; without its cells, one of gaps."""
        cells = pa.nulls(len(self), pa.string()) if column is None else column
        return dataclasses.replace(self, data=self.data.append_column(name, cells))

    def named(self, names: Sequence[str]) -> FileTable:
        """The columns of an array, with names."""
        columns = self.data.reshape(len(self), -1).T
        return dataclasses.replace(self, data=pa.table(dict(zip(names, columns, strict=True))))

    def labels(self) -> list[str] | None:
        """What each row is called: its line, the name of its file, its index; None without any of them."""
        if self.dialect is not None:
            starts = [line for line, _ in records(self.path, self.dialect)]
            return [f"line {line}" for line in starts[1:]]
        if self.index is not None:
            return [str(name) for name in self.index.column(0).to_pylist()]
        return None

    def line(self, row: int) -> int | None:
        """The line of the file on which a row (from 0) starts; None where the file has no lines."""
        if self.dialect is not None:
            for number, (line, _) in enumerate(records(self.path, self.dialect)):
                if number == row + 1:  # the header is record 0
                    return line
        return None

    def locate(self, error: InputError) -> InputError:
        """The same refusal with the file in front, and the line in place of the row it speaks of."""
        message = str(error).removeprefix("X: ")
        found = re.search(r",? ?(?:\b(?:first )?(?:at|in|on) )?\brow ([\d,]+)\b", message)
        row = int(found.group(1).replace(",", "")) if found else self._first_infinite(message)
        line = None if row is None else self.line(row)
        if line is None:
            return type(error)(f"{self.path.name}: {message}")
        if found:
            message = message[: found.start()] + message[found.end() :]
        return type(error)(f"{self.path.name} line {line:,}, {message}")

    def _first_infinite(self, message: str) -> int | None:
        """The first row of a column that is refused for infinite values."""
        found = re.match(r"column '(.+?)': got [\d,]+ infinite", message)
        if found is None or not isinstance(self.data, pa.Table):
            return None
        values = self.data.column(found.group(1))
        if not pa.types.is_floating(values.type):
            return None
        return int(np.argmax(np.isinf(values.to_numpy())))


def read_table(path: str | Path, *, missing: Sequence[str] = (), index: str | None = None) -> FileTable:
    """Read a file of rows.

    Parameters
    ----------
    path : CSV, TSV, Parquet, npy, npz (`file.npz:key` where it holds several arrays), or a folder of images
    missing : further spellings of a missing cell, in text files
    index : column to set aside; without it, pandas' index columns of a Parquet file and a first CSV column
        without a name, which is how pandas writes one
    """
    path, key = _find(Path(path))
    ending = path.suffix.lower()
    if path.is_dir():
        images, names, notes = read_images(path)
        table = FileTable(images, path, "images", pa.table({"file": names}), notes)
    elif ending in SEPARATED:
        table = _read_csv(path, missing)
    elif ending in {".parquet", ".pq"}:
        table = _read_parquet(path)
    elif ending == ".npy":
        table = FileTable(_load_npy(path), path, "npy")
    elif ending == ".npz":
        table = FileTable(_load_npz(path, key), path, "npz")
    elif ending == ".safetensors":
        fix = "The model comes first, then the data."
        raise refuse(str(path), got="a fitted model where rows are wanted", want=READABLE, fix=fix)
    else:
        got = f"a file ending in {ending!r}" if ending else "a file without an ending"
        raise refuse(str(path), got=got, want=READABLE)
    if len(table) == 0:
        raise refuse(str(path), got="no rows", want="at least one row")
    return _set_aside(table, index)


def _find(path: Path) -> tuple[Path, str | None]:
    """The path on disk, and the key after `file.npz:`; a missing path offers its nearest neighbour."""
    if path.exists():
        return path, None
    stem, colon, key = str(path).rpartition(":")
    if colon and Path(stem).is_file():
        return Path(stem), key
    folder = path.parent
    if not folder.is_dir():
        raise refuse(str(path), got=f"no folder {str(folder)!r}", want="a file that exists")
    raise refuse(str(path), got="no such file", want="a file that exists", fix=nearest_file(path))


def nearest_file(path: Path) -> str:
    """A sentence that offers the file beside `path` that is spelled most like it, or nothing."""
    if not path.absolute().parent.is_dir():
        return ""
    beside = [entry for entry in sorted(path.absolute().parent.iterdir()) if entry.stem]
    beside.sort(
        key=lambda entry: entry.suffix == path.suffix
    )  # of one stem the file of the same ending counts
    stems = {entry.stem: entry for entry in beside}
    close = difflib.get_close_matches(path.stem, stems, n=1, cutoff=0.7)  # endings would make all alike
    return f"Did you mean {str(path.parent / stems[close[0]].name)!r}?" if close else ""


def _set_aside(table: FileTable, name: str | None) -> FileTable:
    """Take the named index column out of the data; refuse two columns of one name."""
    if name is not None:
        _column(table, name, "index")
        index, data = table.data.select([name]), table.data.drop_columns([name])
        table = dataclasses.replace(table, index=index, data=data)
    if isinstance(table.data, pa.Table):
        name, count = Counter(table.data.column_names).most_common(1)[0]
        if count > 1:
            raise refuse(str(table.path), got=f"{count} columns named {name!r}", want="a name for each")
    return table


def _column(table: FileTable, name: str, what: str) -> None:
    """Refuse a column that the table does not have."""
    known = table.data.column_names if isinstance(table.data, pa.Table) else []
    if name not in known:
        got = "no such column" if known else f"an array ({table.form}), whose columns have no names"
        fix = nearest(name, known) if known else ""
        raise refuse(
            f"{what} {name!r}", got=f"{got} in {table.path.name}", want="one of its columns", fix=fix
        )


def _read_csv(path: Path, missing: Sequence[str]) -> FileTable:
    table, dialect = parse(path, missing)
    index, notes = None, dialect.notes()
    if table.column_names[0] == "" and table.num_columns > 1:
        index, table = table.select([0]), table.select(range(1, table.num_columns))
        notes.append("the first column, which has no name, is the index")
    return FileTable(table, path, "CSV", index, tuple(notes), dialect)


def _read_parquet(path: Path) -> FileTable:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error, "a whole Parquet file") from None
    index = _pandas_index(table)
    if index is not None:
        table = table.drop_columns([name for name in index.column_names if name in table.column_names])
    return FileTable(table, path, "Parquet", index)


def _pandas_index(table: pa.Table) -> pa.Table | None:
    """The index that pandas noted in the file; None where it only counts the rows from 0."""
    noted = (table.schema.metadata or {}).get(b"pandas")
    columns = {}
    for entry in json.loads(noted).get("index_columns", []) if noted else []:
        if isinstance(entry, str) and entry in table.column_names:
            columns[entry] = table.column(entry)
        elif isinstance(entry, dict) and (entry["start"], entry["step"]) != (0, 1):
            values = np.arange(entry["start"], entry["stop"], entry["step"])
            columns[entry.get("name") or "__index_level_0__"] = pa.chunked_array([pa.array(values)])
    return pa.table(columns) if columns else None


def _load_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(path, error, "a whole npy file") from None
    return _rows(path, array)


def _load_npz(path: Path, key: str | None) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if key is None and len(names) == 1:
                key = names[0]
            array = archive[key] if key in names else None
    except Exception as error:  # zipfile, zlib and numpy each raise their own on a damaged archive
        raise _damaged(path, error, "a whole npz file") from None
    if array is None:
        several = key is None and bool(names)
        got = f"{len(names)} arrays ({', '.join(names[:8])})" if several else f"no array {key or ''!r}"
        fix = f"Name one: {path}:{names[0]}" if several else nearest(key or "", names)
        raise refuse(str(path), got=got, want="one array", fix=fix)
    return _rows(path, array)


def _rows(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim == 0:
        raise refuse(str(path), got="a single value", want="an array of rows")
    return array


def _damaged(path: Path, error: Exception, want: str) -> InputError:
    if "Object arrays" in str(error):
        got, fix = "pickled Python objects, which could run code", "Save the array with a numeric dtype."
    else:
        said = re.split(r"\. |\.?\n|\.$", str(error).strip() or type(error).__name__)[0][:100]
        got, fix = f"a damaged or cut-off file ({said})", "Write or copy it again."
    return refuse(str(path), got=got, want=want, fix=fix)
