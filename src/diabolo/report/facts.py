"""What a page says, as one dict of JSON types."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from diabolo.files import as_bytes
from diabolo.plot import shown
from diabolo.plot.view import View, decimals, numbers
from diabolo.table import Column

__all__ = ["summary"]

MAX_ROWS = 5000  # rows looked at; of more, a fixed sample
MAX_POINTS = 2000  # points of the map
N_ODDEST = 10  # least likely rows listed
N_SHOWN, N_GAPPY = 8, 3  # rows shown beside reconstructions or draws; so many of them with gaps
MIN_COMPLETE = 50  # rows without gaps, for their densities to be compared with those of draws
N_PICTURES = 24  # images in their place
N_DRAWS = 2000  # draws behind the marginals
N_SCORED = 500  # draws whose density is read
ACTIVE = 0.01  # a component that varies by less than this share of the liveliest is not in use


def summary(
    estimator: Any,
    X: Any,
    color: Any = None,
    *,
    title: str | None = None,
    labels: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The four readings of a fitted estimator on some rows.

    Parameters
    ----------
    estimator : fitted
    X : rows like the training rows: array, data frame or images
    color : colours the map: a column's name, one value per row, or a dict of one name to these; without it,
        the log-density does
    title : what the rows are called; a file's name, say
    labels : what each row is called; "line 12", say

    Returns
    -------
    dict : `read`, `model`, `training`, `density`, `map`, `reconstructions`, `draws`, `marginals`; lists,
        numbers, text and None only. Densities are in nats, of the columns' own units, and beside each stands
        its kind. It contains values of some rows of X.
    """
    schema = estimator.schema_
    everything = View(X, schema, labels)
    rows = _sampled(everything.n_rows, MAX_ROWS)
    view = everything if len(rows) == everything.n_rows else everything.part(rows)
    codes = np.asarray(estimator.transform(view.X), np.float64)
    reading = estimator.log_density(view.X)
    drawn = View(_draw(estimator, view, N_DRAWS), schema)
    if color is None:
        finite = np.where(np.isfinite(reading.values), reading.values, np.nan)
        colors: dict[str, Any] = {
            "name": f"log p, {reading.unit} ({estimator.density_kind_})",
            "type": "number",
        }
        colors["values"] = [None if np.isnan(value) else float(value) for value in finite]
    else:
        colors = shown.coloring(everything, schema, color)
        colors["values"] = [colors["values"][row] for row in rows]
    points = _sampled(view.n_rows, MAX_POINTS)
    plane = shown.code_map(codes, colors)
    plane["color"] = {**colors, "values": [colors["values"][point] for point in points]}
    plane |= {axis: [plane[axis][point] for point in points] for axis in "xy"}
    return {
        "format": "diabolo-summary-1",
        "title": title or f"{type(estimator).__name__} of {everything.n_rows:,} rows",
        "read": _read(estimator, everything, view),
        "model": _model(estimator, codes),
        "training": shown.training(estimator),
        "density": _density(estimator, view, reading, drawn),
        "map": {**plane, "n_points": len(points)},
        "reconstructions": _reconstructions(estimator, view),
        "draws": _draws(view, drawn),
        "marginals": [] if view.is_images else _marginals(schema.columns, view, drawn),
    }


