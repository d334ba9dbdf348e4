"""Kinds of levels: `Binary`, `Categorical`, `Ordinal`; without a law: `Constant`, `Identifier`."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diabolo.checks import refuse
from diabolo.columns.kind import Cells, Kind, unset

if TYPE_CHECKING:
    from diabolo.likelihoods import Likelihood

__all__ = ["Binary", "Categorical", "Constant", "Identifier", "Ordinal"]

Level = float | str


@dataclasses.dataclass(frozen=True)
class Binary(Kind):
    """Two values, numbers or text.

    Learned: `levels`, both values, sorted; `share` of the second one.
    """

    name: ClassVar[str] = "binary"
    ranked: ClassVar[bool] = False
    levels: tuple[Level, Level] = unset()
    share: float = unset()

    def finish(self, summary: dict[str, Any], where: str = "column") -> Binary:
        levels, counts = _counted(summary, self.levels)
        if self.levels is None and set(levels) < {0.0, 1.0}:
            levels, counts = _counted(summary, (0.0, 1.0))
        _must_belong(summary, levels, where, self.name)
        if len(levels) != 2:
            fix = "Use kind 'categorical'." if len(levels) > 2 else "Use Binary(levels=[...])."
            got = f"{summary['n_distinct']} different values"
            raise refuse(where, got=got, want="two values for kind 'binary'", fix=fix)
        # half a row each: a level not seen in training keeps a finite price
        return dataclasses.replace(self, levels=levels, share=float((counts[1] + 0.5) / (counts.sum() + 1.0)))

    @property
    def width(self) -> int:
        return 1

    def encode(self, values: np.ndarray) -> Cells:
        index, missing = _index(values, self.levels)
        offset = np.where((index < 0) & ~missing, -np.inf, 0.0)
        return Cells((index == 1).astype(np.float64)[:, None], index >= 0, offset)

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return _level_array(self.levels)[(cells[:, 0] > 0.5).astype(int)]

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import Bernoulli

        return Bernoulli()

    def initial(self) -> np.ndarray:
        return np.array([np.log(self.share) - np.log1p(-self.share)])


@dataclasses.dataclass(frozen=True)
class Categorical(Kind):
    """Levels without an order, numbers or text; levels unseen in training share a reserved mass.

    Parameters
    ----------
    levels : tuple or None
        The levels; None learns them. More than the 4096 commonest are left to the reserved mass.

    Learned: `shares`, each level's share of the training rows; `reserved`, the probability that a row holds
    an unseen level: the share of rows whose level was seen once, at least 1 / (n + 1) and at most 1/2.

    Source: Good 1953, "The population frequencies of species" (Good-Turing); the bounds are ours.
    """

    name: ClassVar[str] = "categorical"
    ranked: ClassVar[bool] = False
    levels: tuple[Level, ...] = unset()
    shares: tuple[float, ...] = unset()
    reserved: float = unset()

    def finish(self, summary: dict[str, Any], where: str = "column") -> Categorical:
        levels, counts = _counted(summary, self.levels)
        n = summary["n"]
        # rows whose level is not kept count as unseen, like singletons
        unseen = (counts == 1).sum() + n - counts.sum()
        reserved = float(np.clip(unseen / max(n, 1), 1.0 / (n + 1), 0.5))
        weights = counts + 0.5 if (counts == 0).any() else counts
        shares = tuple((weights / weights.sum()).tolist())
        return dataclasses.replace(self, levels=levels, shares=shares, reserved=reserved)

    @property
    def width(self) -> int:
        return len(self.levels)

    def encode(self, values: np.ndarray) -> Cells:
        index, missing = _index(values, self.levels)
        offset = np.where((index < 0) & ~missing, np.log(self.reserved), 0.0)
        return Cells(_one_hot(index, self.width), index >= 0, offset)

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return _level_array(self.levels)[cells.argmax(1)]

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import Categorical as Law

        facts: Any = {"log_seen": np.log1p(-self.reserved), "levels": np.zeros(self.width)}
        return Law(**facts)

    def initial(self) -> np.ndarray:
        return np.log(self.shares)


@dataclasses.dataclass(frozen=True)
class Ordinal(Kind):
    """Levels in an order.

    Parameters
    ----------
    levels : tuple or None
        The levels from low to high; None takes an ordered column's own, or sorts numbers.

    Learned: `shares`, each level's share of the training rows.
    """

    name: ClassVar[str] = "ordinal"
    levels: tuple[Level, ...] = unset()
    shares: tuple[float, ...] = unset()

    def finish(self, summary: dict[str, Any], where: str = "column") -> Ordinal:
        if self.levels is None and any(isinstance(level, str) for level in summary["levels"]):
            fix = "Use Ordinal(levels=['low', ...]) or an ordered column."
            raise refuse(where, got="text without an order", want="an order for kind 'ordinal'", fix=fix)
        levels, counts = _counted(summary, self.levels)
        _must_belong(summary, levels, where, self.name)
        if len(levels) < 2:
            raise refuse(where, got=f"{len(levels)} levels", want="two or more for kind 'ordinal'")
        weights = counts + 0.5
        return dataclasses.replace(self, levels=levels, shares=tuple((weights / weights.sum()).tolist()))

    @property
    def width(self) -> int:
        return len(self.levels)

    @property
    def cuts(self) -> np.ndarray:
        """Logits (n_levels - 1,) of the cumulative shares: the marginal law's thresholds."""
        below = np.cumsum(self.shares)[:-1]
        return np.log(below) - np.log1p(-below)

    def encode(self, values: np.ndarray) -> Cells:
        index, missing = _index(values, self.levels)
        offset = np.where((index < 0) & ~missing, -np.inf, 0.0)
        return Cells(_one_hot(index, self.width), index >= 0, offset)

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return _level_array(self.levels)[cells.argmax(1)]

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import Ordinal as Law

        facts: Any = {"log_seen": 0.0, "cuts": self.cuts}
        return Law(**facts)

    def initial(self) -> np.ndarray:
        return np.zeros(self.width)


