"""Warnings of what a model will not learn of a table's columns."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from typing import Any

from diabolo.table.layout import Column
from diabolo.table.survey import Found

__all__ = ["say_what_is_not_modelled"]

_DAY = re.compile(r"\d{4}-\d\d-\d\d([T ]|$)")


def say_what_is_not_modelled(columns: Sequence[Column], found: Sequence[Found]) -> None:
    """Warn once of constants, once of identifiers, and once of text that reads like dates.

    found : what the survey says of the same columns
    """
    remarks = [
        (_of_kind(columns, "constant"), "one value or none: kept in outputs, not modelled."),
        (_of_kind(columns, "identifier"), "mostly distinct text: set aside."),
    ]
    dates = [str(one.name) for one in found if _holds_dates(one)]
    fix = f"Convert them first, in pandas by read_csv(..., parse_dates={dates[:5]}) or pd.to_datetime."
    remarks += [(dates, f"text that reads like dates, and it is taken for text. {fix}")]
    for names, said in remarks:
        if names:
            warnings.warn(f"{_who_hold(names)} {said}", UserWarning, stacklevel=4)


def _of_kind(columns: Sequence[Column], name: str) -> list[str]:
    return [str(column.name) for column in columns if column.kind.name == name]


def _who_hold(names: list[str]) -> str:
    """The columns and their verb: `column a holds`, `columns a, b hold`."""
    if len(names) == 1:
        return f"column {names[0]} holds"
    return f"columns {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''} hold"


def _holds_dates(found: Found) -> bool:
    """Is it a column of text, its kind inferred, whose cells all read like dates?"""
    inferred = found.role == "text" and found.declared is None and found.summary["n_distinct"] > 1
    return inferred and all(map(_is_date, found.summary["levels"]))


def _is_date(text: Any) -> bool:
    """Does it read as ISO 8601 writes a day, or a moment?"""
    try:
        return bool(_DAY.match(text) and datetime.datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return False
