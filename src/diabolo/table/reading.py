"""Containers in: arrays, data frames and images as columns of float64 or text, gaps unified."""

from __future__ import annotations

import dataclasses
import datetime
import numbers
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np

from diabolo.checks import InputTypeError, nearest, refuse

__all__ = [
    "Series",
    "Source",
    "as_array",
    "read_beside",
    "read_block",
    "read_by_name",
    "read_cells",
    "read_table",
    "rows_at",
    "text_of",
]

FRAMES = ("pandas", "polars", "pyarrow")
DAY = 86400e6  # microseconds


class Series(NamedTuple):
    """One column as read.

    values : (n,) float64 with nan for a gap, or object (text) with None for a gap
    role : "number", "text" or "day" (days since 1970, or days long)
    levels : the container's own levels, where it declares a category
    ordered : do these levels have an order?
    booleans : were all cells Python's True and False?
    """

    values: np.ndarray
    role: str
    levels: tuple | None = None
    ordered: bool = False
    booleans: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A table at the door.

    Attributes
    ----------
    container : {"numpy", "images", "pandas", "polars", "pyarrow"}
    names : tuple of str or int
    n_rows : int
    dtypes : the container's own name of each column's type
    block : (n_rows, n_columns) array of numbers or None
    cells : the raw columns where there is no block
    image_shape : (height, width) or (height, width, channels), or None
    """

    container: str
    names: tuple[str | int, ...]
    n_rows: int
    dtypes: tuple[str, ...]
    block: np.ndarray | None = None
    cells: Sequence[Any] = ()
    image_shape: tuple[int, ...] | None = None

    def column(self, j: int, keep_text: bool = False) -> Series:
        """Column j; `keep_text` takes text that reads like numbers as text."""
        where = f"column {self.names[j]!r}"
        if self.block is not None:
            return Series(read_block(self.block[:, j : j + 1], self.names[j : j + 1])[:, 0], "number")
        return read_cells(self.cells[j], where, keep_text)

    def part(self, columns: Sequence[int]) -> Source:
        """Some of the columns."""
        names = tuple(self.names[j] for j in columns)
        dtypes = tuple(self.dtypes[j] for j in columns)
        if self.block is not None:
            return dataclasses.replace(self, names=names, dtypes=dtypes, block=self.block[:, list(columns)])
        return dataclasses.replace(self, names=names, dtypes=dtypes, cells=[self.cells[j] for j in columns])


LARGEST = 1e150  # squares of larger numbers are no float64


def read_table(X: Any, image_shape: tuple[int, ...] | None = None) -> Source:
    """Look at the container of X, refuse what is none; no cell is read yet.

    Parameters
    ----------
    X : array (n, d), data frame, or images (n, h, w) or (n, h, w, c)
    image_shape : (h, w) or (h, w, c), for images given as rows (n, h * w * c)
    """
    if type(X).__module__.startswith("scipy.sparse"):
        want = "an array or a data frame; dense data is required"
        raise refuse("X", got="a sparse matrix: Sparse data was passed", want=want,
                     fix="Use '.toarray()' to convert it.", error=InputTypeError)  # fmt: skip
    if isinstance(X, (str, os.PathLike)):
        fix = "Read the file first, as by pandas.read_csv."
        raise refuse("X", got=f"the text {str(X)!r}: Expected 2D array", want="rows and columns", fix=fix)
    if isinstance(X, Mapping):
        fix = "Make it a frame, as by pandas.DataFrame."
        raise refuse("X", got=f"a {type(X).__name__}: Expected 2D array", want="rows and columns", fix=fix)
    if nw.dependencies.is_into_series(X) and not isinstance(X, np.ndarray):
        raise _one_dimensional(f"a series of {len(X)} values")
    _must_be_image_shape(image_shape)
    if isinstance(X, nw.DataFrame) or nw.dependencies.is_into_dataframe(X):
        if image_shape is not None:
            want = "an array of pixels"
            raise refuse("X", got=f"a data frame with {image_shape=}", want=want, fix="Use 'X.to_numpy()'.")
        return _read_frame(X)
    if isinstance(X, nw.LazyFrame) or type(X).__name__ == "LazyFrame":
        raise refuse("X", got="a lazy frame", want="rows in memory", fix="Call '.collect()' first.",
                     error=InputTypeError)  # fmt: skip
    return _read_array(as_array(X), image_shape)


def read_beside(y: Any, name: str | None = None) -> Source:
    """Look at one column given beside a table: an array, list or series (n,), one column (n, 1), or a single value.

    Its name is the one asked for, else the series' own, else "y".
    """
    if isinstance(y, nw.DataFrame) or nw.dependencies.is_into_dataframe(y):
        source = _read_frame(y)
        if len(source.names) != 1:
            raise refuse("y", got=f"{len(source.names)} columns", want="one column")
        return source if name is None else dataclasses.replace(source, names=(name,))
    if isinstance(y, nw.Series) or (nw.dependencies.is_into_series(y) and not isinstance(y, np.ndarray)):
        series = nw.from_native(y, series_only=True)
        if not len(series):
            raise refuse("y", got="no values", want="one per row of X")
        own = "y" if series.name is None else str(series.name) or "y"
        return _read_frame(series.alias(own if name is None else name).to_frame())
    array = as_array(y)
    array = array.reshape(1) if array.ndim == 0 else array
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
        raise refuse("y", got=f"an array of shape {array.shape}", want="one column, (n_rows,)")
    if not len(array):
        raise refuse("y", got="no values", want="one per row of X")
    return dataclasses.replace(_read_array(array.reshape(-1, 1), None), names=(name or "y",))


def read_by_name(X: Mapping[Any, Any], names: Sequence[str | int]) -> Source:
    """Columns (n_rows,) in the order of their names, from a value or a list under some of them; the others are gaps."""
    for name in X:
        if name not in names:
            got, want = f"a column {name!r}", f"some of {list(names)}"
            raise refuse("given", got=got, want=want, fix=nearest(str(name), [str(one) for one in names]))
    columns = {name: np.atleast_1d(as_array(values)) for name, values in X.items()}
    lengths = {len(values) for values in columns.values()} - {1}
    if len(lengths) > 1 or any(values.ndim > 1 for values in columns.values()):
        shapes = ", ".join(f"{name!r}: {values.shape}" for name, values in columns.items())
        raise refuse("given", got=f"values of shapes {shapes}", want="one value of each, or as many of each")
    cells = np.full((max(lengths, default=1), len(names)), None, object)
    for name, values in columns.items():
        cells[:, list(names).index(name)] = values
    return dataclasses.replace(_read_array(cells, None), names=tuple(names))


def rows_at(X: Any, places: np.ndarray) -> Any:
    """Some rows of a table, in the container that it came in."""
    if nw.dependencies.is_into_dataframe(X):
        return nw.from_native(X, eager_only=True)[places.tolist()].to_native()
    return as_array(X)[places]


def _must_be_image_shape(image_shape: Any) -> None:
    sizes = image_shape if isinstance(image_shape, (tuple, list)) else (image_shape,)
    whole = all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes)
    if image_shape is not None and not (whole and len(sizes) in (2, 3)):
        want = "(height, width) or (height, width, channels), whole numbers"
        raise refuse("parameter 'image_shape'", got=repr(image_shape), want=want)


def as_array(X: Any) -> np.ndarray:
    """X as an array of numbers, of dates or of objects."""
    if isinstance(X, np.ma.MaskedArray):
        masked, X = np.ma.getmaskarray(X), X.data.astype(float if X.dtype.kind in "fiub" else object)
        X[masked] = None
    try:
        array = np.asarray(X)
    except (ValueError, TypeError):
        got = f"a {type(X).__name__} that is no table"
        raise refuse("X", got=got, want="an array or a data frame with rows of equal length") from None
    if array.dtype.kind in "US":
        # numpy turns a list of mixed cells into text: read each cell as it was
        return np.array(X, dtype=object) if not isinstance(X, np.ndarray) else array.astype(object)
    if array.dtype.kind == "c":
        raise refuse("X", got="complex numbers: Complex data not supported", want="real numbers")
    if array.dtype.kind == "V":
        raise refuse("X", got="a structured array", want="a plain array or a data frame")
    return array


def _one_dimensional(got: str) -> Exception:
    return refuse("X", got=f"{got}: Expected 2D array, got 1D array instead", want="rows and columns",
                  fix="Reshape your data either using array.reshape(-1, 1) if it has a single feature "
                      "or array.reshape(1, -1) if it is a single sample.")  # fmt: skip


def _read_array(array: np.ndarray, image_shape: tuple[int, ...] | None) -> Source:
    if array.ndim == 0:
        raise refuse("X", got="a single value: Expected 2D array, got scalar array instead",
                     want="rows and columns", fix="Reshape your data.")  # fmt: skip
    if array.ndim == 1:
        raise _one_dimensional(f"an array of shape {array.shape}")
    if array.ndim > 4:
        raise refuse("X", got=f"an array with {array.ndim} axes", want="(n, d), (n, h, w) or (n, h, w, c)")
    shape, container = array.shape, "numpy"
    if array.dtype.kind == "O" and (image_shape is not None or array.ndim > 2):
        try:
            array = array.astype(np.float64)  # None becomes nan
        except (TypeError, ValueError):
            raise refuse("X", got="images with cells that are no numbers", want="numbers") from None
    if array.ndim > 2:
        if image_shape is not None and tuple(image_shape) != shape[1:]:
            raise refuse("X", got=f"images of shape {shape[1:]}", want=f"image_shape={tuple(image_shape)}")
        image_shape, container = shape[1:], "images"
        array = array.reshape(shape[0], int(np.prod(shape[1:])))
    elif image_shape is not None and int(np.prod(image_shape)) != shape[1]:
        raise refuse("X", got=f"{shape[1]} columns", want=f"{np.prod(image_shape)} for {image_shape=}")
    _must_hold_cells(array.shape, shape)
    n_columns = array.shape[1]
    names = [f"x{j}" for j in range(n_columns)]
    if image_shape is not None:
        image_shape = tuple(int(size) for size in image_shape)
        places = np.stack(np.unravel_index(np.arange(n_columns), image_shape), axis=1)
        names = ["pixel_" + "_".join(map(str, place)) for place in places]
    facts: dict[str, Any] = {"block": array}
    if array.dtype.kind not in "fiub":
        facts = {"cells": [array[:, j] for j in range(n_columns)]}
    dtypes = (str(array.dtype),) * n_columns
    return Source(container, tuple(names), len(array), dtypes, image_shape=image_shape, **facts)


def _must_hold_cells(shape: tuple[int, ...], shown: tuple[int, ...]) -> None:
    for axis, noun, name in ((0, "sample", "row"), (1, "feature", "column")):
        if not shape[axis]:
            got = f"0 {noun}(s) (shape={shown}) while a minimum of 1 is required"
            raise refuse("X", got=got, want=f"at least one {name}")


def _read_frame(X: Any) -> Source:
    try:
        frame = nw.from_native(X, eager_only=True)
    except (ValueError, TypeError, nw.exceptions.NarwhalsError) as error:
        raise refuse("X", got=f"a frame that cannot be read ({error})", want="one name per column") from None
    container = str(frame.implementation).lower()
    if container not in FRAMES:
        raise refuse("X", got=f"a frame of {container}", want="pandas, polars or pyarrow",
                     error=InputTypeError)  # fmt: skip
    _must_hold_cells(frame.shape, frame.shape)
    names = tuple(name if isinstance(name, int) else str(name) for name in frame.columns)
    cells = [frame[:, j] for j in range(frame.shape[1])]
    native = [series.to_native() for series in cells]
    dtypes = tuple(str(s.type if container == "pyarrow" else s.dtype) for s in native)
    return Source(container, names, len(frame), dtypes, cells=cells)


def read_block(block: np.ndarray, names: Sequence[str | int]) -> np.ndarray:
    """Numbers (n, n_columns) as float64; refuses infinite ones."""
    values = np.asarray(block, dtype=np.float64)
    # no array beside: the extremes are below the limit where nothing is infinite, huge or a gap; else look closely
    with np.errstate(invalid="ignore"):
        clear = block.dtype.kind != "f" or max(values.max(initial=0.0), -values.min(initial=0.0)) < LARGEST
        if not clear:
            for j in np.flatnonzero((np.abs(values) > LARGEST).any(0)).tolist():
                _finite(values[:, j], f"column {names[j]!r}")
    return values


def _infinite(where: str, n_infinite: int) -> Exception:
    got = f"{n_infinite} infinite value{'s' if n_infinite > 1 else ''} (infinity)"
    return refuse(where, got=got, want="finite numbers", fix="Clip them or drop those rows.")


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    if np.isinf(values).any():
        raise _infinite(where, int(np.isinf(values).sum()))
    if (np.abs(values) > LARGEST).any():
        got = f"{values[np.abs(values) > LARGEST][0]:g}"
        raise refuse(where, got=got, want=f"numbers up to {LARGEST:g}", fix="Divide the column by its unit.")
    return values


def read_cells(raw: Any, where: str, keep_text: bool = False) -> Series:
    """A raw column, a series or an array of objects, as numbers, days or text."""
    if not isinstance(raw, nw.Series):
        if raw.dtype.kind in "Mm":
            return Series(_days(raw), "day")
        return _read_objects(raw.tolist(), where, keep_text)
    dtype = raw.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        if raw.null_count() or dtype != nw.Float64:
            raw = raw.cast(nw.Float64)
        return Series(_finite(np.asarray(raw.to_numpy(), np.float64), where), "number")
    if dtype.is_temporal() and dtype != nw.Time:
        return Series(_days_of(raw), "day")
    if dtype == nw.Categorical or dtype == nw.Enum:
        return _read_category(raw, where)
    if dtype in (nw.String, nw.Object, nw.Unknown):
        return _read_objects(raw.to_list(), where, keep_text)
    raise refuse(where, got=f"cells of type {dtype}", want="numbers, dates or text", error=InputTypeError)


def _days_of(raw: nw.Series) -> np.ndarray:
    """Days since 1970 (UTC), or days long, of a series of dates or durations."""
    missing = raw.is_null().to_numpy()
    if raw.dtype == nw.Duration:
        ticks = raw.dt.total_microseconds()
    else:
        ticks = (raw.cast(nw.Datetime("us")) if raw.dtype == nw.Date else raw).dt.timestamp("us")
    days = np.asarray(ticks.fill_null(0).to_numpy(), np.float64) / DAY
    return np.where(missing, np.nan, days)


def _read_category(raw: nw.Series, where: str) -> Series:
    """A column that its container declares a category: numbers or text, and its levels."""
    native, cells = raw.to_native(), raw.to_list()
    if raw.implementation.is_pandas():
        ordered, levels = bool(native.cat.ordered), native.cat.categories.tolist()
        # by their codes: beside a gap pandas lists the interval (0, 1] as (0.0, 1.0]
        cells = [levels[code] if code >= 0 else None for code in native.cat.codes.tolist()]
    elif raw.implementation.is_pyarrow():
        ordered = bool(native.type.ordered)
        levels = native.unify_dictionaries().chunk(0).dictionary.to_pylist()
    elif raw.dtype == nw.Enum:
        ordered, levels = True, list(native.dtype.categories)
    else:  # polars shares the levels of unordered categories among columns
        ordered, levels = False, sorted(raw.drop_nulls().unique().to_list())
    cells = [None if _is_gap(cell) else cell for cell in cells]
    if levels and all(isinstance(level, (numbers.Real, np.bool_)) for level in levels):
        levels = [level if isinstance(level, (bool, int, float)) else level.item() for level in levels]
        values = np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
        return Series(_finite(values, where), "number", tuple(levels), ordered)
    texts = _object_array([None if cell is None else text_of(cell) for cell in cells])
    return Series(texts, "text", tuple(map(text_of, levels)), ordered)


def _days(moments: np.ndarray) -> np.ndarray:
    """Days of datetime64 or timedelta64; nan for NaT."""
    ticks = moments.astype(f"{moments.dtype.kind}8[us]")
    return np.where(np.isnat(ticks), np.nan, ticks.astype(np.int64) / DAY)


def _is_gap(cell: Any) -> bool:
    """None, nan, NaT or pandas' NA."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, (numbers.Number, np.datetime64, np.timedelta64)) and bool(cell != cell)


