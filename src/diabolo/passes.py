"""Rows through a model's parts: codes, means and draws, in padded chunks of one compiled size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, chunks
from diabolo.joint import JointLikelihood
from diabolo.keys import key_of
from diabolo.labels import LabelModel
from diabolo.model import Model, on_device
from diabolo.table import Rows

__all__ = ["classes", "codes", "draws", "marginals", "means"]

_DRAWN_TOGETHER = 512


def codes(model: Model, rows: Rows) -> np.ndarray:
    """(n_rows, n_components) float64, deterministic."""
    model, size = on_device(model), _chunk_size(rows.values.shape[1])
    return _gathered(lambda batch: _codes(model, batch), chunks(rows, size), len(rows.values))


def classes(model: LabelModel, rows: Rows) -> np.ndarray:
    """(n_rows, n_classes) float64: the classifier's probabilities."""
    model, size = on_device(model), _chunk_size(rows.values.shape[1])
    return _gathered(lambda batch: _classes(model, batch), chunks(rows, size), len(rows.values))


def means(model: Model, codes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What stands for the law at each code: (n_rows, width) encoded."""
    model, size = on_device(model), _chunk_size(model.likelihood.width)
    pairs = zip(_padded(codes, size), _padded(given, size), strict=True)
    parts = (((part, condition), n) for (part, n), (condition, _) in pairs)
    return _gathered(lambda part: _means(model, *part), parts, len(codes))


def draws(model: Model, given: np.ndarray, seed: int) -> np.ndarray:
    """One draw for each row of conditions (n_rows, given_width): (n_rows, width) encoded."""
    if not model.likelihood.width:
        return np.zeros((len(given), 0))  # constants only: no member has a cell to draw
    model, pieces = on_device(model), enumerate(_padded(given, _DRAWN_TOGETHER))
    parts = (((key_of(seed, i), part), n) for i, (part, n) in pieces)
    return _gathered(lambda part: _draws(model, *part), parts, len(given))


def marginals(likelihood: JointLikelihood, rows: Rows) -> np.ndarray:
    """Nats of every cell under its column's own marginal law: (n_rows, n_columns), per unit of the encoded value."""
    size = _chunk_size(rows.values.shape[1])
    return _gathered(lambda part: _marginals(likelihood, part), _padded(rows.values, size), len(rows.values))


@devices.compiled
def _marginals(likelihood: JointLikelihood, values: Array) -> Array:
    return likelihood.log_prob(likelihood.initial, values)


@devices.compiled
def _codes(model: Model, batch: Batch) -> Array:
    return model.join(model.encode(batch))


@devices.compiled
def _classes(model: LabelModel, batch: Batch) -> Array:
    return model.probabilities(batch)


@devices.compiled
def _means(model: Model, codes: Array, given: Array) -> Array:
    return model.typical(model.split(codes), given)


@devices.compiled
def _draws(model: Model, key: Array, given: Array) -> Array:
    return model.sample(key, given.shape[0], given)


def _chunk_size(width: int) -> int:
    """Rows per compiled call: few for wide rows, so that one row alone does not pay for thousands."""
    return int(2 ** np.clip(18 - int(np.ceil(np.log2(max(width, 1)))), 6, 12))


def _padded(rows: np.ndarray, size: int) -> Iterator[tuple[Any, int]]:
    """Rows cut into blocks of exactly `size`, the last one padded, each with its number of true rows."""
    for start in range(0, len(rows), size):
        part = np.asarray(rows[start : start + size], np.float32)
        yield np.pad(part, ((0, size - len(part)), (0, 0))), len(part)


def _gathered(function: Callable[[Any], Array], parts: Iterator[tuple[Any, int]], n_rows: int) -> np.ndarray:
    """What the function says of each part's true rows, (n_rows, width) float64."""
    out, start = None, 0
    for block in devices.ahead(lambda part, n: np.asarray(function(part))[:n], parts):
        out = np.empty((n_rows, *block.shape[1:])) if out is None else out
        out[start : start + len(block)] = block
        start += len(block)
    assert out is not None, "there is at least one block"
    return out
