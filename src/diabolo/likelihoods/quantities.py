"""Laws of quantities: real, positive, counted, grey."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_softmax, softplus

from diabolo.likelihoods.law import Likelihood, float32, scale
from diabolo.likelihoods.masses import (
    log_negative_binomial,
    log_normal_cdf,
    log_normal_density,
    log_normal_interval,
)

__all__ = ["DiscretizedLogistic", "LogNormal", "NegativeBinomial", "Normal"]


class Normal(Likelihood):
    """A normal law of a value with a resolution and, possibly, atoms.

    Parameters are `[loc, atom logits..., raw scale]`; a cell is `[z, one-hot atoms...]`, z = 0 at an atom.
    With `coarse` the value's nats are log of the mass of z -/+ half over 2 half, else the log-density.
    An atom's are those of a point mass (of all that falls on its grid cell, when coarse): over the grid,
    ordinary cells times 2 half plus atoms sum to one.

    Attributes
    ----------
    half : ()            half the resolution, encoded units; unused unless `coarse`
    atoms : (n_atoms,)   the atoms' encoded values
    coarse : bool        static
    """

    half: Array = eqx.field(converter=float32)
    atoms: Array = eqx.field(converter=float32)
    coarse: bool = eqx.field(static=True)
    n_scale: ClassVar[int] = 1

    @property
    def n_params(self) -> int:
        return 2 + self.atoms.shape[-1]

    @property
    def n_shared(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1 + self.atoms.shape[-1]

    def log_prob(self, params: Array, cell: Array) -> Array:
        has_atoms = self.atoms.shape[-1] > 0
        value = cell[0] + jnp.sum(cell[1:] * self.atoms) if has_atoms else cell[0]
        sigma = scale(params[-1])
        standard = (value - params[0]) / sigma
        if self.coarse:
            density = log_normal_interval(standard, self.half / sigma) - jnp.log(sigma)
        else:
            density = log_normal_density(standard) - jnp.log(sigma)
        if not has_atoms:
            return density
        log_parts = _log_parts(params)
        density = density + log_parts[0]
        point = jnp.sum(cell[1:] * log_parts[1:])
        if self.coarse:  # the continuous part also falls on the atom's own grid cell
            point = jnp.logaddexp(point, density + jnp.log(2 * self.half))
        return jnp.where(jnp.sum(cell[1:]) > 0, point, density)

    def mean(self, params: Array) -> Array:
        """The mean of the commonest part: the continuous one's location, or an atom."""
        if self.atoms.shape[-1] == 0:
            return params[:1]
        return self._cell(params[0], jnp.argmax(_log_parts(params)))

    def draw(self, params: Array, key: Array) -> Array:
        value_key, part_key = jax.random.split(key)
        value = params[0] + scale(params[-1]) * jax.random.normal(value_key, dtype=params.dtype)
        if self.atoms.shape[-1] == 0:
            return value[None]
        return self._cell(value, jax.random.categorical(part_key, _log_parts(params)))

    def _cell(self, value: Array, part: Array) -> Array:
        """The cell of one part: 0 is the continuous one."""
        one_hot = jax.nn.one_hot(part, 1 + self.atoms.shape[-1], dtype=value.dtype)
        return one_hot.at[0].multiply(value)


