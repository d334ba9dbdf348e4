"""What the variational members share: an encoder that says a distribution of codes, a prior, and how both are used.

```
x ─▶ encoder ─▶ q(z | x) ─▶ z ─▶ decoder ─▶ parameters ─▶ log p(x | z)
                  └─▶ KL(q(z | x) || p(z)) ◀── p(z)
```
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.codes import DiagonalGaussian, FullGaussian, Posterior
from diabolo.joint import JointLikelihood
from diabolo.keys import host_generator
from diabolo.model import CodeModel, Decoder, Encoder, Loss, State
from diabolo.objectives import evidence_bound, warm_up, weighted_mean
from diabolo.priors import FlowPrior, Mixture, PseudoInputs, StandardNormal
from diabolo.proposals import DrawsCodes, LocalStrata

__all__ = [
    "ACTIVE",
    "SHARES",
    "WIDTHS",
    "CollapseWarning",
    "Usage",
    "VariationalModel",
    "Weights",
    "gaussian",
    "n_said",
    "rows_in_use",
    "starting_prior",
    "warn_of_collapse",
]

# The proposal in the encoder's posteriors: 1.2 times as wide, for weights want tails heavier than the target's; every
# twentieth draw four times as wide, and the last tenth from the prior, so that no row's weights are without a limit.
WIDTHS, SHARES = (1.2, 4.0), (0.85, 0.05)
_START = float(np.arctanh(2.5 / 4.5))  # so that a network's 0 is a scale of 1
_N_USED = 512  # rows behind what is said of the codes' use
ACTIVE = 0.01  # variance over rows of a component's mean, from which it says something (Burda et al. 2016, section 4.2)


class CollapseWarning(UserWarning):
    """The code says nothing of the rows: the decoder describes them all alike."""


class Weights(eqx.Module):
    """How the divergence counts in training.

    Attributes
    ----------
    beta : () its final weight
    free : () nats per component that cost nothing
    warm : () share of the steps over which the weight grows from 0
    """

    beta: Array
    free: Array
    warm: Array

    @classmethod
    def of(cls, beta: float, free_bits: float, warm_up: float) -> Weights:
        return cls(*(np.asarray(one, np.float32) for one in (beta, free_bits, warm_up)))  # type: ignore[arg-type]

    def at(self, state: State) -> Array:
        """The divergence's weight at a step."""
        return self.beta * warm_up(state.step, self.warm * state.n_steps)

    def charged(self, divergence: Array, n_components: int) -> Array:
        """() nats that training is charged of (n_rows, n_groups): each group's mean, or what is free, if that is more.

        Source: Kingma et al. 2016, eq. 16, arXiv:1606.04934.
        """
        free = self.free * n_components / divergence.shape[1]
        return jnp.sum(jnp.maximum(jnp.mean(divergence, axis=0), free))

    def loss(
        self, log_likelihood: Array, divergence: Array, batch: Batch, state: State, n_components: int
    ) -> Loss:
        """The negative evidence bound, of log p(x | z), (n_rows,), and divergences (n_rows, n_groups) as they count."""
        charge = self.at(state) * self.charged(divergence, n_components)
        loss = charge - weighted_mean(log_likelihood, batch.weight)
        total = jnp.mean(jnp.sum(divergence, axis=1))
        return Loss(loss, {"log_likelihood": jnp.mean(log_likelihood), "divergence": total}, state)


class Usage(eqx.Module):
    """How rows use the code, of rows held out from training where there are any.

    Attributes
    ----------
    divergence : (n_components,) mean KL of q(z_k | x) to a normal of the prior's mean and variance, nats
    variance : (n_components,) over rows, of the posterior's mean
    gap : (2,) KL of the aggregate posterior, the mean of q(z | x) over rows, to the prior, nats: low, where a row's
        own part is left out of the mean, and high, where it is not
    """

    divergence: Array
    variance: Array
    gap: Array

    @classmethod
    def of(cls, mean: np.ndarray, divergence: np.ndarray, log_q: np.ndarray, log_prior: np.ndarray) -> Usage:
        """From some rows and a code drawn for each.

        Parameters
        ----------
        mean : (n_rows, n_components) of the posteriors
        divergence : (n_rows, n_components) nats
        log_q : (n_rows, n_rows) nats, of code i by row j's posterior
        log_prior : (n_rows,) nats, of the codes
        """
        n_rows = len(mean)
        alone = np.where(np.eye(n_rows, dtype=bool), -np.inf, log_q)
        low = logsumexp(alone, axis=1) - np.log(max(n_rows - 1, 1))
        high = logsumexp(log_q, axis=1) - np.log(n_rows)
        gap = [np.mean(log_mean - log_prior) for log_mean in (low, high)]
        told = (divergence.mean(axis=0), mean.var(axis=0), np.maximum(gap, 0.0))
        return cls(*(np.asarray(one, np.float32) for one in told))  # type: ignore[arg-type]

    @classmethod
    def unknown(cls, n_components: int) -> Usage:
        return cls(*(np.full(n, np.nan, np.float32) for n in (n_components, n_components, 2)))  # type: ignore[arg-type]


