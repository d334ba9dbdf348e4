"""Orders of the columns in which a row is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.checks import refuse
from diabolo.table import Schema, position

__all__ = ["orders_of", "ranks_after", "scans"]

_CORNERS = ((1, 1), (-1, -1), (1, -1), (-1, 1))


def scans(image_shape: tuple[int, ...]) -> list[list[int]]:
    """The orders in which a picture is read: along its rows and along its columns, from each corner.

    Parameters
    ----------
    image_shape : (height, width[, channels]); a pixel's channels stay together

    Returns
    -------
    lists of positions, each of all h * w * c cells of a flattened image; eight, of a single line of pixels two. The
        first four are along rows and columns from the first pixel, and from the last

    Examples
    --------
    >>> from diabolo.orders import scans
    >>> scans((2, 3))[:3]
    [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0]]
    """
    grid = np.arange(np.prod(image_shape)).reshape(*image_shape[:2], -1)
    turned = grid.swapaxes(0, 1)
    every = [lines[::down, ::right].ravel() for down, right in _CORNERS for lines in (grid, turned)]
    return [list(scan) for scan in dict.fromkeys(tuple(scan.tolist()) for scan in every)]


def orders_of(
    schema: Schema, listed: Sequence[Sequence[str | int]] | None, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n, n_columns) places from 1: the orders that are listed, or that of the columns, then drawn ones.

    Parameters
    ----------
    listed : each every modelled column by name or position; columns that are not modelled are passed over
    """
    modelled, what = [place.column for place in schema.layout.places], "parameter 'orders'"
    first = []
    for order in [modelled] if listed is None else listed:
        if not isinstance(order, (list, tuple, np.ndarray)):
            raise refuse(what, got=f"{order!r}", want="lists of columns, one for each order")
        told = [position(column, schema.names, what) for column in order]
        told = [column for column in told if column in modelled]
        if sorted(told) != modelled:
            got = "an order that misses a column or has one twice"
            raise refuse(what, got=got, want="every modelled column once in each")
        first.append(np.argsort(told))
    if len(first) > n:
        raise refuse(what, got=f"{len(first)} orders", want=f"at most n_networks * n_orders = {n}")
    drawn: list[Any] = [rng.permutation(len(modelled)) for _ in range(n - len(first))]
    return 1 + np.array(first + drawn, np.int32)


def ranks_after(ranks: Array, observed: Array) -> Array:
    """An order that ends with a row's gaps: observed columns first, else as before; (n_columns,) places from 1."""
    late = ranks + jnp.where(observed, 0, len(ranks))
    return 1 + jnp.argsort(jnp.argsort(late))
