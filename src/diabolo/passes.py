"""Rows through a model's parts: codes, means and draws, in padded chunks of one compiled size."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jax import Array

from diabolo.batches import Batch, chunks
from diabolo.keys import key_of
from diabolo.model import CodeModel, Model
from diabolo.table import Rows

__all__ = ["codes", "draws", "means"]

_DRAWN_TOGETHER = 512


def codes(model: CodeModel, rows: Rows) -> np.ndarray:
    """(n_rows, n_components) float64, deterministic."""
    return _gathered(
        [(_codes(model, batch), n) for batch, n in chunks(rows, _chunk_size(rows.values.shape[1]))]
    )


def means(model: CodeModel, codes: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What stands for the law at each code: (n_rows, width) encoded."""
    size = _chunk_size(model.likelihood.width)
    return _gathered(
        [
            (
                _means(
                    model,
                    _padded(codes[start : start + size], size),
                    _padded(given[start : start + size], size),
                ),
                n,
            )
            for start, n in _cuts(len(codes), size)
        ]
    )


def draws(model: Model, given: np.ndarray, seed: int) -> np.ndarray:
    """One draw for each row of conditions (n_rows, given_width): (n_rows, width) encoded."""
    size = _DRAWN_TOGETHER
    return _gathered(
        [
            (_draws(model, key_of(seed, start), _padded(given[start : start + size], size)), n)
            for start, n in _cuts(len(given), size)
        ]
    )


@eqx.filter_jit
def _codes(model: CodeModel, batch: Batch) -> Array:
    return model.join(model.encode(batch))


@eqx.filter_jit
def _means(model: CodeModel, codes: Array, given: Array) -> Array:
    return model.likelihood.mean(model.decode(model.split(codes), given))


@eqx.filter_jit
def _draws(model: Model, key: Array, given: Array) -> Array:
    return model.sample(key, given.shape[0], given)


def _chunk_size(width: int) -> int:
    """Rows per compiled call: few for wide rows, so that one row alone does not pay for thousands."""
    return int(2 ** np.clip(18 - int(np.ceil(np.log2(max(width, 1)))), 6, 12))


def _cuts(n_rows: int, size: int) -> list[tuple[int, int]]:
    """Start and number of rows of every chunk."""
    return [(start, min(size, n_rows - start)) for start in range(0, n_rows, size)]


def _padded(part: np.ndarray, size: int) -> Any:
    return np.pad(np.asarray(part, np.float32), ((0, size - len(part)), (0, 0)))


def _gathered(out: list[tuple[Array, int]]) -> np.ndarray:
    return np.concatenate([np.asarray(block)[:n] for block, n in out]).astype(np.float64)
