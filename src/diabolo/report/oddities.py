"""The odd rows of a table and the cells to blame; the odd images and their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from diabolo import outliers
from diabolo.columns import Kind
from diabolo.plot.view import View, plain
from diabolo.report import words
from diabolo.report.subject import Subject, lawful, sampled
from diabolo.table import Column

__all__ = [
    "blamed",
    "cell_of",
    "fences",
    "odd_images",
    "oddities",
    "percentiles",
    "ranked",
    "surprises",
    "with_the_oddest",
]

N_ODDEST = 20  # rows listed
N_CANDIDATES = (
    60  # rows, and a third as many by two cruder measures, whose cells are hidden, where not all can be
)
MAX_SCORED, N_TIMES_SAMPLE = 50_000, 10  # rows, and times the sample, among which the oddest are looked for
MAX_HIDDEN = 4000  # cells hidden one by one for all rows of a small table: a few seconds
N_USUAL = 256  # rows behind what is usual in a column
N_USUAL_IMAGES = 64  # drawn images behind what is usual of a pixel
MOST = 999.0  # nats; what is impossible counts as this


def surprises(subject: Subject) -> np.ndarray:
    """(n_rows,) nats above what the model's own rows with the same gaps have.

    Where the model is conditional, above the mean of the rows themselves: what is expected depends on conditions.
    """
    values = np.asarray(subject.reading.values, np.float64)
    if subject.is_conditional:
        finite = values[np.isfinite(values)]
        return (finite.mean() if len(finite) else 0.0) - values
    n_expected = _n_expected(subject, subject.view)
    return outliers.surprise(subject.estimator, subject.view.X, values=values, n_expected=n_expected)


def percentiles(subject: Subject, surprise: np.ndarray) -> np.ndarray:
    """(n_rows,) per cent of the held-out rows, or of the rows looked at where there are none, that surprise less."""
    reference = surprise
    if subject.held_out is not None and not subject.is_conditional:
        values = np.asarray(subject.held_out_reading.values, np.float64)
        reference = outliers.surprise(
            subject.estimator,
            subject.held_out.X,
            values=values,
            n_expected=_n_expected(subject, subject.held_out),
        )
    return outliers.percentile(surprise, reference)


def with_the_oddest(subject: Subject) -> Subject:
    """Where the rows looked at are a sample, the most surprising of many more rows beside it."""
    n_rows, n_drawn = subject.everything.n_rows, len(subject.places)
    wide = sampled(n_rows, min(MAX_SCORED, N_TIMES_SAMPLE * n_drawn))
    if n_drawn == n_rows or subject.is_conditional:
        return subject
    surprise = surprises(replace(subject, places=wide, view=subject.everything.part(wide)))
    furthest = wide[
        np.argsort(-np.where(np.isnan(surprise), -np.inf, surprise), kind="stable")[:N_CANDIDATES]
    ]
    places = np.union1d(subject.places, furthest)
    drawn = np.isin(places, subject.places)
    return replace(subject, places=places, view=subject.everything.part(places), drawn_rows=drawn)


def _n_expected(subject: Subject, view: View) -> int:
    """Draws per pattern of gaps: fewer where there are many patterns."""
    n_patterns = len(np.unique(subject.schema.encode(view.X).observed, axis=0))
    return int(np.clip(4000 // n_patterns, 16, 256))


def blamed(subject: Subject) -> dict[str, Any]:
    """Cells of the rows by which the model is judged, hidden one by one.

    Returns
    -------
    dict : `gains` and `gain_errors`, (n_features,) nats that the other columns tell of each; `usual`, (n_features,)
        median nats of a cell; `n_rows`, how many were looked at; nan where a column has no law
    """
    view = subject.judged
    rows = np.random.default_rng(2).permutation(view.n_rows)[:N_USUAL]
    given_others, alone = outliers.cell_nats(subject.estimator, view.take(np.sort(rows)))
    told = np.where(np.isfinite(alone - given_others), alone - given_others, np.nan)
    n_told = np.sum(~np.isnan(told), axis=0)
    out = {key: np.full(told.shape[1], np.nan) for key in ("gains", "gain_errors", "usual")}
    for j in np.flatnonzero(n_told > 1):
        seen = told[~np.isnan(told[:, j]), j]
        out["gains"][j], out["gain_errors"][j] = seen.mean(), seen.std(ddof=1) / np.sqrt(len(seen))
    for j in np.flatnonzero(n_told > 0):
        out["usual"][j] = np.median(given_others[np.isfinite(given_others[:, j]), j])
    return {**out, "n_rows": len(rows)}


class Ranked(NamedTuple):
    """The oddest rows, the oddest first.

    places : (n,) which of the rows looked at
    nats : (n_rows,) of all rows looked at: their surprise, or the excess of their oddest cell, whichever is further out
    oddness : (n_rows,) how far out that is, above 3 beyond the outer fence
    blame : of the oddest rows' cells
    n_hidden : rows whose cells were hidden one by one
    """

    places: np.ndarray
    nats: np.ndarray
    oddness: np.ndarray
    blame: outliers.Blame
    n_hidden: int


def ranked(subject: Subject, surprise: np.ndarray, usual: np.ndarray, n: int = N_ODDEST) -> Ranked:
    """The n oddest rows of a table, by their surprise or by their oddest cell, whichever is further out.

    A flexible model may have learned an odd training row by heart: -log p then says little of it. Hiding a cell
    before asking for it does not share that memory, so a row counts as odd for one cell alone, too.
    """
    schema, view, columns = subject.schema, subject.view, lawful(subject.schema.columns)
    usual = np.where(np.isnan(usual), 0.0, usual)
    surprise = np.minimum(np.where(np.isnan(surprise), 0.0, surprise), MOST)
    hidden_all = view.n_rows * len(columns) <= MAX_HIDDEN
    if hidden_all:
        excess = outliers.cell_nats(subject.estimator, view.X)[0] - usual
    else:
        excess = np.full((view.n_rows, len(schema.columns)), np.nan)
        left_out = outliers.leave_one_out(subject.estimator, view.X)
        excess[:, columns] = left_out - np.nanmedian(left_out, axis=0)
    whole, worst = fences(subject, surprise), fences(subject, _worst(excess))
    oddness = np.maximum(whole(surprise), worst(_worst(excess)))
    candidates = _candidates(subject, oddness, surprise, max(n, N_CANDIDATES))
    blame = _within_reason(outliers.blame(subject.estimator, view.take(candidates), usual))
    excess[candidates] = blame.excess
    cells = _worst(excess)
    oddness = np.maximum(whole(surprise), worst(cells))
    nats = np.where(worst(cells) > whole(surprise), cells, surprise)
    order = np.argsort(-oddness[candidates], kind="stable")[:n]
    return Ranked(
        candidates[order],
        nats,
        oddness,
        blame.part(order),
        view.n_rows if hidden_all else len(candidates),
    )


def fences(subject: Subject, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A measure in its own spread: widths of the middle half above it, so that two measures compare (Tukey 1977)."""
    drawn = values[subject.drawn_rows] if subject.drawn_rows is not None else values
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.25, 0.75]) if len(known) else (0.0, 0.0)
    return lambda some: (some - high) / max(high - low, 0.1)


