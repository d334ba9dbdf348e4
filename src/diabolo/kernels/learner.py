"""From training rows to kernels and chart: neighbours, their directions, and widths settled on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diabolo.batches import Batch, Batches
from diabolo.kernels.assembly import Places, Smoothing, padded_size
from diabolo.kernels.bandwidth import MAX_JUDGED, folds, mean_log_density, settled
from diabolo.kernels.chart import Chart
from diabolo.kernels.columns import Division
from diabolo.kernels.mixture import Kernels
from diabolo.kernels.neighbours import nearest

__all__ = ["Learner", "Settled", "directions"]

_BANDWIDTHS = (0.003, 2.0)  # in spreads of a column, between which the bandwidth is looked for
_SHARES = (1e-3, 0.999)


class Settled(NamedTuple):
    """Widths under which rows without a kernel are likeliest; their mean log-density, nan where there were none."""

    smoothing: Smoothing
    merit: float


@dataclass(frozen=True)
class Learner:
    """Training rows on the host, and what is asked of them.

    values, observed : (n_rows, width), (n_rows, n_columns) encoded
    """

    empty: Kernels
    values: np.ndarray
    observed: np.ndarray
    seed: int
    known: dict[Any, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, empty: Kernels, batch: Batch, seed: int) -> Learner:
        """Of a mixture without kernels and its training rows."""
        return cls(empty, np.asarray(batch.values), np.asarray(batch.observed), seed)

    @classmethod
    def joined(cls, empty: Kernels, batches: Batches, seed: int) -> Learner:
        """Of training rows and held-out rows, in this order."""
        parts = [batches.train] + ([] if batches.held_out is None else [batches.held_out])
        values, observed = (
            np.concatenate([np.asarray(getattr(part, name)) for part in parts])
            for name in ("values", "observed")
        )
        return cls(empty, values, observed, seed)

    @property
    def division(self) -> Division:
        return self.empty.division

    @property
    def n_rows(self) -> int:
        return len(self.values)

    def block(self, places: np.ndarray) -> np.ndarray:
        """Block cells of some rows, gaps at the column's mean: (n, n_block) float64."""
        return np.asarray(
            self.division.block(np.asarray(self.values[places], np.float64), self.observed[places])[0],
            np.float64,
        )

    def factor(self, places: np.ndarray, n_neighbors: int, n_directions: int) -> np.ndarray:
        """Directions of the neighbours among some rows: (n, n_directions, n_block)."""
        n_neighbors = min(n_neighbors, len(places) - 1)
        n_directions = min(n_directions, n_neighbors)
        if n_directions < 1:
            return np.zeros((len(places), 0, self.division.n_block))
        name = (n_neighbors, n_directions, places.tobytes())
        if name not in self.known:
            x = self.block(places)
            self.known[name] = directions(x, nearest(x, n_neighbors, self.seed), n_directions)
        return self.known[name]

    def kernels(self, smoothing: Smoothing, n_neighbors: int, n_directions: int) -> Kernels:
        """A kernel on every row."""
        return self.places(np.arange(self.n_rows), n_neighbors, n_directions).at(smoothing)

    def places(self, rows: np.ndarray, n_neighbors: int, n_directions: int, n_padded: int = 0) -> Places:
        """Kernels on some rows; directions filled up to `n_padded`."""
        factor = self.factor(rows, n_neighbors, n_directions)
        short = max(n_directions, n_padded) - factor.shape[1]
        factor = np.pad(factor, ((0, 0), (0, max(short, 0)), (0, 0)))
        return self._placed(rows, factor=factor)

    def _placed(self, rows: np.ndarray, **shape: np.ndarray) -> Places:
        held, size = (self.values[rows], self.observed[rows]), padded_size(len(rows))
        return Places.of(self.division, self.empty.own, *held, **shape, n_padded=size)

    def settled(
        self,
        bandwidth: Any,
        smoothing: Any,
        n_neighbors: int,
        n_directions: int,
        n_padded: int = 0,
        n_looks: int = 11,
    ) -> Settled:
        """The widths for kernels of one shape; a number asked for is kept.

        n_padded : directions to fill up to, so that one program judges kernels of all shapes
        n_looks : widths tried; eleven end within 5 % of the best
        """

        def places(kept: np.ndarray) -> Places:
            return self.places(kept, n_neighbors, n_directions, n_padded)

        return self._settled(bandwidth, smoothing, list(folds(self.n_rows, self.seed)), places, n_looks)

    def places_as_said(self, said: tuple[np.ndarray, ...], rows: np.ndarray | None = None) -> Places:
        """Kernels on some rows, all of them unless said, moved and shaped by what a network says of each row.

        said : move (n_rows, n_block), noise (n_rows,), factor (n_rows, n_directions, n_block)
        """
        rows = np.arange(self.n_rows) if rows is None else rows
        move, noise, factor = (part[rows] for part in said)
        return self._placed(rows, move=move, noise=noise, factor=factor)

    def settled_as_said(
        self, bandwidth: Any, smoothing: Any, said: tuple[np.ndarray, ...], n_train: int | None
    ) -> Settled:
        """The widths that suit such kernels; rows from `n_train` on judge, five folds where there are none."""
        every = np.arange(self.n_rows)
        parts = list(folds(self.n_rows, self.seed))
        if n_train is not None and self.n_rows - n_train >= 4:
            # held-out rows lie in the table's order: the first of them need not be like the others
            judges = np.random.default_rng(self.seed).permutation(every[n_train:])[:MAX_JUDGED]
            parts = [(every[:n_train], np.sort(judges))]

        def places(kept: np.ndarray) -> Places:
            return self.places_as_said(said, kept)

        return self._settled(bandwidth, smoothing, parts, places, 11)

    def _settled(
        self,
        bandwidth: Any,
        smoothing: Any,
        parts: list[tuple[np.ndarray, np.ndarray]],
        places: Callable[[np.ndarray], Places],
        n_looks: int,
    ) -> Settled:
        """Widths, judged by rows that have no kernel; parts : rows with one, rows that judge."""
        division, reach = self.division, self.division.reach
        has_width = bool(division.block_columns or division.own_columns)
        has_share = bool(division.level_columns or division.own_columns)
        wide = math.log(reach * _BANDWIDTHS[0]), math.log(reach * _BANDWIDTHS[1])
        ranges = [
            _range(bandwidth, wide, has_width, math.log),
            _range(smoothing, (_logit(_SHARES[0]), _logit(_SHARES[1])), has_share, _logit),
        ]
        if self.n_rows < 4:  # nobody is left to judge: Scott's rule
            place = tuple(0.5 * (low + high) for low, high in ranges)
            if bandwidth == "auto":
                place = (math.log(reach * self.n_rows ** (-1.0 / (division.n_block + 4))), place[1])
            return Settled(_widths(place), float("nan"))

        placed = [(places(kept), self.values[judges], self.observed[judges]) for kept, judges in parts]

        def merit(place: tuple[float, ...]) -> float:
            widths, total = _widths(place), 0.0
            for kernels, values, observed in placed:
                total += len(values) * mean_log_density(kernels.at(widths), values, observed)
            return total / sum(len(judges) for _, judges in parts)

        place, best = settled(merit, ranges, n_looks)
        return Settled(_widths(place), best)

    def shaped(
        self, bandwidth: Any, smoothing: Any, neighbours: Sequence[int], directions: Sequence[int]
    ) -> tuple[tuple[int, int], Settled]:
        """Neighbours and directions of the largest held-out likelihood, and their widths.

        First the directions at about 11 neighbours, then the neighbours; the levels' share is settled with the first.
        """
        found: dict[tuple[int, int], Settled] = {}
        middle, most = min(neighbours, key=lambda n: abs(n - 11)), max(directions)
        shapes = {(middle, min(n, middle)): None for n in directions}
        if len(neighbours) == len(shapes) == 1:
            (only,) = shapes
            return only, self.settled(bandwidth, smoothing, *only)

        def looked_at(shape: tuple[int, int]) -> None:
            if shape in found:
                return
            share = next(iter(found.values())).smoothing.share if found else smoothing
            found[shape] = self.settled(bandwidth, share, *shape, most, n_looks=8)

        def best() -> tuple[int, int]:
            return max(found, key=lambda shape: found[shape].merit)

        for shape in shapes:
            looked_at(shape)
        if best()[1]:
            for n in neighbours:
                looked_at((n, min(best()[1], n)))
        return best(), self.settled(bandwidth, smoothing, *best(), most)

    def chart(self, n_components: int) -> Chart:
        """Codes of all rows."""
        division = self.division
        stretch = np.ones(division.width)
        stretch[list(division.block_cells)] = division.stretch / np.maximum(division.reach, 1e-12)
        seen = self.observed[:, division.column_of_value]
        return Chart.of(np.asarray(self.values, np.float64), seen, stretch, n_components, self.seed)