def _read_objects(cells: list[Any], where: str, keep_text: bool) -> Series:
    """Python objects as numbers, days or text, whichever all of them are."""
    types = set(map(type, cells))
    if not types <= {str, type(None)}:
        cells = [cell if type(cell) is str else None if _is_gap(cell) else cell for cell in cells]
        types = set(map(type, cells))
    types.discard(type(None))
    if types != {str}:
        if all(issubclass(t, (numbers.Real, np.bool_)) or t.__name__ == "Decimal" for t in types):
            values = np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
            return Series(
                _finite(values, where), "number", booleans=bool(types) and types <= {bool, np.bool_}
            )
        dates = (datetime.date, np.datetime64, datetime.timedelta, np.timedelta64)
        if all(issubclass(t, dates) for t in types):
            return Series(np.array([_day_of(cell) for cell in cells], np.float64), "day")
        for strange in types:
            row = next(i for i, cell in enumerate(cells) if type(cell) is strange)
            if issubclass(strange, complex):
                raise refuse(where, got="complex numbers: Complex data not supported", want="real numbers")
            if not issubclass(strange, (str, bytes, numbers.Number, np.bool_, *dates)):
                got = f"a {strange.__name__} in row {row}: argument must be a string or a number"
                raise refuse(where, got=got, want="numbers, dates or text", error=InputTypeError)
        cells = [None if cell is None else text_of(cell) for cell in cells]
    if keep_text:
        return Series(_object_array(cells), "text")
    return _read_text(cells, where)


