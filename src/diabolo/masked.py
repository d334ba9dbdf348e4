"""A network whose answer about each column looks only at the columns before it in an order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.keys import host_generator
from diabolo.nets import ACTIVATIONS, Linear

__all__ = ["MaskedMLP"]


class MaskedMLP(eqx.Module):
    """Fully connected network with masks: one row in, what is said of every column out.

    Every hidden unit has a degree m: it sees the first m columns of the order and no other. The order is no part of
    the network but comes with each call, as the places of inputs and outputs, so that one set of weights serves all
    orders. Inputs at place 0 (conditions) are seen by all. As in `MLP`, three equal hidden layers or more are residual.

    ```
    inputs ─▶ unit of degree m, where place <= m ─▶ ... ─▶ output, where m < place
    ```

    Attributes
    ----------
    layers : hidden ones, each layer's units by ascending degree
    last : to the outputs
    direct : (n_inputs, n_outputs) weights past all hidden layers, or None; they begin at zero
    n_columns : static; degrees run to one less
    least : static; the lowest degree, 0 where there are conditions, else 1

    Source: Germain, Gregor, Murray & Larochelle 2015, eq. 8, 9 and 13, arXiv:1502.03509; there degrees are drawn,
    here they are spread evenly.
    """

    layers: tuple[Linear, ...]
    last: Linear
    direct: Array | None
    n_columns: int = eqx.field(static=True)
    least: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        n_columns: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        key: Array,
        *,
        conditions: bool = False,
        direct: bool = False,
    ) -> None:
        widths = [n_inputs, *hidden_layer_sizes]
        rng = host_generator(key)
        gain = math.sqrt(2.0) if activation in ("relu", "gelu", "silu") else 1.0
        self.layers = tuple(Linear(a, b, rng, gain) for a, b in itertools.pairwise(widths))
        self.last = Linear(widths[-1], n_outputs, rng)
        self.direct = np.zeros((n_inputs, n_outputs), np.float32) if direct else None  # type: ignore[assignment]
        self.n_columns, self.activation = n_columns, activation
        self.least = 0 if conditions else min(1, max(n_columns - 1, 0))

    @property
    def degrees(self) -> list[np.ndarray]:
        """Of each hidden layer: (n_units,), ascending, evenly spread over the numbers of columns that can be seen."""
        top = max(self.n_columns - 1, self.least)
        out = []
        for layer in self.layers:
            n_units, n_degrees = len(layer.bias), top - self.least + 1
            # as many units of each degree, or, where there are fewer units, degrees from end to end
            steps = np.arange(n_units) * n_degrees // n_units
            spread = np.rint(np.linspace(0, n_degrees - 1, n_units)).astype(int)
            out.append(self.least + (steps if n_units >= n_degrees else spread))
        return out

    def square(self) -> Array:
        """() the sum of all squared weights; biases are none."""
        weights = [*(layer.weight for layer in self.layers), self.last.weight, self.direct]
        return sum((jnp.sum(weight**2) for weight in weights if weight is not None), jnp.zeros(()))

    def hidden(
        self,
        inputs: Array,
        places: Array,
        key: Array | None = None,
        dropout: float = 0.0,
        *,
        own: bool = False,
    ) -> list[Array]:
        """Each hidden layer of one row.

        Parameters
        ----------
        inputs : (n_inputs,)
        places : (n_inputs,)   of each input's column in the order, from 1; 0 for what all may see
        key : of the units dropped; None drops none
        dropout : share of each layer's units that is dropped
        own : whether the order is the row's own; several rows then share no masks, but units of one degree still do
        """
        below, known, out = inputs, places, []
        for i, (layer, degrees) in enumerate(zip(self.layers, self.degrees, strict=True)):
            if own and i == 0:
                which, filled, distinct = _by_degree(degrees)
                seen = jnp.where(known <= distinct[:, None], below, 0.0)  # (n_degrees, n_inputs)
                total = jnp.einsum("gi,igc->gc", seen, layer.weight[:, which])
                total = total[filled] + layer.bias
            else:
                total = below @ jnp.where(known[:, None] <= degrees, layer.weight, 0.0) + layer.bias
            unit = self._activated(total, below, i)
            if key is not None and dropout:
                keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1.0 - dropout, unit.shape)
                unit = jnp.where(keep, unit / (1.0 - dropout), 0.0)
            out.append(unit)
            below, known = unit, jnp.asarray(degrees)
        return out

    def say(
        self, hidden: Array, inputs: Array, places_in: Array, places: Array, *, own: bool = False
    ) -> Array:
        """What is said of one row's columns.

        Parameters
        ----------
        hidden : (n_units,) the last hidden layer
        inputs, places_in : (n_inputs,)
        places : (n_outputs,) of each output's column in the order
        own : as for `hidden`

        Returns
        -------
        (n_outputs,)
        """
        degrees = self.degrees[-1]
        if own:
            which, filled, distinct = _by_degree(degrees)
            units = jnp.where(filled, hidden[which], 0.0)  # (n_degrees, n_units of one)
            each = jnp.einsum("gc,gco->go", units, self.last.weight[which])
            said = jnp.sum(jnp.where(distinct[:, None] < places, each, 0.0), axis=0) + self.last.bias
        else:
            said = hidden @ jnp.where(degrees[:, None] < places, self.last.weight, 0.0) + self.last.bias
        if self.direct is None:
            return said
        return said + inputs @ jnp.where(places_in[:, None] < places, self.direct, 0.0)

    def reach(self, inputs: Array, hidden: list[Array], n_known: Array, n_given: Array) -> list[Array]:
        """Fill in the units that see exactly the `n_known` cells known by now, of one row.

        Parameters
        ----------
        inputs : (n_inputs,)   0 where a cell is not known
        hidden : each layer (n_units,)   0 where a unit sees more cells than are known
        n_known : () int
        n_given : () int   cells known from the start: units that see fewer are left as they are

        All weights take part once while a row is drawn: units are in the order of their degrees, so those of one
        degree lie side by side, whatever the order of the columns.
        """
        below, out = inputs, []
        for i, (layer, degrees, unit) in enumerate(zip(self.layers, self.degrees, hidden, strict=True)):
            size = int(np.unique(degrees, return_counts=True)[1].max())
            first = jnp.asarray(np.searchsorted(degrees, np.arange(self.n_columns + 1)))[n_known]
            first = jnp.minimum(first, len(degrees) - size)
            weight = lax.dynamic_slice(layer.weight, (0, first), (len(below), size))
            old = lax.dynamic_slice(unit, (first,), (size,))
            shortcut = lax.dynamic_slice(below, (first,), (size,)) if self._is_block(i) else old
            total = below @ weight + lax.dynamic_slice(layer.bias, (first,), (size,))
            new = self._activated(total, shortcut, i)
            due = (lax.dynamic_slice(jnp.asarray(degrees), (first,), (size,)) == n_known) & (
                n_known >= n_given
            )
            unit = lax.dynamic_update_slice(unit, jnp.where(due, new, old), (first,))
            out.append(unit)
            below = unit
        return out

    def _is_block(self, i: int) -> bool:
        """Whether hidden layer i adds to what comes in."""
        return (
            len(self.layers) >= 3
            and i > 0
            and self.layers[i].weight.shape[0] == self.layers[i].weight.shape[1]
        )

    def _activated(self, total: Array, below: Array, i: int) -> Array:
        unit = ACTIVATIONS[self.activation](total)
        return below + unit if self._is_block(i) else unit


def _by_degree(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units side by side, a row per degree: which unit (n_degrees, n_most), whether it is one, and the degrees."""
    distinct, first, counts = np.unique(degrees, return_index=True, return_counts=True)
    step = np.arange(counts.max())
    return first[:, None] + np.minimum(step, counts[:, None] - 1), step < counts[:, None], distinct