def _within_reason(blame: outliers.Blame) -> outliers.Blame:
    """No blame for a cell within the range that is expected of it, however much likelier a value beside it may be."""
    seen = blame.values
    expected = (seen >= blame.low) & (seen <= blame.high)
    return replace(blame, excess=np.where(expected, np.minimum(blame.excess, 0.0), blame.excess))


def oddities(subject: Subject, surprise: np.ndarray, usual: np.ndarray) -> dict[str, Any]:
    """The oddest rows of a table and what is wrong with them."""
    found = ranked(subject, surprise, usual)
    return {
        "n_odd": _n_far_out(subject, found.oddness),
        "n_hidden": found.n_hidden,
        "usual": [0.0 if np.isnan(one) else float(one) for one in usual],
        "rows": [
            _odd_row(subject, int(row), at, found.blame)
            | {"nats": float(found.nats[row]), "oddness": float(found.oddness[row])}
            for at, row in enumerate(found.places)
        ],
    }


def _n_far_out(subject: Subject, oddness: np.ndarray) -> int:
    """How many rows lie beyond the outer fence, three widths of the middle half above it (Tukey 1977).

    Counted among the rows drawn at random alone, where more were added for being odd.
    """
    oddness = oddness[subject.drawn_rows] if subject.drawn_rows is not None else oddness
    return int(np.sum(oddness > 3.0))


def _worst(excess: np.ndarray) -> np.ndarray:
    """(n_rows,) the largest excess of each row, at most `MOST`."""
    return np.minimum(np.where(np.isnan(excess), -np.inf, excess).max(axis=1, initial=-np.inf), MOST)


