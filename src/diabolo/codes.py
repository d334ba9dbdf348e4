"""Distributions of a row's code: what an encoder says, and what importance sampling proposes."""

from __future__ import annotations

import math
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["DiagonalGaussian", "DrawsCodes", "LocalStrata"]

_LOG_TWO_PI = math.log(2.0 * math.pi)


class DrawsCodes(Protocol):
    """A distribution of codes, one for all rows."""

    def draw(self, key: Array, n: int) -> Array: ...

    def log_prob(self, codes: Array) -> Array: ...


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

    def divergence(self) -> Array:
        """KL to the standard normal, per component, nats: (n_rows, n_components).

        Source: Kingma & Welling 2014, appendix B, arXiv:1312.6114.
        """
        return 0.5 * (self.mean**2 + jnp.exp(2.0 * self.log_scale) - 1.0) - self.log_scale


class LocalStrata(eqx.Module):
    """Gaussians of several widths around one point, and the prior: a fixed number of draws from each (stratified).

    All draws are weighed by the density of the whole mixture, in the proportions actually drawn, so that a stratum
    that misses the target costs little: deterministic mixture sampling (Owen & Zhou 2000; the balance heuristic of
    Veach & Guibas 1995).

    Attributes
    ----------
    mean : (n_rows, n_components)
    axes : (n_rows, n_components, n_components), orthonormal columns: the covariance's principal axes
    spread : (n_rows, n_components), standard deviations along them at width 1
    prior : what `draw(key, n)` and `log_prob(codes)` belong to
    widths : multiples of the spread, one per local stratum
    shares : their shares of the draws; the rest goes to the prior
    """

    mean: Array
    axes: Array
    spread: Array
    prior: DrawsCodes
    widths: tuple[float, ...] = eqx.field(static=True)
    shares: tuple[float, ...] = eqx.field(static=True)

    def counts(self, n_draws: int) -> tuple[int, ...]:
        """Whole draws per stratum, in order, the prior's last."""
        edges = np.rint(np.cumsum(self.shares) * n_draws).astype(int)
        return tuple(int(n) for n in np.diff([0, *edges, n_draws]))

    def draw(self, keys: Array, n_draws: int) -> tuple[Array, Array]:
        """Draws for importance sampling, stratum by stratum.

        Parameters
        ----------
        keys : (n_rows,) one random key per row

        Returns
        -------
        codes : (n_rows, n_draws, n_components)
        log_q : (n_rows, n_draws) nats
        """
        return jax.vmap(lambda *row: self._draw_row(*row, n_draws))(keys, self.mean, self.axes, self.spread)

    def _draw_row(
        self, key: Array, mean: Array, axes: Array, spread: Array, n_draws: int
    ) -> tuple[Array, Array]:
        *n_local, n_prior = self.counts(n_draws)
        key_local, key_prior = jax.random.split(key)
        n_components = len(mean)
        noise = jax.random.normal(key_local, (n_draws - n_prior, n_components))
        width = np.repeat(np.asarray(self.widths, np.float32), n_local)
        local = mean + (width[:, None] * noise * spread) @ axes.T
        codes = jnp.concatenate([local, self.prior.draw(key_prior, n_prior)])
        return codes, self._log_prob_row(codes, mean, axes, spread, (*n_local, n_prior))

    def log_prob(self, codes: Array, n_draws: int) -> Array:
        """Log-density of codes (n_rows, n, n_components) under the mixture of `n_draws` draws: (n_rows, n) nats."""
        counts = self.counts(n_draws)
        return jax.vmap(lambda *row: self._log_prob_row(*row, counts))(
            codes, self.mean, self.axes, self.spread
        )

    def _log_prob_row(
        self, codes: Array, mean: Array, axes: Array, spread: Array, counts: tuple[int, ...]
    ) -> Array:
        *n_local, n_prior = counts
        n_draws, n_components = sum(counts), len(mean)
        unit = -0.5 * jnp.sum(((codes - mean) @ axes / spread) ** 2, axis=1)
        log_peak = -jnp.sum(jnp.log(spread)) - 0.5 * n_components * _LOG_TWO_PI
        parts = [
            math.log(n / n_draws) + unit / w**2 + log_peak - n_components * math.log(w)
            for w, n in zip(self.widths, n_local, strict=True)
            if n
        ]
        if n_prior:
            parts.append(math.log(n_prior / n_draws) + self.prior.log_prob(codes))
        return jax.nn.logsumexp(jnp.stack(parts), axis=0)
