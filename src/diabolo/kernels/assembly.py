"""From training rows and bandwidths to the mixture, on the host in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from diabolo.columns import Count, Kind, Ordinal, Positive, Real
from diabolo.joint import JointLikelihood
from diabolo.kernels.columns import Division
from diabolo.kernels.mixture import Kernels
from diabolo.likelihoods import raw_scale

__all__ = ["Places", "Smoothing", "padded_size"]

_LEAST = 1e-6  # share of a level that no kernel gives up: logarithms stay finite


class Smoothing(NamedTuple):
    """How wide kernels are.

    bandwidth : standard deviation in every direction, block units
    share : of a column's own frequencies in its table of levels; the rest is the training row's own level
    """

    bandwidth: float
    share: float


@dataclass(frozen=True)
class Places:
    """Where kernels stand and how they are shaped, all but their widths.

    Where a row has a gap its kernel has the column's own marginal law: every kernel is a law of whole rows, so that
    leaving a cell out of the mixture is integrating over it.

    values, observed : encoded training rows
    blank : float32, the kernels at no width yet, filled up with kernels of no weight
    noise : (n, 1) variances beside the bandwidth's, or 0
    gaps : (n, n_block) of the block's cells, or None where there are none
    """

    values: np.ndarray
    observed: np.ndarray
    blank: Kernels
    noise: np.ndarray | float
    gaps: np.ndarray | None

    @classmethod
    def of(
        cls,
        division: Division,
        own: JointLikelihood,
        values: np.ndarray,
        observed: np.ndarray,
        *,
        factor: np.ndarray | None = None,
        move: np.ndarray | None = None,
        noise: np.ndarray | None = None,
        n_padded: int = 0,
    ) -> Places:
        """On every row.

        Parameters
        ----------
        values, observed : encoded training rows
        factor : (n, n_directions, n_block) further spread along directions; None for none
        move : (n, n_block) from the row to its kernel's centre
        noise : (n,) variances beside the bandwidth's
        n_padded : fill up to so many kernels, of no weight, so that programs serve several numbers of rows
        """
        n, n_block = len(values), division.n_block
        x, seen = division.block(np.asarray(values, np.float64), observed)
        centre = x if move is None else x + move * seen
        factor = np.zeros((n, 0, n_block)) if factor is None else factor
        gaps = None if seen.all() else ~seen
        if gaps is not None:
            factor = factor * seen[:, None, :]
        n_padded = max(n_padded, n)
        log_weight = np.full(n_padded, -np.inf, np.float32)
        log_weight[:n] = -np.log(max(n, 1))
        filled = (_filled(part, n_padded) for part in (centre, factor))
        none = np.zeros((n_padded, len(division.level_cells))), np.zeros((n_padded, own.n_params))
        centre, factor, tables, params = (np.asarray(part, np.float32) for part in (*filled, *none))
        variance = np.ones((1, n_block), np.float32)
        blank = Kernels(division, own, log_weight, centre, variance, factor, tables, params)  # type: ignore[arg-type]
        return cls(values, observed, blank, 0.0 if noise is None else noise[:, None], gaps)

    def at(self, smoothing: Smoothing) -> Kernels:
        """The mixture of kernels so wide."""
        division, own, n_padded = self.blank.division, self.blank.own, len(self.blank.centre)
        variance = np.maximum(
            smoothing.bandwidth**2 + self.noise, np.asarray(division.floor, np.float64) ** 2
        )
        variance = np.atleast_2d(variance)  # one for all kernels, where neither noise nor gaps set them apart
        if self.gaps is not None:
            spread = np.asarray(division.spread, np.float64)
            variance = np.where(self.gaps, np.maximum(variance, spread**2), variance)
        if len(variance) > 1:
            variance = _filled(variance, n_padded)
        rows = self.values, self.observed
        tables = _filled(_tables(division, *rows, smoothing.share), n_padded)
        params = _filled(_params(division, own, *rows, smoothing), n_padded)
        widths = (np.asarray(part, np.float32) for part in (variance, tables, params))
        return eqx.tree_at(
            lambda kernels: (kernels.variance, kernels.tables, kernels.params), self.blank, (*widths,)
        )


def _filled(part: np.ndarray, n_padded: int) -> np.ndarray:
    """Filled up with the last kernel; where there is none, with nothing."""
    short = n_padded - len(part)
    mode: Any = "edge" if len(part) else "constant"
    return np.pad(part, ((0, short), *[(0, 0)] * (part.ndim - 1)), mode=mode) if short else part


def padded_size(n: int) -> int:
    """The next of 64, 80, 96, 112, 128, 160, ...: a quarter more at most."""
    size, step = 64, 16
    while size < n:
        size += step
        step = 2 * step if size == 8 * step else step
    return size


def _tables(division: Division, values: np.ndarray, observed: np.ndarray, share: float) -> np.ndarray:
    """Log-probability of every level under every row's kernel: (n, n_levels)."""
    held = np.asarray(division.levels(values, observed), np.float64)
    tables = np.zeros(held.shape)
    columns = np.array(division.level_columns, int)
    for i in dict.fromkeys(division.level_columns):
        here, kind = np.flatnonzero(columns == i), division.kind_of[i]
        own, all_levels = held[:, here], _frequencies(kind)
        around = own @ _near(kind, all_levels)
        chance = np.where(observed[:, i, None], (1.0 - share) * own + share * around, all_levels)
        chance = (1.0 - _LEAST) * chance + _LEAST * all_levels
        tables[:, here] = np.log(chance) + np.log1p(-getattr(kind, "reserved", 0.0))
    return tables