def _sampled(n: int, most: int) -> np.ndarray:
    """All of n rows, or a fixed sample of them, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _draw(estimator: Any, view: View, n: int) -> Any:
    """Draws like the rows; where the model is conditional, under the conditions of some of them."""
    if not any(column.given for column in estimator.schema_.columns):
        return estimator.sample(n, random_state=0)
    rows = np.random.default_rng(0).integers(view.n_rows, size=n)
    return estimator.sample(n, given=view.take(rows), random_state=0)


def _lawful(columns: Sequence[Column]) -> list[int]:
    """Positions of the columns that the model has a law for."""
    return [j for j, column in enumerate(columns) if column.kind.counted and not column.given]


def _read(estimator: Any, everything: View, view: View) -> dict[str, Any]:
    schema = estimator.schema_
    if view.is_images:
        values = np.asarray(view.X, np.float64)
        kind = schema.columns[0].kind
        columns = []
        kinds = {kind.name: len(schema.columns)}
        n_gaps, n_cells = int(np.isnan(values).sum()), values.size
        pixels = {"low": float(np.nanmin(values)), "high": float(np.nanmax(values))}
    else:
        columns = [_column(column, view.column(column.name), line) for column, (_, line) in
                   zip(schema.columns, schema.describe(), strict=True)]  # fmt: skip
        kinds = dict(Counter(column["kind"] for column in columns).most_common())
        n_gaps = sum(column["n_gaps"] for column in columns)
        n_cells = view.n_rows * len(columns)
        pixels = None
    return {
        "n_rows": everything.n_rows,
        "n_looked_at": view.n_rows,
        "n_columns": len(schema.columns),
        "n_modelled": schema.n_columns,
        "n_gaps": n_gaps,
        "n_cells": n_cells,
        "kinds": kinds,
        "columns": columns,
        "image_shape": list(schema.image_shape) if view.is_images else None,
        "pixels": pixels,
    }


def _column(column: Column, cells: list[Any], facts: str) -> dict[str, Any]:
    """One column: its kind, its gaps, and what its values span."""
    seen = [cell for cell in cells if cell is not None]
    about: dict[str, Any] = {
        "name": str(column.name),
        "kind": column.kind.name,
        "given": bool(column.given),
        "facts": facts,
        "n_gaps": len(cells) - len(seen),
        "n_distinct": len(set(seen)),
        "decimals": None,
    }
    if shown.is_number(column) and seen:
        values = numbers(seen)
        resolution = getattr(column.kind, "resolution", None) if column.kind.name != "count" else 1.0
        clock = bool(getattr(column.kind, "clock", False))
        about["decimals"] = None if clock else decimals(resolution, float(values.std()))
        about["span"] = [min(seen), max(seen)] if clock else [float(values.min()), float(values.max())]
        about["middle"] = None if clock else float(np.median(values))
    else:
        about["levels"] = [[str(level), count] for level, count in Counter(seen).most_common(4)]
    return about


def _model(estimator: Any, codes: np.ndarray) -> dict[str, Any]:
    spreads = codes.var(axis=0)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(estimator).__init__).parameters.items()
    }
    parameters = {
        name: {"value": _said(value), "changed": _said(value) != _said(defaults.get(name))}
        for name, value in estimator.get_params(deep=False).items()
    }
    versions = {name: importlib.metadata.version(name) for name in ("jax", "equinox", "numpy")}
    return {
        "family": type(estimator).__name__,
        "n_components": codes.shape[1],
        "n_active": int(np.sum(spreads > ACTIVE * max(float(spreads.max()), 1e-300))),
        "n_steps": int(estimator.n_steps_),
        "n_rounds": int(estimator.n_iter_),
        "density_kind": str(estimator.density_kind_),
        "parameters": parameters,
        "seed": _said(estimator.get_params(deep=False).get("random_state")),
        "versions": {"python": sys.version.split()[0], "diabolo": _version(), **versions},
    }


def _said(value: Any) -> str:
    """A parameter as it would be typed."""
    return getattr(value, "__name__", None) or repr(value)


def _version() -> str:
    try:
        return importlib.metadata.version("diabolo")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "not installed"


def _density(estimator: Any, view: View, reading: Any, drawn: View) -> dict[str, Any]:
    """Log-densities: their mean, their spread beside that of draws, and the least likely rows."""
    values = np.asarray(reading.values, np.float64)
    finite = values[np.isfinite(values)]
    scored = drawn.take(np.arange(min(N_SCORED, drawn.n_rows)))
    oddest = np.argsort(values, kind="stable")[: N_ODDEST if not view.is_images else N_PICTURES // 2]
    gappy = _gappy(view)
    # a draw has no gaps: rows with some are left out of the comparison where enough others remain
    compared = ~gappy if gappy.any() and np.sum(~gappy) >= MIN_COMPLETE else np.ones(view.n_rows, bool)
    trusted = ~(np.asarray(reading.pareto_k) > 0.7)  # nan, where nothing was drawn, is trusted
    cells = None if view.is_images else _cells(view, oddest, range(len(view.names)))
    pictures = _pixels(view, view.pictures()[oddest]) if view.is_images else None
    return {
        "unit": reading.unit,
        "kind": str(estimator.density_kind_),
        "n_rows": view.n_rows,
        "n_impossible": int(np.sum(np.isneginf(values))),
        "n_complete": None if compared.all() else int(compared.sum()),
        "n_untrusted": int(np.sum(~trusted)),
        "mean": float(finite.mean()) if len(finite) else None,
        "mean_error": float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else None,
        "histogram": shown.surprises(
            values[compared], estimator.score_samples(scored), str(estimator.density_kind_)
        ),
        "oddest": [
            {
                "label": view.labels[row],
                "log_density": float(values[row]) if np.isfinite(values[row]) else None,
                "standard_error": float(reading.standard_error[row]) if trusted[row] else None,
                "kind": str(reading.kind[row]),
                "cells": cells[place] if cells else None,
                "picture": pictures[place] if pictures else None,
            }
            for place, row in enumerate(oddest)
        ],
    }


def _cells(view: View, rows: np.ndarray, columns: Sequence[int]) -> list[list[Any]]:
    """Some cells, row by row."""
    part = view.part(rows)
    read = [part.column(view.names[j]) for j in columns]
    return [list(cells) for cells in zip(*read, strict=True)]


def _pixels(view: View, pictures: np.ndarray) -> list[Any]:
    """Pictures as bytes on the data's own scale: its least value black, its greatest white."""
    values = np.asarray(view.X)
    if values.dtype == np.uint8 and values.max() > 1:
        low, high = 0.0, 255.0
    else:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return as_bytes(np.asarray(pictures), low, high).tolist()


