"""Orders of the columns in which a row is told."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["ranks_after", "scans"]

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


def ranks_after(ranks: Array, observed: Array) -> Array:
    """An order that ends with a row's gaps: observed columns first, else as before; (n_columns,) places from 1."""
    late = ranks + jnp.where(observed, 0, len(ranks))
    return 1 + jnp.argsort(jnp.argsort(late))
