"""What the panels show, as plain dicts of JSON types: computed here once, drawn by whoever draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diabolo.checks import refuse
from diabolo.plot.view import View, as_cells, numbers
from diabolo.table import Column, Schema

__all__ = ["code_map", "coloring", "histogram", "is_number", "marginal", "surprises", "training"]

MAX_LEVELS = 12  # more categories than this are not told apart by eye: the rest are one
OTHER = "other"
CENTRAL = (0.002, 0.998)  # quantiles that a histogram spans
NUMBERS = {"real", "positive", "count", "pixels"}


def is_number(column: Column) -> bool:
    """Whether a column's values are quantities, not labels."""
    return column.kind.name in NUMBERS


def training(estimator: Any) -> dict[str, Any]:
    """Loss per round: of the training batches, and of the held-out rows where some were held out."""
    losses = [float(loss) for loss in estimator.loss_curve_]
    scores = [float(score) for score in getattr(estimator, "validation_scores_", None) or []]
    climb = np.array(losses) - np.minimum.accumulate(losses) if losses else np.zeros(1)
    return {
        "loss": losses,
        "held_out": [-score for score in scores],
        "best_round": int(np.argmax(scores)) if scores else None,
        "climbs": bool(np.max(climb) > 0.02 * abs(losses[-1] if losses else 1.0)),
        "steps_per_round": int(estimator.n_steps_) / max(len(losses), 1),
        "unit": "nats per row of the scaled cells",
    }


def coloring(view: View, schema: Schema, color: Any) -> dict[str, Any]:
    """What colours a map: a column's name, one value per row, or a dict of one name to these.

    Returns
    -------
    dict : name; type "number" or "category"; values, one per row, None for a gap; for categories the levels,
        commonest first, of which the rarest may be merged into "other"
    """
    if isinstance(color, str):
        name, values = color, view.column(color)
        number = is_number(schema.columns[view.names.index(color)])
    else:
        if isinstance(color, Mapping):
            ((name, color),) = color.items()
        else:
            name = str(getattr(color, "name", None) or "color")
        values = as_cells(color)
        if len(values) != view.n_rows:
            raise refuse("color", got=f"{len(values)} values", want=f"one for each of {view.n_rows} rows")
        seen = {value for value in values if value is not None}
        number = len(seen) > MAX_LEVELS and not any(isinstance(value, (str, bool)) for value in seen)
    if number:
        return {"name": name, "type": "number", "values": numbers(values).tolist()}
    labels = [None if value is None else str(value) for value in values]
    levels = _levels(labels)
    kept = set(levels)
    return {
        "name": name,
        "type": "category",
        "values": [label if label is None or label in kept else OTHER for label in labels],
        "levels": levels,
    }


def _levels(labels: Sequence[str | None]) -> list[str]:
    """Levels commonest first; numbers in their own order; the rarest as one where there are many."""
    counts = Counter(label for label in labels if label is not None)
    levels = [level for level, _ in counts.most_common()]
    if len(levels) > MAX_LEVELS:
        return [*levels[: MAX_LEVELS - 1], OTHER]
    if all(level.lstrip("-").isdecimal() for level in levels):
        return sorted(levels, key=int)
    return levels


def code_map(codes: np.ndarray, color: dict[str, Any] | None = None) -> dict[str, Any]:
    """The codes as points of a plane.

    Parameters
    ----------
    codes : (n, n_components)
    color : from `coloring`

    Returns
    -------
    dict : x and y, the codes themselves where there are two; more are seen in their principal plane, whose
        share of the codes' variance is told; a single one is spread out by its rank for the eye. A point of the plane
        is the code `centre + x axes[0] + y axes[1]`
    """
    codes = np.asarray(codes, np.float64)
    n_rows, n_components = codes.shape
    centre, axes = np.zeros(n_components), np.eye(n_components)[:2]
    if n_components == 1:
        jitter = (np.arange(n_rows) * 0.6180339887) % 1  # the golden ratio fills evenly, without drawing
        points, labels, share = np.column_stack([codes[:, 0], jitter]), ["component 1", ""], 1.0
    elif n_components == 2:
        points, labels, share = codes, ["component 1", "component 2"], 1.0
    else:
        centre = codes.mean(axis=0)
        centred = codes - centre
        _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
        axes = axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal())[:, None]
        points = centred @ axes.T
        shares = lengths**2 / max(float(np.sum(lengths**2)), 1e-300)
        labels = [f"principal axis {k + 1} of the codes, {100 * shares[k]:.0f} %" for k in (0, 1)]
        share = float(shares[:2].sum())
    return {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "labels": labels,
        "share": share,
        "centre": centre.tolist(),
        "axes": axes.tolist(),
        "color": color,
    }


