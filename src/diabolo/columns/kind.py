"""The contract of a column kind: learn from summaries that merge, encode, decode, name a likelihood."""

from __future__ import annotations

import abc
import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from diabolo.checks import nearest, refuse

if TYPE_CHECKING:
    from diabolo.likelihoods import Likelihood

__all__ = [
    "Cells",
    "Kind",
    "grid_steps",
    "merge_moments",
    "merge_summaries",
    "moments",
    "round_to",
    "summarise_values",
    "unset",
]

MAX_KEPT = 4096  # distinct values a summary keeps; rarer ones are only counted
OFTEN = 0.1  # a value that fills more of a chunk may turn out to be an atom
DECIMAL_STEPS = tuple(10.0**-k for k in range(9)) + (1 / 255,)  # the last: grey levels scaled to [0, 1]
CLOCK_STEPS = (1.0, 1 / 24, 1 / 1440, 1 / 86400, 1 / 86400e3)  # day, hour, minute, second, millisecond


def unset() -> Any:
    """A field that is None until it is declared or learned, typed as what it holds then."""
    return dataclasses.field(default=None)


class Cells(NamedTuple):
    """One encoded column.

    values : (n, width) float64; 0 where not observed
    observed : (n,) bool; False for gaps, unseen levels and values outside the support
    offset : (n,) float64, nats; all of log p(cell) that the model has no part in: the log-Jacobian
        of the scaling, the mass of an unseen level, -inf outside the support
    """

    values: np.ndarray
    observed: np.ndarray
    offset: np.ndarray


@dataclasses.dataclass(frozen=True)
class Kind(abc.ABC):
    """What a column holds. Fields are declared options, then learned facts (None before `finish`).

    A kind works on the host in float64: numbers with nan for a gap, text as an object array with None.
    """

    name: ClassVar[str]
    counted: ClassVar[bool] = True  # does the column have a law, and count in d?
    ranked: ClassVar[bool] = True  # do its values have an order, and so quantiles?

    def __post_init__(self) -> None:
        """Lists become tuples, so that equal kinds have equal hashes."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (list, np.ndarray)):
                object.__setattr__(self, field.name, tuple(np.asarray(value, object).tolist()))

    def summarise(self, values: np.ndarray) -> dict[str, Any]:
        """Summary of one chunk of values (n,); merges with others of its kind."""
        return summarise_values(values)

    def merge(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Summary of two chunks together."""
        return merge_summaries(one, other)

    @abc.abstractmethod
    def finish(self, summary: dict[str, Any], where: str = "column") -> Kind:
        """This kind with its facts learned; `where` names the column in a refusal."""

    @abc.abstractmethod
    def encode(self, values: np.ndarray) -> Cells:
        """Scaled cells of values (n,)."""

    @abc.abstractmethod
    def decode(self, cells: np.ndarray) -> np.ndarray:
        """Values (n,) float64 or object in the user's units, of cells (n, width)."""

    def centre(self, cells: np.ndarray) -> np.ndarray:
        """One value (n,) for draws (n, n_draws, width): their mean, or the likeliest level."""
        return self.decode(cells.mean(axis=1))

    @abc.abstractmethod
    def likelihood(self) -> Likelihood | None:
        """The law of one cell; None where the column has none."""

    @abc.abstractmethod
    def initial(self) -> np.ndarray:
        """Raw parameters (n_params,) float64 of the column's own marginal law."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Encoded cells per value."""

    def snap(self, values: np.ndarray) -> np.ndarray:
        """Draws (n,) moved onto the values that the column can take (a named default: as they are)."""
        return values

    def to_json(self) -> dict[str, Any]:
        """Options and facts as plain JSON types."""
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"kind": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Kind:
        """The kind that `to_json` wrote."""
        known = {kind.name: kind for kind in Kind.__subclasses__()}
        name = record["kind"]
        if name not in known:
            raise refuse("kind", got=repr(name), want="a known kind", fix=nearest(name, known))
        return known[name](**{fact: value for fact, value in record.items() if fact != "kind"})

    def line(self) -> str:
        """The kind and its facts on one line, for people."""
        facts = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        facts = (
            (name, fact) for name, fact in facts if fact is not None and fact is not False and fact != ()
        )
        shown = [f"{name.replace('_', ' ')} {_brief(fact)}" for name, fact in facts]
        return f"{self.name}: {', '.join(shown)}" if shown else self.name


def _brief(fact: Any) -> str:
    """A fact in few characters."""
    if isinstance(fact, tuple):
        more = f", ... ({len(fact)})" if len(fact) > 6 else ""
        return f"[{', '.join(_brief(f) for f in fact[:6])}{more}]"
    return f"{fact:g}" if isinstance(fact, float) else str(fact)