def _frequencies(kind: Any) -> np.ndarray:
    """Of the levels of a column: (n_levels,)."""
    if hasattr(kind, "shares"):
        return np.array(kind.shares, np.float64)
    return np.array([1.0 - kind.share, kind.share])


def _near(kind: Kind, frequencies: np.ndarray) -> np.ndarray:
    """Where a kernel's smoothed share goes, (n_levels, n_levels): in an order, levels further away get less."""
    every = np.broadcast_to(frequencies, (len(frequencies),) * 2)
    if not isinstance(kind, Ordinal):
        return every
    place = np.arange(len(frequencies))
    weight = every * 0.5 ** np.abs(place[:, None] - place)
    return weight / weight.sum(axis=1, keepdims=True)


def _params(
    division: Division,
    own: JointLikelihood,
    values: np.ndarray,
    observed: np.ndarray,
    smoothing: Smoothing,
) -> np.ndarray:
    """Parameters of the columns' own laws around every row: (n, own.n_params)."""
    out = np.zeros((len(values), own.n_params))
    for number, i in enumerate(division.own_columns):
        kind, start = division.kind_of[i], division.own_starts[number]
        here = np.flatnonzero(own.column_of_param == number)  # a column's own parameters, in their order
        cells = np.asarray(values[:, start : start + kind.width], np.float64)
        widths = smoothing._replace(bandwidth=smoothing.bandwidth / division.own_units[number])
        out[:, here] = np.where(observed[:, i, None], _around(kind, cells, widths), kind.initial())
    return out


def _around(kind: Kind, cells: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """Parameters of a column's law around cells (n, width): (n, n_params)."""
    scale = np.full(len(cells), float(raw_scale(smoothing.bandwidth)))
    if isinstance(kind, Positive):
        return np.stack([cells[:, 0], scale], axis=1)
    if isinstance(kind, Count):
        # around a count m its spread is that of Poisson's law and of the bandwidth together: size = 1 / (h s)²
        count = np.expm1(cells[:, 0] * kind.log_scale + kind.log_mean)
        mean = np.log(np.maximum(count, 0.25) / max(kind.mean, 1e-3))
        size = np.full(len(cells), -2.0 * np.log(smoothing.bandwidth * kind.log_scale))
        return np.stack([mean, size], axis=1)
    assert isinstance(kind, Real), kind
    at_atom = cells[:, 1:].sum(axis=1) > 0
    held = np.column_stack([~at_atom, cells[:, 1:]])
    shares = np.array([max(1.0 - sum(kind.atom_shares), 1e-3), *np.maximum(kind.atom_shares, _LEAST)])
    shares /= shares.sum()
    chance = (1.0 - smoothing.share) * held + smoothing.share * shares
    chance = (1.0 - _LEAST) * chance + _LEAST * shares
    logits = np.log(chance[:, 1:]) - np.log(chance[:, :1])
    # the little that a row at an atom says of other values is the column's marginal law
    return np.column_stack([cells[:, 0], logits, np.where(at_atom, 0.0, scale)])
