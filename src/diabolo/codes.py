"""Distributions of codes: what an encoder says of a row's, and the parts of a prior."""

from __future__ import annotations

import math
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo import matrices

__all__ = [
    "DiagonalGaussian",
    "FullGaussian",
    "Gaussians",
    "Posterior",
    "WhitenedGaussian",
]

_LOG_TWO_PI = math.log(2.0 * math.pi)


class Gaussians(Protocol):
    """Gaussians side by side, each with its own law.

    `mean` is (n, n_components); `frame()` gives the map of unit noise, its inverse and the spreads between. `log_prob`
    takes a code for each Gaussian, `log_prob_of_all` any codes, each under every Gaussian.
    """

    mean: Array

    def draw_one(self, key: Array) -> Array: ...

    def log_prob(self, codes: Array) -> Array: ...

    def log_prob_of_all(self, codes: Array) -> Array: ...

    def variance(self) -> Array: ...

    def frame(self) -> tuple[Array, Array, Array]: ...


class Posterior(Gaussians, Protocol):
    """A Gaussian per row, q(z | x): what an encoder says of a code."""

    def to_normal(self) -> Array: ...


class DiagonalGaussian(eqx.Module):
    """Independent Gaussians, one per component of the code.

    Attributes
    ----------
    mean, log_scale : (n_rows, n_components)
    """

    mean: Array
    log_scale: Array

    def draw_one(self, key: Array) -> Array:
        """One draw per row by reparameterisation (Kingma & Welling 2014, section 2.4): (n_rows, n_components)."""
        return self.mean + jnp.exp(self.log_scale) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, codes: Array) -> Array:
        """Log-density of one code per row, (n_rows, n_components) to (n_rows,) nats."""
        white = (codes - self.mean) * jnp.exp(-self.log_scale)
        return -jnp.sum(0.5 * white**2 + self.log_scale + 0.5 * _LOG_TWO_PI, axis=-1)

    def log_prob_of_all(self, codes: Array) -> Array:
        """Log-density of every code under every Gaussian, (n_codes, n_components) to (n_codes, n) nats."""
        distance = lax.platform_dependent(
            codes, self.mean, jnp.exp(-self.log_scale), cpu=_by_component, default=_at_once
        )
        return -0.5 * distance - jnp.sum(self.log_scale + 0.5 * _LOG_TWO_PI, axis=-1)

    def variance(self) -> Array:
        """(n_rows, n_components)."""
        return jnp.exp(2.0 * self.log_scale)

    def divergence(self) -> Array:
        """KL to the standard normal, per component, nats: (n_rows, n_components).

        Source: Kingma & Welling 2014, appendix B, arXiv:1312.6114.
        """
        return 0.5 * (self.mean**2 + jnp.exp(2.0 * self.log_scale) - 1.0) - self.log_scale

    def divergence_to(self, other: DiagonalGaussian) -> Array:
        """KL to another of these, per component, nats: (n_rows, n_components)."""
        ratio = jnp.exp(2.0 * (self.log_scale - other.log_scale))
        distance = ((self.mean - other.mean) * jnp.exp(-other.log_scale)) ** 2
        return 0.5 * (distance + ratio - 1.0) - (self.log_scale - other.log_scale)

    def times(self, other: DiagonalGaussian) -> DiagonalGaussian:
        """The product of both densities, normalised: precisions add, means are weighed by them.

        Source: Sønderby et al. 2016, eqs. 18 and 19, arXiv:1602.02282.
        """
        one, two = jnp.exp(-2.0 * self.log_scale), jnp.exp(-2.0 * other.log_scale)
        precision = one + two
        return DiagonalGaussian((one * self.mean + two * other.mean) / precision, -0.5 * jnp.log(precision))

    def to_normal(self) -> Array:
        """KL to the standard normal: (n_rows,) nats."""
        return jnp.sum(self.divergence(), axis=-1)

    def frame(self) -> tuple[Array, Array, Array]:
        n_rows, n_components = self.mean.shape
        axes = jnp.broadcast_to(jnp.eye(n_components), (n_rows, n_components, n_components))
        return axes, axes, jnp.exp(self.log_scale)


def _at_once(codes: Array, mean: Array, root: Array) -> Array:
    """Squared distances of all codes to all means, each component by its own measure: (n_codes, n)."""
    return jnp.sum(((codes[:, None] - mean) * root) ** 2, axis=-1)


def _by_component(codes: Array, mean: Array, root: Array) -> Array:
    """The same: for 128 codes, 500 means and 40 components 2.6 ms of a processor with its gradient, at once 30."""

    @jax.checkpoint
    def add(total: Array, component: tuple[Array, Array, Array]) -> tuple[Array, None]:
        code, centre, measure = component
        return total + ((code[:, None] - centre) * measure) ** 2, None

    start = jnp.zeros((len(codes), len(mean)), codes.dtype)
    return lax.scan(add, start, (codes.T, mean.T, root.T))[0]


