"""Orders of the columns in which a row is told, as places: (n_columns,) int from 1."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["orders_of", "ranks_after"]

_CORNERS = ((1, 1), (-1, -1), (1, -1), (-1, 1))


def orders_of(
    n_columns: int, n: int, rng: np.random.Generator, image_shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """(n, n_columns) places: the columns as they stand, of an image its other scans, then orders by chance.

    Neighbouring pixels know most of each other, and an order by chance leaves them far apart: of binarized MNIST the
    scan by rows was better than any of three drawn orders by 1.3 to 1.8 nats.
    """
    known = [np.arange(n_columns)] if image_shape is None else scans(image_shape)
    chance = (rng.permutation(n_columns) for _ in itertools.count())
    return 1 + np.array(list(itertools.islice(itertools.chain(known, chance), n)), np.int32)


def scans(image_shape: tuple[int, ...]) -> list[np.ndarray]:
    """Up to eight, each (h * w * c,) places from 0: along rows and along columns, from each corner."""
    grid = np.arange(np.prod(image_shape)).reshape(*image_shape[:2], -1)
    every = [
        lines[::down, ::right].ravel() for down, right in _CORNERS for lines in (grid, grid.swapaxes(0, 1))
    ]
    return [np.argsort(scan) for scan in dict.fromkeys(map(tuple, every))]


def ranks_after(ranks: Array, observed: Array) -> Array:
    """An order that ends with a row's gaps: observed columns first, else as before; (n_columns,) places from 1."""
    late = ranks + jnp.where(observed, 0, len(ranks))
    return 1 + jnp.argsort(jnp.argsort(late))
