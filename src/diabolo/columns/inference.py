"""Which kind a column is, from the summary of its training values: the first rule that fits."""

from __future__ import annotations

from typing import Any

from diabolo.checks import InputTypeError, nearest, refuse
from diabolo.columns.kind import Kind
from diabolo.columns.levels import Binary, Categorical, Constant, Identifier, Ordinal
from diabolo.columns.quantities import Count, Pixels, Positive, Real

__all__ = ["KINDS", "infer_kind", "kind_of"]

KINDS: dict[str, type[Kind]] = {
    kind.name: kind
    for kind in (Real, Positive, Count, Binary, Categorical, Ordinal, Pixels, Constant, Identifier)
}
MAX_WHOLE_LEVELS = 10  # whole numbers with more values than this are quantities


def infer_kind(
    summary: dict[str, Any],
    *,
    role: str = "number",
    levels: tuple | None = None,
    ordered: bool = False,
    plain: bool = False,
) -> Kind:
    """The kind of a column, not yet finished.

    Parameters
    ----------
    summary : dict
        From `summarise_values`, of all training values.
    role : {"number", "text", "day"}
        What the values are.
    levels : tuple or None
        The container's own levels, where it declares the column a category.
    ordered : bool
        Do these levels have an order?
    plain : bool
        Is the column one of a plain array of floats? Then it is `Real`, or `Binary` where only 0 and 1 occur.
    """
    n_distinct = summary["n_distinct"]
    category = levels is not None
    if n_distinct <= 1:
        return Constant()
    if plain:
        return Binary() if summary["levels"] == [0.0, 1.0] else Real()
    if role == "text" and not category and n_distinct > max(20, 0.5 * summary["n"]):
        return Identifier()
    # a category that declares more levels than it shows must leave them room
    if n_distinct == 2 and role != "day" and len(levels or ()) <= 2:
        return Binary()
    if ordered and levels is not None:
        return Ordinal(levels=levels)
    if role == "text" or category:
        return Categorical()
    if role == "day":
        return Real(clock=True)
    if n_distinct <= MAX_WHOLE_LEVELS and 1.0 in summary["steps"]:
        return Categorical()
    return Real()


def kind_of(declared: str | Kind, where: str = "kinds") -> Kind:
    """The kind that a name or an instance declares."""
    if isinstance(declared, Kind):
        return declared
    if isinstance(declared, type) and issubclass(declared, Kind):
        return declared()
    if not isinstance(declared, str):
        raise refuse(where, got=repr(declared), want="a kind's name or instance", error=InputTypeError)
    if declared not in KINDS:
        raise refuse(where, got=repr(declared), want="a kind", fix=nearest(declared, KINDS))
    return KINDS[declared]()