class LogNormal(Likelihood):
    """A log-normal law of x > 0 with a resolution: the normal law on z = (log x - m) / s.

    Parameters are `[loc, raw scale]`; a cell is `[z]`. With `coarse` the nats are log of the mass of
    x -/+ half over the encoded width 2 half / (s x), so that the offset -log s - log x serves both. The
    lowest grid cell, x = 2 half, takes all below: no positive value rounds to zero, so masses sum to one.

    Attributes
    ----------
    half : ()       half the resolution, the user's units; unused unless `coarse`
    m, s : ()       mean and standard deviation of log x
    coarse : bool   static
    """

    half: Array = eqx.field(converter=float32)
    m: Array = eqx.field(converter=float32)
    s: Array = eqx.field(converter=float32)
    coarse: bool = eqx.field(static=True)
    n_scale: ClassVar[int] = 1

    @property
    def n_params(self) -> int:
        return 2

    @property
    def n_shared(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1

    def log_prob(self, params: Array, cell: Array) -> Array:
        value, loc, sigma = cell[0], params[0], scale(params[1])
        if not self.coarse:
            return log_normal_density((value - loc) / sigma) - jnp.log(sigma)
        log_ratio = jnp.log(self.half) - (
            self.s * value + self.m
        )  # half / x: 1/2 on the lowest cell, then 1/4, ...
        lowest = log_ratio > math.log(0.4)
        ratio = jnp.exp(jnp.where(lowest, math.log(0.25), jnp.maximum(log_ratio, -30.0)))
        # log(x - half) and log(x + half) lie atanh(ratio) to either side of log x + log(1 - ratio^2) / 2
        centre = (value + 0.5 * jnp.log1p(-(ratio**2)) / self.s - loc) / sigma
        width = jnp.arctanh(ratio)
        ordinary = (
            log_normal_interval(centre, width / (self.s * sigma)) - jnp.log(sigma) + jnp.log(width / ratio)
        )
        upper = (value + softplus(log_ratio) / self.s - loc) / sigma
        below = log_normal_cdf(upper) + jnp.log(self.s) - math.log(2.0) - log_ratio
        return jnp.where(lowest, below, ordinary)

    def mean(self, params: Array) -> Array:
        """The median: the expected value of a wide log-normal law is far from all that was seen."""
        return params[:1]

    def draw(self, params: Array, key: Array) -> Array:
        return params[:1] + scale(params[1:]) * jax.random.normal(key, (1,), params.dtype)


class NegativeBinomial(Likelihood):
    """Counts with mean mu and variance mu + mu^2 / size; nats are those of the count's pmf.

    Parameters are `[shift, log size (shared)]`, mu = mean exp(shift); a cell is `[z]`, z of log(1 + count).

    Attributes
    ----------
    m, s : ()       mean and standard deviation of log(1 + count)
    log_mean : ()   log of the column's mean count
    """

    m: Array = eqx.field(converter=float32)
    s: Array = eqx.field(converter=float32)
    log_mean: Array = eqx.field(converter=float32)
    n_scale: ClassVar[int] = 0

    def __init__(self, m: Any, s: Any, mean: Any) -> None:
        self.m, self.s, self.log_mean = m, s, np.log(np.maximum(mean, 1e-3))

    @property
    def n_params(self) -> int:
        return 2

    @property
    def n_shared(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1

    def log_prob(self, params: Array, cell: Array) -> Array:
        count = jnp.maximum(jnp.round(jnp.expm1(self.s * cell[0] + self.m)), 0.0)
        return log_negative_binomial(count, *self._mean_and_size(params))

    def mean(self, params: Array) -> Array:
        """The expected count."""
        return (jnp.log1p(self._mean_and_size(params)[0])[None] - self.m) / self.s

    def draw(self, params: Array, key: Array) -> Array:
        rate_key, count_key = jax.random.split(key)
        mean, size = self._mean_and_size(params)
        rate = jax.random.gamma(rate_key, size, dtype=params.dtype) * (mean / size)
        count = jax.random.poisson(count_key, jnp.minimum(rate, 1e9)).astype(params.dtype)  # int32 inside
        return (jnp.log1p(count)[None] - self.m) / self.s

    def _mean_and_size(self, params: Array) -> tuple[Array, Array]:
        """The bounds keep squares of their ratio inside float32."""
        mean = jnp.exp(jnp.clip(self.log_mean + params[0], -25.0, 25.0))
        return mean, jnp.exp(jnp.clip(params[1], -12.0, 12.0))


class DiscretizedLogistic(Likelihood):
    """Levels 0..n_levels - 1 under a logistic law; the edge levels take the tails; nats are those of the pmf.

    Parameters are `[loc, raw scale]`, both in encoded units (the scale is the logistic's own, its standard
    deviation is pi / sqrt(3) times that); a cell is `[z]`, z = 2 level / (n_levels - 1) - 1.

    Attributes
    ----------
    n_levels : ()   how many levels, at least 2

    Source: Salimans et al. 2017, eq. 2, arXiv:1701.05517, with one component.
    """

    n_levels: Array = eqx.field(converter=float32)
    n_scale: ClassVar[int] = 1

    @property
    def n_params(self) -> int:
        return 2

    @property
    def n_shared(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1

    def log_prob(self, params: Array, cell: Array) -> Array:
        half = 1 / (self.n_levels - 1)
        sigma = scale(params[1])
        centre, width = (cell[0] - params[0]) / sigma, half / sigma
        lowest, highest = cell[0] < half - 1, cell[0] > 1 - half
        # sigmoid(u + w) - sigmoid(u - w) = sigmoid(u + w) sigmoid(w - u) (1 - exp(-2 w)) never cancels;
        # an edge level lacks the bound on its outer side; all corrections go through one logarithm
        below, above = centre + width, width - centre
        bound_below = jnp.where(highest, 0.0, jnp.minimum(below, 0.0))
        bound_above = jnp.where(lowest, 0.0, jnp.minimum(above, 0.0))
        spill_below = jnp.where(highest, 0.0, jnp.exp(-jnp.abs(below)))
        spill_above = jnp.where(lowest, 0.0, jnp.exp(-jnp.abs(above)))
        share = jnp.where(lowest | highest, 1.0, -jnp.expm1(-2 * width))
        return bound_below + bound_above + jnp.log(share / ((1 + spill_below) * (1 + spill_above)))

    def mean(self, params: Array) -> Array:
        """The median, inside the range."""
        return jnp.clip(params[:1], -1.0, 1.0)

    def draw(self, params: Array, key: Array) -> Array:
        value = params[:1] + scale(params[1:]) * jax.random.logistic(key, (1,), params.dtype)
        level = jnp.clip(jnp.round((value + 1) / 2 * (self.n_levels - 1)), 0.0, self.n_levels - 1)
        return 2 * level / (self.n_levels - 1) - 1


def _log_parts(params: Array) -> Array:
    """Log-probabilities of [the continuous part, atoms...]; the continuous part's logit is 0."""
    return log_softmax(jnp.concatenate([jnp.zeros(1, params.dtype), params[1:-1]]))
