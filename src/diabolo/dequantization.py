"""Cells of any kind as places on a line: a point, or an interval that noise spreads the cell over.

Every modelled column has one coordinate. A real number without a grid is a point there. Whatever is coarse or discrete
is an interval, and the intervals of a column's values tile the line, so that every coordinate decodes to one value:

- a number on a grid: the value -/+ half a step, noise uniform (Theis, van den Oord & Bethge 2016, section 3.1,
  arXiv:1511.01844); a count's lowest interval and a picture's outer grey levels reach to infinity, noise exponential;
- an atom of a real column: the line is cut there and as much of it put in as its share asks for, noise uniform;
- levels, in the order that they are kept: the standard normal law is cut into as much mass as each level's share, noise
  normal within. So independent levels need no learning at all.

With noise of density q(y | cell) the mean of p(y) / q(y | cell) is the integral of p over the interval.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri

from diabolo.joint import JointLikelihood
from diabolo.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Likelihood,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
)
from diabolo.likelihoods.masses import log_normal_density

__all__ = ["Intervals", "cells_at", "intervals", "spread_columns"]

_POINT, _FLAT, _BELOW, _ABOVE, _NORMAL = range(5)
_LEAST_SHARE = 1e-4  # of a level: what is rarer gets an interval as wide
_EDGE = 1e-6  # of the normal law's mass, never drawn from
_ATOM_WIDTHS = (0.5, 3.0)  # least and most, in spreads of the other values


class Intervals(NamedTuple):
    """Where cells lie, (..., n_columns) each.

    edge, width, shape : where the interval begins, how wide it is, and which noise it takes; of the normal shape both
        are masses of the standard normal law, of those that reach to infinity the width is the noise's mean
    log_unit : what the interval's mass is divided by: 0 for masses, log of the step for masses per step, nats
    """

    edge: Array
    width: Array
    shape: Array
    log_unit: Array

    def at(self, uniform: Array) -> tuple[Array, Array]:
        """Coordinates by uniform numbers in (0, 1), and -log q - log_unit, nats: what log p is moved by.

        One half gives the median, so a place that no noise moves.
        """
        uniform = jnp.clip(uniform, _EDGE, 1.0 - _EDGE)
        beyond = -jnp.log(jnp.where(self.shape == _BELOW, uniform, 1.0 - uniform))
        mass = jnp.clip(self.edge + uniform * self.width, _EDGE, 1.0 - _EDGE)
        normal = ndtri(mass)
        log_width = jnp.log(self.width)

        def choose(*by_shape: Array) -> Array:
            return jnp.select([self.shape == shape for shape in range(1, 5)], by_shape[1:], by_shape[0])

        places = choose(
            self.edge,
            self.edge + uniform * self.width,
            self.edge - beyond * self.width,
            self.edge + beyond * self.width,
            normal,
        )
        moved = choose(
            jnp.zeros_like(log_width),
            log_width,
            log_width + beyond,
            log_width + beyond,
            log_width - log_normal_density(normal),
        )
        return places, moved - self.log_unit


def intervals(likelihood: JointLikelihood, values: Array) -> Intervals:
    """Where the cells of encoded rows (n_rows, width) lie."""

    def one_row(row: Array) -> Array:
        return likelihood.each(lambda law, initial, cell: _interval(law, initial, cell), row)

    found = jax.vmap(one_row)(values).reshape(len(values), likelihood.n_columns, 4)
    found = jax.lax.optimization_barrier(
        found
    )  # else XLA works out, draw by draw, what it knows of the shapes
    return Intervals(*(found[..., i] for i in range(4)))


def cells_at(likelihood: JointLikelihood, places: Array) -> Array:
    """The encoded rows (n_rows, width) that coordinates (n_rows, n_columns) decode to."""
    return jax.vmap(lambda row: likelihood.each_at(lambda law, initial, y: _cell(law, initial, y), row))(
        places
    )


def spread_columns(likelihood: JointLikelihood) -> np.ndarray:
    """(n_columns,) bool: which columns are spread by noise, so that their density is bounded, not known."""
    out = np.ones(likelihood.n_columns, bool)
    for law, columns in zip(likelihood.groups, likelihood.columns, strict=True):
        if isinstance(law, LogNormal) and not law.coarse:
            out[list(columns)] = False
        if isinstance(law, Normal) and not law.coarse and not law.atoms.shape[-1]:
            out[list(columns)] = False
    return out


def _four(*parts: Array | float) -> Array:
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in parts])


@functools.singledispatch
def _interval(law: Likelihood, initial: Array, cell: Array) -> Array:
    """Edge, width, shape and log_unit of one cell of a column with that law and those marginal parameters: (4,)."""
    raise NotImplementedError(type(law))


@functools.singledispatch
def _cell(law: Likelihood, initial: Array, place: Array) -> Array:
    """The encoded cell (width,) at a coordinate."""
    raise NotImplementedError(type(law))


def _atoms(law: Normal, initial: Array) -> tuple[Array, Array, Array]:
    """Where the line is cut for each atom and how much is put in, (n_atoms,) each; half of what its grid cell takes."""
    # 0.4 of the other values lie on the unit around their mean: an atom as dense as they are is so wide
    width = jnp.clip(jnp.exp(initial[1:-1]) / 0.4, *_ATOM_WIDTHS)
    half = law.half if law.coarse else jnp.zeros(())
    before = law.atoms[None, :] < law.atoms[:, None]
    start = law.atoms - half + jnp.sum(jnp.where(before, width[None, :], 0.0), axis=1)
    return start, width, half


@_interval.register
def _(law: Normal, initial: Array, cell: Array) -> Array:
    if law.atoms.shape[-1] == 0:
        if not law.coarse:
            return _four(cell[0], 1.0, _POINT, 0.0)
        return _four(cell[0] - law.half, 2 * law.half, _FLAT, jnp.log(2 * law.half))
    start, width, half = _atoms(law, initial)
    moved = cell[0] + jnp.sum(jnp.where(cell[0] > law.atoms, width, 0.0))
    if law.coarse:
        other = _four(moved - half, 2 * half, _FLAT, jnp.log(2 * half))
    else:
        other = _four(moved, 1.0, _POINT, 0.0)
    at_atom = _four(jnp.sum(cell[1:] * start), jnp.sum(cell[1:] * width) + 2 * half, _FLAT, 0.0)
    return jnp.where(jnp.sum(cell[1:]) > 0, at_atom, other)


@_cell.register
def _(law: Normal, initial: Array, place: Array) -> Array:
    if law.atoms.shape[-1] == 0:
        return place[None]
    start, width, half = _atoms(law, initial)
    inside = (place >= start) & (place < start + width + 2 * half)
    value = place - jnp.sum(jnp.clip(place - start - half, 0.0, width))
    return jnp.concatenate([jnp.where(jnp.any(inside), 0.0, value)[None], inside.astype(place.dtype)])


@_interval.register
def _(law: LogNormal, initial: Array, cell: Array) -> Array:
    if not law.coarse:
        return _four(cell[0], 1.0, _POINT, 0.0)
    log_ratio = jnp.log(law.half) - (
        law.s * cell[0] + law.m
    )  # half / x: 1/2 on the lowest cell, then 1/4, ...
    lowest = log_ratio > np.log(0.4)
    ratio = jnp.exp(jnp.clip(log_ratio, -15.0, float(np.log(0.5))))
    above, below = jnp.log1p(ratio) / law.s, -jnp.log1p(-ratio) / law.s
    log_unit = jnp.log(2 * ratio / law.s)
    inner = _four(cell[0] - below, above + below, _FLAT, log_unit)
    return jnp.where(lowest, _four(cell[0] + above, above + below, _BELOW, log_unit), inner)


@_interval.register
def _(law: NegativeBinomial, initial: Array, cell: Array) -> Array:
    count = jnp.maximum(jnp.round(jnp.expm1(law.s * cell[0] + law.m)), 0.0)
    ratio = 0.5 / (1.0 + count)
    above, below = jnp.log1p(ratio) / law.s, -jnp.log1p(-ratio) / law.s
    lowest = _four(cell[0] + above, above + below, _BELOW, 0.0)
    return jnp.where(count > 0, _four(cell[0] - below, above + below, _FLAT, 0.0), lowest)


@_interval.register
def _(law: DiscretizedLogistic, initial: Array, cell: Array) -> Array:
    half = 1 / (law.n_levels - 1)
    inner = _four(cell[0] - half, 2 * half, _FLAT, 0.0)
    outer = jnp.where(cell[0] < half - 1, _four(cell[0] + half, 2 * half, _BELOW, 0.0), inner)
    return jnp.where(cell[0] > 1 - half, _four(cell[0] - half, 2 * half, _ABOVE, 0.0), outer)


@_cell.register(LogNormal)
@_cell.register(DiscretizedLogistic)
def _(law: LogNormal | DiscretizedLogistic, initial: Array, place: Array) -> Array:
    return place[None]


@_cell.register
def _(law: NegativeBinomial, initial: Array, place: Array) -> Array:
    # the host's expm1 has its own last bit: away from the edges it rounds to the same count
    count = jnp.maximum(jnp.round(jnp.expm1(law.s * place + law.m)), 0.0)
    return (jnp.log1p(count)[None] - law.m) / law.s


def _shares(law: Likelihood, initial: Array) -> tuple[Array, Array]:
    """Each level's share of the normal law's mass, and the mass below it: (n_levels,) each."""
    if isinstance(law, Bernoulli):
        share = jax.nn.sigmoid(jnp.concatenate([-initial, initial]))
    elif isinstance(law, Ordinal):
        share = jnp.diff(jax.nn.sigmoid(law.cuts), prepend=0.0, append=1.0)
    else:
        share = jax.nn.softmax(initial)
    share = jnp.maximum(share, _LEAST_SHARE)
    share = share / jnp.sum(share)
    return share, jnp.cumsum(share) - share


def _of_level(law: Likelihood, initial: Array, one_hot: Array, log_seen: Array | float) -> Array:
    share, below = _shares(law, initial)
    return _four(jnp.sum(one_hot * below), jnp.sum(one_hot * share), _NORMAL, -log_seen)


@_interval.register
def _(law: Bernoulli, initial: Array, cell: Array) -> Array:
    return _of_level(law, initial, jnp.stack([1.0 - cell[0], cell[0]]), 0.0)


@_interval.register(Categorical)
@_interval.register(Ordinal)
def _(law: Categorical | Ordinal, initial: Array, cell: Array) -> Array:
    return _of_level(law, initial, cell, law.log_seen)


@_cell.register
def _(law: Bernoulli, initial: Array, place: Array) -> Array:
    return (ndtr(place) >= _shares(law, initial)[1][1]).astype(place.dtype)[None]


@_cell.register(Categorical)
@_cell.register(Ordinal)
def _(law: Categorical | Ordinal, initial: Array, place: Array) -> Array:
    level = jnp.sum(ndtr(place) >= _shares(law, initial)[1]) - 1
    return jax.nn.one_hot(jnp.maximum(level, 0), law.width, dtype=place.dtype)
