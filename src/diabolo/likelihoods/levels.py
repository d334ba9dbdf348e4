"""Laws of levels: two, unordered, ordered. Nats are those of the pmf."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_sigmoid, log_softmax

from diabolo.likelihoods.law import Likelihood, float32, scale

__all__ = ["Bernoulli", "Categorical", "Ordinal"]


class Bernoulli(Likelihood):
    """Two values; the parameter is the logit of the second one, a cell is `[0 or 1]`."""

    n_scale: ClassVar[int] = 0

    @property
    def n_params(self) -> int:
        return 1

    @property
    def n_shared(self) -> int:
        return 0

    @property
    def width(self) -> int:
        return 1

    def log_prob(self, params: Array, cell: Array) -> Array:
        return log_sigmoid((2 * cell[0] - 1) * params[0])

    def mean(self, params: Array) -> Array:
        """The likelier value."""
        return (params > 0).astype(params.dtype)

    def draw(self, params: Array, key: Array) -> Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(params)).astype(params.dtype)


class Categorical(Likelihood):
    """Unordered levels; parameters are logits, a cell is one-hot.

    Attributes
    ----------
    log_seen : ()         log of the mass that the seen levels share (the rest is reserved for unseen ones)
    levels : (n_levels,)  any numbers, one per level: their count is a shape, so it is part of the structure
    """

    log_seen: Array = eqx.field(converter=float32)
    levels: Array = eqx.field(converter=float32)
    n_scale: ClassVar[int] = 0

    @property
    def n_params(self) -> int:
        return self.levels.shape[-1]

    @property
    def n_shared(self) -> int:
        return 0

    @property
    def width(self) -> int:
        return self.levels.shape[-1]

    def log_prob(self, params: Array, cell: Array) -> Array:
        return self.log_seen + jnp.sum(cell * log_softmax(params))

    def mean(self, params: Array) -> Array:
        """The likeliest level."""
        return jax.nn.one_hot(jnp.argmax(params), self.width, dtype=params.dtype)

    def draw(self, params: Array, key: Array) -> Array:
        """A seen level: what an unseen one would be called, nobody knows."""
        return jax.nn.one_hot(jax.random.categorical(key, params), self.width, dtype=params.dtype)


class Ordinal(Likelihood):
    """Ordered levels with a cumulative logit: P(level <= k) = sigmoid(threshold_k - loc).

    Parameters are `[loc, increments (n_levels - 1, shared)]`; a cell is one-hot.
    The first increment shifts the first threshold, each other one stretches the gap before its threshold
    by `scale(increment)`: with zeros the thresholds are `cuts`.

    Attributes
    ----------
    log_seen : ()            log of the mass that the seen levels share
    cuts : (n_levels - 1,)   the marginal law's thresholds, increasing (gaps under 1e-4 are widened to it)

    Source: McCullagh 1980, eq. 2.1 (the sign of loc as there: a larger one means higher levels).
    """

    log_seen: Array = eqx.field(converter=float32)
    cuts: Array = eqx.field(converter=float32)
    n_scale: ClassVar[int] = 0

    @property
    def n_params(self) -> int:
        return 1 + self.cuts.shape[-1]

    @property
    def n_shared(self) -> int:
        return self.cuts.shape[-1]

    @property
    def width(self) -> int:
        return 1 + self.cuts.shape[-1]

    def log_prob(self, params: Array, cell: Array) -> Array:
        return self.log_seen + jnp.sum(cell * self._log_pmf(params))

    def mean(self, params: Array) -> Array:
        """The likeliest level."""
        return jax.nn.one_hot(jnp.argmax(self._log_pmf(params)), self.width, dtype=params.dtype)

    def draw(self, params: Array, key: Array) -> Array:
        level = jax.random.categorical(key, self._log_pmf(params))
        return jax.nn.one_hot(level, self.width, dtype=params.dtype)

    def _log_pmf(self, params: Array) -> Array:
        gaps = jnp.maximum(jnp.diff(self.cuts), 1e-4) * scale(params[2:])
        first = self.cuts[:1] + params[1:2]
        # XLA's own running sum is slower on a CPU; on a GPU only the highest precision leaves float32 whole
        climb = jnp.matmul(np.tri(len(gaps), dtype=np.float32), gaps, precision="highest")
        thresholds = jnp.concatenate([first, first + climb]) - params[0]
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), which never cancels
        zero = jnp.zeros(1, thresholds.dtype)
        below = jnp.concatenate([log_sigmoid(thresholds), zero])
        above = jnp.concatenate([zero, log_sigmoid(-thresholds)])
        return below + above + jnp.concatenate([zero, jnp.log(-jnp.expm1(-gaps)), zero])
