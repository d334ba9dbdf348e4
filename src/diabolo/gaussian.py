"""A Gaussian fitted to rows with gaps, and what it says of the missing cells given the others."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.matrices import times

__all__ = ["Gaussian"]

_N_ROUNDS = 20  # of expectation-maximisation, which is only a start and a proposal
_SETTLED = 1e-3  # change of means, spreads and correlations in a round that is the last one
_MAX_PATTERNS = 1000  # of gaps, the rarer ones left out
_FLOOR = 1e-4  # added to every variance: no direction is thinner than a hundredth of a spread
# of draws for gaps: most a little wider than the Gaussian, some much wider, for tails and for other clusters
_WIDTHS, _SHARES = (1.1, 3.0), (0.75, 0.25)


class Gaussian(eqx.Module):
    """A normal law of rows (n_columns,).

    Attributes
    ----------
    mean : (n_columns,)
    factor : (n_columns, n_columns), lower triangular, its square the covariance
    whitener : the factor's inverse
    """

    mean: Array
    factor: Array
    whitener: Array

    @classmethod
    def standard(cls, n_columns: int) -> Gaussian:
        eye = np.eye(n_columns, dtype=np.float32)
        return cls(np.zeros(n_columns, np.float32), eye.copy(), eye.copy())  # type: ignore[arg-type]

    @classmethod
    def fitted(cls, rows: np.ndarray) -> Gaussian:
        """Of greatest likelihood, drawn towards unit spreads by one row's worth.

        Parameters
        ----------
        rows : (n_rows, n_columns) float64, nan for gaps

        Source: expectation-maximisation for a normal law with gaps, Little & Rubin 2002, section 11.2.
        """
        n_rows, n_columns = rows.shape
        seen = ~np.isnan(rows)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, rows, 0.0).sum(axis=0) / count
        eye = np.eye(n_columns)
        covariance = np.diag(((np.where(seen, rows - mean, 0.0) ** 2).sum(axis=0) + 1.0) / (count + 1.0))
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
        if len(patterns) > _MAX_PATTERNS:  # each costs a system of its own: those that most rows have will do
            common = np.argsort(-np.bincount(which.ravel()), kind="stable")[:_MAX_PATTERNS]
            return cls.fitted(rows[np.isin(which.ravel(), common)])
        groups = [(pattern, np.flatnonzero(which.ravel() == i)) for i, pattern in enumerate(patterns)]
        for _ in range(1 if seen.all() else _N_ROUNDS):
            filled, extra = np.where(seen, rows, mean), np.zeros((n_columns, n_columns))
            for pattern, here in groups:
                if pattern.all():
                    continue
                at_gaps = np.ix_(~pattern, ~pattern)
                across = covariance[np.ix_(~pattern, pattern)]
                slope = np.linalg.solve(covariance[np.ix_(pattern, pattern)], across.T).T
                filled[np.ix_(here, ~pattern)] += (rows[np.ix_(here, pattern)] - mean[pattern]) @ slope.T
                extra[at_gaps] += len(here) * (covariance[at_gaps] - slope @ across.T)
            before, mean = mean, filled.mean(axis=0)
            scatter = (filled - mean).T @ (filled - mean) + extra
            old, covariance = covariance, (scatter + eye) / (n_rows + 1.0) + _FLOOR * eye
            spread = np.sqrt(np.diagonal(covariance))
            moved = np.abs(covariance - old) / np.outer(spread, spread)
            if max(moved.max(initial=0.0), (np.abs(mean - before) / spread).max(initial=0.0)) < _SETTLED:
                break
        factor = np.linalg.cholesky(covariance)
        parts = (mean, factor, np.linalg.inv(factor))
        return cls(*(part.astype(np.float32) for part in parts))  # type: ignore[arg-type]

    def whiten(self, rows: Array) -> tuple[Array, Array]:
        """(n, n_columns) to standard coordinates and the log-determinant, ()."""
        return times(rows - self.mean, self.whitener.T), jnp.sum(
            jnp.log(jnp.abs(jnp.diagonal(self.whitener)))
        )

    def colour(self, rows: Array) -> Array:
        """The inverse of `whiten`."""
        return times(rows, self.factor.T) + self.mean

    def fill(self, rows: Array, observed: Array, noise: Array, uniform: Array) -> tuple[Array, Array]:
        """Draw one row's missing cells given its others.

        Parameters
        ----------
        rows : (n_draws, n_columns), its other cells as each draw has them
        observed : (n_columns,) bool, the same for all
        noise : (n_draws, n_columns) standard normal; zeros give the conditional mean
        uniform : (n_draws,), which of the widths a draw has

        Returns
        -------
        (n_draws, n_columns) with the gaps filled, and log q of what was filled in, (n_draws,) nats

        Draws are a joint draw moved by its own error in predicting the observed cells (Journel & Huijbregts 1978,
        section VII.A.1), so that no covariance of each row's pattern has to be factored.
        """
        missing = ~observed
        precision = times(self.whitener.T, self.whitener)
        # swept over the gaps: -(precision of the gaps)^-1 among them, and minus the slopes on the others beside
        swept, log_det = _sweep(precision, missing)
        slopes = -swept * missing[:, None] * observed[None, :]
        centred = jnp.where(observed, rows - self.mean, 0.0)
        joint = times(noise, self.factor.T)
        apart = jnp.where(missing, joint - times(joint * observed, slopes.T), 0.0)
        bounds = np.cumsum(_SHARES)[:-1]
        width = jnp.asarray(_WIDTHS)[jnp.searchsorted(jnp.asarray(bounds), uniform)]
        apart = apart * width[:, None]
        filled = jnp.where(observed, rows, self.mean + times(centred, slopes.T) + apart)
        square = jnp.sum(times(apart, self.whitener.T) ** 2, axis=1)[:, None]
        n_missing = jnp.sum(missing)
        widths = jnp.asarray(_WIDTHS)
        parts = jnp.log(jnp.asarray(_SHARES)) - 0.5 * square / widths**2 - n_missing * jnp.log(widths)
        constant = 0.5 * (log_det - n_missing * math.log(2 * math.pi))
        return filled, jax.nn.logsumexp(parts, axis=1) + constant


def _sweep(matrix: Array, chosen: Array) -> tuple[Array, Array]:
    """Sweep a symmetric matrix (k, k) over the chosen places; log of the determinant of their block.

    Source: Goodnight 1979, "A tutorial on the sweep operator", section 2, with the sign of Dempster 1969: chosen
    blocks turn into minus their inverse, so that what is swept stays symmetric.
    """

    def step(k: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        held, log_det = carry
        pivot, row = held[k, k], held[k]
        swept = held - jnp.outer(row, row) / pivot
        swept = swept.at[k].set(row / pivot).at[:, k].set(row / pivot).at[k, k].set(-1.0 / pivot)
        return jnp.where(chosen[k], swept, held), log_det + jnp.where(chosen[k], jnp.log(pivot), 0.0)

    if not len(matrix):
        return matrix, jnp.zeros(())
    return jax.lax.fori_loop(0, len(matrix), step, (matrix, jnp.zeros(())))
