"""Levels of codes, each the prior of the one beneath (Sønderby et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.codes import DiagonalGaussian
from diabolo.joint import JointLikelihood
from diabolo.keys import host_generator
from diabolo.model import CodeModel, Decoder, Encoder, Loss, State
from diabolo.nets import ACTIVATIONS, MLP
from diabolo.objectives import evidence_bound, importance_bound, weighted_mean
from diabolo.proposals import ExploredStrata, Placed
from diabolo.variational import SHARES, WIDTHS, Usage, Weights, gaussian, rows_in_use

__all__ = ["LadderModel"]

Choose = Callable[[int, DiagonalGaussian], Array]  # a level's place and posterior to its code


class Level(NamedTuple):
    """One level of some rows: p(z_i | z_i+1), q(z_i | z_i+1, x), and a code."""

    prior: DiagonalGaussian
    posterior: DiagonalGaussian
    code: Array


class LadderModel(CodeModel):
    """Levels of codes, each the prior of the one beneath; what x says of a level is multiplied into its prior.

    ```
    x ─▶ encoder ─▶ said of z₁ ──▶ upward ─▶ said of z₂           up: what x says, level by level
                        ▼                        ▼
                    q(z₁ | z₂, x) ◀── p(z₁ | z₂) ◀── q(z₂ | x) ◀── p(z₂)     down: prior times what was said
                        └──────────┬─────────────┘
                                decoder ─▶ parameters ─▶ log p(x | z₁, z₂)
    ```

    The decoder reads all levels, so that every component of the code changes the row.
    """

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    upward: tuple[MLP, ...]
    downward: tuple[MLP, ...]
    weights: Weights
    usage: Usage
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    n_draws: int = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.weights, self.usage)

    # ---- both ways -----------------------------------------------------------------------------------------

    def evidence(self, batch: Batch) -> tuple[DiagonalGaussian, ...]:
        """What each row says of each level by itself, the lowest first."""
        said, found = self.encoder(self.encoder.embed(batch)), []
        for i, (_, width) in enumerate(self.code_widths):
            found.append(gaussian(said[:, : 2 * width]))
            if i < len(self.upward):
                features = ACTIVATIONS[self.upward[i].activation](said[:, 2 * width :])
                said = jax.vmap(self.upward[i])(features)
        return tuple(found)

    def prior_of(self, level: int, above: Array | None, n_rows: int) -> DiagonalGaussian:
        """p(z_i | z_i+1); of the highest level N(0, 1)."""
        if above is None:
            nothing = jnp.zeros((n_rows, self.code_widths[level][1]))
            return DiagonalGaussian(nothing, nothing)
        return gaussian(jax.vmap(self.downward[level])(above))

    def descend(self, evidence: tuple[DiagonalGaussian, ...], choose: Choose) -> list[Level]:
        """From the highest level down, a code chosen at each; the levels, the lowest first."""
        found: list[Level] = []
        for i in reversed(range(len(evidence))):
            above = found[-1].code if found else None
            prior = self.prior_of(i, above, len(evidence[i].mean))
            posterior = prior.times(evidence[i])
            found.append(Level(prior, posterior, choose(i, posterior)))
        return found[::-1]

    def drawn(self, evidence: tuple[DiagonalGaussian, ...], key: Array) -> list[Level]:
        """A code of every level from its posterior."""
        return self.descend(evidence, lambda i, posterior: posterior.draw_one(jax.random.fold_in(key, i)))

    def named(self, levels: list[Level]) -> dict[str, Array]:
        """The levels' codes as named groups."""
        return {name: level.code for (name, _), level in zip(self.code_widths, levels, strict=True)}

    # ---- training ------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative evidence bound, or importance-weighted bound of several draws."""
        if self.n_draws > 1:
            bound = self._weighted_bound(batch, key, self.weights.at(state))
            return Loss(-weighted_mean(bound, batch.weight), {"bound": jnp.mean(bound)}, state)
        return self.weights.loss(*self._parts(batch, key), batch, state, self.n_components)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The same bound at the divergence's final weight."""
        if self.n_draws > 1:
            return self._weighted_bound(batch, key, self.weights.beta)
        log_likelihood, divergence = self._parts(batch, key)
        return evidence_bound(log_likelihood, self.weights.beta * jnp.sum(divergence, axis=1))

    def _parts(self, batch: Batch, key: Array) -> tuple[Array, Array]:
        """log p(x | z) at one draw, (n_rows,), and the divergence of each component, (n_rows, n_components)."""
        levels = self.drawn(self.evidence(batch), key)
        divergence = [level.posterior.divergence_to(level.prior) for level in levels]
        return self.log_likelihood(batch, self.named(levels)), jnp.concatenate(divergence, axis=1)

    def _weighted_bound(self, batch: Batch, key: Array, weight: Array) -> Array:
        evidence = self.evidence(batch)

        def of_draw(key: Array) -> Array:
            levels = self.drawn(evidence, key)
            ratio = sum(one.prior.log_prob(one.code) - one.posterior.log_prob(one.code) for one in levels)
            return self.log_likelihood(batch, self.named(levels)) + weight * ratio

        return importance_bound(jax.vmap(of_draw, out_axes=1)(jax.random.split(key, self.n_draws)))

    # ---- the contract's readings ---------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Array]:
        """Posterior means, each given the means above it."""
        return self.named(self.descend(self.evidence(batch), lambda _, posterior: posterior.mean))

    def log_prior(self, codes: dict[str, Array]) -> Array:
        total, above = jnp.zeros(()), None
        for i, (name, _) in reversed(list(enumerate(self.code_widths))):
            total = total + self.prior_of(i, above, len(codes[name])).log_prob(codes[name])
            above = codes[name]
        return total

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        return self.descended({}, n, lambda i, prior: prior.draw_one(jax.random.fold_in(key, i)))

    def descended(self, upper: dict[str, Array], n: int, choose: Choose) -> dict[str, Array]:
        """All levels: the upper ones as they are, those beneath chosen from their priors."""
        codes: dict[str, Array] = {}
        above = None
        for i, (name, _) in reversed(list(enumerate(self.code_widths))):
            above = upper[name] if name in upper else choose(i, self.prior_of(i, above, n))
            codes[name] = above
        return codes

    def proposal(self, batch: Batch) -> ExploredStrata:
        """All posteriors, wider; some draws much wider or from the prior."""
        return ExploredStrata(self, self.evidence(batch), WIDTHS, SHARES)

    def explore(self, evidence: tuple[DiagonalGaussian, ...], key: Array, widths: Array) -> Array:
        def choose(i: int, posterior: DiagonalGaussian) -> Array:
            noise = jax.random.normal(jax.random.fold_in(key, i), posterior.mean.shape)
            return posterior.mean + widths * jnp.exp(posterior.log_scale) * noise

        return self.join(self.named(self.descend(_repeated(evidence, len(widths)), choose)))

    def placed(self, evidence: tuple[DiagonalGaussian, ...], codes: Array) -> Placed:
        groups, names = self.split(codes), [name for name, _ in self.code_widths]
        levels = self.descend(_repeated(evidence, len(codes)), lambda i, _: groups[names[i]])
        code, mean, log_scale = (
            jnp.concatenate(part, axis=1)
            for part in zip(*((x.code, x.posterior.mean, x.posterior.log_scale) for x in levels), strict=True)
        )
        distance, nothing = jnp.sum(((code - mean) * jnp.exp(-log_scale)) ** 2, axis=1), jnp.zeros(())
        log_prior = sum((x.prior.log_prob(x.code) for x in levels), jnp.zeros(()))
        return Placed(distance, jnp.sum(log_scale, axis=1), codes.shape[1], nothing, log_prior, nothing)

    def finish(self, batches: Batches, key: Array) -> Self:
        """See how rows use the code."""
        rows, n = rows_in_use(batches, host_generator(key))
        said = (np.asarray(part, np.float64)[:n] for part in _in_use(self, rows, key))
        mean, divergence, log_q, log_prior = said
        usage = Usage.of(mean, divergence, log_q[:, :n], log_prior)
        return eqx.tree_at(lambda model: model.usage, self, usage)


@devices.compiled
def _in_use(model: LadderModel, batch: Batch, key: Array) -> tuple[Array, ...]:
    """Means and divergences, (n_rows, n_components); log q of code i given row j, (n_rows, n_rows), and its log p."""
    evidence = model.evidence(batch)
    levels = model.drawn(evidence, key)
    mean = model.join(model.encode(batch))
    divergence = jnp.concatenate([one.posterior.divergence_to(one.prior) for one in levels], axis=1)

    def by_row(said: tuple[DiagonalGaussian, ...]) -> Array:
        each = [
            level.prior.times(of_row).log_prob(level.code) for level, of_row in zip(levels, said, strict=True)
        ]
        return jnp.sum(jnp.stack(each), axis=0)

    log_q = jax.vmap(by_row, out_axes=1)(evidence)
    return mean, divergence, log_q, model.log_prior(model.named(levels))


def _repeated(evidence: tuple[DiagonalGaussian, ...], n: int) -> tuple[DiagonalGaussian, ...]:
    """One row's, n times."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), evidence)