class VariationalModel(CodeModel):
    """Gaussian encoder q(z | x), prior p(z), the columns' likelihoods p(x | z). Abstract: a family says the loss."""

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    likelihood: eqx.AbstractVar[JointLikelihood]
    encoder: eqx.AbstractVar[Encoder]
    decoder: eqx.AbstractVar[Decoder]
    code_prior: eqx.AbstractVar[StandardNormal | Mixture | PseudoInputs | FlowPrior]
    weights: eqx.AbstractVar[Weights]
    usage: eqx.AbstractVar[Usage]

    @property
    def prior(self) -> DrawsCodes:
        """p(z)."""
        if isinstance(self.code_prior, PseudoInputs):
            return self.code_prior.mixture(self.answer(self.code_prior.inputs))
        return self.code_prior

    def posterior(self, batch: Batch) -> Posterior:
        """q(z | x) of each row."""
        return self.answer(self.encoder.embed(batch))

    def answer(self, inputs: Array) -> Posterior:
        """q(z | x) where x is given as the encoder takes it, (n_rows, n_inputs)."""
        said = self.encoder(inputs)
        k = self.n_components
        said_of = gaussian(said[:, : 2 * k])
        if said.shape[1] == 2 * k:
            return said_of
        return FullGaussian.of(said_of.mean, said_of.log_scale, said[:, 2 * k :])

    def divergence(self, posterior: Posterior, code: Array) -> Array:
        """KL(q(z | x) || p(z)), nats: per component where both are independent and normal, else (n_rows, 1).

        Where it has no closed form, log q(z | x) - log p(z) at the one code drawn.
        """
        prior = self.prior
        if not isinstance(prior, StandardNormal):
            return (posterior.log_prob(code) - prior.log_prob(code))[:, None]
        if isinstance(posterior, DiagonalGaussian):
            return posterior.divergence()
        return posterior.to_normal()[:, None]

    def evidence(self, batch: Batch, key: Array) -> Array:
        """The evidence bound at the divergence's final weight, one draw of the code per row: (n_rows,) nats."""
        posterior = self.posterior(batch)
        code = posterior.draw_one(key)
        log_likelihood = self.log_likelihood(batch, self.split(code))
        divergence = jnp.sum(self.divergence(posterior, code), axis=1)
        return evidence_bound(log_likelihood, self.weights.beta * divergence)

    def evidence_loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Its negative mean, the divergence warmed up, weighed, and partly free."""
        posterior = self.posterior(batch)
        code = posterior.draw_one(key)
        log_likelihood = self.log_likelihood(batch, self.split(code))
        divergence = self.divergence(posterior, code)
        return self.weights.loss(log_likelihood, divergence, batch, state, self.n_components)

    def encode(self, batch: Batch) -> dict[str, Array]:
        return self.split(self.posterior(batch).mean)

    def log_prior(self, codes: dict[str, Array]) -> Array:
        return self.prior.log_prob(self.join(codes))

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        return self.split(self.prior.draw(key, n))

    def proposal(self, batch: Batch) -> LocalStrata:
        """The posterior, wider; some draws much wider or from the prior, for rows that the encoder misjudges."""
        posterior = self.posterior(batch)
        return LocalStrata(posterior.mean, *posterior.frame(), self.prior, WIDTHS, SHARES)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.weights, self.usage)

    def begin(self, batches: Batches, key: Array) -> Self:
        """Pseudo-inputs begin at training rows."""
        prior = self.code_prior
        if not isinstance(prior, PseudoInputs):
            return self
        rng, n_parts = host_generator(key), len(prior.inputs)
        chosen = np.resize(rng.permutation(batches.train.n_rows), n_parts)
        rows = np.asarray(
            self.encoder.embed(jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], batches.train))
        )
        inputs = rows + 0.05 * rng.normal(size=rows.shape)  # the same row twice must not stay twice the same
        return eqx.tree_at(lambda model: model.code_prior.inputs, self, inputs.astype(np.float32))

    def finish(self, batches: Batches, key: Array) -> Self:
        """See how rows use the code."""
        rng = host_generator(key)
        usage = _usage(self, *rows_in_use(batches, rng), rng)
        return eqx.tree_at(lambda model: model.usage, self, usage)


def gaussian(said: Array) -> DiagonalGaussian:
    """Means and scales from what a network says, (n_rows, 2 n_components): its 0 is N(0, 1).

    A scale of e^-7 or e^2 times the prior's is as good as any beyond; the clip is smooth, so it can be left.
    """
    mean, log_scale = jnp.split(said, 2, axis=-1)
    return DiagonalGaussian(mean, -2.5 + 4.5 * jnp.tanh(log_scale / 4.5 + _START))


def rows_in_use(batches: Batches, rng: np.random.Generator) -> tuple[Batch, int]:
    """At most 512 rows, held out where any are, on the host; repeated up to that number, and how many they are."""
    rows = jax.tree.map(np.asarray, batches.train if batches.held_out is None else batches.held_out)
    n = min(rows.n_rows, _N_USED)
    return rows[np.resize(np.sort(rng.permutation(rows.n_rows)[:n]), _N_USED)], n


def _usage(model: VariationalModel, batch: Batch, n_rows: int, rng: np.random.Generator) -> Usage:
    """Of the first n_rows of a batch; on the host, for the program that would do it costs the first fit a second."""
    said = [np.asarray(part, np.float64)[:n_rows] for part in _posterior_of(model, batch)]
    mean, variance, axes, inverse, spread = said
    codes = mean + np.einsum("nkl,nl->nk", axes, spread * rng.normal(size=mean.shape))
    whole = np.resize(codes, (batch.n_rows, codes.shape[1]))  # of one size for every n_rows
    of_prior = _prior_of(model, jnp.asarray(whole, jnp.float32))
    log_prior, prior_mean, prior_variance = (np.asarray(part, np.float64) for part in of_prior)
    ratio = variance / prior_variance
    divergence = 0.5 * ((mean - prior_mean) ** 2 / prior_variance + ratio - 1.0 - np.log(ratio))
    # a matrix product per posterior: one einsum of all three axes took four times as long
    white = (
        (codes - mean[:, None]) @ np.swapaxes(inverse, 1, 2) / spread[:, None]
    )  # of code i by row j: [j, i]
    log_volume = np.sum(np.log(spread) + 0.5 * np.log(2.0 * np.pi), axis=1)
    log_q = -0.5 * np.einsum("jik,jik->ij", white, white) - log_volume
    return Usage.of(mean, divergence, log_q, log_prior[:n_rows])


@devices.compiled
def _posterior_of(model: VariationalModel, batch: Batch) -> tuple[Array, ...]:
    posterior = model.posterior(batch)
    return posterior.mean, posterior.variance(), *posterior.frame()


@devices.compiled
def _prior_of(model: VariationalModel, codes: Array) -> tuple[Array, ...]:
    prior = model.prior
    return prior.log_prob(codes), *prior.moments()


def n_said(posterior: str, n_components: int) -> int:
    """Numbers that an encoder says of a code: mean and spread of each component, and the tilts of a full covariance."""
    return 2 * n_components + (FullGaussian.n_tilts(n_components) if posterior == "full" else 0)


def starting_prior(name: str, n_parts: int, n_components: int, n_inputs: int, key: Array) -> Any:
    """The untrained prior of a name: "normal", "mixture", "vamp" or "flow"."""
    if name == "mixture":
        return Mixture.starting(n_parts, n_components, key)
    if name == "vamp":
        return PseudoInputs.starting(n_parts, n_inputs, key)
    if name == "flow":
        return FlowPrior.starting(n_components, key)
    return StandardNormal(n_components)


def warn_of_collapse(usage: Usage, stacklevel: int = 3) -> None:
    """Say so where no component's mean differs from row to row."""
    if np.all(np.isfinite(usage.variance)) and np.all(usage.variance < ACTIVE):
        said = (
            "The code says nothing of the rows (posterior collapse): every row is decoded alike. Either the columns "
            "have nothing in common, or the divergence won: set a longer warm_up or, where the member has them, "
            "free_bits=0.1 or beta below 1."
        )
        warnings.warn(said, CollapseWarning, stacklevel=stacklevel)
