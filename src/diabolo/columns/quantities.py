"""Kinds of numbers: `Real`, `Positive`, `Count`, `Pixels`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diabolo.checks import refuse
from diabolo.columns.kind import (
    CLOCK_STEPS,
    DECIMAL_STEPS,
    Cells,
    Kind,
    merge_moments,
    merge_summaries,
    moments,
    round_to,
    summarise_values,
    unset,
)

if TYPE_CHECKING:
    from diabolo.likelihoods import Likelihood

__all__ = ["Count", "Pixels", "Positive", "Real"]

ATOM_SHARE, ATOM_ROWS = 0.2, 10  # an atom is held by more than this share, and by at least so many rows
COARSE = 1e-4  # a resolution below this part of the scale is left to the density
MAX_DEVIATION = 1e6  # encoded values beyond are cut: float32 squares and exponentials stay finite


@dataclasses.dataclass(frozen=True)
class Real(Kind):
    """Numbers on the line, scaled to mean 0 and spread 1.

    Parameters
    ----------
    resolution : float or None
        Step of the values in the user's unit; 0 is a density without one. None learns it: the coarsest
        of 1, 0.1, ..., 1e-8, 1/255 (for dates: day, hour, minute, second, millisecond) that all training
        values are multiples of, else 0.
    atoms : tuple of float or None
        Values with a probability of their own. None learns them: held by over 20 % of rows, 10 at least.
    clock : bool
        The values are days, so that a step may be an hour or a second.

    Learned: `atom_shares`, each atom's share of rows; `mean` and `scale` of the other values.
    """

    name: ClassVar[str] = "real"
    resolution: float = unset()
    atoms: tuple[float, ...] = unset()
    clock: bool = False
    mean: float = unset()
    scale: float = unset()
    atom_shares: tuple[float, ...] = unset()

    def finish(self, summary: dict[str, Any], where: str = "column") -> Real:
        _must_be_numbers(summary, where, self.name)
        n, counts = summary["n"], dict(zip(summary["levels"], summary["counts"], strict=True))
        atoms = self.atoms
        if atoms is None:
            atoms = tuple(v for v, c in counts.items() if c > ATOM_SHARE * n and c >= ATOM_ROWS)
        mean, scale = _without(summary, {atom: counts.get(atom, 0) for atom in atoms})
        learned = dataclasses.replace(
            self,
            resolution=_learned_resolution(self.resolution, summary, self.clock),
            atoms=atoms,
            mean=mean,
            scale=scale,
            atom_shares=tuple(counts.get(atom, 0) / max(n, 1) for atom in atoms),
        )
        step, declared = learned.resolution, (self.atoms or ()) if learned.coarse else ()
        for atom in declared:  # across two cells of the grid masses would not sum to one
            if abs(atom / step - round(atom / step)) > 1e-6:
                got, want = f"the atom {atom:g}", f"a multiple of its step {step:g}"
                raise refuse(where, got=got, want=want, fix="Say a finer resolution, or 0.")
        return learned

    @property
    def width(self) -> int:
        return 1 + len(self.atoms)

    @property
    def coarse(self) -> bool:
        """Is the law a mass per step, not a density?"""
        return self.resolution / self.scale > COARSE

    @property
    def atom_width(self) -> float:
        """What an atom's probability is divided by to stand beside a density: the user's unit.

        The step where the law is a mass per step, else the spread. With any width that is not measured in the
        column's own unit, a change of units would make rows at an atom likelier or less likely than the others.
        """
        return self.resolution if self.coarse else self.scale

    def encode(self, values: np.ndarray) -> Cells:
        observed = ~np.isnan(values)
        cells = np.zeros((len(values), self.width))
        z = (values - self.mean) / self.scale
        offset = np.where(observed, -np.log(self.scale), 0.0)
        ordinary = observed
        # half a step reaches the atom's own grid cell; without a grid only rounding is forgiven
        for j, atom in enumerate(self.atoms, start=1):
            reach = 0.5 * self.resolution if self.coarse else 4 * np.finfo(np.float32).eps * abs(atom)
            at_atom = np.abs(values - atom) <= reach
            cells[at_atom, j] = 1.0
            offset[at_atom] = -np.log(self.atom_width)
            ordinary = ordinary & ~at_atom
        cells[:, 0] = np.clip(np.where(ordinary, z, 0.0), -MAX_DEVIATION, MAX_DEVIATION)
        return Cells(cells, observed, offset)

    def decode(self, cells: np.ndarray) -> np.ndarray:
        values = cells[:, 0] * self.scale + self.mean
        if self.atoms:
            shares = cells[:, 1:]
            best = shares.argmax(1)
            chosen = shares[np.arange(len(cells)), best] > np.maximum(0.5, 1.0 - shares.sum(1))
            values = np.where(chosen, np.array(self.atoms)[best], values)
        return values

    def centre(self, cells: np.ndarray) -> np.ndarray:
        return _each(self, cells).mean(axis=1)  # not of the cells: an atom's draws say where they are by name

    def snap(self, values: np.ndarray) -> np.ndarray:
        return round_to(values, self.resolution)

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import Normal

        atoms: Any = (np.array(self.atoms, np.float64) - self.mean) / self.scale
        half: Any = 0.5 * self.resolution / self.scale
        return Normal(half=half, atoms=atoms, coarse=self.coarse)

    def initial(self) -> np.ndarray:
        shares = np.array(self.atom_shares, np.float64)
        rest = max(1.0 - shares.sum(), 1e-3)
        return np.concatenate([[0.0], np.log(np.maximum(shares, 1e-6) / rest), [0.0]])


@dataclasses.dataclass(frozen=True)
class Positive(Kind):
    """Numbers above zero, on a log scale.

    Parameters
    ----------
    resolution : float or None
        As for `Real`.

    Learned: `log_mean` and `log_scale`, mean and spread of log x; `low`, the smallest training value.
    """

    name: ClassVar[str] = "positive"
    resolution: float = unset()
    log_mean: float = unset()
    log_scale: float = unset()
    low: float = unset()

    def summarise(self, values: np.ndarray) -> dict[str, Any]:
        return _summarise_with_logs(values, np.log)

    def merge(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return _merge_with_logs(one, other)

    def finish(self, summary: dict[str, Any], where: str = "column") -> Positive:
        _must_be_numbers(summary, where, self.name)
        if summary["n"] and summary["low"] <= 0:
            got = f"{summary['low']:g} as its smallest value"
            raise refuse(where, got=got, want="values above 0 for kind 'positive'", fix="Use kind 'real'.")
        return dataclasses.replace(
            self,
            resolution=_learned_resolution(self.resolution, summary, clock=False),
            log_mean=summary["logs"]["mean"],
            log_scale=_spread(summary["logs"]),
            low=summary["low"] if summary["n"] else 1.0,
        )

    @property
    def width(self) -> int:
        return 1

    @property
    def coarse(self) -> bool:
        """Is the law a mass per step at the smallest training value?"""
        return self.resolution / (self.log_scale * self.low) > COARSE

    def encode(self, values: np.ndarray) -> Cells:
        observed = values > 0
        log_values = np.log(values, where=observed, out=np.zeros(len(values)))
        z = (log_values - self.log_mean) / self.log_scale
        cells = np.clip(np.where(observed, z, 0.0), -MAX_DEVIATION, MAX_DEVIATION)[:, None]
        offset = np.where(observed, -np.log(self.log_scale) - log_values, 0.0)
        return Cells(cells, observed, np.where(values <= 0, -np.inf, offset))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(cells[:, 0] * self.log_scale + self.log_mean, 700.0))

    def centre(self, cells: np.ndarray) -> np.ndarray:
        return np.median(_each(self, cells), axis=1)

    def snap(self, values: np.ndarray) -> np.ndarray:
        # a draw below half a step belongs to the first step: zero is outside the support
        return np.maximum(round_to(values, self.resolution), self.resolution)

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import LogNormal

        facts: Any = {"half": 0.5 * self.resolution, "m": self.log_mean, "s": self.log_scale}
        return LogNormal(**facts, coarse=self.coarse)

    def initial(self) -> np.ndarray:
        return np.zeros(2)


@dataclasses.dataclass(frozen=True)
class Count(Kind):
    """Whole numbers from zero up, encoded on the scale of log(1 + x).

    Learned: `log_mean` and `log_scale`, mean and spread of log(1 + x); `mean` and `variance` of x.
    """

    name: ClassVar[str] = "count"
    log_mean: float = unset()
    log_scale: float = unset()
    mean: float = unset()
    variance: float = unset()

    def summarise(self, values: np.ndarray) -> dict[str, Any]:
        return _summarise_with_logs(values, np.log1p)

    def merge(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return _merge_with_logs(one, other)

    def finish(self, summary: dict[str, Any], where: str = "column") -> Count:
        _must_be_numbers(summary, where, self.name)
        if summary["n"] and (summary["low"] < 0 or 1.0 not in summary["steps"]):
            got = f"{summary['low']:g} as its smallest value" if summary["low"] < 0 else "fractions"
            raise refuse(where, got=got, want="0, 1, 2, ... for kind 'count'", fix="Use kind 'real'.")
        return dataclasses.replace(
            self,
            log_mean=summary["logs"]["mean"],
            log_scale=_spread(summary["logs"]),
            mean=summary["mean"],
            variance=summary["m2"] / max(summary["n"], 1),
        )

    @property
    def width(self) -> int:
        return 1

    def encode(self, values: np.ndarray) -> Cells:
        observed = (values >= 0) & (values == np.rint(values))
        z = (np.log1p(values, where=observed, out=np.zeros(len(values))) - self.log_mean) / self.log_scale
        cells = np.clip(np.where(observed, z, 0.0), -MAX_DEVIATION, MAX_DEVIATION)[:, None]
        return Cells(cells, observed, np.where(observed | np.isnan(values), 0.0, -np.inf))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        log_values = np.minimum(cells[:, 0] * self.log_scale + self.log_mean, 700.0)
        return np.maximum(np.rint(np.expm1(log_values)), 0.0)

    def centre(self, cells: np.ndarray) -> np.ndarray:
        return np.median(_each(self, cells), axis=1)

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import NegativeBinomial

        return NegativeBinomial(m=self.log_mean, s=self.log_scale, mean=self.mean)

    def initial(self) -> np.ndarray:
        # method of moments: variance = mean + mean^2 / r; hardly overdispersed columns get a large r
        excess = max(self.variance - self.mean, 1e-3 * self.mean, 1e-6)
        return np.array([0.0, np.log(max(self.mean, 1e-3) ** 2 / excess)])


@dataclasses.dataclass(frozen=True)
class Pixels(Kind):
    """Grey levels 0 .. n_levels - 1, encoded to [-1, 1].

    Learned: `mean` and `scale` of the grey levels.
    """

    name: ClassVar[str] = "pixels"
    n_levels: int = 256
    mean: float = unset()
    scale: float = unset()

    def finish(self, summary: dict[str, Any], where: str = "column") -> Pixels:
        _must_be_numbers(summary, where, self.name)
        n, top = summary["n"], self.n_levels - 1
        if n and not (summary["low"] >= 0 and summary["high"] <= top and 1.0 in summary["steps"]):
            got = f"values from {summary['low']:g} to {summary['high']:g}"
            want = f"whole numbers from 0 to {top} for kind 'pixels'"
            raise refuse(where, got=got, want=want, fix="Use kind 'real', or Pixels(n_levels=...).")
        return dataclasses.replace(self, mean=summary["mean"], scale=_spread(summary))

    @property
    def width(self) -> int:
        return 1

    def encode(self, values: np.ndarray) -> Cells:
        top = self.n_levels - 1
        observed = (values >= 0) & (values <= top) & (values == np.rint(values))
        cells = np.where(observed, 2.0 * values / top - 1.0, 0.0)[:, None]
        return Cells(cells, observed, np.where(observed | np.isnan(values), 0.0, -np.inf))

    def decode(self, cells: np.ndarray) -> np.ndarray:
        top = self.n_levels - 1
        return np.clip(np.rint((cells[:, 0] + 1.0) * 0.5 * top), 0, top)

    def likelihood(self) -> Likelihood:
        from diabolo.likelihoods import DiscretizedLogistic

        n_levels: Any = self.n_levels
        return DiscretizedLogistic(n_levels=n_levels)

    def initial(self) -> np.ndarray:
        from diabolo.likelihoods import raw_scale

        # moments: a logistic law's standard deviation is pi / sqrt(3) times its scale
        per_level = 2.0 / (self.n_levels - 1)
        spread = self.scale * per_level * np.sqrt(3.0) / np.pi
        return np.array([self.mean * per_level - 1.0, float(raw_scale(spread))])


def _must_be_numbers(summary: dict[str, Any], where: str, name: str) -> None:
    """Refuse text where the kind scales numbers."""
    if "mean" not in summary and summary["n"]:
        got = f"text such as {summary['levels'][0]!r}"
        raise refuse(where, got=got, want=f"numbers for kind '{name}'", fix="Use kind 'categorical'.")


def _learned_resolution(declared: float | None, summary: dict[str, Any], clock: bool) -> float:
    """The declared step, else the coarsest one on which every training value lies, else 0."""
    if declared is not None:
        return float(declared)
    steps = CLOCK_STEPS if clock else DECIMAL_STEPS
    return next((step for step in steps if step in summary.get("steps", ())), 0.0) if summary["n"] else 0.0


def _spread(moments: dict[str, Any]) -> float:
    """Standard deviation; 1 where the values hardly differ."""
    if not moments["n"]:
        return 1.0
    scale = float(np.sqrt(moments["m2"] / moments["n"]))
    return scale if scale > 1e-12 * abs(moments["mean"]) and np.isfinite(scale) else 1.0


def _without(summary: dict[str, Any], atoms: dict[float, int]) -> tuple[float, float]:
    """Mean and spread of the values that are no atoms; of all values where those hardly differ."""
    if not summary["n"]:
        return 0.0, 1.0
    rest, aside = summary["rest"], summary["aside"]
    for value, count in aside.items():
        if value not in atoms:
            rest = merge_moments(rest, {"n": count, "mean": value, "m2": 0.0})
    for atom, count in atoms.items():
        # in chunks where it was rarer the atom is still among the rest: undo the pairwise update
        left = count - aside.get(atom, 0)
        n = rest["n"] - left
        if left and n:
            apart = (rest["mean"] - atom) * rest["n"] / n
            m2 = rest["m2"] - apart**2 * left * n / rest["n"]
            rest = {"n": n, "mean": atom + apart, "m2": max(m2, 0.0)}
        elif left:
            rest = moments(np.empty(0))
    if not rest["n"]:
        return summary["mean"], _spread(summary)
    if rest["n"] < ATOM_ROWS:  # too few to know their spread by: it is measured from the commonest atom
        commonest = max(atoms, key=lambda atom: atoms[atom], default=rest["mean"])
        rest = rest | {"m2": rest["m2"] + rest["n"] * (rest["mean"] - commonest) ** 2}
    flat = rest["m2"] <= 1e-24 * rest["n"] * rest["mean"] ** 2
    return rest["mean"], _spread(summary) if flat else _spread(rest)


def _summarise_with_logs(values: np.ndarray, log: np.ufunc) -> dict[str, Any]:
    """`summarise_values`, and the moments of the logs; values without a log are refused by `finish`."""
    summary = summarise_values(values)
    if values.dtype == object:  # text: refused by `finish`
        return summary
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = log(values)
    return summary | {"logs": moments(logs[np.isfinite(logs)])}


def _merge_with_logs(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`merge_summaries`, and the same for the moments of the logs."""
    merged = merge_summaries(one, other)
    if "logs" not in one or "logs" not in other:
        return merged
    return merged | {"logs": merge_moments(one["logs"], other["logs"])}


def _each(kind: Kind, cells: np.ndarray) -> np.ndarray:
    """Draws (n, n_draws, width) decoded one by one: (n, n_draws)."""
    return kind.decode(cells.reshape(-1, cells.shape[2])).reshape(cells.shape[:2])