def summarise_values(values: np.ndarray) -> dict[str, Any]:
    """Summary of one chunk: counts of distinct values, and for numbers their moments and grid.

    Parameters
    ----------
    values : (n,)   float64 with nan for a gap, or object with None for a gap

    Returns
    -------
    dict : n and n_missing (cells); levels and counts, the `MAX_KEPT` commonest values, sorted;
        n_distinct; for numbers also their `moments`; aside, the counts of values that fill over a
        tenth of the chunk, and rest, the moments of the others (a -999999 taken out of the moments
        afterwards would take their digits along); low, high; steps, those grid steps of which every
        value is a multiple.
    """
    if values.dtype == object:
        counter = Counter(values.tolist())
        n_missing = counter.pop(None, 0)
        n_distinct = len(counter)
        commonest = dict(sorted(counter.most_common(MAX_KEPT)))
        return {
            "n": len(values) - n_missing,
            "n_missing": n_missing,
            "levels": list(commonest),
            "counts": list(commonest.values()),
            "n_distinct": n_distinct,
        }
    seen = values[~np.isnan(values)]
    levels, counts = _distinct(seen)
    n_distinct = len(levels)
    kept = _commonest(counts)
    often = levels[counts > OFTEN * len(seen)]
    rest = moments(seen[~np.isin(seen, often)]) if len(often) else moments(seen)
    return moments(seen) | {
        "n_missing": len(values) - len(seen),
        "levels": levels[kept].tolist(),
        "counts": counts[kept].tolist(),
        "n_distinct": n_distinct,
        "aside": dict(zip(often.tolist(), counts[counts > OFTEN * len(seen)].tolist(), strict=True)),
        "rest": rest,
        "low": float(levels[0]) if n_distinct else None,
        "high": float(levels[-1]) if n_distinct else None,
        "steps": grid_steps(levels, DECIMAL_STEPS + CLOCK_STEPS[1:]),
    }


def merge_summaries(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Summary of two chunks together."""
    if not other["n"]:
        return one | {"n_missing": one["n_missing"] + other["n_missing"]}
    if not one["n"]:
        return other | {"n_missing": one["n_missing"] + other["n_missing"]}
    counter = Counter(dict(zip(one["levels"], one["counts"], strict=True)))
    common = len(counter.keys() & set(other["levels"]))
    counter.update(dict(zip(other["levels"], other["counts"], strict=True)))
    kept = dict(sorted(counter.most_common(MAX_KEPT)))
    merged = {
        "n": one["n"] + other["n"],
        "n_missing": one["n_missing"] + other["n_missing"],
        "levels": list(kept),
        "counts": list(kept.values()),
        "n_distinct": one["n_distinct"] + other["n_distinct"] - common,
    }
    if "mean" not in one:
        return merged
    return merged | {
        **merge_moments(one, other),
        "aside": dict(Counter(one["aside"]) + Counter(other["aside"])),
        "rest": merge_moments(one["rest"], other["rest"]),
        "low": min(one["low"], other["low"]),
        "high": max(one["high"], other["high"]),
        "steps": [step for step in one["steps"] if step in other["steps"]],
    }


def moments(values: np.ndarray) -> dict[str, Any]:
    """n, mean and m2, the sum of squared deviations, of values (n,)."""
    mean = float(values.mean()) if len(values) else 0.0
    return {"n": len(values), "mean": mean, "m2": float(np.square(values - mean).sum())}


def merge_moments(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Moments of two chunks together; Chan, Golub & LeVeque 1983's pairwise update."""
    n, apart = one["n"] + other["n"], other["mean"] - one["mean"]
    if not n:
        return {"n": 0, "mean": 0.0, "m2": 0.0}
    m2 = one["m2"] + other["m2"] + apart**2 * one["n"] * other["n"] / n
    return {"n": n, "mean": one["mean"] + apart * other["n"] / n, "m2": m2}


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values and their counts."""
    if len(values):
        low, high = values.min(), values.max()
        # the grey levels of many images: counted, not sorted
        if high - low < 2**16 and low == np.rint(low) and (values == np.rint(values)).all():
            counts = np.bincount((values - low).astype(np.intp))
            places = np.flatnonzero(counts)
            return places + low, counts[places]
    return np.unique(values, return_counts=True)


def _commonest(counts: np.ndarray) -> np.ndarray:
    """Positions of the `MAX_KEPT` largest counts, in their order."""
    if len(counts) <= MAX_KEPT:
        return np.arange(len(counts))
    return np.sort(np.argsort(-counts, kind="stable")[:MAX_KEPT])


def grid_steps(values: np.ndarray, steps: tuple[float, ...]) -> list[float]:
    """Those of the steps of which all values (n,) are multiples, up to the rounding of their source.

    Values that all fit in float32 (float16) may come from such an array: then its coarser rounding
    is allowed for. A step that the rounding cannot tell from the next multiple does not count:
    otherwise every large float would lie on every grid.
    """
    fitting: list[float] = []
    sources = [np.dtype(np.float64)]
    if len(values):
        with np.errstate(over="ignore"):
            sources += [t for t in map(np.dtype, ("f4", "f2")) if (values.astype(t) == values).all()]
    for step in steps:
        if any(abs(coarser / step - round(coarser / step)) < 1e-9 for coarser in fitting):
            fitting.append(step)  # multiples of a day are multiples of an hour
            continue
        for source in sources:
            # a look at a few values spares most columns the full pass
            if all(_on_grid(part, step, np.finfo(source).eps) for part in (values[:256], values[256:])):
                fitting.append(step)
                break
    return fitting


def _on_grid(values: np.ndarray, step: float, eps: float) -> bool:
    """Is every value a multiple of the step within 4 roundings of size eps?"""
    multiples = values / step
    slack = 4 * eps * np.abs(multiples)
    off = np.abs(multiples - np.rint(multiples))
    return bool(np.all((off <= slack) & (slack < 0.01)))


def round_to(values: np.ndarray, step: float) -> np.ndarray:
    """The multiples of the step nearest to values, as the decimal fractions that a reader would type."""
    if step <= 0:
        return values
    digits = round(-np.log10(step))
    multiples = np.rint(values / step)
    # 3 * 0.1 is not 0.3: dividing by the whole number 10 rounds correctly
    return multiples / 10.0**digits if digits >= 0 and np.isclose(step, 10.0**-digits) else multiples * step
