"""Visible units by column kind: two values, levels, numbers; what is random in each given its parameters.

Cells lie here unit type by unit type (`Units.inward`, `Units.outward`), so that each type is one block of an array.
The parameters of a cell, one per encoded value, are linear in the hidden units. A number's unit works on z / spread,
where its law given the hidden units is a normal one of spread 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.boltzmann.bernoulli import bernoulli
from diabolo.checks import refuse
from diabolo.columns import Binary, Categorical, Kind, Ordinal, Pixels, Positive, Real

__all__ = ["Segment", "Units"]

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)
_FLOOR = 1e-3  # least spread of a number's unit, of the column's own
_N_TRIES = 8  # draws of a number that must not fall on an atom's step


class Segment(NamedTuple):
    """Like columns side by side: their units' type, "binary", "levels" or "number", how many, cells of each."""

    unit: str
    n_columns: int
    width: int


class Units(eqx.Module):
    """The visible units of a table.

    Attributes
    ----------
    number : (width,) 1 where a cell is a number's own value, 0 elsewhere
    floor : (width,) least spread there, encoded: a step of the column's grid, else 1e-3
    step : (width,) the step where the column has a coarse grid, else 0; both in the order of the units
    atoms : (width,) at an atom's cell its value, encoded
    log_seen : (n_columns,) log of the mass that seen levels share
    segments, order, columns : static; the blocks, and which encoded value and column stands at each place

    A number on a grid is a point of the normal law on that grid: its mass is the density at the value times the step.
    With a spread of one step or more these masses sum to one up to 6e-9 (Poisson summation), so the density needs no
    correction, and rounded values cannot send it to infinity.
    """

    number: Array
    floor: Array
    step: Array
    atoms: Array
    log_seen: Array
    segments: tuple[Segment, ...] = eqx.field(static=True)
    order: tuple[int, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, kinds: Sequence[Kind], names: Sequence[Any]) -> tuple[Units, np.ndarray]:
        """Units of modelled columns, and the parameters (width,) of the product of their marginal laws."""
        starts = list(itertools.accumulate((kind.width for kind in kinds), initial=0))
        blocks: dict[tuple[str, int], list[int]] = {}
        for i, (kind, name) in enumerate(zip(kinds, names, strict=True)):
            blocks.setdefault((_unit_of(kind, name), kind.width), []).append(i)
        found = sorted(blocks.items(), key=lambda item: item[1][0])
        segments = tuple(Segment(unit, len(inside), width) for (unit, width), inside in found)
        columns = tuple(i for _, inside in found for i in inside)
        order = tuple(place for i in columns for place in range(starts[i], starts[i + 1]))
        facts = np.concatenate([np.zeros((5, 0)), *(_facts(kinds[i]) for i in columns)], axis=1)
        number, floor, step, atoms, marginal = facts.astype(np.float32)
        log_seen: Any = np.array([_log_seen(kinds[i]) for i in columns], np.float32)
        arrays: dict[str, Any] = {"number": number, "floor": floor, "step": step, "atoms": atoms}
        return cls(**arrays, log_seen=log_seen, segments=segments, order=order, columns=columns), marginal

    @property
    def width(self) -> int:
        return len(self.order)

    @property
    def in_place(self) -> bool:
        """Do the cells lie in their columns' order already?"""
        return self.order == tuple(range(self.width))

    def inward(self, values: Array) -> Array:
        """Encoded rows (..., width) in the order of the units."""
        return values if self.in_place else values[..., np.asarray(self.order)]

    def outward(self, cells: Array) -> Array:
        """The inverse of `inward`."""
        return cells if self.in_place else cells[..., np.argsort(self.order)]

    def seen(self, observed: Array) -> Array:
        """(..., n_columns) float, 1 where a column is observed, in the order of the units."""
        flags = observed if self.in_place else observed[..., np.asarray(self.columns)]
        return flags.astype(jnp.float32)

    def per_cell(self, of_columns: Array) -> Array:
        """What is said of each column, (..., n_columns), said of its cells: (..., width)."""
        parts = [
            jnp.repeat(part, segment.width, axis=-1) if segment.width > 1 else part
            for part, segment in zip(self._by_column(of_columns), self.segments, strict=True)
        ]
        return _beside(parts, of_columns)

    def spread(self, raw: Array) -> Array:
        """(width,) spreads of the numbers' units, 1 elsewhere; raw 0 is the column's own where no floor binds."""
        if all(segment.unit != "number" for segment in self.segments):
            return jnp.ones(self.width)  # a constant: its gradient would be two matrix products for nothing
        learned = jax.nn.softplus(raw + math.log(math.e - 1.0))
        safe = jnp.sqrt(jnp.square(self.floor) + jnp.square(learned))
        return jnp.where(self.number > 0, safe, 1.0)

    def log_partition(self, params: Array, spread: Array, level: Array | float = 0.0) -> Array:
        """Log of each unit's sum over its values, (..., width) -> (..., n_columns) nats.

        level : (width,) what a number's continuous part has more than an atom
        """
        parts = []
        level = jnp.broadcast_to(level, (self.width,))
        for segment, theta, *facts in self._blocks(params, spread, level, self.step, self.atoms):
            if segment.unit == "binary":
                parts.append(jax.nn.softplus(theta[..., 0]))
            elif segment.unit == "levels":
                parts.append(jax.nn.logsumexp(theta, axis=-1))
            else:
                parts.append(jax.nn.logsumexp(_log_parts(theta, *facts), axis=-1))
        return _beside(parts, params)

    def log_measure(self, cells: Array, spread: Array) -> Array:
        """What no parameter multiplies, (..., width) -> (..., n_columns): of numbers the normal law at 0, else 0."""
        parts = []
        for segment, block, width in self._blocks(cells, spread):
            if segment.unit == "number":
                z = block[..., 0] / width[..., 0]
                inside = 1.0 - jnp.sum(block[..., 1:], axis=-1)
                parts.append(inside * (-0.5 * z**2 - _HALF_LOG_TAU - jnp.log(width[..., 0])))
            else:
                parts.append(jnp.zeros(block.shape[:-1]))
        return _beside(parts, cells)

    def draw(
        self,
        params: Array,
        spread: Array,
        key: Array,
        level: Array | float = 0.0,
        *,
        rounded: bool = False,
    ) -> Array:
        """Cells (..., width) at their parameters.

        rounded : the draws will be rounded to the columns' grids, which adds step² / 12 to their variance; take so
            much away beforehand (Sheppard 1898), so that they have the law of the grid's points
        """
        parts = []
        level = jnp.broadcast_to(level, (self.width,))
        blocks = self._blocks(params, spread, level, self.step, self.atoms)
        for (segment, theta, *facts), one in zip(
            blocks, jax.random.split(key, max(len(blocks), 1)), strict=False
        ):
            if segment.unit == "binary":
                parts.append(bernoulli(one, jax.nn.sigmoid(theta[..., 0])))
                continue
            if segment.unit == "levels":
                chosen = jax.random.categorical(one, theta)
                drawn = jax.nn.one_hot(chosen, segment.width, dtype=jnp.float32)
            else:
                drawn = _draw_numbers(theta, *facts, key=one, rounded=rounded)
            parts.append(drawn.reshape(*drawn.shape[:-2], segment.n_columns * segment.width))
        return _beside(parts, params)

    def centre(self, params: Array, spread: Array, *, mean: bool = False) -> Array:
        """The cells that stand for the law, (..., width): the likelier value or part, a number's location.

        mean : expected cells instead, as shares of the levels
        """
        parts = []
        for segment, theta, *facts in self._blocks(params, spread, 0.0 * spread, self.step, self.atoms):
            if segment.unit == "binary":
                at = jax.nn.sigmoid(theta)
                cells = at if mean else (at > 0.5).astype(jnp.float32)
            elif segment.unit == "levels":
                best = jax.nn.one_hot(jnp.argmax(theta, axis=-1), segment.width)
                cells = jax.nn.softmax(theta, axis=-1) if mean else best
            else:
                logits = _log_parts(theta, *facts)
                best = jax.nn.one_hot(jnp.argmax(logits, axis=-1), segment.width)
                shares = jax.nn.softmax(logits, axis=-1) if mean else best
                place = theta[..., 0] * facts[0][..., 0]
                cells = shares.at[..., 0].multiply(place)
            parts.append(cells.reshape(*cells.shape[:-2], segment.n_columns * segment.width))
        return _beside(parts, params)

    def _blocks(self, *arrays: Array) -> list[Any]:
        """Per segment, itself and each array's (..., n_columns, its width)."""
        found, start = [], 0
        for segment in self.segments:
            stop = start + segment.n_columns * segment.width
            shape = (segment.n_columns, segment.width)
            cut = (array[..., start:stop].reshape(*array.shape[:-1], *shape) for array in arrays)
            found.append((segment, *cut))
            start = stop
        return found

    def _by_column(self, array: Array) -> list[Array]:
        edges = list(itertools.accumulate((segment.n_columns for segment in self.segments), initial=0))
        return [array[..., a:b] for a, b in itertools.pairwise(edges)]


