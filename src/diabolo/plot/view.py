"""Rows to be looked at, whatever holds them: columns by name, rows by number, gaps as None."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diabolo.checks import nearest, refuse
from diabolo.table import Schema, rows_at

__all__ = ["View", "as_cells", "decimals", "numbers"]

EPOCH = datetime.datetime(1970, 1, 1)


class View:
    """A table or a stack of images, for showing.

    Attributes
    ----------
    names : the columns' names; () for images
    is_images : whether a row is a picture
    n_rows : how many rows
    labels : what a row is called, one per row
    """

    def __init__(self, X: Any, schema: Schema, labels: Sequence[Any] | None = None) -> None:
        self.X = np.asarray(X) if isinstance(X, (list, tuple)) else X
        self.schema = schema
        self.is_images = schema.image_shape is not None
        self.image_shape = schema.image_shape or ()
        self.names = () if self.is_images else tuple(column.name for column in schema.columns)
        self.n_rows = len(self.X)
        self._frame = None
        if not isinstance(self.X, np.ndarray):
            import narwhals as nw

            self._frame = nw.from_native(self.X, eager_only=True)
        if labels is None and hasattr(self.X, "index") and hasattr(self.X, "iloc"):
            labels = self.X.index
        if labels is None:
            labels = [f"{'image' if self.is_images else 'row'} {row}" for row in range(self.n_rows)]
        self.labels = [label if isinstance(label, str) else f"row {label}" for label in labels]

    def take(self, rows: np.ndarray) -> Any:
        """Some rows, in the container they came in."""
        return rows_at(self.X, np.asarray(rows))

    def part(self, rows: np.ndarray) -> View:
        """The same for some rows."""
        return View(self.take(rows), self.schema, [self.labels[row] for row in rows])

    def column(self, name: str | int) -> list[Any]:
        """One column as plain JSON values, None for a gap."""
        if name not in self.names:
            fix = (
                nearest(str(name), [str(n) for n in self.names])
                if self.names
                else "Images have none: give one value per row."
            )
            raise refuse(f"column {name!r}", got="no such column", want="one of the table's columns", fix=fix)
        if self._frame is None:
            return as_cells(self.X[:, self.names.index(name)])
        return as_cells(self._frame[name].to_list())

    def pictures(self) -> np.ndarray:
        """All rows as images (n, height, width[, channels])."""
        return np.asarray(self.X).reshape(self.n_rows, *self.image_shape)


def as_cells(values: Any) -> list[Any]:
    """One value per row, in whatever sequence, as JSON types; None for any spelling of a gap."""
    values = values.to_pylist() if hasattr(values, "to_pylist") else values
    return [plain(value) for value in values]


def plain(cell: Any) -> Any:
    """A cell as a JSON type; dates as ISO text."""
    if cell is None or isinstance(cell, (str, bool)):
        return cell
    if isinstance(cell, np.generic):
        return plain(cell.item())
    if isinstance(cell, int):
        return cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if hasattr(cell, "isoformat"):
        text = cell.isoformat()
        return None if text == "NaT" else text.removesuffix("T00:00:00")
    return None if str(cell) in {"<NA>", "NaT"} else str(cell)


def numbers(cells: Sequence[Any]) -> np.ndarray:
    """Cells as float64 with nan for a gap; dates as days since 1970."""
    return np.array([_number(cell) for cell in cells], np.float64)


def _number(cell: Any) -> float:
    if cell is None:
        return np.nan
    if isinstance(cell, str):
        try:
            moment = datetime.datetime.fromisoformat(cell)
        except ValueError:
            return float(cell)
        return (moment.replace(tzinfo=None) - EPOCH) / datetime.timedelta(days=1)
    return float(cell)


def decimals(resolution: float | None, spread: float) -> int:
    """Digits after the point that a column deserves: its own step's, else three of its spread."""
    if resolution:
        return max(0, math.ceil(-math.log10(resolution) - 1e-9))
    if not spread > 0:
        return 2
    return int(np.clip(2 - math.floor(math.log10(spread)), 0, 12))
