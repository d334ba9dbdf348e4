"""What a page says, as one dict of JSON types."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from diabolo.plot import shown
from diabolo.plot.view import View, as_cells, decimals, numbers
from diabolo.report import components, exported, generated, imagery, maps, oddities
from diabolo.report.subject import Subject
from diabolo.table import Column

__all__ = ["summary"]

N_SHOWN = 10  # draws listed, beside as many rows
N_SCORED = 500  # draws whose density is read
MIN_COMPLETE = 20  # rows without gaps, for their densities to be compared with those of draws
N_OTHERS = 10  # rows behind a level, for its name to be shown where no row is


def summary(
    estimator: Any,
    X: Any,
    color: Any = None,
    *,
    held_out: Any = None,
    title: str | None = None,
    labels: Sequence[Any] | None = None,
    no_rows: bool = False,
    command: str | None = None,
) -> dict[str, Any]:
    """The four readings of a fitted estimator on some rows.

    Parameters
    ----------
    estimator : fitted
    X : rows to look at: array, data frame or images
    color : colours the map at first: a column's name, one value per row, or a dict of one name to these; without it,
        the surprise does
    held_out : rows used neither for training nor for stopping, by which the model is judged: rows like X, or the
        positions of such rows in X; without them the summary says that it judges by the rows it was given
    title : what the rows are called; a file's name, say
    labels : what each row is called; "line 12", say
    no_rows : leave out every value of a single row
    command : what makes the same page again

    Returns
    -------
    dict : `read`, `model`, `training`, `density`, `columns`, `odd`, `maps`, `rows`, `pairs`, `components`, `draws`,
        `decoder`; of images also `plane`, `reconstructions`, `interpolation`; lists, numbers, text and None only.
        Densities are in nats, of the columns' own units; beside each stands its kind, and its gain over independent
        columns. It contains values of some rows of X, unless `no_rows`.
    """
    subject = Subject.of(estimator, X, held_out, labels, not no_rows)
    if color is not None and subject.with_rows:  # what cannot colour a map is refused before the work
        shown.coloring(subject.everything, subject.schema, color)
    subject = oddities.with_the_oddest(subject)
    assert len(
        subject.reading
    )  # read first: it warns of what no column can hold, which need not be said again
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outside the support", category=UserWarning)
        return _summary(subject, color, title, command)


def _summary(subject: Subject, color: Any, title: str | None, command: str | None) -> dict[str, Any]:
    estimator, no_rows = subject.estimator, not subject.with_rows
    surprise = oddities.surprises(subject)
    told: dict[str, Any] = {
        "format": "diabolo-summary-3",
        "title": title or f"{type(estimator).__name__} of {subject.everything.n_rows:,} rows",
        "command": command,
        "no_rows": no_rows,
        "read": _read(subject),
        "model": _model(subject),
        "training": shown.training(estimator),
        "density": _density(subject, surprise),
    }
    if subject.view.is_images:
        told["columns"] = []
        told["odd"] = oddities.odd_images(subject, surprise)
    else:
        blamed = oddities.blamed(subject)
        told["columns"] = _columns(subject, blamed)
        told["odd"] = oddities.oddities(subject, surprise, blamed["usual"])
    near = generated.nearest(subject)
    always = [row["place"] for row in told["odd"]["rows"]]
    if subject.view.is_images:
        told["reconstructions"] = [] if no_rows else imagery.reconstructions(subject)
        told["interpolation"] = [] if no_rows else imagery.interpolation(subject)
        told["copies"] = [] if no_rows else imagery.pictures_of_draws(subject, near)
        always += [place for line in told["reconstructions"] for place in line["places"]]
        always += [one["place"] for one in told["copies"] if one["place"] is not None]
        always += [place for one in told["interpolation"] for place in one["places"]]
    points = maps.points_of(subject, always)
    told["maps"] = maps.maps(subject, points)
    told["pairs"] = None if subject.view.is_images else generated.pairs(subject, points)
    told["rows"] = _rows(subject, points, surprise, color)
    told["components"] = {
        "divergence": components.divergences(subject),
        "traversals": components.traversals(subject),
    }
    told["draws"] = {**_draws(subject), "nearest": near}
    told["decoder"] = exported.decoder(subject)
    if subject.view.is_images:
        told["plane"] = imagery.decoded_plane(subject, told["maps"][0])
    return _plain(told)


def _plain(fact: Any) -> Any:
    """A fact as JSON types."""
    if isinstance(fact, dict):
        return {key: _plain(one) for key, one in fact.items()}
    if isinstance(fact, (list, tuple)):
        return [_plain(one) for one in fact]
    if isinstance(fact, np.ndarray):
        return _plain(fact.tolist())
    if isinstance(fact, np.generic):
        fact = fact.item()
    return None if isinstance(fact, float) and not np.isfinite(fact) else fact


def _read(subject: Subject) -> dict[str, Any]:
    schema, view, everything = subject.schema, subject.view, subject.everything
    told: dict[str, Any] = {
        "n_rows": everything.n_rows,
        "n_looked_at": view.n_rows,
        "n_drawn": view.n_rows if subject.drawn_rows is None else int(subject.drawn_rows.sum()),
        "n_held_out": subject.held_out.n_rows if subject.held_out else 0,
        "n_columns": len(schema.columns),
        "n_modelled": schema.n_columns,
        "image_shape": None,
    }
    if view.is_images:
        values = np.asarray(view.X, np.float64)
        return {
            **told,
            "n_gaps": int(np.isnan(values).sum()),
            "n_cells": values.size,
            "kinds": {schema.columns[0].kind.name: len(schema.columns)},
            "ignored": [],
            "image_shape": list(schema.image_shape or ()),
        }
    gaps = [sum(cell is None for cell in view.column(column.name)) for column in schema.columns]
    modelled = [column.kind.name for column in schema.columns if column.kind.counted]
    return {
        **told,
        "n_gaps": sum(gaps),
        "n_cells": view.n_rows * len(schema.columns),
        "kinds": dict(Counter(modelled).most_common()),
        "ignored": [[str(c.name), c.kind.name] for c in schema.columns if not c.kind.counted],
    }


def _columns(subject: Subject, blamed: dict[str, Any]) -> list[dict[str, Any]]:
    """Every column: its kind, gaps, spread in data and draws, and what the others tell of it."""
    schema, view = subject.schema, subject.view
    spreads = {one["column"]: one for one in generated.marginals(subject)}
    told = []
    for j, (column, (_, line)) in enumerate(zip(schema.columns, schema.describe(), strict=True)):
        about = _column(column, view.column(column.name), line, subject.with_rows)
        gain, error = float(blamed["gains"][j]), float(blamed["gain_errors"][j])
        about["gain"] = {"mean": gain, "standard_error": error, "n_rows": blamed["n_rows"]}
        about["spread"] = spreads.get(j)
        told.append(about)
    return told


def _column(column: Column, cells: list[Any], facts: str, with_rows: bool) -> dict[str, Any]:
    """One column: its kind, its gaps, and what its values span."""
    seen = [cell for cell in cells if cell is not None]
    about: dict[str, Any] = {
        "name": str(column.name),
        "kind": column.kind.name,
        "given": bool(column.given),
        "is_number": shown.is_number(column),
        "facts": facts if with_rows else column.kind.name,
        "n_gaps": len(cells) - len(seen),
        "n_distinct": len(set(seen)),
        "decimals": None,
    }
    if shown.is_number(column) and seen:
        values = numbers(seen)
        resolution = getattr(column.kind, "resolution", None) if column.kind.name != "count" else 1.0
        clock = bool(getattr(column.kind, "clock", False))
        about["clock"] = clock
        about["decimals"] = None if clock else decimals(resolution, float(values.std()))
        if not clock:  # digits that an expected range deserves
            about["coarse"] = min(about["decimals"], decimals(None, float(values.std())))
        ends = np.quantile(values, [0.0, 1.0] if with_rows else [0.05, 0.95])
        about["span"] = [oddities.cell_of(column, end) for end in ends]
        about["middle"] = None if clock else float(np.median(values))
    else:
        common = Counter(seen).most_common(4)
        least = 1 if with_rows else N_OTHERS
        about["levels"] = [[str(level), count] for level, count in common if count >= least]
    return about


def _model(subject: Subject) -> dict[str, Any]:
    estimator = subject.estimator
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
        "n_components": subject.codes.shape[1],
        "n_active": components.n_active(subject.codes),
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


def _density(subject: Subject, surprise: np.ndarray) -> dict[str, Any]:
    """Log-densities of the rows that judge: their mean, their gain, and their spread beside that of draws."""
    judged, reading = subject.judged, subject.held_out_reading
    values = np.asarray(reading.values, np.float64)
    gains = subject.gains(judged, values)
    complete = subject.schema.encode(judged.X).observed.all(axis=1)
    # a draw has no gaps: rows with some are left out of the comparison where enough others remain
    compared = (
        complete if not complete.all() and complete.sum() >= MIN_COMPLETE else np.ones(len(values), bool)
    )
    scored = subject.drawn.take(np.arange(min(N_SCORED, subject.drawn.n_rows)))
    kind = str(subject.estimator.density_kind_)
    return {
        "unit": reading.unit,
        "kind": kind,
        "judged_by": "rows" if subject.held_out is None else "held out",
        "n_rows": judged.n_rows,
        "n_impossible": int(np.sum(np.isneginf(values))),
        "n_complete": None if compared.all() else int(compared.sum()),
        "n_with_gaps": int(np.sum(compared & ~complete)),  # among those compared
        "n_untrusted": int(np.sum(reading.withheld)),
        "log_density": _mean(values),
        "gain": _mean(gains),
        "histogram": shown.surprises(values[compared], subject.estimator.score_samples(scored), kind),
    }


def _mean(values: np.ndarray) -> dict[str, Any]:
    """Mean of the finite values and its standard error."""
    finite = values[np.isfinite(values)]
    return {
        "mean": float(finite.mean()) if len(finite) else None,
        "standard_error": float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else None,
        "n_rows": len(finite),
    }


def _rows(subject: Subject, points: np.ndarray, surprise: np.ndarray, color: Any) -> dict[str, Any]:
    """Facts of the rows drawn on the maps, one list per fact."""
    view, reading = subject.view, subject.reading
    values = np.asarray(reading.values, np.float64)
    gains = subject.gains(view, values)
    trusted = ~np.asarray(reading.withheld)
    told: dict[str, Any] = {
        "places": points,
        "labels": [view.labels[point] for point in points],
        "log_density": values[points],
        "standard_error": np.where(trusted, reading.standard_error, np.nan)[points],
        "kind": [str(one) for one in reading.kind[points]],
        "gain": gains[points],
        "surprise": surprise[points],
        "percentile": oddities.percentiles(subject, surprise)[points],
        "cells": None,
        "pictures": None,
        "colors": [],
        "color": None,
    }
    if not subject.with_rows:
        return told
    part = view.part(points)
    if view.is_images:
        told["pictures"] = imagery.as_bytes_of(subject, part.pictures())
    else:
        told["cells"] = [part.column(column.name) for column in subject.schema.columns]
        for j, column in enumerate(subject.schema.columns):
            if column.kind.counted:
                one = shown.coloring(view, subject.schema, column.name)
                told["colors"].append(_legend(one) | {"column": j})
    if isinstance(color, str):
        told["color"] = color
    elif color is not None:
        one = shown.coloring(subject.everything, subject.schema, color)
        values_of = [one["values"][subject.places[point]] for point in points]
        told["colors"].insert(0, _legend(one) | {"column": None, "values": as_cells(values_of)})
        told["color"] = one["name"]
    return told


def _legend(coloring: dict[str, Any]) -> dict[str, Any]:
    return {key: coloring[key] for key in ("name", "type", "levels") if key in coloring}


def _draws(subject: Subject) -> dict[str, Any]:
    """Some rows beside some draws, neither chosen."""
    view = subject.view
    if view.is_images:
        return {"data": [], "draws": []}
    rows = np.sort(np.random.default_rng(1).permutation(view.n_rows)[:N_SHOWN])
    columns = generated.lawful(subject.schema.columns)
    return {
        "columns": columns,
        "places": rows,
        "data": _cells(view, rows, columns) if subject.with_rows else [],
        "draws": _cells(subject.drawn, np.arange(N_SHOWN), columns),
    }


def _cells(view: View, rows: np.ndarray, columns: Sequence[int]) -> list[list[Any]]:
    """Some cells, row by row."""
    part = view.part(rows)
    read = [part.column(view.names[j]) for j in columns]
    return [list(cells) for cells in zip(*read, strict=True)]
