"""Where importance sampling looks for codes that explain a row: around what is said of it, and in the prior."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["DrawsCodes", "ExploredStrata", "LocalStrata", "Placed"]

_LOG_TWO_PI = math.log(2.0 * math.pi)


class DrawsCodes(Protocol):
    """A distribution of codes, one for all rows."""

    def draw(self, key: Array, n: int) -> Array: ...

    def log_prob(self, codes: Array) -> Array: ...

    def moments(self) -> tuple[Array, Array]: ...


class LocalStrata(eqx.Module):
    """Gaussians of several widths around one point, and the prior: a fixed number of draws from each (stratified).

    All draws are weighed by the density of the whole mixture, in the proportions actually drawn, so that a stratum
    that misses the target costs little: deterministic mixture sampling (Owen & Zhou 2000; the balance heuristic of
    Veach & Guibas 1995).

    Attributes
    ----------
    mean : (n_rows, n_components)
    axes : (n_rows, n_components, n_components), of determinant 1: the directions of independent noise, as columns
    inverse : (n_rows, n_components, n_components), of the axes
    spread : (n_rows, n_components), standard deviations along them at width 1
    prior : what `draw(key, n)` and `log_prob(codes)` belong to
    widths : multiples of the spread, one per local stratum
    shares : their shares of the draws; the rest goes to the prior
    """

    mean: Array
    axes: Array
    inverse: Array
    spread: Array
    prior: DrawsCodes
    widths: tuple[float, ...] = eqx.field(static=True)
    shares: tuple[float, ...] = eqx.field(static=True)

    def counts(self, n_draws: int) -> tuple[int, ...]:
        """Whole draws per stratum, in order, the prior's last."""
        return whole_draws(self.shares, n_draws)

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
        frame = (self.mean, self.axes, self.inverse, self.spread)
        return jax.vmap(lambda *row: self._draw_row(*row, n_draws))(keys, *frame)

    def _draw_row(
        self, key: Array, mean: Array, axes: Array, inverse: Array, spread: Array, n_draws: int
    ) -> tuple[Array, Array]:
        *n_local, n_prior = self.counts(n_draws)
        key_local, key_prior = jax.random.split(key)
        n_components = len(mean)
        noise = jax.random.normal(key_local, (n_draws - n_prior, n_components))
        width = np.repeat(np.asarray(self.widths, np.float32), n_local)
        local = mean + (width[:, None] * noise * spread) @ axes.T
        codes = jnp.concatenate([local, self.prior.draw(key_prior, n_prior)])
        return codes, self._log_prob_row(codes, mean, inverse, spread, (*n_local, n_prior))

    def log_prob(self, codes: Array, n_draws: int) -> Array:
        """Log-density of codes (n_rows, n, n_components) under the mixture of `n_draws` draws: (n_rows, n) nats."""
        counts = self.counts(n_draws)
        return jax.vmap(lambda *row: self._log_prob_row(*row, counts))(
            codes, self.mean, self.inverse, self.spread
        )

    def _log_prob_row(
        self, codes: Array, mean: Array, inverse: Array, spread: Array, counts: tuple[int, ...]
    ) -> Array:
        distance = jnp.sum(((codes - mean) @ inverse.T / spread) ** 2, axis=1)
        log_volume = jnp.sum(jnp.log(spread))
        return log_of_strata(distance, log_volume, len(mean), self.widths, counts, self.prior.log_prob(codes))


class Explorer(Protocol):
    """A model whose code is explored step by step: a level, or a label, and then what depends on it."""

    def explore(self, evidence: Any, key: Array, widths: Array) -> Array:
        """Codes (n, n_components) that one row's evidence suggests, at (n, 1) multiples of its spreads."""
        ...

    def placed(self, evidence: Any, codes: Array) -> Placed:
        """Where codes (n, n_components) lie as one row's evidence sees them."""
        ...

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]: ...

    def join(self, codes: dict[str, Array]) -> Array: ...


