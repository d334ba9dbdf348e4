"""Containers out: decoded columns in the container and the types that the training table had."""

from __future__ import annotations

import ast
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from diabolo.checks import refuse
from diabolo.table.reading import DAY, text_of

__all__ = ["codes_of", "write_frame"]


def write_frame(
    container: str, columns: Sequence[Any], values: Sequence[np.ndarray], like: Any = None
) -> Any:
    """A data frame.

    Parameters
    ----------
    container : {"pandas", "polars", "pyarrow"}
    columns : the schema's columns: name, dtype, role, levels, ordered
    values : one array (n,) per column, float64 with nan or object with None
    like : a frame whose index is kept (pandas), or None
    """
    # dates and numbers spelt as text show every digit: rounding of float32 has no place among them
    values = [
        c.kind.snap(v) if c.role == "day" or (c.role == "number" and _spells(c)) else v
        for c, v in zip(columns, values, strict=True)
    ]
    try:
        writer = {"pandas": _pandas, "polars": _polars, "pyarrow": _pyarrow}[container]
        return writer(columns, values, like)
    except ModuleNotFoundError as error:
        got, want = f"no package {error.name!r}", f"it, as the training table was of {container}"
        raise refuse("output", got=got, want=want, fix=f"pip install {error.name}") from error


def _spells(column: Any) -> bool:
    """Did the training column spell its numbers as text?"""
    return re.match(r"(large_)?str", (column.dtype or "").lower()) is not None


def _gaps(values: np.ndarray) -> np.ndarray:
    """Which cells (n,) are gaps."""
    if values.dtype == object:
        return np.fromiter((v is None for v in values), bool, len(values))
    return np.isnan(values)


def _ticks(values: np.ndarray) -> np.ndarray:
    """Microseconds int64 of days float64; 0 at a gap."""
    # datetime64 ends in the year 294247; a draw beyond is cut there
    return np.rint(np.clip(np.nan_to_num(values) * DAY, -9.2e18, 9.2e18)).astype(np.int64)


