"""Invertible layers of flowjax between rows and codes, kept as plain arrays."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.nets import ACTIVATIONS

__all__ = ["FlowLayers", "FlowPlan", "Tail"]

_INTERVAL = 5.0  # splines bend within, and are the identity beyond
_NARROWEST = (
    0.1  # of a spline's bins, and _STEEPEST, at a knot: so that repeated rows send no density to infinity
)
_STEEPEST = 30.0
_GAIN = 0.01  # of the last layer's initial weights: layers begin close to the identity


class FlowPlan(NamedTuple):
    """All that is no array: how many layers of which sort, over how many columns.

    transformation : "autoregressive" or "coupling"
    width, depth : of the hidden layers of the network that says the splines
    n_bins : of each rational-quadratic spline
    """

    transformation: str
    n_columns: int
    n_given: int
    n_layers: int
    width: int
    depth: int
    activation: str
    n_bins: int


class FlowLayers(eqx.Module):
    """Rows to codes and back, n_columns numbers each, and what a volume is stretched by on its way.

    ```
    row ─▶ [spline of every number, said by those before it ─▶ numbers in another order] · n_layers ─▶ code
    ```

    Only flowjax's arrays are kept; the layers around them are made anew where they are needed, so that they pickle.

    Source: rational-quadratic splines, Durkan, Bekasov, Murray & Papamakarios 2019, eq. 4 and 5, arXiv:1906.04032, with
    bounded slopes; masked autoregressive, Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057; coupling, Dinh,
    Sohl-Dickstein & Bengio 2017, arXiv:1605.08803.
    """

    arrays: tuple[Array, ...]
    plan: FlowPlan = eqx.field(static=True)

    @classmethod
    def starting(cls, plan: FlowPlan, key: Array) -> FlowLayers:
        if not plan.n_columns:
            return cls((), plan)
        _frame(plan)  # now: inside a program it could not be made
        arrays = jax.tree.leaves(eqx.filter(_made(plan, key), eqx.is_array))
        return cls(tuple(np.asarray(array) for array in arrays), plan)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.arrays, self.plan)

    def codes(self, rows: Array, given: Array) -> tuple[Array, Array]:
        """(n, n_columns) rows and their conditions (n, n_given) to codes and log |d code / d row|, (n,) nats."""
        if not self.plan.n_columns:
            return rows, jnp.zeros(len(rows))
        layers = self._whole()
        return jax.vmap(layers.transform_and_log_det)(rows, self._conditions(given))

    def rows(self, codes: Array, given: Array) -> Array:
        """The inverse of `codes`: (n, n_columns)."""
        if not self.plan.n_columns:
            return codes
        layers = self._whole()
        return jax.vmap(layers.inverse)(codes, self._conditions(given))

    def square(self) -> Array:
        """Sum of all squared weights, biases included, ()."""
        weights = [array for array in self.arrays if jnp.issubdtype(array.dtype, jnp.inexact)]
        return sum((jnp.sum(array**2) for array in weights), jnp.zeros(()))

    def _conditions(self, given: Array) -> Array | None:
        width = _condition_width(self.plan)
        if width is None:
            return None
        return given if self.plan.n_given else jnp.zeros((len(given), width))

    def _whole(self) -> Any:
        import paramax

        structure, static = _frame(self.plan)
        arrays = jax.tree.unflatten(structure, map(jnp.asarray, self.arrays))
        return paramax.unwrap(eqx.combine(arrays, static))


class Tail(eqx.Module):
    """A radial map after which codes whose tail is Student's have a normal one, as rows far from all others need.

    g² = k log(1 + r² / k),  r the code's length before, g after

    A normal code makes a row at r = 40, an ordinary outlier, cost 800 nats, and one such row outweighs hundreds. Far
    out the density of the code before is that of Student's law with k degrees of freedom, r^-(k + width); near the
    middle nothing changes. Splines cannot do that: they are the identity beyond their knots, and a map of bounded slope
    keeps a normal tail normal.

    Attributes
    ----------
    heaviness : (), 1 / k; 0 leaves codes as they are

    Source: that no such map has a heavier tail than its base, Jaini, Kobyzev, Yu & Brubaker 2020, arXiv:1907.04481, who
    change the base to Student's law; here the code stays normal.
    """

    heaviness: Array

    @classmethod
    def normal(cls) -> Tail:
        return cls(np.zeros((), np.float32))  # type: ignore[arg-type]

    def __call__(self, codes: Array) -> tuple[Array, Array]:
        """(n, width) to the same and log |d after / d before|, (n,) nats."""
        square = jnp.sum(codes**2, axis=1)
        share, log_det = self.of_square(square, codes.shape[1])
        return codes * jnp.sqrt(share)[:, None], log_det

    def of_square(self, square: Array, width: int) -> tuple[Array, Array]:
        """g² / r² and the log-determinant at r², of any shape."""
        grown = self.heaviness * square
        some = grown > 1e-6
        share = jnp.where(some, jnp.log1p(grown) / jnp.where(some, grown, 1.0), 1.0 - 0.5 * grown)
        return share, 0.5 * (width - 2) * jnp.log(share) - jnp.log1p(grown)

    def inverse(self, codes: Array) -> Array:
        grown = self.heaviness * jnp.sum(codes**2, axis=1)
        some = grown > 1e-6
        share = jnp.where(some, jnp.expm1(grown) / jnp.where(some, grown, 1.0), 1.0 + 0.5 * grown)
        return codes * jnp.sqrt(share)[:, None]


def _condition_width(plan: FlowPlan) -> int | None:
    """flowjax's networks need an input: of a single column alone it is a zero."""
    return plan.n_given or (1 if plan.n_columns == 1 else None)