def _reconstructions(estimator: Any, view: View) -> dict[str, Any]:
    """Some rows beside what the model gives back; a change is told in the column's spreads."""
    generator = np.random.default_rng(0)
    order = generator.permutation(view.n_rows)
    if view.is_images:
        rows = np.sort(order[: N_PICTURES // 2])
        again = np.asarray(estimator.reconstruct(view.take(rows))).reshape(len(rows), *view.image_shape)
        data = _pixels(view, view.pictures()[rows])
        labels = [view.labels[row] for row in rows]
        return {"labels": labels, "data": data, "again": _pixels(view, again)}
    columns = _lawful(view.schema.columns)
    gappy = _gappy(view)
    some_gappy = [row for row in order if gappy[row]][:N_GAPPY]
    rest = [row for row in order if row not in some_gappy][: N_SHOWN - len(some_gappy)]
    rows = np.sort(np.array([*some_gappy, *rest], int))
    data = _cells(view, rows, columns)
    told_again = _cells(
        View(estimator.reconstruct(view.take(rows)), view.schema), np.arange(len(rows)), columns
    )
    spreads = [_spread(view, j) for j in columns]
    return {
        "columns": [str(view.names[j]) for j in columns],
        "rows": [
            {
                "label": view.labels[row],
                "data": cells,
                "again": told,
                "change": [_change(*pair) for pair in zip(cells, told, spreads, strict=True)],
            }
            for row, cells, told in zip(rows, data, told_again, strict=True)
        ],
    }


def _gappy(view: View) -> np.ndarray:
    """(n,) bool: rows with a gap in a column that the model has a law for."""
    if view.is_images:
        return np.isnan(np.asarray(view.X, np.float64).reshape(view.n_rows, -1).sum(axis=1))
    gappy = np.zeros(view.n_rows, bool)
    for j in _lawful(view.schema.columns):
        gappy |= np.array([cell is None for cell in view.column(view.names[j])])
    return gappy


def _spread(view: View, j: int) -> float | None:
    """Standard deviation of a column of quantities; None for labels."""
    if not shown.is_number(view.schema.columns[j]):
        return None
    values = numbers(view.column(view.names[j]))
    return float(np.nanstd(values)) or 1.0


def _change(cell: Any, told: Any, spread: float | None) -> float | None:
    """How far a cell moved, in spreads of its column; 1 for another label, None where there was a gap."""
    if cell is None or told is None:
        return None
    if spread is None:
        return float(str(cell) != str(told))
    return float((numbers([told])[0] - numbers([cell])[0]) / spread)


def _draws(view: View, drawn: View) -> dict[str, Any]:
    """Some rows beside some draws, neither chosen."""
    n = N_PICTURES if view.is_images else N_SHOWN
    rows = np.sort(np.random.default_rng(1).permutation(view.n_rows)[:n])
    few = np.arange(n)
    if view.is_images:
        pictures = drawn.pictures()[:n]
        return {"data": _pixels(view, view.pictures()[rows]), "draws": _pixels(view, pictures)}
    columns = _lawful(view.schema.columns)
    names = [str(view.names[j]) for j in columns]
    return {"columns": names, "data": _cells(view, rows, columns), "draws": _cells(drawn, few, columns)}


def _marginals(columns: Sequence[Column], view: View, drawn: View) -> list[dict[str, Any]]:
    names = [columns[j].name for j in _lawful(columns)]
    return [
        {**shown.marginal(columns[view.names.index(n)], view.column(n), drawn.column(n)), "name": str(n)}
        for n in names
    ]
