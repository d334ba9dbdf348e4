"""What the verbs share: files into rows that suit a model, refusals that name line and option."""

from __future__ import annotations

import contextlib
import csv
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diabolo.checks import InputError, nearest, refuse
from diabolo.cli.console import say

if TYPE_CHECKING:
    from diabolo.files import FileTable


def opened(data: str, missing: str | None, index: str | None, quiet: bool) -> FileTable:
    """Read DATA and say what was read."""
    from diabolo.files import read_table

    gaps = next(csv.reader([missing])) if missing else ()  # quoted as in a file: '"12,5",?' are two
    table = read_table(data, missing=gaps, index=index)
    if not quiet:
        say(table.path.name, ", ".join([f"{counted(len(table), 'row')} of {_what(table)}", *table.notes]))
    return table


def counted(n: int, noun: str) -> str:
    """`1 row`, `1,024 rows`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _what(table: FileTable) -> str:
    """`7 columns`, or `8 × 8 pixels`."""
    sizes = table.data.shape[1:] or (1,)
    return counted(sizes[0], "column") if len(sizes) == 1 else f"{' × '.join(map(str, sizes))} pixels"


def apart(output: Path, data: str) -> None:
    """Refuse to write results over the rows they are of."""
    if output.exists() and Path(data).exists() and output.samefile(data):
        raise refuse(
            f"output {output}",
            got="the file of the data",
            want="another file, since results never replace rows",
        )


def loaded(model: Path, *, before_data: bool = False) -> Any:
    """The estimator of a model file, which may have been taken for the data behind it."""
    from diabolo.saving import load

    if model.suffix.lower() != ".safetensors" and model.exists():
        fix = (
            "The model comes first, then the data." if before_data else "`diabolo fit` makes one of a table."
        )
        raise refuse(str(model), got="a file that is no model", want="a .safetensors file", fix=fix)
    return load(model)


def model_and_rows(
    model: Path, data: str, missing: str | None, index: str | None, quiet: bool, kept: str | None = None
) -> tuple[Any, FileTable]:
    """Load MODEL, read DATA, and give the model the columns it knows in its order; the rest are left out.

    `kept` names a column that stays at the end even so.
    """
    estimator = loaded(model, before_data=True)
    table = opened(data, missing, index, quiet)
    names = getattr(table.data, "column_names", [])
    must_hold(table, kept)
    schema = estimator.schema_
    if schema.container not in {"pandas", "polars", "pyarrow"}:
        _must_be_as_wide(schema, table)
        return estimator, table
    if not hasattr(table.data, "column_names"):
        _must_be_as_wide(schema, table)
        if not quiet:
            say("columns", "without names: taken in the model's order")
        return estimator, table.named(list(map(str, schema.names)))
    if (
        index is not None and table.index is not None and index in schema.names
    ):  # the model knows it as a column, too
        table = table.appended(index, table.index.column(index))
    for column in schema.columns:
        name, found = str(column.name), table.data.column_names
        if name in found:
            continue
        if column.kind.name != "identifier":  # which the model never looks at
            got, fix = f"no column {name!r}", nearest(name, found, "The file has")
            raise refuse(table.path.name, got=got, want="the columns the model was fitted on", fix=fix)
        table = table.appended(name, None)
    wanted = [str(column.name) for column in schema.columns]
    unknown = [name for name in names if name not in wanted and name != kept]
    if unknown and not quiet:
        more = ", ..." if len(unknown) > 5 else ""
        say("left out", f"{', '.join(unknown[:5])}{more}: not in the model")
    return estimator, table.select(wanted if kept is None or kept in wanted else [*wanted, kept])


def must_hold(table: FileTable, color: str | None) -> None:
    """Refuse to colour by a column that is not there."""
    names = getattr(table.data, "column_names", [])
    if color is not None and color not in names:
        fix = nearest(color, names) if names else ""
        raise refuse(f"--color {color}", got="no such column", want=f"one of {table.path.name}", fix=fix)


def _must_be_as_wide(schema: Any, table: FileTable) -> None:
    """Refuse rows of another form than the training rows."""
    form = "table" if hasattr(table.data, "column_names") else "array" if table.data.ndim < 3 else "images"
    n_columns = len(schema.columns)
    width = table.data.shape[1:] or (1,)
    size = 1
    for length in width:
        size *= int(length)
    if size == n_columns and (form != "images" or schema.image_shape is not None):
        return
    got = f"images of {' × '.join(map(str, width))} pixels" if form == "images" else (
        f"{'an' if form == 'array' else 'a'} {form} of {counted(size, 'column')}"
    )  # fmt: skip
    want = counted(n_columns, "column")
    if schema.image_shape is not None:
        want = f"images of {' × '.join(map(str, schema.image_shape))} pixels"
    raise refuse(table.path.name, got=got, want=f"{want}, as in training")


def colored(table: FileTable, estimator: Any, color: str | None) -> tuple[FileTable, Any]:
    """The column that colours the map; one that the model does not know is taken out of its rows."""
    if color is None or color in column_names(estimator):
        return table, color
    return table.without([color]), {color: table.data.column(color)}


@contextlib.contextmanager
def told(table: FileTable, *, fitting: bool = False, quiet: bool = False) -> Iterator[None]:
    """Refusals of rows name file and line, and speak of options where the library speaks of parameters."""
    try:
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            yield
    except InputError as error:
        if str(error).startswith(("parameter ", "kinds")):
            raise type(error)(_as_option(str(error))) from None
        located = table.locate(error)
        said = re.sub(r"kinds=\{'([^']+)': '(\w+)'\}", r"--kind '\1=\2'", str(located))
        said = re.sub(r"--kind '([\w=]+)'", r"--kind \1", said)  # quotes only where a shell needs them
        text = re.search(r"got the text '([^']+)'", said)
        spelled = shlex.quote(_as_cell(text.group(1))) if text else "with its spelling"
        said = re.sub(r"got the text ('[^']+') among [\d,]+ numbers; expected numbers only",
                      r"got \1; expected a number", said)  # fmt: skip
        said = said.replace("Make it a gap, or use", f"Add --missing {spelled}, or")
        if not fitting:  # the columns' kinds are long decided
            said = re.sub(r",? or --kind .*\.$", ".", said)
        raise type(error)(said) from None


def _as_cell(text: str) -> str:
    """A text as a list with commas holds it."""
    return f'"{text}"' if "," in text else text


def _as_option(said: str) -> str:
    """A refused parameter as the option that gave it."""
    said = re.sub(r"^parameter '(\w+)'", r"--set \1", said)
    said = re.sub(r"^kinds\['(.+?)'\]: ", r"--kind \1: ", said)
    said = re.sub(r"^kinds: got", "--kind: got", said)
    return said.replace("the name or position of a column of X", "the name of a column")


def needs_images(estimator: Any, output: Path) -> None:
    """Refuse a folder for rows that are no pictures, before the work."""
    from diabolo.files import check_output

    if estimator.schema_.image_shape is None:
        check_output(output)


def as_pictures(estimator: Any, rows: Any, output: Path) -> Any:
    """Grey levels as the bytes they are, where they go to picture files."""
    from diabolo.files import as_bytes

    pixels = estimator.schema_.columns[0].kind.name == "pixels"
    return as_bytes(rows, 0.0, 255.0) if pixels and not output.suffix else rows


def column_names(estimator: Any) -> list[str]:
    """Of the training table; of images, one per pixel."""
    return [str(column.name) for column in estimator.schema_.columns]


def kinds_line(schema: Any) -> str:
    """`4 real, 2 categorical; 1 given`."""
    counts = Counter(column.kind.name for column in schema.columns)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def wrote(output: Path, what: str, quiet: bool) -> None:
    """Say where the results are."""
    if not quiet:
        say("wrote", f"{output}  {what}")


def one_below_the_other(blocks: list[Any], index: Any, names: list[str]) -> tuple[Any, Any]:
    """Draws of the same rows as one table, and its index with `draw` in front, which counts them from 1."""
    import numpy as np
    import pyarrow as pa

    from diabolo.files import as_table

    n_rows = len(blocks[0])
    whole = pa.concat_tables([as_table(block, names) for block in blocks])
    draw = pa.table({"draw": pa.array(np.repeat(np.arange(1, len(blocks) + 1), n_rows))})
    for name in [] if index is None else index.column_names:
        draw = draw.append_column(name, pa.chunked_array([index.column(name).combine_chunks()] * len(blocks)))
    return whole, draw
