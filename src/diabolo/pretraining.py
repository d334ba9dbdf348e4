"""A deep-belief start of an autoencoder: its layers learned one by one as Boltzmann machines, then unrolled.

Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks, Science 313. Departures:
the code's own layer keeps its random start, and real columns have units of learned spread.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices, engine
from diabolo.batches import Batch, Batches
from diabolo.boltzmann import Machine, Units
from diabolo.checks import refuse
from diabolo.columns import Binary
from diabolo.joint import JointLikelihood
from diabolo.keys import children
from diabolo.likelihoods import Ordinal
from diabolo.model import Decoder, Encoder, Loss, Model, State
from diabolo.nets import MLP
from diabolo.objectives import weighted_mean
from diabolo.table import Schema

__all__ = ["Stack"]

_N_STEPS, _RATE = 1000, 0.01  # of each layer


class Layer(Model):
    """One machine of the stack, as the engine trains it: contrastive divergence of one step."""

    density_kind: ClassVar[str] = "estimate"
    keeps_best: ClassVar[bool] = False

    likelihood: JointLikelihood
    machine: Machine
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.machine.units, self.machine.middle, self.machine.hidden_middle)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Source: Hinton 2002, eq. 5. A missing cell is at 0, which is a number's mean."""
        key_hidden, key_cells = jax.random.split(key)
        still = jax.lax.stop_gradient(self.machine)
        cells, seen = still.units.inward(batch.values), still.units.seen(batch.observed)
        drawn = still.draw_cells(still.draw_hidden(cells, key_hidden), key_cells)
        drawn = jax.lax.stop_gradient(jnp.where(still.units.per_cell(seen) > 0, drawn, cells))
        apart = self.machine.log_unnormalised(drawn, seen) - self.machine.log_unnormalised(cells, seen)
        return Loss(weighted_mean(apart, batch.weight), {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        return -self.loss(batch, key, self.initial_state()).value * jnp.ones(batch.n_rows)

    def encode(self, batch: Batch) -> dict[str, Array]:
        return {"hidden": jax.nn.sigmoid(self.machine.inputs(self.machine.units.inward(batch.values)))}

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        cells = self.machine.units.centre(self.machine.params(codes["hidden"]), self.machine.spread)
        return self.machine.units.outward(cells)

    def sample(self, key: Array, n: int, given: Array) -> Array:
        return self.typical({"hidden": jnp.full((n, self.machine.n_hidden), 0.5)}, given)


class Stack(eqx.Module):
    """What the layers' machines start from: the columns' units, and their marginal laws' parameters."""

    units: Units
    marginal: Array

    @classmethod
    def of(cls, schema: Schema, encoder: Encoder, activation: str) -> Stack:
        """Refuses networks that are no stack of logistic layers."""
        if not isinstance(encoder.network, MLP) or not encoder.network.layers[1:]:
            want = "fully connected hidden layers"
            fix = "Say hidden_layer_sizes=(256, 64), or leave pretrain out."
            raise refuse("parameter 'pretrain'", got="a network of another kind", want=want, fix=fix)
        widths = [len(layer.bias) for layer in encoder.network.layers[:-1]]
        if encoder.network.residual and any(a == b for a, b in itertools.pairwise(widths)):
            got = f"hidden layers of {widths}, of which equal ones are joined by shortcuts"
            raise refuse(
                "parameter 'pretrain'", got=got, want="each layer of another width than the one before"
            )
        if activation != "sigmoid":
            want = "'sigmoid', which hidden units of a Boltzmann machine have"
            fix = "Say activation='sigmoid'."
            raise refuse(
                "parameter 'activation' beside pretrain='rbm'", got=repr(activation), want=want, fix=fix
            )
        places = schema.layout.places
        names = [schema.columns[place.column].name for place in places]
        units, marginal = Units.of([place.kind for place in places], names)
        return cls(units, marginal)  # type: ignore[arg-type]

    def unrolled(
        self,
        encoder: Encoder,
        decoder: Decoder,
        likelihood: JointLikelihood,
        batches: Batches,
        key: Array,
    ) -> tuple[Encoder, Decoder]:
        """Encoder and decoder whose hidden layers are the trained machines', each used in both directions."""
        assert isinstance(encoder.network, MLP) and isinstance(decoder.network, MLP)
        inner, outer = list(encoder.network.layers), list(decoder.network.layers)
        units, marginal, rows = self.units, np.asarray(self.marginal), batches.train
        for i, one in enumerate(children(key, len(inner) - 1)):
            machine, rows = _trained(
                units, marginal, rows, len(inner[i].bias), batches.batch_size, likelihood, one
            )
            if i == 0:
                inner[0], outer[-1] = _ends(machine, inner[0], outer[-1], decoder, likelihood)
            else:
                to_hidden, to_cells = _biases(machine)
                inner[i] = _with(inner[i], machine.weights, to_hidden)
                outer[-1 - i] = _with(outer[-1 - i], machine.weights.T, to_cells)
            units, marginal = Units.of(
                [Binary(levels=(0.0, 1.0), share=0.5)] * machine.n_hidden, range(machine.n_hidden)
            )
        return (
            eqx.tree_at(lambda part: part.network.layers, encoder, tuple(inner)),
            eqx.tree_at(lambda part: part.network.layers, decoder, tuple(outer)),
        )


def _trained(
    units: Units,
    marginal: np.ndarray,
    rows: Batch,
    n_hidden: int,
    batch_size: int,
    likelihood: JointLikelihood,
    key: Array,
) -> tuple[Machine, Batch]:
    """A machine of the rows, and the rows that the next one learns: its hidden units' probabilities."""
    machine = Machine.starting(units, marginal, n_hidden, key)
    layer = Layer(likelihood=likelihood, machine=machine, code_widths=(("hidden", n_hidden),))
    schedule = engine.Schedule(_N_STEPS, _RATE)
    run = engine.fit(layer, Batches(rows, None, None, batch_size), schedule, key)
    codes = _codes(run.model, rows)
    seen = jnp.ones((rows.n_rows, n_hidden), bool)
    return run.model.machine, dataclasses.replace(rows, values=codes, observed=seen)  # type: ignore[attr-defined]


@devices.compiled
def _codes(layer: Model, rows: Batch) -> Array:
    return layer.encode(rows)["hidden"]


def _ends(
    machine: Machine, first: Any, last: Any, decoder: Decoder, likelihood: JointLikelihood
) -> tuple[Any, Any]:
    """The encoder's first layer and the decoder's last from the machine that sees the columns."""
    spread = np.asarray(machine.units.outward(machine.spread))
    weights = np.asarray(
        machine.units.outward(machine.weights.T)
    ).T  # (width, n_hidden) in the columns' order
    into = np.zeros(first.weight.shape, np.float32)  # flags of gaps and conditions begin at 0
    into[: len(weights)] = weights / spread[:, None]
    to_hidden, to_cells = _biases(machine)
    bias = np.asarray(machine.units.outward(to_cells)) * spread
    out, start = np.zeros(last.weight.shape, np.float32), np.array(last.bias)
    of_value, of_param = likelihood.column_of_value, likelihood.column_of_param[: likelihood.n_free]
    ordered = {c for group, columns in likelihood._stacks() if isinstance(group, Ordinal) for c in columns}
    for column in range(likelihood.n_columns):
        if column in ordered:  # one location for all levels: nothing of a softmax unit fits
            continue
        values, params = np.flatnonzero(of_value == column), np.flatnonzero(of_param == column)
        out[:, params] = (weights[values] * spread[values][:, None]).T
        start[params] = bias[values] - np.asarray(decoder.start)[params]
    return _with(first, into, to_hidden), _with(last, out, start)


def _biases(machine: Machine) -> tuple[Array, Array]:
    """What hidden units and cells have where the other side is at 0, not at its centre as in the machine."""
    return machine.inputs(jnp.zeros(machine.units.width)), machine.params(jnp.zeros(machine.n_hidden))


def _with(linear: Any, weight: Any, bias: Any) -> Any:
    arrays = (np.asarray(weight, np.float32), np.asarray(bias, np.float32))
    return eqx.tree_at(lambda one: (one.weight, one.bias), linear, arrays)