def _candidates(subject: Subject, oddness: np.ndarray, surprise: np.ndarray, n: int) -> np.ndarray:
    """Rows worth a closer look: the oddest, the most surprising, and the furthest out in any one column."""
    encoded = np.abs(np.nan_to_num(subject.schema.encode(subject.view.X).values))
    numbers = [p.start for p in subject.schema.layout.places if p.kind.name in {"real", "positive", "count"}]
    furthest = encoded[:, numbers].max(axis=1, initial=0.0)
    ranks = [(-oddness, n), (-surprise, n // 3), (-furthest, n // 3)]
    chosen = [np.argsort(rank, kind="stable")[:most] for rank, most in ranks]
    return np.unique(np.concatenate(chosen))


def _odd_row(subject: Subject, row: int, at: int, blame: outliers.Blame) -> dict[str, Any]:
    """One row: its cells, what was expected in each place, and which one is guilty."""
    columns, view = subject.schema.columns, subject.view
    cells = view.part(np.array([row]))
    excess = blame.excess[at].copy()
    for j, column in enumerate(columns):
        if _breaks_constant(column, cells.column(column.name)[0]):
            excess[j] = MOST
    worst = int(np.argmax(np.where(np.isnan(excess), -np.inf, excess)))
    return {
        "place": row,
        "guilty": worst if excess[worst] >= words.GUILTY else None,
        "cells": [
            {
                "value": cells.column(column.name)[0] if subject.with_rows else None,
                "gap": cells.column(column.name)[0] is None,
                "excess": _finite(excess[j]),
                **_expected(column, blame, at, j),
            }
            for j, column in enumerate(columns)
        ],
    }


def _breaks_constant(column: Column, cell: Any) -> bool:
    """Whether a column that held one value in training holds another here: impossible, says the model."""
    if column.kind.name != "constant" or column.given or cell is None:
        return False
    value = column.kind.to_json()["value"]
    if isinstance(value, str) or isinstance(cell, str):
        return str(cell) != str(value)
    return value is None or float(cell) != float(value)


def _expected(column: Column, blame: outliers.Blame, at: int, j: int) -> dict[str, Any]:
    """The middle of p(cell | others) and its central 90 %, as the column's cells are written."""
    if column.kind.name == "constant":
        return {"expected": cell_of(column, column.kind.to_json()["value"]), "low": None, "high": None}
    if not column.kind.counted or column.given:
        return {"expected": None, "low": None, "high": None}
    low, high = blame.low[at, j], blame.high[at, j]
    ends = [None, None] if np.isnan(low) else [cell_of(column, low), cell_of(column, high)]
    return {"expected": cell_of(column, blame.expected[j][at]), "low": ends[0], "high": ends[1]}


def cell_of(column: Column, value: Any) -> Any:
    """A decoded value as the column's own cells are written: dates as text, flags as flags."""
    if value is None or isinstance(value, str):
        return value
    kind: Kind = column.kind
    if column.role == "day" and np.isfinite(value):
        days = float(kind.snap(np.array([value], np.float64))[0])
        moment = np.datetime64("1970-01-01") + np.timedelta64(round(days * 86400), "s")
        return str(moment).removesuffix("T00:00:00")
    if kind.name in {"binary", "categorical"} and "bool" in str(column.dtype or "").lower():
        return bool(value)
    return plain(float(value))


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(np.clip(value, -MOST, MOST))


def odd_images(subject: Subject, surprise: np.ndarray, n: int = 8) -> dict[str, Any]:
    """The most surprising images, and where in them: every pixel's blame by importance-weighted leaving out."""
    view = subject.view
    surprise = np.minimum(np.where(np.isnan(surprise), 0.0, surprise), MOST)
    oddness = fences(subject, surprise)(surprise)
    order = np.argsort(-surprise, kind="stable")[:n]
    usual = np.nanmean(_pixel_nats(subject, View(subject.drawn.X[:N_USUAL_IMAGES], subject.schema)), axis=0)
    heat = np.nan_to_num(_pixel_nats(subject, view.part(order)) - usual)
    shape = view.image_shape
    pictures = heat.reshape(n if len(order) == n else len(order), *shape)
    pictures = pictures.sum(axis=-1) if len(shape) == 3 else pictures
    return {
        "n_odd": _n_far_out(subject, oddness),
        "rows": [
            {
                "place": int(row),
                "nats": float(surprise[row]),
                "oddness": float(oddness[row]),
                "heat": np.clip(pictures[at], 0.0, None).round(3).tolist(),
            }
            for at, row in enumerate(order)
        ],
    }


def _pixel_nats(subject: Subject, view: View) -> np.ndarray:
    return outliers.leave_one_out(subject.estimator, view.X)