@dataclasses.dataclass(frozen=True)
class Constant(Kind):
    """One value, or none at all: 0 nats, no cells, not counted; any other value is impossible.

    Learned: `value`; None where every training cell is a gap.
    """

    name: ClassVar[str] = "constant"
    ranked: ClassVar[bool] = False
    counted: ClassVar[bool] = False
    value: Level | None = None

    def finish(self, summary: dict[str, Any], where: str = "column") -> Constant:
        if summary["n_distinct"] > 1:
            got = f"{summary['n_distinct']} different values"
            raise refuse(where, got=got, want="one value for kind 'constant'")
        return dataclasses.replace(self, value=summary["levels"][0] if summary["n"] else None)

    @property
    def width(self) -> int:
        return 0

    def encode(self, values: np.ndarray) -> Cells:
        index, missing = _index(values, () if self.value is None else (self.value,))
        observed = index >= 0
        return Cells(np.zeros((len(values), 0)), observed, np.where(observed | missing, 0.0, -np.inf))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        levels = (np.nan,) if self.value is None else (self.value,)
        return _level_array(levels)[np.zeros(len(cells), int)]

    def likelihood(self) -> None:
        return None

    def initial(self) -> np.ndarray:
        return np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Identifier(Kind):
    """Mostly distinct text: set aside; enters nothing, 0 nats, comes back as a gap."""

    name: ClassVar[str] = "identifier"
    ranked: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def finish(self, summary: dict[str, Any], where: str = "column") -> Identifier:
        return self

    @property
    def width(self) -> int:
        return 0

    def encode(self, values: np.ndarray) -> Cells:
        n_rows = len(values)
        return Cells(np.zeros((n_rows, 0)), np.zeros(n_rows, bool), np.zeros(n_rows))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return np.full(len(cells), None, object)

    def likelihood(self) -> None:
        return None

    def initial(self) -> np.ndarray:
        return np.zeros(0)


def _counted(summary: dict[str, Any], declared: tuple[Level, ...] | None) -> tuple[tuple, np.ndarray]:
    """Levels, the declared ones or those of the training rows, and their counts (n_levels,)."""
    if declared is None:
        return tuple(summary["levels"]), np.array(summary["counts"], np.float64)
    levels = tuple(level if isinstance(level, str) else float(level) for level in declared)
    counts = dict(zip(summary["levels"], summary["counts"], strict=True))
    return levels, np.array([counts.get(level, 0) for level in levels], np.float64)


def _must_belong(summary: dict[str, Any], levels: tuple[Level, ...], where: str, name: str) -> None:
    """Refuse training values that are none of the levels."""
    strange = [level for level in summary["levels"] if level not in levels]
    if strange:
        got, want = (
            f"the value {strange[0]!r}",
            f"one of {', '.join(map(repr, levels[:20]))} for kind '{name}'",
        )
        raise refuse(where, got=got, want=want)


def _index(values: np.ndarray, levels: tuple[Level, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Position of each value (n,) in the levels, -1 for a gap or a strange value; which are gaps."""
    if values.dtype == object:
        place = {level: i for i, level in enumerate(levels)} | {None: -2}
        index = np.fromiter(map(place.get, values.tolist(), itertools.repeat(-1)), int, len(values))
        return np.maximum(index, -1), index == -2
    missing = np.isnan(values)
    if not levels:
        return np.full(len(values), -1), missing
    sorted_levels = np.sort(np.array(levels, np.float64))
    order = np.argsort(np.array(levels, np.float64))
    nearest = np.searchsorted(0.5 * (sorted_levels[1:] + sorted_levels[:-1]), values)
    level = sorted_levels[nearest]
    # the same value may have been through float32 on one of its ways here, which leaves a whole number whole: a day
    # written as 20230105 is no other day
    off = 4 * np.finfo(np.float32).eps * np.abs(level)
    same = np.abs(values - level) <= np.where(level == np.rint(level), 0.0, off)
    return np.where(same, order[nearest], -1), missing


def _one_hot(index: np.ndarray, width: int) -> np.ndarray:
    """Cells (n, width) with a 1 at each index (n,), none where it is -1."""
    cells = np.zeros((len(index), width))
    known = np.flatnonzero(index >= 0)
    cells[known, index[known]] = 1.0
    return cells


def _level_array(levels: tuple[Level, ...]) -> np.ndarray:
    """The levels as an array that can be indexed: float64, or object for text."""
    if any(isinstance(level, str) for level in levels):
        return np.array(levels, object)
    return np.array(levels, np.float64)