def _whole(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers rounded and cut to what the integer type can hold, nan kept."""
    bits = re.search(r"\d+", dtype)
    limits = np.iinfo(f"{'u' if dtype.lower().startswith('u') else ''}int{bits.group() if bits else 64}")
    # the largest 64-bit integers are no float64: stay a rounding inside
    low, high = float(limits.min), float(limits.max)
    high = high if int(high) <= limits.max else np.nextafter(high, 0)
    return np.clip(np.rint(values), low, high)


def _cells(column: Any, values: np.ndarray) -> list[Any]:
    """Cells as Python objects: text, bool, int, float, or None for a gap."""
    gaps, dtype = _gaps(values), (column.dtype or "").lower()
    if values.dtype == object:
        return values.tolist()
    if "bool" in dtype:
        cells: list[Any] = [bool(v > 0.5) for v in values]
    elif re.match(r"u?int", dtype):
        cells = [0 if gap else int(v) for v, gap in zip(_whole(values, dtype), gaps, strict=True)]
    elif _spells(column):
        cells = [f"{v:.15g}" for v in values]
    else:
        cells = values.tolist()
    return [None if gap else cell for cell, gap in zip(cells, gaps, strict=True)]


def codes_of(cells: Sequence[Any], levels: Sequence[Any]) -> list[int]:
    """The place of each cell among levels, -1 of what is none; numbers by value (True is 1.0), others by their text."""
    place = {
        level if isinstance(level, numbers.Real) else text_of(level): i for i, level in enumerate(levels)
    }
    return [place.get(cell, -1) for cell in cells]


def _pandas(columns: Sequence[Any], values: Sequence[np.ndarray], like: Any) -> Any:
    import pandas as pd

    index = like.index if isinstance(like, (pd.DataFrame, pd.Series)) else None
    n_rows = len(values[0])
    if index is None or len(index) != n_rows:
        index = pd.RangeIndex(n_rows)
    arrays = [_pandas_array(pd, c, v) for c, v in zip(columns, values, strict=True)]
    # without its type named, an array of objects would be guessed anew
    series = [pd.Series(array, index=index, dtype=array.dtype) for array in arrays]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=index)
    frame.columns = pd.Index([column.name for column in columns])
    return frame


def _pandas_array(pd: Any, column: Any, values: np.ndarray) -> Any:
    dtype, gaps = column.dtype or "", _gaps(values)
    if column.role == "day":
        code = "m8[us]" if "timedelta" in dtype or "duration" in dtype else "M8[us]"
        ticks = _ticks(values).astype(code)
        ticks[gaps] = "NaT"
        days = pd.Series(ticks)
        zone = re.search(r"(?:,|tz=)\s*([^,\]]+)\]", dtype)
        if zone and code == "M8[us]":
            days = days.dt.tz_localize("UTC").dt.tz_convert(zone.group(1).strip())
        if dtype == "object":  # Python's dates, or its date-times
            # a constant has no step: its one value says whether days are all there is
            step = getattr(column.kind, "resolution", 1 if np.all(values[~gaps] % 1 == 0) else 0)
            return days.dt.date.array if code == "M8[us]" and step == 1 else days.array
        return _cast(days, dtype).array
    if dtype == "category":
        codes = codes_of(_cells(column, values), column.levels)
        return pd.Categorical.from_codes(codes, pd.Index(list(column.levels)), ordered=column.ordered)
    if re.fullmatch(r"u?int\d+", dtype):
        return values if gaps.any() else _whole(values, dtype).astype(dtype)
    if dtype == "bool":
        return pd.array(_cells(column, values), dtype="boolean" if gaps.any() else "bool")
    if dtype.startswith("float") and "[" not in dtype:
        return values.astype(dtype)
    return _cast(pd.Series(_cells(column, values), dtype=object), dtype).array


def _cast(series: Any, dtype: str) -> Any:
    """The series in the training column's type; as it is where that type cannot hold it."""
    try:
        return series.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return series


def _polars(columns: Sequence[Any], values: Sequence[np.ndarray], like: Any) -> Any:
    import polars as pl

    return pl.DataFrame([_polars_series(pl, c, v) for c, v in zip(columns, values, strict=True)])


def _polars_series(pl: Any, column: Any, values: np.ndarray) -> Any:
    name, _, options = (column.dtype or "").partition("(")
    dtype = {"Enum": lambda: pl.Enum(list(column.levels))}.get(name, lambda: getattr(pl, name, None))()
    if name in ("Datetime", "Duration", "Decimal") and options:
        found = re.findall(r"(\w+)=('[^']*'|None|\d+)", options)
        dtype = dtype(**{key: ast.literal_eval(value) for key, value in found})
    if column.role == "day" and name in ("Date", "Datetime", "Duration"):
        cells = [None if gap else int(t) for t, gap in zip(_ticks(values), _gaps(values), strict=True)]
        base = pl.Duration("us") if name == "Duration" else pl.Datetime("us")
        series = pl.Series(str(column.name), cells, dtype=pl.Int64).cast(base)
        zone = getattr(dtype, "time_zone", None) if name == "Datetime" else None
        if zone:
            series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        return series.cast(dtype)
    series = pl.Series(str(column.name), _cells(column, values), strict=False)
    return series if dtype is None else series.cast(dtype, strict=False)


def _pyarrow(columns: Sequence[Any], values: Sequence[np.ndarray], like: Any) -> Any:
    import pyarrow as pa

    arrays = [_pyarrow_array(pa, c, v) for c, v in zip(columns, values, strict=True)]
    return pa.table(arrays, names=[str(column.name) for column in columns])


def _pyarrow_array(pa: Any, column: Any, values: np.ndarray) -> Any:
    dtype = column.dtype or ""
    if column.role == "day":
        ticks = pa.array(_ticks(values), mask=_gaps(values))
        found = re.match(r"(duration|timestamp)\[(\w+)(?:, tz=(.+))?\]", dtype)
        if found is None:  # date32[day], date64[ms]
            return ticks.cast(pa.timestamp("us")).cast(pa.type_for_alias(dtype.partition("[")[0]), safe=False)
        if found[1] == "duration":
            return ticks.cast(pa.duration("us")).cast(pa.duration(found[2]), safe=False)
        return ticks.cast(pa.timestamp("us", found[3])).cast(pa.timestamp(found[2], found[3]), safe=False)
    cells = _cells(column, values)
    if dtype.startswith("dictionary"):
        whole = re.search(r"indices=(\w+)", dtype)
        codes = [None if code < 0 else code for code in codes_of(cells, column.levels)]
        indices = pa.array(codes, pa.type_for_alias(whole[1] if whole else "int32"))
        return pa.DictionaryArray.from_arrays(indices, pa.array(column.levels), ordered=column.ordered)
    array = pa.array(cells)
    decimal = re.match(r"decimal\d+\((\d+), (\d+)\)", dtype)
    try:
        known = pa.decimal128(*map(int, decimal.groups())) if decimal else pa.type_for_alias(dtype)
        return array.cast(known, safe=False)
    except (ValueError, pa.ArrowException):
        return array
