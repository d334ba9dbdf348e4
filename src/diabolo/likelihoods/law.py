"""What a law of one cell offers, and the scale that several share.

A law sees ONE cell; `diabolo.joint` stacks like columns and vectorises over columns and rows. It measures the
*encoded* value (scaled on the host in float64); what turns that into the user's units is the kind's `offset`.

Raw parameters are unconstrained, and all zeros is a sane law. Values and gradients stay finite in float32 far
in the tails. Learned constants are array leaves, so that equal structures share one compiled program.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jax import Array
from jax.nn import softplus

__all__ = ["Likelihood", "float32", "raw_scale", "scale"]

_SCALE_FLOOR = 1e-3  # of the column's spread, which is one in encoded units
_SCALE_SHIFT = math.log(math.e - 1)  # softplus of it is one


def scale(raw: Array) -> Array:
    """Turn a raw scale into a spread: 1 at raw 0, never below 1e-3, linear for large raw values."""
    return _SCALE_FLOOR + (1 - _SCALE_FLOOR) * softplus(raw + _SCALE_SHIFT)


def raw_scale(spread: Any) -> np.ndarray:
    """The raw scale of a spread in encoded units (host, float64): undoes `scale` from 1.01e-3 up."""
    above_floor = (np.maximum(spread, 1.01 * _SCALE_FLOOR) - _SCALE_FLOOR) / (1 - _SCALE_FLOOR)
    return above_floor + np.log(-np.expm1(-above_floor)) - _SCALE_SHIFT


def float32(values: Any) -> np.ndarray:
    """A learned constant stays on the host: hundreds of columns are built before one goes to the device."""
    return np.asarray(values, np.float32)


class Likelihood(eqx.Module):
    """A conditional law of one encoded cell.

    Parameters come as free ones, functions of the code, followed by `n_shared` ones that all rows share
    (a learned vector), the last `n_scale` of which are an observation scale.
    """

    n_scale: ClassVar[int]

    @property
    @abc.abstractmethod
    def n_params(self) -> int:
        """Raw parameters per cell, shared ones included."""

    @property
    @abc.abstractmethod
    def n_shared(self) -> int:
        """How many of them, the last ones, are one learned vector for all rows."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Encoded values per cell."""

    @abc.abstractmethod
    def log_prob(self, params: Array, cell: Array) -> Array:
        """Nats of an observed cell per unit of the encoded value; params (n_params,), cell (width,) -> ()."""

    @abc.abstractmethod
    def mean(self, params: Array) -> Array:
        """The cell that stands for the law, (n_params,) -> (width,)."""

    @abc.abstractmethod
    def draw(self, params: Array, key: Array) -> Array:
        """One draw, (n_params,) -> (width,)."""