def directions(x: np.ndarray, neighbours: np.ndarray, n_directions: int) -> np.ndarray:
    """Leading directions of each row's neighbours about the row, as long as their spread.

    Parameters
    ----------
    x : (n, n_block)
    neighbours : (n, n_neighbors) places of rows

    Returns
    -------
    (n, n_directions, n_block) : eigenvectors of the second moments Σⱼ (xⱼ - xᵢ)(xⱼ - xᵢ)ᵀ / n_neighbors, times the
        roots of their eigenvalues

    Source: Vincent & Bengio 2003, eq. 3, with weights 1 for the neighbours.
    """
    out = np.zeros((len(x), n_directions, x.shape[1]))
    n_kept = min(n_directions, *neighbours.shape[1:], x.shape[1])
    for start in range(0, len(x), 512):
        here = slice(start, start + 512)
        apart = (x[neighbours[here]] - x[here, None]) / np.sqrt(neighbours.shape[1])
        # by the smaller of the two Gram matrices: several times faster than singular values
        if apart.shape[1] <= x.shape[1]:
            mixes = np.linalg.eigh(np.matmul(apart, apart.swapaxes(1, 2)))[1][:, :, ::-1]
            out[here, :n_kept] = np.matmul(mixes[:, :, :n_kept].swapaxes(1, 2), apart)
        else:
            squares, axes = np.linalg.eigh(np.matmul(apart.swapaxes(1, 2), apart))
            sizes = np.sqrt(np.maximum(squares[:, ::-1], 0.0))[:, :n_kept, None]
            out[here, :n_kept] = sizes * axes[:, :, ::-1].swapaxes(1, 2)[:, :n_kept]
    return out


def _widths(place: tuple[float, ...]) -> Smoothing:
    return Smoothing(math.exp(place[0]), 1.0 / (1.0 + math.exp(-place[1])))


def _range(asked: Any, wide: tuple[float, float], matters: bool, place_of: Any) -> tuple[float, float]:
    """Where to look for a width: at one place where it is given or touches no column."""
    if asked != "auto":
        return (place_of(asked),) * 2
    return wide if matters else (0.5 * (wide[0] + wide[1]),) * 2


def _logit(share: float) -> float:
    share = min(max(share, 1e-9), 1.0 - 1e-9)
    return math.log(share) - math.log1p(-share)
