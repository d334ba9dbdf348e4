"""What each component of the code changes, and how many nats it carries."""

from __future__ import annotations

from typing import Any

import numpy as np

from diabolo.plot import shown
from diabolo.plot.view import View, numbers
from diabolo.report.oddities import cell_of
from diabolo.report.subject import Subject, lawful
from diabolo.variational_estimator import VariationalEstimator

__all__ = ["decode", "divergences", "n_active", "traversals"]

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # spreads of the component from its median
MAX_COMPONENTS = 8
N_CHANGED = 4  # columns shown per component
ACTIVE = 0.01  # a component that varies by less than this share of the liveliest is not in use


def n_active(codes: np.ndarray) -> int:
    """Components in use."""
    spreads = codes.var(axis=0)
    return int(np.sum(spreads > ACTIVE * max(float(spreads.max()), 1e-300)))


def divergences(subject: Subject) -> list[float] | None:
    """Mean divergence of the posterior from the prior per component, nats; None where the encoder says a point."""
    estimator = subject.estimator
    return estimator.divergence_.tolist() if isinstance(estimator, VariationalEstimator) else None


def traversals(subject: Subject) -> list[dict[str, Any]]:
    """Each component moved by itself, the others at their medians: what the decoder then says.

    Returns
    -------
    list of dict, the component that changes most first : `component`, its place from 1; `values`, the codes visited;
        for tables `columns` that change most, each with its `cells`; for images `pictures`, decoded
    """
    middle, spread = np.median(subject.codes, axis=0), subject.codes.std(axis=0)
    visited = np.repeat(middle[None], len(middle) * len(STEPS), axis=0)
    for k in range(len(middle)):
        visited[k * len(STEPS) : (k + 1) * len(STEPS), k] += np.array(STEPS) * spread[k]
    decoded = View(decode(subject, visited), subject.schema)
    told = [_one(subject, decoded, visited, k) for k in range(len(middle))]
    told.sort(key=lambda one: -one["effect"])
    return [one for one in told if one["effect"] > 0][:MAX_COMPONENTS]


def decode(subject: Subject, codes: np.ndarray) -> Any:
    if not subject.is_conditional:
        return subject.estimator.inverse_transform(codes)
    middle = np.median(subject.codes, axis=0)
    typical = int(np.argmin(((subject.codes - middle) ** 2).sum(axis=1)))
    return subject.estimator.inverse_transform(codes, given=subject.view.take(np.full(len(codes), typical)))


def _one(subject: Subject, decoded: View, visited: np.ndarray, k: int) -> dict[str, Any]:
    rows = np.arange(k * len(STEPS), (k + 1) * len(STEPS))
    told: dict[str, Any] = {"component": k + 1, "values": visited[rows, k].tolist()}
    part = decoded.part(rows)
    if subject.view.is_images:
        pictures = part.pictures().astype(np.float64)
        return {**told, "effect": float(pictures.std(axis=0).mean()), "pictures": pictures}
    changed: list[dict[str, Any]] = []
    for j in lawful(subject.schema.columns):
        column = subject.schema.columns[j]
        cells = part.column(column.name)
        if shown.is_number(column):
            spread = float(np.nanstd(numbers(subject.view.column(column.name)))) or 1.0
            values = numbers(cells)
            effect = float((values.max() - values.min()) / spread)
            cells = [cell_of(column, value) for value in values]
        else:
            effect = float(len(set(cells)) - 1)
        changed.append({"column": j, "effect": effect, "cells": cells})
    changed.sort(key=lambda one: -one["effect"])
    kept = [one for one in changed if one["effect"] > 0.05][:N_CHANGED]
    return {**told, "effect": sum(one["effect"] for one in changed), "columns": kept}