def _log_parts(theta: Array, spread: Array, level: Array, step: Array, atoms: Array) -> Array:
    """Log weights of a number's continuous part and of its atoms, (..., n_columns, width).

    On a grid the continuous part leaves an atom's own point to the atom.
    """
    inside = level[..., 0] + 0.5 * theta[..., 0] ** 2
    if theta.shape[-1] > 1:
        width = spread[..., :1]
        place = atoms[..., 1:] / width - theta[..., :1]
        lost = step[..., :1] / width * jnp.exp(-0.5 * place**2 - _HALF_LOG_TAU)
        inside = inside + jnp.log1p(-jnp.sum(jnp.minimum(lost, 0.4), axis=-1))
    return jnp.concatenate([inside[..., None], theta[..., 1:]], axis=-1)


def _draw_numbers(
    theta: Array, spread: Array, level: Array, step: Array, atoms: Array, *, key: Array, rounded: bool
) -> Array:
    width = spread[..., 0]
    if rounded:
        width = jnp.sqrt(jnp.maximum(width**2 - step[..., 0] ** 2 / 12.0, 0.0))
    place = theta[..., 0] * spread[..., 0]
    if theta.shape[-1] == 1:
        return (place + width * jax.random.normal(key, place.shape))[..., None]
    key_part, key_place = jax.random.split(key)
    tried = place + width * jax.random.normal(key_place, (_N_TRIES, *place.shape))
    apart = jnp.abs(tried[..., None] - atoms[..., 1:])
    clear = jnp.all(apart >= 0.5 * step[..., :1], axis=-1)
    inside = jnp.take_along_axis(tried, jnp.argmax(clear, axis=0)[None], axis=0)[0]
    part = jax.random.categorical(key_part, _log_parts(theta, spread, level, step, atoms))
    return jax.nn.one_hot(part, theta.shape[-1]).at[..., 0].multiply(inside)


