"""Priors on the code: what `sample` draws from and what a density is weighed by."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from diabolo.codes import DiagonalGaussian, Gaussians, Posterior, WhitenedGaussian
from diabolo.keys import host_generator

__all__ = ["MAX_ROWS", "FlowPrior", "Mixture", "PseudoInputs", "StandardNormal"]

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

    def moments(self) -> tuple[Array, Array]:
        """Mean and variances: (n_components,) each."""
        return jnp.zeros(self.n_components), jnp.ones(self.n_components)


class Mixture(eqx.Module):
    """Gaussians weighed and added: fitted to codes, moved by training, or the encoder's answers to pseudo-inputs.

    Attributes
    ----------
    parts : n_parts Gaussians
    logits : (n_parts,), log weights up to a constant; -inf for padding
    """

    parts: Gaussians
    logits: Array

    @classmethod
    def starting(cls, n_parts: int, n_components: int, key: Array) -> Mixture:
        """Wide Gaussians around draws of the standard normal, in equal parts, for training to move."""
        means = host_generator(key).normal(size=(n_parts, n_components)).astype(np.float32)
        parts = DiagonalGaussian(means, np.zeros_like(means))  # type: ignore[arg-type]
        return cls(parts, np.zeros(n_parts, np.float32))  # type: ignore[arg-type]

    @classmethod
    def standard(cls, n_components: int) -> Mixture:
        """One unit Gaussian, padded to 16: the shape that a fitted mixture will have, whatever its size."""
        n_max = max(_SIZES)
        logits = np.full(n_max, -np.inf, np.float32)
        logits[0] = 0.0
        unit = np.broadcast_to(np.eye(n_components, dtype=np.float32), (n_max, n_components, n_components))
        means = np.zeros((n_max, n_components), np.float32)
        return cls(WhitenedGaussian(means, unit.copy(), unit.copy()), logits)  # type: ignore[arg-type]

    @classmethod
    def fitted(cls, codes: np.ndarray, seed: int) -> Mixture:
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
        size, parts = best.n_components, prior.parts
        assert isinstance(parts, WhitenedGaussian)
        prior.logits[:size] = np.log(best.weights_)
        parts.mean[:size] = best.means_
        parts.factor[:size] = np.linalg.cholesky(best.covariances_)
        parts.whitener[:size] = np.swapaxes(best.precisions_cholesky_, 1, 2)
        return prior

    def log_prob(self, codes: Array) -> Array:
        """(n, n_components) to (n,) nats."""
        return jax.nn.logsumexp(self.parts.log_prob_of_all(codes) + jax.nn.log_softmax(self.logits), axis=1)

    def draw(self, key: Array, n: int) -> Array:
        """(n, n_components)."""
        choose, move = jax.random.split(key)
        chosen = jax.random.categorical(choose, self.logits, shape=(n,))
        return jax.tree.map(lambda leaf: leaf[chosen], self.parts).draw_one(move)

    def moments(self) -> tuple[Array, Array]:
        """Mean and variances of the whole mixture: (n_components,) each."""
        weights = jax.nn.softmax(self.logits)
        mean = weights @ self.parts.mean
        return mean, weights @ (self.parts.variance() + (self.parts.mean - mean) ** 2)


class PseudoInputs(eqx.Module):
    """Rows that training moves: the encoder's answers to them, in equal parts, are the prior (VampPrior).

    Attributes
    ----------
    inputs : (n_parts, n_inputs), as the encoder takes them

    Source: Tomczak & Welling 2018, eq. 9, arXiv:1705.07120.
    """

    inputs: Array

    @classmethod
    def starting(cls, n_parts: int, n_inputs: int, key: Array) -> PseudoInputs:
        return cls(host_generator(key).normal(size=(n_parts, n_inputs)).astype(np.float32))  # type: ignore[arg-type]

    def mixture(self, answers: Posterior) -> Mixture:
        """The prior, from the encoder's answers to the inputs."""
        return Mixture(answers, jnp.zeros(len(self.inputs)))


class FlowPrior(eqx.Module):
    """Normal noise through flowjax's masked autoregressive flow, whose density costs one pass.

    Only its arrays are kept; the layers around them are made anew where they are needed, so that it pickles.

    Source: Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057; as a prior, Chen et al. 2017, arXiv:1611.02731.
    """

    arrays: tuple[Array, ...]
    n_components: int = eqx.field(static=True)

    @classmethod
    def starting(cls, n_components: int, key: Array) -> FlowPrior:
        _layers(n_components)  # now: inside a program they could not be made
        arrays = jax.tree.leaves(eqx.filter(_flow(n_components, key), eqx.is_array))
        return cls(tuple(np.asarray(array) for array in arrays), n_components)  # type: ignore[misc]

    def _whole(self) -> Any:
        layers, static = _layers(self.n_components)
        return eqx.combine(jax.tree.unflatten(layers, map(jnp.asarray, self.arrays)), static)

    def log_prob(self, codes: Array) -> Array:
        """(n, n_components) to (n,) nats."""
        return self._whole().log_prob(codes)

    def draw(self, key: Array, n: int) -> Array:
        """(n, n_components)."""
        return self._whole().sample(key, (n,))

    def moments(self, n: int = 4096) -> tuple[Array, Array]:
        """Mean and variances, by draws: (n_components,) each."""
        drawn = self.draw(jax.random.key(0), n)
        return drawn.mean(axis=0), drawn.var(axis=0)


def _flow(n_components: int, key: Array) -> Any:
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    return masked_autoregressive_flow(
        key, base_dist=Normal(jnp.zeros(n_components)), flow_layers=4, nn_width=64, nn_depth=1, invert=True
    )


@functools.cache
def _layers(n_components: int) -> tuple[Any, Any]:
    """The structure of a flow's arrays, and all that is no array."""
    arrays, static = eqx.partition(_flow(n_components, jax.random.key(0)), eqx.is_array)
    return jax.tree.structure(arrays), static