def _object_array(cells: list[Any]) -> np.ndarray:
    values = np.empty(len(cells), object)
    values[:] = cells
    return values


def _day_of(cell: Any) -> float:
    """Days since 1970, or days long, of one date or duration."""
    if cell is None:
        return np.nan
    if isinstance(cell, (datetime.timedelta, np.timedelta64)):
        return float(np.timedelta64(cell, "us").astype(np.int64) / DAY)
    if isinstance(cell, datetime.datetime) and cell.tzinfo is not None:
        cell = cell.astimezone(datetime.UTC).replace(tzinfo=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns of nanoseconds that microseconds cannot hold
        return float(np.datetime64(cell, "us").astype(np.int64) / DAY)


def text_of(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def number_of(text: str) -> float | None:
    """The finite number that a text spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in text else None


def _read_text(cells: list[str | None], where: str) -> Series:
    """Text, or numbers where every cell spells one; refuses a column that almost does."""
    counter = Counter(cell for cell in cells if cell is not None)
    number = {text: number_of(text) for text in counter}
    n_numbers = sum(count for text, count in counter.items() if number[text] is not None)
    n_seen = sum(counter.values())
    if not n_seen or n_numbers < 0.9 * n_seen:
        return Series(_object_array(cells), "text")
    if n_numbers == n_seen:
        return Series(np.array([np.nan if t is None else number[t] for t in cells], np.float64), "number")
    row, text = next((i, t) for i, t in enumerate(cells) if t is not None and number[t] is None)
    name = where.removeprefix("column ")
    raise refuse(where, got=f"the text {text!r} in row {row} among {n_numbers} numbers", want="numbers only",
                 fix=f"Make it a gap, or use kinds={{{name}: 'categorical'}}.")  # fmt: skip