def histogram(
    rows: np.ndarray, draws: np.ndarray | None = None, *, resolution: float = 0.0, n_bins: int = 28
) -> dict[str, Any]:
    """Shares of rows, and of draws, per bin.

    The bins span the central 99.6 % of the rows, and of the draws as far as these reach a quarter of that
    beyond; what lies outside counts in the outermost, and `beyond` says how many rows lie
    a tenth of the span further out, below and above.
    The bins' width is a whole number of steps of the column's resolution, or the grid would beat against them.
    """
    rows = rows[np.isfinite(rows)]
    low, high = np.quantile(rows, CENTRAL) if len(rows) else (0.0, 1.0)
    if draws is not None and np.isfinite(draws).any():
        beyond = 0.25 * (high - low)
        least, most = np.quantile(draws[np.isfinite(draws)], CENTRAL)
        low, high = min(low, max(least, low - beyond)), max(high, min(most, high + beyond))
    if resolution > 0:
        first, last = np.floor(low / resolution + 1e-6), np.ceil(high / resolution - 1e-6)
        step = max(1, int(-(-(last - first + 1) // n_bins)))
        n_steps = int(-(-(last - first + 1) // step))
        edges = resolution * (first - 0.5 + step * np.arange(n_steps + 1))
    else:
        edges = np.linspace(low, low + ((high - low) or 1.0), n_bins + 1)
    shares = [_shares(rows, edges)]
    if draws is not None:
        shares.append(_shares(draws[np.isfinite(draws)], edges))
    far = 0.1 * (edges[-1] - edges[0])
    outside = [int(np.sum(rows < edges[0] - far)), int(np.sum(rows > edges[-1] + far))]
    return {"edges": edges.tolist(), "beyond": outside, **dict(zip(["rows", "draws"], shares, strict=False))}


def _shares(values: np.ndarray, edges: np.ndarray) -> list[float]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return (counts / max(len(values), 1)).tolist()


def surprises(values: np.ndarray, drawn: np.ndarray | None, kind: str) -> dict[str, Any]:
    """How -log p(x) spreads over the rows, and over the model's own draws."""
    shown = histogram(-np.asarray(values), None if drawn is None else -np.asarray(drawn))
    return {**shown, "kind": kind, "unit": "nats", "n_impossible": int(np.sum(np.isneginf(values)))}


def marginal(column: Column, rows: Sequence[Any], draws: Sequence[Any]) -> dict[str, Any]:
    """One column's spread in the data and in the draws; gaps are left out."""
    shown: dict[str, Any] = {"name": column.name, "kind": column.kind.name}
    if is_number(column):
        resolution = float(getattr(column.kind, "resolution", None) or 0.0)
        if column.kind.name in {"count", "pixels"}:
            resolution = 1.0
        clock = bool(getattr(column.kind, "clock", False))
        bins = histogram(numbers(rows), numbers(draws), resolution=resolution)
        return {**shown, "type": "number", "clock": clock, **bins}
    labels = [[None if cell is None else str(cell) for cell in cells] for cells in (rows, draws)]
    levels = _levels(labels[0])
    kept = set(levels)
    shares = []
    for cells in labels:
        counts = Counter(cell if cell in kept else OTHER for cell in cells if cell is not None)
        shares.append([counts[level] / max(counts.total(), 1) for level in levels])
    return {**shown, "type": "category", "levels": levels, "rows": shares[0], "draws": shares[1]}
