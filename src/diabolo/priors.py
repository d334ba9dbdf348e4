"""Priors on the code: what `sample` draws from and what a density is weighed by."""

from __future__ import annotations

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

__all__ = ["MAX_ROWS", "MixturePrior", "StandardNormal"]

MAX_ROWS = 10_000  # more rows move a mixture of 16 Gaussians by less than its own sampling error
_SIZES = (1, 2, 4, 8, 16)


class StandardNormal(eqx.Module):
    """Independent unit Gaussians."""

    n_components: int = eqx.field(static=True)

    def log_prob(self, codes: Array) -> Array:
        """(n, n_components) to (n,) nats."""
        return -0.5 * jnp.sum(codes**2, -1) - 0.5 * self.n_components * math.log(2.0 * math.pi)

    def draw(self, key: Array, n: int) -> Array:
        """(n, n_components)."""
        return jax.random.normal(key, (n, self.n_components))


class MixturePrior(eqx.Module):
    """A Gaussian mixture with full covariances, always padded to 16 so that every fit has one shape.

    Attributes
    ----------
    log_weights : (16,), -inf for the padding
    means : (16, n_components)
    factors : (16, n_components, n_components), lower Cholesky factors of the covariances
    whiteners : (16, n_components, n_components), their inverses
    """

    log_weights: Array
    means: Array
    factors: Array
    whiteners: Array  # kept, for XLA's CPU solvers can wait for each other for ever when two run at once (jaxlib 0.10)

    @classmethod
    def standard(cls, n_components: int) -> MixturePrior:
        """One unit Gaussian: the shape that a fitted prior will have."""
        n_max = max(_SIZES)
        log_weights = np.full(n_max, -np.inf, np.float32)
        log_weights[0] = 0.0
        unit = np.broadcast_to(np.eye(n_components, dtype=np.float32), (n_max, n_components, n_components))
        means = np.zeros((n_max, n_components), np.float32)
        return cls(log_weights, means, unit.copy(), unit.copy())  # type: ignore[arg-type]

    @classmethod
    def fitted(cls, codes: np.ndarray, seed: int) -> MixturePrior:
        """Fit scikit-learn's Gaussian mixture, its size chosen by BIC.

        Parameters
        ----------
        codes : (n_rows, n_components)
        seed : of the mixture's starts

        The size grows in powers of two until the criterion rises. A covariance never falls below 1e-4 of the
        codes' mean variance, so that codes on a thin sheet, or a single row, still have a density.
        """
        codes = np.asarray(codes, np.float64)
        if len(codes) > MAX_ROWS:
            codes = codes[np.random.default_rng(seed).choice(len(codes), MAX_ROWS, replace=False)]
        floor = max(1e-4 * float(np.mean(codes.var(axis=0))), 1e-8)
        n_components = codes.shape[1]
        n_free = n_components + n_components * (n_components + 1) // 2
        best, best_criterion = None, np.inf
        for size in _SIZES:
            if size > 1 and size * n_free > len(codes):
                break
            mixture = GaussianMixture(size, reg_covar=floor, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(codes if len(codes) > 1 else np.repeat(codes, 2, axis=0))
            criterion = mixture.bic(codes)
            if criterion >= best_criterion:
                break
            best, best_criterion = mixture, criterion
        prior = cls.standard(n_components)
        if best is None:
            return prior
        size = best.n_components
        prior.log_weights[:size] = np.log(best.weights_)
        prior.log_weights[size:] = -np.inf
        prior.means[:size] = best.means_
        prior.factors[:size] = np.linalg.cholesky(best.covariances_)
        prior.whiteners[:size] = np.swapaxes(best.precisions_cholesky_, 1, 2)
        return prior

    @property
    def size(self) -> int:
        """How many Gaussians it truly has."""
        return int(np.sum(np.isfinite(np.asarray(self.log_weights))))

    def log_prob(self, codes: Array) -> Array:
        """(n, n_components) to (n,) nats."""
        away = codes[:, None] - self.means  # (n, 16, n_components)
        white = jnp.einsum("skl,nsl->nsk", self.whiteners, away)
        log_peaks = jnp.sum(jnp.log(jnp.diagonal(self.whiteners, axis1=1, axis2=2)), axis=1)
        each = log_peaks - 0.5 * jnp.sum(white**2, axis=2) - 0.5 * codes.shape[1] * math.log(2.0 * math.pi)
        return jax.nn.logsumexp(each + self.log_weights, axis=1)

    def draw(self, key: Array, n: int) -> Array:
        """(n, n_components)."""
        choose, move = jax.random.split(key)
        chosen = jax.random.categorical(choose, self.log_weights, shape=(n,))
        noise = jax.random.normal(move, (n, self.means.shape[1]))
        return self.means[chosen] + jnp.einsum("nkl,nl->nk", self.factors[chosen], noise)

    def moments(self) -> tuple[Array, Array]:
        """Mean and variances of the whole mixture: (n_components,) each."""
        weights = jnp.exp(self.log_weights)
        mean = weights @ self.means
        within = jnp.einsum("s,skl->k", weights, self.factors**2)
        return mean, within + weights @ (self.means - mean) ** 2