def _beside(parts: list[Array], like: Array) -> Array:
    """Blocks side by side; of a table without a modelled column, none beside the leading axes of `like`."""
    if not parts:
        return jnp.zeros((*like.shape[:-1], 0))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _unit_of(kind: Kind, name: Any) -> str:
    if isinstance(kind, Binary):
        return "binary"
    if isinstance(kind, (Categorical, Ordinal)):
        return "levels"
    if isinstance(kind, Real) or (isinstance(kind, Positive) and not kind.coarse):
        return "number"
    stepped = " with a step" if isinstance(kind, Positive) else ""
    raise refuse(
        f"column {name!r} of a Boltzmann machine",
        got=f"kind {kind.name!r}{stepped}",
        want="a binary, categorical, ordinal or real column",
        fix="Say kinds='real'." if isinstance(kind, Pixels) else f"Say kinds={{{name!r}: 'real'}}.",
    )


def _log_seen(kind: Kind) -> float:
    """Log of the mass that the levels seen in training share."""
    return float(np.log1p(-kind.reserved)) if isinstance(kind, Categorical) else 0.0


def _facts(kind: Any) -> np.ndarray:
    """(5, width): number, floor, step, atoms, marginal parameters."""
    facts = np.zeros((5, kind.width))
    if isinstance(kind, Ordinal):
        facts[4] = np.log(kind.shares)
    elif isinstance(kind, (Binary, Categorical)):
        facts[4] = kind.initial()
    else:
        facts[0, 0], facts[1, 0] = 1.0, _FLOOR
        if isinstance(kind, Real):
            if kind.coarse:
                facts[1, 0] = facts[2, 0] = kind.resolution / kind.scale
            facts[3, 1:] = (np.asarray(kind.atoms, np.float64) - kind.mean) / kind.scale
            facts[4, 1:] = kind.initial()[1:-1]
    return facts