def _one_by_one(parts: Gaussians, codes: Array) -> Array:
    """Log-density of every code under every Gaussian, where their covariances are no diagonals."""
    return jax.vmap(lambda code: parts.log_prob(jnp.broadcast_to(code, parts.mean.shape)))(codes)


class FullGaussian(eqx.Module):
    """Gaussians whose components hang together: z = mean + T (scale · noise), T unit lower triangular.

    Every covariance is T diag(scale²) Tᵀ for one such T (its LDL decomposition).

    Attributes
    ----------
    mean, log_scale : (n_rows, n_components)
    tilt : (n_rows, n_components, n_components), T less the identity: zero on the diagonal and above
    """

    mean: Array
    log_scale: Array
    tilt: Array

    @staticmethod
    def n_tilts(n_components: int) -> int:
        """Free numbers of T."""
        return n_components * (n_components - 1) // 2

    @classmethod
    def of(cls, mean: Array, log_scale: Array, tilts: Array) -> FullGaussian:
        """From the tilts line by line, (n_rows, n_tilts)."""
        n_components = mean.shape[1]
        below = np.tril_indices(n_components, -1)
        square = jnp.zeros((*mean.shape, n_components), mean.dtype)
        return cls(mean, log_scale, square.at[:, below[0], below[1]].set(tilts))

    def draw_one(self, key: Array) -> Array:
        """One draw per row by reparameterisation: (n_rows, n_components)."""
        noise = jnp.exp(self.log_scale) * jax.random.normal(key, self.mean.shape)
        return self.mean + noise + jnp.einsum("nkl,nl->nk", self.tilt, noise)

    def log_prob(self, codes: Array) -> Array:
        """Log-density of one code per row, (n_rows, n_components) to (n_rows,) nats."""
        steps = matrices.forward(self._whole(), (codes - self.mean)[:, :, None])[:, :, 0]
        white = steps * jnp.exp(-self.log_scale)
        return -jnp.sum(0.5 * white**2 + self.log_scale + 0.5 * _LOG_TWO_PI, axis=-1)

    def log_prob_of_all(self, codes: Array) -> Array:
        """Log-density of every code under every Gaussian, (n_codes, n_components) to (n_codes, n) nats."""
        return _one_by_one(self, codes)

    def variance(self) -> Array:
        """Of each component by itself: (n_rows, n_components)."""
        within = jnp.exp(2.0 * self.log_scale)
        return within + jnp.einsum("nkl,nl->nk", self.tilt**2, within)

    def divergence(self) -> Array:
        """KL of each component by itself to the standard normal, nats: (n_rows, n_components).

        Their sum is less than `to_normal` by what the components tell of each other.
        """
        variance = self.variance()
        return 0.5 * (self.mean**2 + variance - 1.0 - jnp.log(variance))

    def to_normal(self) -> Array:
        """KL to the standard normal: (n_rows,) nats."""
        return jnp.sum(0.5 * (self.mean**2 + self.variance() - 1.0) - self.log_scale, axis=-1)

    def frame(self) -> tuple[Array, Array, Array]:
        unit = jnp.broadcast_to(jnp.eye(self.mean.shape[1]), self.tilt.shape)
        return self._whole(), matrices.forward(self._whole(), unit), jnp.exp(self.log_scale)

    def _whole(self) -> Array:
        """T: (n_rows, n_components, n_components)."""
        return self.tilt + jnp.eye(self.mean.shape[1])


class WhitenedGaussian(eqx.Module):
    """Gaussians of covariances that are known, not trained: z = mean + L · noise.

    Attributes
    ----------
    mean : (n, n_components)
    factor : (n, n_components, n_components), L, lower Cholesky factors of the covariances
    whitener : (n, n_components, n_components), their inverses, known once for all readings
    """

    mean: Array
    factor: Array
    whitener: Array

    def draw_one(self, key: Array) -> Array:
        """One draw of each: (n, n_components)."""
        return self.mean + jnp.einsum("nkl,nl->nk", self.factor, jax.random.normal(key, self.mean.shape))

    def log_prob(self, codes: Array) -> Array:
        """Log-density of one code under each, (n, n_components) to (n,) nats."""
        white = jnp.einsum("nkl,nl->nk", self.whitener, codes - self.mean)
        log_peak = jnp.sum(jnp.log(jnp.diagonal(self.whitener, axis1=1, axis2=2)), axis=1)
        return log_peak - 0.5 * jnp.sum(white**2, axis=1) - 0.5 * self.mean.shape[1] * _LOG_TWO_PI

    def log_prob_of_all(self, codes: Array) -> Array:
        """Log-density of every code under every Gaussian, (n_codes, n_components) to (n_codes, n) nats."""
        return _one_by_one(self, codes)

    def variance(self) -> Array:
        """(n, n_components)."""
        return jnp.sum(self.factor**2, axis=2)

    def frame(self) -> tuple[Array, Array, Array]:
        spread = jnp.diagonal(self.factor, axis1=1, axis2=2)
        return self.factor / spread[:, None], self.whitener * spread[:, :, None], spread
