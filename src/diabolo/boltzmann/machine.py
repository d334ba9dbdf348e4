"""The machine itself: energies, and one step of its chain.

p(x, h) = exp(-E(x, h)) / Z, -E(x, h) = b·x' + measure(x) + c·h + (x' - m')·W (h - n); x' is x with its numbers over
their spread. Any machine can be written so, with other b and c; what the centres m and n are good for is training.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.boltzmann.bernoulli import bernoulli
from diabolo.boltzmann.units import Units
from diabolo.keys import host_generator
from diabolo.matrices import times, times_each

__all__ = ["Machine"]

_SPREAD = 0.01  # of the first weights (Hinton 2012, section 8)
_HALF = 0.5  # the first centre of the hidden units


class Machine(eqx.Module):
    """A restricted Boltzmann machine over the cells of a row, in the order of `units`.

    Attributes
    ----------
    weights : (width, n_hidden)
    bias : (width,) of the visible units
    hidden_bias : (n_hidden,)
    raw_spread : (width,) see `Units.spread`
    middle : (width,) the cells m from which the weights work, those of the training rows in the mean
    hidden_middle : (n_hidden,) the hidden units n likewise; no gradient moves them, see `recentred`

    Source: Smolensky 1986; Welling, Rosen-Zvi & Hinton 2004 (units of other kinds); the numbers' units as in
    Salakhutdinov & Hinton 2009, with learned spreads. Centres: Montavon & Müller 2012; Melchior, Fischer & Wiskott
    2016.
    """

    units: Units
    weights: Array
    bias: Array
    hidden_bias: Array
    raw_spread: Array
    middle: Array
    hidden_middle: Array

    @classmethod
    def starting(cls, units: Units, marginal: np.ndarray, n_hidden: int, key: Array) -> Self:
        """Nearly the product of the marginal laws, whose parameters (width,) are given."""
        weights: Any = host_generator(key).normal(0.0, _SPREAD, (units.width, n_hidden)).astype(np.float32)
        bias: Any = np.asarray(marginal, np.float32)
        zeros: Any = np.zeros(n_hidden, np.float32)
        spread: Any = np.zeros(units.width, np.float32)
        middle: Any = np.asarray(units.centre(bias, np.ones_like(bias), mean=True))
        return cls(units, weights, bias, zeros, spread, middle, zeros + np.float32(_HALF))

    @property
    def n_hidden(self) -> int:
        return len(self.hidden_bias)

    @property
    def spread(self) -> Array:
        return self.units.spread(self.raw_spread)

    @property
    def _centre(self) -> Array:
        return jax.lax.stop_gradient(self.hidden_middle)

    def recentred(self, hidden_middle: Array) -> Self:
        """The same machine with its hidden units' centre elsewhere: only Z is another."""
        # as a sum it is one pass over the weights with whatever else is done to them; as a product three times as long
        bias = self.bias + jnp.sum(self.weights * (hidden_middle - self.hidden_middle), axis=1)
        return dataclasses.replace(self, bias=bias, hidden_middle=hidden_middle)

    def inputs(self, cells: Array) -> Array:
        """Logits of the hidden units, (..., width) -> (..., n_hidden)."""
        return self.hidden_bias + self.said(cells - self.middle)

    def inputs_each(self, one: Array, two: Array) -> tuple[Array, Array]:
        """`inputs` of two sets of rows (n, width), whose gradients are taken together."""
        said = times_each((one - self.middle) / self.spread, (two - self.middle) / self.spread, self.weights)
        return self.hidden_bias + said[0], self.hidden_bias + said[1]

    def said(self, cells: Array) -> Array:
        """x'·W, (..., width) -> (..., n_hidden); cells that are not seen are 0."""
        return times(cells / self.spread, self.weights)

    def params(self, hidden: Array) -> Array:
        """Parameters of the visible units, (..., n_hidden) -> (..., width)."""
        return self.bias + times(hidden - self._centre, self.weights.T)

    def log_visible(self, cells: Array, seen: Array) -> Array:
        """What the seen cells say without the hidden units, (...,) nats; the mass of seen levels included."""
        measure = self.units.log_measure(cells, self.spread) + self.units.log_seen
        return times(cells / self.spread, self.bias) + jnp.sum(seen * measure, axis=-1)

    def log_unnormalised(self, cells: Array, seen: Array, inputs: Array | None = None) -> Array:
        """Minus the free energy of rows without gaps, (...,) nats: log p(x) + log Z.

        inputs : those of the cells, where they are known

        Source: Hinton 2012, eq. 25, for other kinds of units.
        """
        inputs = self.inputs(cells) if inputs is None else inputs
        return self.log_visible(cells, seen) + jnp.sum(self.log_on_or_off(inputs), axis=-1)

    def log_on_or_off(self, inputs: Array, beta: Array | float = 1.0) -> Array:
        """Log of each hidden unit's sum over on and off, (..., n_hidden) nats; beta scales its part of the energy."""
        return _softplus(beta * inputs) - self._centre * beta * (inputs - self.hidden_bias)

    def log_hidden(self, hidden: Array) -> tuple[Array, Array]:
        """What h says without cells, (...,), and the log of what each column sums to given h, (..., n_columns) nats."""
        parts = self.units.log_partition(self.params(hidden), self.spread)
        return times(hidden, self.hidden_bias) - self.together(hidden, self.said(self.middle)), parts

    def together(self, hidden: Array, said: Array) -> Array:
        """What hidden states (..., n_hidden) and cells, by what they `said`, say together: (...,) or (..., n_rows)."""
        return times(hidden - self._centre, said.T)

    def draw_hidden(self, cells: Array, key: Array) -> Array:
        return self.draw_by(self.inputs(cells), key)

    def draw_by(self, inputs: Array, key: Array) -> Array:
        """Hidden units by their logits."""
        return bernoulli(key, jax.nn.sigmoid(inputs))

    def draw_cells(self, hidden: Array, key: Array, *, rounded: bool = False) -> Array:
        return self.units.draw(self.params(hidden), self.spread, key, rounded=rounded)

    def walk(
        self, hidden: Array, key: Array, n_steps: int, clamped: tuple[Array, Array] | None = None
    ) -> Array:
        """Hidden states (..., n_hidden) after `n_steps` of block Gibbs sampling.

        clamped : cells (..., width) and which of them (..., width), 1 or 0, stay as they are
        """

        def step(i: Array, hidden: Array) -> Array:
            key_cells, key_hidden = jax.random.split(jax.random.fold_in(key, i))
            cells = self.draw_cells(hidden, key_cells)
            if clamped is not None:
                cells = jnp.where(clamped[1] > 0, clamped[0], cells)
            return self.draw_hidden(cells, key_hidden)

        return jax.lax.fori_loop(0, n_steps, step, hidden)

    def between(self, marginal: Array, beta: Array) -> tuple[Self, Array]:
        """The machine a share `beta` of the way from the product of the marginal laws, and its numbers' `level`.

        Its density is p0^(1 - beta) times p^beta up to a constant, with h at beta times its inputs
        (Salakhutdinov & Murray 2008, eq. 15 to 17). Numbers: the precisions mix, so the spread between is theirs.
        """
        spread, number = self.spread, self.units.number
        between = jnp.where(number > 0, 1.0 / jnp.sqrt((1.0 - beta) + beta / spread**2), 1.0)
        bias = between * ((1.0 - beta) * marginal + beta * self.bias / spread)
        weights = beta * (between / spread)[:, None] * self.weights
        raw = _raw_of(between)
        level = number * (jnp.log(between) - beta * jnp.log(spread))
        machine = eqx.tree_at(
            lambda one: (one.weights, one.bias, one.hidden_bias, one.raw_spread, one.units.floor),
            self,
            (weights, bias, beta * self.hidden_bias, raw, 0.0 * spread),
        )
        return machine, level


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """log(1 + eˣ), with the sigmoid for its derivative: a training step has that of every unit anyway.

    `jax.nn.softplus` takes an exponential of its own there, which was 4 to 8 % of a step of 784-500 units.
    """
    return jax.nn.softplus(x)


@_softplus.defjvp
def _softplus_jvp(at: tuple[Array], along: tuple[Array]) -> tuple[Array, Array]:
    return _softplus(at[0]), jax.nn.sigmoid(at[0]) * along[0]


def _raw_of(spread: Array) -> Array:
    """The inverse of `Units.spread` without a floor."""
    return jnp.log(jnp.expm1(spread)) - math.log(math.e - 1.0)
