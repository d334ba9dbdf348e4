"""Gaps of a user's table found and filled in place; cells that were observed are never written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np

from diabolo.table.layout import Column
from diabolo.table.reading import DAY, FRAMES, Source, read_table
from diabolo.table.writing import codes_of, write_frame

if TYPE_CHECKING:
    from diabolo.table.schema import Schema

__all__ = ["centres", "fill", "missing"]


def missing(schema: Schema, X: Any) -> np.ndarray:
    """(n, n_features) bool: the cells of X that hold nothing."""
    source = schema.checked(read_table(X))
    holes = np.zeros((source.n_rows, len(schema.columns)), bool)
    for j in range(len(schema.columns)):
        values = schema.values_of(source, j, j)
        holes[:, j] = [value is None for value in values] if values.dtype == object else np.isnan(values)
    return holes


def centres(schema: Schema, draws: Iterable[np.ndarray]) -> list[np.ndarray]:
    """One value per row and column in the middle of its draws: the mean, median or likeliest level, by kind.

    Parameters
    ----------
    draws : blocks (n, n_draws, width) of encoded rows

    Returns
    -------
    one array (n_rows,) per column; nan or None where the column has no law
    """
    found: list[list[np.ndarray]] = [[] for _ in schema.columns]
    for block in draws:
        arrays = schema.layout.decode(block[:, 0].astype(np.float64), None, snap=False)
        for place in schema.layout.places:
            arrays[place.column] = place.kind.centre(block[:, :, place.start : place.stop].astype(np.float64))
        for column, array in zip(found, arrays, strict=True):
            column.append(array)
    return [np.concatenate(blocks) if blocks else np.zeros(0) for blocks in found]


def fill(schema: Schema, X: Any, holes: np.ndarray, arrays: list[np.ndarray]) -> Any:
    """A copy of X with values in its gaps.

    Parameters
    ----------
    X : the table
    holes : (n, n_features) bool, its gaps
    arrays : per column, one value for every row that has a gap, in order

    Returns
    -------
    the table in its own container; what no law can fill (identifiers, conditions) stays a gap, and so does a
        level that X's own category type cannot hold
    """
    rows = np.flatnonzero(holes.any(axis=1))
    place = np.zeros(len(holes), int)
    place[rows] = np.arange(len(rows))
    source = read_table(X)
    todo = [
        j
        for j, column in enumerate(schema.columns)
        if holes[:, j].any() and not column.given and column.kind.name != "identifier"
    ]
    if source.container not in FRAMES:
        out = np.array(X, copy=True) if isinstance(X, np.ndarray) else np.array(X, object)
        if out.dtype.kind in "iub" or (out.dtype.kind == "O" and not isinstance(X, np.ndarray)):
            numbers = all(column.role == "number" for column in schema.columns)
            out = out.astype(np.float64) if numbers else out
        flat = out.reshape(len(holes), -1)
        for j in todo:
            values = arrays[j][place[holes[:, j]]]
            if out.dtype.kind in "Mm":  # days since 1970, as the schema counts them
                values = np.rint(values * DAY).astype(out.dtype.str[0] + "8[us]").astype(out.dtype)
            flat[holes[:, j], j] = values
        return flat.reshape(out.shape)
    columns = schema.columns if source.container == schema.container else _as_typed(schema, source)
    frame = nw.from_native(X, eager_only=True)
    part = [columns[j] for j in todo]
    written = write_frame(source.container, part, [arrays[j] for j in todo]) if todo else X
    filled = nw.from_native(written, eager_only=True)
    for j in todo:
        at = np.flatnonzero(holes[:, j])
        name = schema.columns[j].name
        column, values = frame[name], filled[name][place[at].tolist()]
        if column.implementation.is_pandas() and column.dtype in (nw.Categorical, nw.Enum):
            frame = frame.with_columns(_with_levels(column, at, arrays[j][place[at]].tolist()))
            continue
        if len(at) == len(holes):  # a column of nothing but gaps has no type of its own to keep
            frame = frame.with_columns(values)
            continue
        if values.dtype != column.dtype:
            values = values.cast(column.dtype)
        frame = frame.with_columns(column.scatter(at.tolist(), values))
    return frame.to_native()


def _with_levels(column: nw.Series, at: np.ndarray, cells: list[Any]) -> nw.Series:
    """A pandas category with some cells set to levels of its own."""
    series = column.to_native().copy()
    codes = series.cat.codes.to_numpy().copy()
    codes[at] = codes_of(cells, series.cat.categories.tolist())
    series[:] = series.array.from_codes(codes, dtype=series.dtype)
    return nw.from_native(series, series_only=True)


def _as_typed(schema: Schema, source: Source) -> list[Column]:
    """The schema's columns in the types of another container's table."""
    columns = []
    for j, column in enumerate(schema.columns):
        known = source.column(j, keep_text=column.role == "text")
        dtype = "" if source.dtypes[j].lower() == "null" else source.dtypes[j]
        columns.append(dataclasses.replace(column, dtype=dtype, levels=known.levels, ordered=known.ordered))
    return columns
