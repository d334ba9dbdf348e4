"""What a plain autoencoder needs to become a density: a borrowed prior, a noise, and where to look for codes.

Reconstruction models p(x | its own code), not p(x). After training, a Gaussian mixture is fitted to the codes as
the prior p(z), the columns' noise and how sure the decoder may be of levels to held-out rows, and p(x) is the
integral of p(x | z) p(z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diabolo import devices, matrices
from diabolo.batches import Batch, Batches
from diabolo.joint import JointLikelihood
from diabolo.keys import host_generator, seed_of
from diabolo.model import CodeModel, Decoder, Encoder, Loss, State
from diabolo.objectives import weighted_mean
from diabolo.priors import MAX_ROWS, Mixture
from diabolo.proposals import LocalStrata

__all__ = ["DeterministicModel"]

_N_CLIMBS = 8  # Newton steps from the code towards the posterior's mode
_SHRINKS = (1.0, 0.5, 0.2, 0.05, 0.01, 0.0)  # tried at each: the best is kept, staying put included
# Strata around the mode, the rest of the draws to the prior. Beside an edge (a level's softmax) the curvature says
# little: with widths up to 3 alone, intervals of rows with gaps and levels held the truth 79 times in 100.
_WIDTHS, _SHARES = (1.0, 2.0, 5.0, 15.0), (0.15, 0.15, 0.15, 0.1)


class DeterministicModel(CodeModel):
    """Encoder and decoder trained on reconstruction. Abstract: a family says what the encoder is shown."""

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    likelihood: eqx.AbstractVar[JointLikelihood]
    encoder: eqx.AbstractVar[Encoder]
    decoder: eqx.AbstractVar[Decoder]
    prior: eqx.AbstractVar[Mixture]
    #: (n_shared,) 0 or 1: shared parameters that stay at unit spread in training
    is_scale: eqx.AbstractVar[Array]
    #: (n_free,) 0 or 1: parameters of columns whose law has no scale of its own. In every density they are `sharpness`
    #: times what the decoder says plus `level_shift`, which keeps the levels' frequencies
    is_level: eqx.AbstractVar[Array]
    sharpness: eqx.AbstractVar[Array]
    level_shift: eqx.AbstractVar[Array]

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.prior, self.is_scale, self.is_level, self.sharpness, self.level_shift)

    def shown(self, batch: Batch, key: Array) -> Batch:
        """What the encoder sees of a row in training: the row itself, unless a family corrupts it."""
        return batch

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Squared error of real columns, cross-entropy of the others: -log p(x | code) at unit spread, nats."""
        error = -self._at_unit_spread(batch, self.shown(batch, key))
        return Loss(weighted_mean(error, batch.weight), {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The same on held-out rows, corrupted alike at every look where a family corrupts: no density.

        Rows as they are would choose the weights that corrupt least, and keep the network from learning to denoise.
        """
        return self._at_unit_spread(batch, self.shown(batch, key))

    def _at_unit_spread(self, batch: Batch, shown: Batch) -> Array:
        free, common = self.decoder(self.join(self.encode(shown)), batch.given)
        params = self.likelihood.assemble(free, common * (1.0 - self.is_scale))
        cells = self.likelihood.log_prob(params, batch.values)
        return jnp.sum(jnp.where(batch.observed, cells, 0.0), axis=-1)

    def encode(self, batch: Batch) -> dict[str, Array]:
        return self.split(self.encoder(self.encoder.embed(batch)))

    def decode(self, codes: dict[str, Array], given: Array) -> Array:
        free, shared = self.decoder(self.join(codes), given)
        return self.likelihood.assemble(self._less_sure(free, self.level_shift), shared)

    def _less_sure(self, free: Array, shift: Array) -> Array:
        return jnp.where(self.is_level > 0.0, self.sharpness * free + shift, free)

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        """As sure of levels as training made the decoder."""
        return self.likelihood.mean(self.likelihood.assemble(*self.decoder(self.join(codes), given)))

    def log_prior(self, codes: dict[str, Array]) -> Array:
        return self.prior.log_prob(self.join(codes))

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        return self.split(self.prior.draw(key, n))

    def finish(self, batches: Batches, key: Array) -> Self:
        """Fit the prior to the training codes and the shared parameters to held-out rows (else to training rows)."""
        train = batches.train
        if train.n_rows > MAX_ROWS:
            train = train[np.sort(host_generator(key).choice(train.n_rows, MAX_ROWS, replace=False))]
        codes = np.asarray(_join_codes(self, train))
        prior = Mixture.fitted(codes, seed_of(key) % 2**31)
        rows = batches.train if batches.held_out is None else batches.held_out
        return eqx.tree_at(lambda model: (model.prior, model.decoder), self, (prior, _with_noise(self, rows)))

    def as_sure_as(self, sharpness: float, batch: Batch) -> Self:
        """The same with another sharpness and the shift that keeps the frequencies of the levels of these rows."""
        changed = eqx.tree_at(lambda model: model.sharpness, self, jnp.float32(sharpness))
        return eqx.tree_at(lambda model: model.level_shift, changed, _level_shift(changed, batch))

    def proposal(self, batch: Batch) -> LocalStrata:
        """Gaussians of several widths at the posterior's mode, shaped by its curvature, and the prior."""
        mode, axes, spread = self._locate(batch, self.join(self.encode(batch)))
        return LocalStrata(mode, axes, jnp.swapaxes(axes, 1, 2), spread, self.prior, _WIDTHS, _SHARES)

    def _locate(self, batch: Batch, starts: Array) -> tuple[Array, Array, Array]:
        """Modes of p(z | x) near the rows' codes; principal axes and standard deviations of the curvature there."""

        def log_joint(row: Batch, code: Array) -> Array:
            one, groups = jax.tree.map(lambda leaf: leaf[None], row), self.split(code[None])
            return (self.log_likelihood(one, groups) + self.log_prior(groups))[0]

        prior_mean, prior_variance = self.prior.moments()
        floor = 1.0 / jnp.max(prior_variance)  # no direction is flatter than the prior's widest

        def curvature(codes: Array) -> tuple[Array, Array]:
            """Eigenvalues and vectors of -d² log p(x, z) / dz², made positive."""
            hessians = jax.vmap(jax.hessian(log_joint, argnums=1))(batch, codes)
            values, vectors = matrices.eigh(-hessians)
            return jnp.maximum(jnp.abs(values), floor), vectors

        def best_of(tried: Array) -> Array:
            """Of several codes per row, (n_tried, n_rows, n_components), the likeliest."""
            heights = jax.vmap(jax.vmap(log_joint), in_axes=(None, 0))(batch, tried)
            chosen = jnp.argmax(jnp.where(jnp.isfinite(heights), heights, -jnp.inf), axis=0)
            return tried[chosen, jnp.arange(len(starts))]

        def climb(_: int, codes: Array) -> Array:
            values, vectors = curvature(codes)
            slope = jax.vmap(jax.grad(log_joint, argnums=1))(batch, codes)
            step = jnp.einsum("nkl,nl->nk", vectors, jnp.einsum("nkl,nk->nl", vectors, slope) / values)
            return best_of(codes + jnp.asarray(_SHRINKS)[:, None, None] * step)

        begin = best_of(jnp.stack([starts, jnp.broadcast_to(prior_mean, starts.shape)]))
        mode = jax.lax.fori_loop(0, _N_CLIMBS, climb, begin)
        values, vectors = curvature(mode)
        return mode, vectors, 1.0 / jnp.sqrt(values)


@devices.compiled
def _join_codes(model: DeterministicModel, batch: Batch) -> Array:
    return model.join(model.encode(batch))


@devices.compiled
def _with_noise(model: DeterministicModel, batch: Batch) -> Decoder:
    """The decoder with shared parameters of greatest likelihood given each row's own code."""
    free, shared = model.decoder(model.join(model.encode(batch)), batch.given)
    start = shared * (1.0 - model.is_scale)
    return model.decoder.with_shared(_likeliest(model, batch, start, lambda total: (free, total)))


@devices.compiled
def _level_shift(model: DeterministicModel, batch: Batch) -> Array:
    """The shift of greatest likelihood given each row's own code: a level's mean probability is then its frequency."""
    free, shared = model.decoder(model.join(model.encode(batch)), batch.given)
    start = jnp.zeros(free.shape[1])
    return _likeliest(model, batch, start, lambda shift: (model._less_sure(free, shift), shared))


def _likeliest(
    model: DeterministicModel,
    batch: Batch,
    start: Array,
    params: Callable[[Array], tuple[Array, Array]],
    n_steps: int = 400,
    rate: float = 0.05,
) -> Array:
    """What makes the rows likeliest under the free and shared parameters that follow from it, by Adam."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, n_steps))

    def loss(value: Array) -> Array:
        cells = model.likelihood.log_prob(model.likelihood.assemble(*params(value)), batch.values)
        return -jnp.sum(jnp.where(batch.observed, cells, 0.0)) / len(batch.values)

    def step(_: int, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        value, state = carry
        update, state = adam.update(jax.grad(loss)(value), state)
        return optax.apply_updates(value, update), state

    return jax.lax.fori_loop(0, n_steps, step, (start, adam.init(start)))[0]
