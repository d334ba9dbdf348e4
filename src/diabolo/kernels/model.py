"""A model that is its training rows: a mixture of kernels for the density, a chart for the codes."""

from __future__ import annotations

from typing import ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch
from diabolo.joint import JointLikelihood
from diabolo.kernels.chart import Chart
from diabolo.kernels.mixture import Kernels
from diabolo.model import DirectModel, Loss, State

__all__ = ["KernelModel"]


class KernelModel(DirectModel):
    """Abstract; a family says where the kernels come from."""

    density_kind: ClassVar[str] = "exact"
    keeps_best: ClassVar[bool] = True
    sized_by_rows: ClassVar[bool] = True

    likelihood: eqx.AbstractVar[JointLikelihood]
    kernels: eqx.AbstractVar[Kernels]
    chart: eqx.AbstractVar[Chart]

    def kinds(self, observed: np.ndarray) -> np.ndarray:
        """Exact, but a bound with pixels: of an end of their range a Gaussian's mass beyond it is left out."""
        kind = "bound" if self.kernels.division.is_cut else self.density_kind
        return np.full(len(observed), kind, "<U8")

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Minus the mean log-density (a named default: nothing of the kernels is trained)."""
        return Loss(-jnp.mean(self.kernels.log_prob(batch)), {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        return self.kernels.log_prob(batch)

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, 2), equal: one would be the density itself, two say that nothing was drawn."""
        return jnp.repeat(self.kernels.log_prob(batch)[:, None], 2, axis=1)

    def prepared(self) -> Self:
        return eqx.tree_at(lambda model: model.kernels, self, _prepared(self.kernels))

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        return self.kernels.draw_given(batch, n_draws, keys)

    def encode(self, batch: Batch) -> dict[str, Array]:
        return self.split(self.chart.encode(batch, self.likelihood.column_of_value))

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        return self.chart.decode(self.join(codes))

    def sample(self, key: Array, n: int, given: Array) -> Array:
        return self.kernels.draw(key, n)


@devices.compiled
def _prepared(kernels: Kernels) -> Kernels:
    return kernels.prepared()
