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
MAX_COLUMNS = 200  # beyond, as for the pixels of images, no cell is blamed


@dataclasses.dataclass(frozen=True)
class Odd:
    """One odd row.

    Attributes
    ----------
    row : its line, its name or its number
    surprise : nats above what is usual, of the row with its gaps or of its oddest cell, whichever is further out
    oddness : how far out that is among all rows: above 3, beyond Tukey's outer fence; the list is sorted by it
    percentile : per cent of the held-out rows, or of all rows, whose surprise is less than the row's own
    column : the cell to blame; None where no single one is, or cells are too many
    value, expected : of that cell, and the middle of its law given the row's other cells
    low, high : that law's central 90 %; None where levels have no order
    """

    row: str
    surprise: float
    oddness: float
    percentile: float
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
            from diabolo.report.words import signed

            return f"{self.row}: {signed(self.surprise, 0)} nats of surprise"
        reach = self.expected if self.low is None else f"{self.low} to {self.high}"
        return f"{self.row}: {self.column} = {self.value} (expected {reach})"


def oddest(estimator: Any, table: FileTable, n: int, held_out: Any = None) -> list[Odd]:
    """The n oddest rows, the oddest first, by the page's own ranking.

    Parameters
    ----------
    estimator : fitted, without given columns
    table : the rows, as the model knows them
    n : how many
    held_out : rows that were not trained on, or their positions, which say what is usual; None takes all rows
    """
    from diabolo.report.oddities import blamed, fences, percentiles, ranked, surprises
    from diabolo.report.subject import Subject
    from diabolo.report.words import GUILTY
    from diabolo.table import read_table

    subject = Subject.of(estimator, table.data, held_out, max_rows=len(table))
    surprise, labels = surprises(subject), table.labels()
    below = percentiles(subject, surprise)

    def name(row: int) -> str:
        line = table.line(row)
        return f"line {line:,}" if line is not None else labels[row] if labels else f"row {row:,}"

    schema = estimator.schema_
    if len(schema.columns) > MAX_COLUMNS or not schema.layout.places:
        rows = np.argsort(-surprise, kind="stable")[:n]
        spread = fences(subject, surprise)
        return [
            Odd(
                name(subject.places[row]),
                float(surprise[row]),
                float(spread(surprise[row])),
                float(below[row]),
            )
            for row in rows
        ]
    found = ranked(subject, surprise, blamed(subject)["usual"], n)
    source = schema.checked(read_table(subject.view.take(found.places)))
    odd = []
    for i, (row, j) in enumerate(zip(found.places, found.blame.worst(), strict=True)):
        nats, out, percentile = float(found.nats[row]), float(found.oddness[row]), float(below[row])
        if not found.blame.excess[i, j] >= GUILTY:
            odd.append(Odd(name(subject.places[row]), nats, out, percentile))
            continue
        column = schema.columns[j]
        value = schema.values_of(source, j, j)[i]
        ends = [
            None if np.isnan(end) else _shown(column, end)
            for end in (found.blame.low[i, j], found.blame.high[i, j])
        ]
        said = (_shown(column, value), _shown(column, found.blame.expected[j][i]), *ends)
        odd.append(Odd(name(subject.places[row]), nats, out, percentile, str(column.name), *said))
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
    return f"{value:.{decimals(step, float(getattr(kind, 'scale', None) or 1.0))}f}"