class Placed(NamedTuple):
    """Codes in the eyes of one row's evidence.

    distance : (n,) squared distance of the continuous parts from their means, in spreads
    log_volume : (n,) sum of the logs of these spreads
    n_components : of the continuous parts
    log_choice : (n,) or (), log-probability of the discrete parts, nats
    log_prior : (n,) nats
    log_known : (n,) or (), log p of what the row is known to be of the discrete parts, nats: the weights are then those
        of p(x | that); inf where a code is of something else, and weighs nothing
    """

    distance: Array
    log_volume: Array
    n_components: int
    log_choice: Array
    log_prior: Array
    log_known: Array


class ExploredStrata(eqx.Module):
    """`LocalStrata` for a code whose parts depend on each other: the model explores it from what each row says.

    Attributes
    ----------
    model : the explorer
    evidence : what the rows say, a tree of arrays with a first axis of rows
    widths, shares : as of `LocalStrata`
    """

    model: Explorer
    evidence: Any
    widths: tuple[float, ...] = eqx.field(static=True)
    shares: tuple[float, ...] = eqx.field(static=True)

    def counts(self, n_draws: int) -> tuple[int, ...]:
        """Whole draws per stratum, in order, the prior's last."""
        return whole_draws(self.shares, n_draws)

    def draw(self, keys: Array, n_draws: int) -> tuple[Array, Array]:
        """One key per row to codes (n_rows, n_draws, n_components) and their log_q (n_rows, n_draws), nats."""
        counts = self.counts(n_draws)
        widths = np.repeat(np.asarray(self.widths, np.float32), counts[:-1])[:, None]

        def of_row(key: Array, evidence: Any) -> tuple[Array, Array]:
            key_local, key_prior = jax.random.split(key)
            local = self.model.explore(evidence, key_local, widths)
            codes = jnp.concatenate([local, self.model.join(self.model.draw_prior(key_prior, counts[-1]))])
            return codes, self._log_prob_row(codes, evidence, counts)

        return jax.vmap(of_row)(keys, self.evidence)

    def log_prob(self, codes: Array, n_draws: int) -> Array:
        """log_q of any codes (n_rows, n, n_components), of `n_draws` draws' proportions: (n_rows, n) nats."""
        counts = self.counts(n_draws)
        return jax.vmap(lambda *row: self._log_prob_row(*row, counts))(codes, self.evidence)

    def _log_prob_row(self, codes: Array, evidence: Any, counts: tuple[int, ...]) -> Array:
        seen = self.model.placed(evidence, codes)
        log_prior = seen.log_prior - seen.log_choice
        whole = log_of_strata(
            seen.distance, seen.log_volume, seen.n_components, self.widths, counts, log_prior
        )
        return whole + seen.log_choice + seen.log_known


def whole_draws(shares: tuple[float, ...], n_draws: int) -> tuple[int, ...]:
    """Of `n_draws`, how many belong to each share, in order, and how many are left."""
    edges = np.rint(np.cumsum(shares) * n_draws).astype(int)
    return tuple(int(n) for n in np.diff([0, *edges, n_draws]))


def log_of_strata(
    distance: Array,
    log_volume: Array,
    n_components: int,
    widths: tuple[float, ...],
    counts: tuple[int, ...],
    log_prior: Array,
) -> Array:
    """Log-density of codes under Gaussians of several widths and the prior, in the proportions drawn: (n,) nats.

    Parameters
    ----------
    distance : (n,) squared distance of each code from the Gaussian's mean, in its spreads at width 1
    log_volume : (n,) or (), sum of the logs of these spreads
    widths, counts : of the strata; the last of the counts is the prior's
    log_prior : (n,) nats
    """
    *n_local, n_prior = counts
    n_draws, log_peak = sum(counts), -log_volume - 0.5 * n_components * _LOG_TWO_PI
    parts = [
        math.log(n / n_draws) - 0.5 * distance / w**2 + log_peak - n_components * math.log(w)
        for w, n in zip(widths, n_local, strict=True)
        if n
    ]
    if n_prior:
        parts.append(math.log(n_prior / n_draws) + log_prior)
    return jax.nn.logsumexp(jnp.stack(parts), axis=0)
