"""Refusals: one sentence that says what, got, want and fix; and parameter constraints as data."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["InputError", "InputTypeError", "OneOf", "Range", "check_params", "nearest", "refuse"]


class InputError(ValueError):
    """What the caller gave cannot be used; the message says what, got, want and fix."""


class InputTypeError(InputError, TypeError):
    """An `InputError` where Python's convention (and scikit-learn's checks) want a `TypeError`."""


def refuse(
    what: str, *, got: str, want: str, fix: str = "", error: type[InputError] = InputError
) -> InputError:
    """Build the exception for a refusal; the caller raises it.

    >>> raise refuse("column 'age'", got="3 infinite values", want="finite numbers", fix="Clip them.")
    Traceback (most recent call last):
        ...
    diabolo.checks.InputError: column 'age': got 3 infinite values; expected finite numbers. Clip them.
    """
    sentence = f"{what}: got {got}; expected {want}."
    return error(f"{sentence} {fix}" if fix else sentence)


def nearest(name: str, known: Iterable[str], listed: str = "Known") -> str:
    """A sentence that offers the nearest known spelling, or lists what is known under `listed`.

    >>> nearest("n_component", ["n_components", "activation"])
    "Did you mean 'n_components'?"
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(known[:20])
    return f"{listed}: {shown}{', ...' if len(known) > 20 else ''}."


class Range:
    """A number within bounds; `whole=True` asks for an integer."""

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        whole: bool = False,
        open_low: bool = False,
        open_high: bool = False,
    ) -> None:
        self.low, self.high, self.whole = low, high, whole
        self.open_low, self.open_high = open_low, open_high

    def __contains__(self, value: Any) -> bool:
        number = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        x = float(value)
        if self.low is not None and (x < self.low or (self.open_low and x == self.low)):
            return False
        if self.high is not None and (x > self.high or (self.open_high and x == self.high)):
            return False
        return x == x  # nan is in no range

    def __str__(self) -> str:
        noun = "a whole number" if self.whole else "a number"
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return f"{noun} {' and '.join(parts)}".rstrip()


class OneOf:
    """One of a few names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names

    def __str__(self) -> str:
        return " or ".join(repr(name) for name in self.names)


def check_params(params: Mapping[str, Any], constraints: Mapping[str, Collection[Any]]) -> None:
    """Refuse the first parameter that none of its constraints admits.

    A constraint is a `Range`, a `OneOf`, a type, `None`, or `callable`.
    """
    for name, admitted in constraints.items():
        value = params[name]
        if not any(_admits(constraint, value) for constraint in admitted):
            want = " or ".join(dict.fromkeys(map(_say, admitted)))
            names = [n for c in admitted if isinstance(c, OneOf) for n in c.names]
            fix = nearest(value, names) if isinstance(value, str) and names else ""
            raise refuse(f"parameter '{name}'", got=repr(value), want=want, fix=fix)


def _admits(constraint: Any, value: Any) -> bool:
    if constraint is None:
        return value is None
    if constraint is callable:
        return callable(value)
    if isinstance(constraint, type):
        return isinstance(value, constraint)
    return value in constraint


def _say(constraint: Any) -> str:
    if constraint is callable:
        return "a callable"
    if isinstance(constraint, type):
        return {"bool_": "a bool", "ndarray": "an array"}.get(constraint.__name__, f"a {constraint.__name__}")
    return str(constraint)
