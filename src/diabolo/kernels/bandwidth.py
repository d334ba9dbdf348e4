"""Bandwidths by held-out likelihood: what the mixture of some rows says of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch
from diabolo.kernels.mixture import Kernels

__all__ = ["folds", "golden", "mean_log_density", "settled"]

N_FOLDS = 5
MAX_JUDGED = 1000  # rows that judge: more move the choice by less than their own sampling error
_TOGETHER = 64
_RATIO = 0.5 * (np.sqrt(5.0) - 1.0)


def folds(n_rows: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that get a kernel and rows that judge; five times, so that every row judges once.

    Of more than 5,000 rows one fold says enough. Of fewer than 4, every row is in both parts.
    """
    if n_rows < 4:
        yield np.arange(n_rows), np.arange(n_rows)
        return
    order = np.random.default_rng(seed).permutation(n_rows)
    parts = np.array_split(order, min(N_FOLDS, n_rows))
    for part in parts if n_rows <= N_FOLDS * MAX_JUDGED else parts[:1]:
        yield np.sort(np.setdiff1d(order, part)), np.sort(part[:MAX_JUDGED])


def mean_log_density(kernels: Kernels, values: np.ndarray, observed: np.ndarray) -> float:
    """Mean log-density of rows: nats per row of the encoded cells."""
    n_rows = len(values)
    short = -(-n_rows // _TOGETHER) * _TOGETHER - n_rows
    nothing = np.zeros((n_rows + short, 0), np.float32)
    padded: Any = [np.pad(part, ((0, short), (0, 0)), mode="edge") for part in (values, observed)]
    batch = Batch(padded[0], padded[1], nothing)  # type: ignore[arg-type]
    return float(np.asarray(_log_prob(kernels, batch), np.float64)[:n_rows].mean())


@devices.compiled
def _log_prob(kernels: Kernels, batch: Batch) -> Array:
    kernels, n_blocks = kernels.prepared(), batch.n_rows // _TOGETHER
    blocks = jax.tree.map(lambda leaf: leaf.reshape(n_blocks, _TOGETHER, leaf.shape[1]), batch)
    return jnp.ravel(jax.lax.map(kernels.log_prob, blocks))


def golden(merit: Callable[[float], float], low: float, high: float, n_looks: int) -> tuple[float, float]:
    """The largest value of a function with one peak, and where: (place, merit); golden-section search."""
    inner = [high - _RATIO * (high - low), low + _RATIO * (high - low)]
    known = [merit(inner[0]), merit(inner[1])]
    for _ in range(n_looks - 2):
        if known[0] >= known[1]:
            high, inner[1], known[1] = inner[1], inner[0], known[0]
            inner[0] = high - _RATIO * (high - low)
            known[0] = merit(inner[0])
        else:
            low, inner[0], known[0] = inner[0], inner[1], known[1]
            inner[1] = low + _RATIO * (high - low)
            known[1] = merit(inner[1])
    best = int(known[1] > known[0])
    return inner[best], known[best]


def settled(
    merit: Callable[[tuple[float, ...]], float],
    ranges: Sequence[tuple[float, float]],
    n_looks: int = 9,
) -> tuple[tuple[float, ...], float]:
    """Places of the largest merit, one coordinate at a time, twice round where there are several.

    Parameters
    ----------
    merit : of a place; larger is better
    ranges : of each coordinate; one without a width is settled already
    """
    place = [0.5 * (low + high) for low, high in ranges]
    free = [j for j, (low, high) in enumerate(ranges) if high > low]
    best = -np.inf
    for _ in range(2 if len(free) > 1 else 1):
        for j in free:

            def along(value: float, j: int = j) -> float:
                return merit((*place[:j], value, *place[j + 1 :]))

            place[j], best = golden(along, *ranges[j], n_looks)
    return tuple(place), best if free else merit(tuple(place))