@functools.lru_cache(maxsize=256)
def _frame(plan: FlowPlan) -> tuple[Any, Any]:
    """The structure of the layers' arrays, and all that is no array."""
    arrays, static = eqx.partition(_made(plan, jax.random.key(0)), eqx.is_array)
    return jax.tree.structure(arrays), static


def _unpickled(arrays: tuple[Array, ...], plan: FlowPlan) -> FlowLayers:
    if plan.n_columns:
        _frame(plan)
    return FlowLayers(arrays, plan)


def _made(plan: FlowPlan, key: Array) -> Any:
    """flowjax's layers, from row to code."""
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    make = {"autoregressive": masked_autoregressive_flow, "coupling": coupling_flow}[plan.transformation]
    flow = make(
        key,
        base_dist=Normal(jnp.zeros(plan.n_columns)),
        transformer=_spline(plan.n_bins),
        cond_dim=_condition_width(plan),
        flow_layers=plan.n_layers,
        nn_width=plan.width,
        nn_depth=plan.depth,
        nn_activation=ACTIVATIONS[plan.activation],
        invert=True,
    )
    layers: Any = flow.bijection.bijection  # type: ignore[attr-defined]  # the inside of `Invert`: rows to codes

    def last_layer(layers: Any) -> list[Any]:
        layer = layers.bijection if plan.n_columns == 1 else layers.bijection.bijections[0]
        if plan.transformation == "coupling":
            last = layer.conditioner.layers[-1]
            return [last.weight, last.bias]
        last = layer.masked_autoregressive_mlp.layers[-1]
        return [last.weight.args[1], last.bias]

    return eqx.tree_at(last_layer, layers, replace_fn=lambda array: _GAIN * array)


def _spline(n_bins: int) -> Any:
    """A flowjax bijection of one number, the identity at its initial parameters.

    flowjax's own spline looks its bin up by a gather, whose gradient is a scatter: on a CPU several times slower than
    the sums over all bins here.
    """
    from flowjax.bijections import AbstractBijection

    class Spline(AbstractBijection):
        raw: Array  # (3 n_bins - 1,), widths, heights and inner slopes of the bins
        shape = ()
        cond_shape = None

        def __init__(self, raw: Array) -> None:
            self.raw = raw

        def transform_and_log_det(self, x: Array, condition: Array | None = None) -> tuple[Array, Array]:
            return _bend(self.raw, x)

        def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
            return _unbend(self.raw, y)

    return Spline(jnp.zeros(3 * n_bins - 1))


def _bend(raw: Array, x: Array) -> tuple[Array, Array]:
    """One number through its spline, and log of the slope there."""
    inside = jnp.abs(x) < _INTERVAL
    left, width, low, height, slope, next_slope = _bin(raw, jnp.where(inside, x, 0.0), by_output=False)
    place = (jnp.where(inside, x, 0.0) - left) / width
    y, log_slope = _within(place, height / width, height, slope, next_slope)
    return jnp.where(inside, low + y, x), jnp.where(inside, log_slope, 0.0)


def _unbend(raw: Array, y: Array) -> tuple[Array, Array]:
    """The inverse, and log of its slope: the root of a quadratic, as in the paper's eq. 6 to 8."""
    inside = jnp.abs(y) < _INTERVAL
    left, width, low, height, slope, next_slope = _bin(raw, jnp.where(inside, y, 0.0), by_output=True)
    rise, mean_slope = jnp.where(inside, y, 0.0) - low, height / width
    bend = rise * (slope + next_slope - 2 * mean_slope)
    a, b, c = height * (mean_slope - slope) + bend, height * slope - bend, -mean_slope * rise
    place = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 1e-12)))
    _, log_slope = _within(place, mean_slope, height, slope, next_slope)
    return jnp.where(inside, left + place * width, y), jnp.where(inside, -log_slope, 0.0)


def _within(
    place: Array, mean_slope: Array, height: Array, slope: Array, next_slope: Array
) -> tuple[Array, Array]:
    """Height above the bin's floor at a place in (0, 1) of its width, and log of the slope: the paper's eq. 4 and 5."""
    across = place * (1 - place)
    below = mean_slope + (next_slope + slope - 2 * mean_slope) * across
    rise = height * (mean_slope * place**2 + slope * across) / below
    steep = next_slope * place**2 + 2 * mean_slope * across + slope * (1 - place) ** 2
    return rise, 2 * jnp.log(mean_slope) + jnp.log(steep) - 2 * jnp.log(below)


def _bin(raw: Array, at: Array, by_output: bool) -> list[Array]:
    """Left edge, width, floor, height and both slopes of the bin that holds a number: six numbers."""
    n_bins = (len(raw) + 1) // 3
    free = 2 * _INTERVAL - n_bins * _NARROWEST
    width, height = (
        _NARROWEST + free * jax.nn.softmax(part) for part in (raw[:n_bins], raw[n_bins : 2 * n_bins])
    )
    left, low = (jnp.cumsum(part) - part - _INTERVAL for part in (width, height))
    one = jnp.ones(1)
    slopes = jnp.concatenate([one, _slopes(raw[2 * n_bins :]), one])  # the line beyond has slope 1
    passed = jnp.concatenate([one, ((low if by_output else left)[1:] <= at).astype(raw.dtype), 0 * one])
    here = passed[:-1] - passed[1:]  # one-hot
    return [jnp.sum(here * part) for part in (left, width, low, height, slopes[:-1], slopes[1:])]


def _slopes(raw: Array) -> Array:
    """Between 1 / 30 and 30, 1 at raw 0."""
    reach = math.log(_STEEPEST)
    return jnp.exp(reach * jnp.tanh(raw / reach))
