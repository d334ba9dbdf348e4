"""Several models on one split: how much each gains over independent columns, and by how much they differ."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from diabolo import passes
from diabolo.checks import Range, refuse
from diabolo.table import Schema, rows_at

__all__ = ["Entry", "Gain", "compare", "gain", "gains", "independent_columns", "with_error"]


@dataclass(frozen=True)
class Gain:
    """Nats per row by which a model beats independent columns of the same kinds and resolutions.

    Attributes
    ----------
    mean, standard_error : nats per row; of the mean over rows
    n_rows : rows compared
    n_outside : rows left out, because a value outside a column's support makes both densities zero
    kind : of the model's density: "exact", "bound" or "estimate"
    """

    mean: float
    standard_error: float
    n_rows: int
    n_outside: int
    kind: str

    def __str__(self) -> str:
        said = {"bound": " (lower bound)", "estimate": " (estimate)"}.get(self.kind, "")
        way = "better" if self.mean >= 0 else "worse"
        size = with_error(abs(self.mean), self.standard_error)
        return f"{size} nats per row {way} than independent columns{said}"


@dataclass(frozen=True)
class Entry:
    """One model's line: its gain, its paired difference to the best, and what it cost.

    Attributes
    ----------
    name : as given
    gain : over independent columns, on rows that it never saw
    behind, behind_error : mean paired difference to the best model and its standard error, nats per row; 0 for the best
    seconds : of fitting
    estimator : fitted
    """

    name: str
    gain: Gain
    behind: float
    behind_error: float
    seconds: float
    estimator: Any


def with_error(value: float, error: float) -> str:
    """`4.55 ± 0.04`: as many decimals as the error deserves."""
    digits = 0 if error >= 10.0 else 1 if error >= 0.1 else 2
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def independent_columns(schema: Schema, X: Any) -> np.ndarray:
    """Log-density of rows under the product of the columns' own marginal laws: (n_rows,) nats, user's units."""
    rows = schema.encode(X)
    cells = passes.marginals(schema.likelihood(), rows)
    return np.where(rows.observed, cells, 0.0).sum(axis=1) + rows.offset


def gain(estimator: Any, X: Any) -> Gain:
    """How much better a fitted model explains rows than independent columns do.

    Parameters
    ----------
    estimator : fitted, with a density
    X : rows, best such as the model never saw
    """
    return _gain(gains(estimator.schema_, X, estimator.score_samples(X)), estimator.density_kind_)


def compare(
    models: Mapping[str, Any], X: Any, *, test_size: float = 0.2, random_state: Any = 0
) -> list[Entry]:
    """Fit models on the same rows and compare them on the others.

    Parameters
    ----------
    models : estimators by name, with the same `kinds` and `given`; they are cloned, not changed
    X : rows
    test_size : share of the rows to compare on; used neither for training nor for stopping
    random_state : of the split

    Returns
    -------
    one Entry per model, the best first

    Examples
    --------
    >>> import diabolo
    >>> from sklearn.datasets import load_iris
    >>> few = {"max_steps": 200, "n_components": 2, "random_state": 0}
    >>> models = {"vae": diabolo.VAE(**few), "plain": diabolo.Autoencoder(**few)}
    >>> best, other = diabolo.compare(models, load_iris().data)
    >>> best.behind, best.gain.mean > other.gain.mean
    (0.0, True)
    """
    if not isinstance(models, Mapping) or not models:
        got = "no model" if isinstance(models, Mapping) else f"a {type(models).__name__}"
        raise refuse("compare", got=got, want="estimators by name, such as {'vae': VAE()}")
    if test_size not in Range(0.0, 1.0, open_low=True, open_high=True):
        raise refuse("parameter 'test_size'", got=repr(test_size), want="a number between 0 and 1")
    places = train_test_split(np.arange(len(X)), test_size=test_size, random_state=random_state)
    train, test = (rows_at(X, part) for part in places)
    found: list[tuple[str, Any, np.ndarray, float]] = []
    for name, model in models.items():
        start = time.perf_counter()
        fitted = clone(model).fit(train)
        seconds = time.perf_counter() - start
        _must_share_kinds(name, fitted, found)
        found.append((name, fitted, gains(fitted.schema_, test, fitted.score_samples(test)), seconds))
    best = max(found, key=lambda one: np.nanmean(one[2]))[2]
    entries = []
    for name, fitted, per_row, seconds in found:
        apart = per_row - best
        entries.append(
            Entry(
                name,
                _gain(per_row, fitted.density_kind_),
                float(np.nanmean(apart)),
                _error(apart),
                seconds,
                fitted,
            )
        )
    return sorted(entries, key=lambda entry: -entry.gain.mean)


def _must_share_kinds(name: str, fitted: Any, found: list[tuple[str, Any, np.ndarray, float]]) -> None:
    """Nats of different kinds or resolutions are of different things."""
    for other, known, _, _ in found[:1]:
        for mine, theirs in zip(fitted.schema_.columns, known.schema_.columns, strict=True):
            if (mine.kind, mine.given) != (theirs.kind, theirs.given):
                got = f"column {mine.name!r} as {mine.kind.line()!r} in {name!r}"
                want = f"{theirs.kind.line()!r} as in {other!r}: only nats of the same kinds compare"
                raise refuse("compare", got=got, want=want, fix="Give all models the same kinds and given.")


def gains(schema: Schema, X: Any, values: np.ndarray) -> np.ndarray:
    """By how much log-densities (n_rows,) exceed those of independent columns; nan where both are zero."""
    with np.errstate(invalid="ignore"):
        return values - independent_columns(schema, X)


def _gain(per_row: np.ndarray, kind: str) -> Gain:
    inside = np.isfinite(per_row)
    mean = float(per_row[inside].mean()) if inside.any() else float("nan")
    return Gain(mean, _error(per_row), int(inside.sum()), int((~inside).sum()), kind)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean of the finite values."""
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
