"""The oddest rows of a file: where they stand, which cell is to blame, what was expected in its place."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diabolo.files import FileTable

__all__ = ["Odd", "oddest"]

EPOCH = datetime.datetime(1970, 1, 1)
N_DRAWN = 6000  # rows drawn in all to say what is usual, shared by the patterns of gaps
MAX_COLUMNS = 200  # beyond, as for the pixels of images, no cell is blamed


@dataclasses.dataclass(frozen=True)
class Odd:
    """One odd row.

    Attributes
    ----------
    row : its line, its name or its number
    surprise : nats above what is usual for a row with such gaps
    column : the cell to blame; None where cells are too many to blame one
    value, expected : of that cell, and the middle of its law given the row's other cells
    low, high : that law's central 90 %; None where levels have no order
    """

    row: str
    surprise: float
    column: str | None = None
    value: str | None = None
    expected: str | None = None
    low: str | None = None
    high: str | None = None

    def record(self) -> dict[str, Any]:
        """As a row of a table."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if self.column is None:
            return f"{self.row}: {self.surprise:.0f} nats above what is usual"
        reach = self.expected if self.low is None else f"{self.low} to {self.high}"
        return f"{self.row}: {self.column} = {self.value} (expected {reach})"


def oddest(estimator: Any, table: FileTable, n: int) -> list[Odd]:
    """The n most surprising rows, the oddest first.

    Parameters
    ----------
    estimator : fitted, without given columns
    table : the rows, as the model knows them
    n : how many
    """
    from diabolo.comparison import rows_at
    from diabolo.outliers import blame, surprise
    from diabolo.table.reading import read_table

    n_patterns = len(np.unique(estimator.schema_.encode(table.data).observed, axis=0))
    found = surprise(estimator, table.data, n_expected=int(np.clip(N_DRAWN // n_patterns, 16, 256)))
    rows = np.argsort(-found, kind="stable")[:n]
    labels = table.labels()

    def name(row: int) -> str:
        line = table.line(row)
        return f"line {line:,}" if line is not None else labels[row] if labels else f"row {row:,}"

    schema = estimator.schema_
    if len(schema.columns) > MAX_COLUMNS or not schema.layout.places:
        return [Odd(name(row), float(found[row])) for row in rows]
    part = rows_at(table.data, rows)
    blamed, source = blame(estimator, part), schema.checked(read_table(part))
    odd = []
    for i, (row, j) in enumerate(zip(rows, blamed.worst(), strict=True)):
        column = schema.columns[j]
        value = schema.values_of(source, j, j)[i]
        ends = [
            None if np.isnan(end) else _shown(column, end) for end in (blamed.low[i, j], blamed.high[i, j])
        ]
        said = (_shown(column, value), _shown(column, blamed.expected[j][i]), *ends)
        odd.append(Odd(name(row), float(found[row]), str(column.name), *said))
    return odd


def _shown(column: Any, value: Any) -> str:
    """A value with as many digits as its column deserves; days as dates."""
    from diabolo.plot.view import decimals

    if value is None or isinstance(value, str):
        return str(value)
    kind = column.kind
    if column.role == "day" and abs(value) < 1e6:
        moment = EPOCH + datetime.timedelta(days=float(value))
        whole = (getattr(kind, "resolution", None) or 0) >= 1
        return moment.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M")
    if "bool" in (column.dtype or ""):
        return str(value > 0.5).lower()
    if kind.name not in {"real", "positive", "count"}:
        return f"{value:g}"
    step = 1.0 if kind.name == "count" else kind.resolution
    return f"{value:,.{decimals(step, float(getattr(kind, 'scale', None) or 1.0))}f}"
