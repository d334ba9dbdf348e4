"""Draws beside data: where they disagree, column by column and pair by pair, and whether they are copies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from diabolo.plot import shown
from diabolo.plot.view import View, numbers
from diabolo.report.subject import Subject, lawful, sampled

__all__ = ["marginals", "nearest", "pairs"]

MAX_PAIRED = 60  # columns whose pairs are compared
N_PAIRS = 6  # pairs shown
N_TIMES = 2  # one column among them: a column that fits ill disagrees with every other
N_BINS = 6  # of a column of numbers; so many levels of the others
N_COMPARED = 500  # draws, and held-out rows, whose nearest training row is looked for


def marginals(subject: Subject) -> list[dict[str, Any]]:
    """Each column's spread in the data and in the draws."""
    columns, view = subject.schema.columns, subject.view
    told = []
    for j in lawful(columns):
        name = columns[j].name
        one = shown.marginal(columns[j], view.column(name), subject.drawn.column(name))
        told.append({**one, "name": str(name), "column": j})
    return told


def pairs(subject: Subject, points: np.ndarray) -> dict[str, Any]:
    """The pairs of columns whose joint shares differ most between data and draws, and where the points stand in them.

    Numbers are cut at the data's quantiles, levels beyond the commonest are one. The disagreement is half the sum of
    the absolute differences of shares (total variation, 0 to 1) less what samples of these sizes would show if both
    came from one law.
    """
    columns, view = subject.schema.columns, subject.view
    chosen = lawful(columns)[:MAX_PAIRED]
    points = points if subject.with_rows else points[:0]
    cut = [
        _cut(columns[j], view.column(columns[j].name), subject.drawn.column(columns[j].name)) for j in chosen
    ]
    found = []
    for (a, one), (b, other) in itertools.combinations(zip(chosen, cut, strict=True), 2):
        seen = _joint(one[0], other[0], len(one[2]), len(other[2]))
        drawn = _joint(one[1], other[1], len(one[2]), len(other[2]))
        if seen is None or drawn is None:
            continue
        (data, n), (draws, m) = seen, drawn
        apart = 0.5 * float(np.abs(data - draws).sum())
        mixed = (n * data + m * draws) / (n + m)
        chance = 0.5 * float(np.sqrt(2 / np.pi * mixed * (1 - mixed) * (1 / n + 1 / m)).sum())
        classes = (one[0][points], other[0][points])
        found.append((apart - chance, apart, chance, a, b, data, draws, one[2], other[2], classes))
    found.sort(key=lambda pair: -pair[0])
    kept: list[Any] = []
    times = dict.fromkeys(chosen, 0)
    for pair in found:
        if len(kept) < N_PAIRS and max(times[pair[3]], times[pair[4]]) < N_TIMES:
            kept.append(pair)
            times[pair[3]] += 1
            times[pair[4]] += 1
    return {
        "n_pairs": len(found),
        "n_columns": len(chosen),
        "shown": [
            {
                "columns": [str(columns[a].name), str(columns[b].name)],
                "apart": apart,
                "chance": chance,
                "levels": [first, second],
                "data": data.tolist(),
                "draws": draws.tolist(),
                "classes": [of_points.tolist() for of_points in classes],
            }
            for _, apart, chance, a, b, data, draws, first, second, classes in kept
        ],
    }


def _cut(column: Any, rows: list[Any], draws: list[Any]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Both as the numbers of few classes, -1 for a gap, and what the classes are called."""
    if shown.is_number(column):
        values = [numbers(cells) for cells in (rows, draws)]
        known = values[0][np.isfinite(values[0])]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, N_BINS + 1))[1:-1]) if len(known) else known
        classes = [np.where(np.isfinite(v), np.searchsorted(edges, v, side="left"), -1) for v in values]
        return classes[0], classes[1], _ranges(column, edges)
    labels = [[None if cell is None else str(cell) for cell in cells] for cells in (rows, draws)]
    names, counts = np.unique([label for label in labels[0] if label is not None], return_counts=True)
    kept = [str(name) for name in names[np.argsort(-counts, kind="stable")][:N_BINS]]
    place = {name: k for k, name in enumerate(kept)}
    more = len(names) > len(kept)
    rest = len(kept) if more else -1
    classes = [np.array([-1 if one is None else place.get(one, rest) for one in cells]) for cells in labels]
    return classes[0], classes[1], [*kept, *(["other"] if more else [])]


def _ranges(column: Any, edges: np.ndarray) -> list[str]:
    """Names of the classes between the edges; a class holds its upper edge."""
    if not len(edges):
        return ["all"]
    if getattr(column.kind, "clock", False):
        said = [str(np.datetime64("1970-01-01") + np.timedelta64(int(edge), "D")) for edge in edges]
    else:
        said = [f"{edge:.4g}" if abs(edge) < 1e4 else f"{edge:,.0f}" for edge in edges]
    between = [f"{low} – {high}" for low, high in itertools.pairwise(said)]
    return [f"≤ {said[0]}", *between, f"> {said[-1]}"]


def _joint(one: np.ndarray, other: np.ndarray, n_one: int, n_other: int) -> Any:
    """Shares (n_one, n_other) of the rows where neither is a gap, and how many these are; None without any."""
    seen = (one >= 0) & (other >= 0)
    if not seen.any():
        return None
    counts = np.bincount(one[seen] * n_other + other[seen], minlength=n_one * n_other)
    return counts.reshape(n_one, n_other) / seen.sum(), int(seen.sum())


def nearest(subject: Subject) -> dict[str, Any] | None:
    """How near draws come to the rows, beside how near held-out rows, or other rows, come to them.

    Distances are in spreads of the columns (see `Subject.encoded`). A model that copies its training rows draws rows
    that lie nearer to them than unseen rows do.
    """
    view = subject.view
    if view.n_rows < 4:
        return None
    rows = subject.encoded(view)
    search = NearestNeighbors(n_neighbors=2).fit(rows)
    n = min(N_COMPARED, subject.drawn.n_rows)
    drawn = subject.encoded(View(subject.drawn.take(np.arange(n)), subject.schema))
    of_draws = search.kneighbors(drawn)
    if subject.held_out is None:
        others = rows[sampled(len(rows), N_COMPARED, seed=3)]
        of_others = search.kneighbors(others)[0][:, 1]  # the first is the row itself
    else:
        held_out = subject.held_out
        others = subject.encoded(held_out.part(sampled(held_out.n_rows, N_COMPARED, seed=3)))
        distances = search.kneighbors(others)[0]
        itself = distances[:, 0] < 1e-6  # where the rows looked at hold the held-out ones as well
        of_others = np.where(itself, distances[:, 1], distances[:, 0])
    bins = shown.histogram(of_others, of_draws[0][:, 0], n_bins=24)
    return {
        "against": "rows" if subject.held_out is None else "held out",
        "n_draws": n,
        "n_others": len(of_others),
        "median_draw": float(np.median(of_draws[0][:, 0])),
        "median_other": float(np.median(of_others)),
        "n_copies": int(np.sum(of_draws[0][:, 0] < 1e-6)),
        "n_copies_others": int(np.sum(of_others < 1e-6)),
        "histogram": bins,
        "of_draws": [
            {"distance": float(distance), "place": int(place)}
            for distance, place in zip(of_draws[0][:, 0], of_draws[1][:, 0], strict=True)
        ][:24],
    }
