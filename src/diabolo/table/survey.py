"""What training values say about their columns, chunk by chunk; a schema is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diabolo.checks import nearest, refuse
from diabolo.columns import (
    Binary,
    Kind,
    Ordinal,
    Pixels,
    Real,
    infer_kind,
    kind_of,
    merge_summaries,
    summarise_values,
)
from diabolo.table.reading import Source, read_block, read_table

__all__ = ["Found", "Survey"]

TEXT_KINDS = ("binary", "categorical", "ordinal", "constant", "identifier")  # these take text as text


@dataclasses.dataclass(frozen=True)
class Found:
    """What one chunk, or several, say about one column."""

    name: str | int
    dtype: str
    given: bool
    declared: Kind | None
    everywhere: bool  # was the kind declared for all columns at once?
    role: str
    levels: tuple | None
    ordered: bool
    summary: dict[str, Any]

    @classmethod
    def of(cls, source: Source, j: int, kind: Kind | None, *, given: bool, everywhere: bool) -> Found:
        """Column j of a table, with the kind that was declared for it or None."""
        column = source.column(j, keep_text=kind is not None and kind.name in TEXT_KINDS)
        return cls(
            name=source.names[j],
            # objects that are all True and False go back as such
            dtype="boolean" if column.booleans and source.container == "pandas" else source.dtypes[j],
            given=given,
            declared=kind,
            everywhere=everywhere,
            role=column.role,
            levels=column.levels,
            ordered=column.ordered,
            summary=kind.summarise(column.values) if kind else summarise_values(column.values),
        )

    @property
    def where(self) -> str:
        return f"column {self.name!r}"

    def merge(self, other: Found) -> Found:
        """Both chunks together."""
        role, levels, summary = self.role, self.levels, other.summary
        if self.role != other.role:
            empty = [found for found in (self, other) if not found.summary["n"]]
            if not empty:
                raise refuse(self.where, got=f"{self.role} in one part and {other.role} in another",
                             want="one type of cells", fix="Declare its kind.")  # fmt: skip
            full = other if empty[0] is self else self
            role, levels = full.role, full.levels
        if self.levels and other.levels and self.levels != other.levels:
            levels = tuple(dict.fromkeys((*self.levels, *other.levels)))
        if self.declared is not None:
            summary = self.declared.merge(self.summary, other.summary)
        else:
            summary = merge_summaries(self.summary, other.summary)
        return dataclasses.replace(self, role=role, levels=levels, summary=summary)

    def kind(self, plain: bool) -> Kind:
        """The column's kind, with its facts learned."""
        kind = self.declared
        # with nothing seen a declaration has no facts; one for all columns leaves constants alone
        if kind is None or not self.summary["n"] or (self.everywhere and self.summary["n_distinct"] == 1):
            kind = infer_kind(
                self.summary, role=self.role, levels=self.levels, ordered=self.ordered, plain=plain
            )
        elif isinstance(kind, Ordinal) and kind.levels is None and self.ordered:
            kind = dataclasses.replace(kind, levels=self.levels)
        elif isinstance(kind, Real) and self.role == "day":
            kind = dataclasses.replace(kind, clock=True)
        return kind.finish(self.summary, self.where)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one chunk of rows, or several, say about all columns.

    `pooled` is the one summary of all pixels of images, whose columns share a kind.
    """

    container: str
    columns: tuple[Found, ...]
    plain: bool
    image_shape: tuple[int, ...] | None = None
    pooled: Found | None = None
    bytes: bool = False

    @classmethod
    def of(
        cls,
        X: Any,
        kinds: str | Kind | Mapping[str | int, str | Kind] | None = None,
        given: Sequence[str | int] = (),
        image_shape: tuple[int, ...] | None = None,
    ) -> Survey:
        """Survey one chunk; the parameters are those of `Schema.learn`."""
        source = read_table(X, image_shape)
        declared = _declared(kinds, source.names)
        is_given = _given(given, source.names)
        everywhere = not isinstance(kinds, Mapping)
        facts: dict[str, Any] = {
            "container": source.container,
            "plain": source.block is not None and source.block.dtype.kind == "f",
            "image_shape": source.image_shape,
            "bytes": source.dtypes[0] == "uint8",
        }
        if source.image_shape is not None and source.block is not None:
            return cls._of_images(source, declared, is_given, facts)
        columns = tuple(
            Found.of(source, j, declared[j], given=is_given[j], everywhere=everywhere)
            for j in range(len(source.names))
        )
        return cls(columns=columns, **facts)

    @classmethod
    def _of_images(
        cls, source: Source, declared: list[Kind | None], is_given: list[bool], facts: dict[str, Any]
    ) -> Survey:
        """One summary of all pixels; each column keeps only its number of gaps."""
        assert source.block is not None
        if len(set(declared)) > 1:
            raise refuse("kinds", got="a kind for some pixels", want="one kind for all pixels of images")
        if any(is_given):
            raise refuse("given", got="pixels", want="no column for images")
        block = read_block(source.block, source.names)
        kind = declared[0]
        gaps = np.isnan(block).sum(0)
        summary = kind.summarise(block.ravel()) if kind else summarise_values(block.ravel())
        found = Found(
            name="pixels",
            dtype=source.dtypes[0],
            given=False,
            declared=kind,
            everywhere=False,
            role="number",
            levels=None,
            ordered=False,
            summary=summary,
        )
        columns = tuple(
            dataclasses.replace(found, name=name, summary={"n": 0, "n_missing": int(n)})
            for name, n in zip(source.names, gaps, strict=True)
        )
        return cls(columns=columns, pooled=found, **facts)

    def merge(self, other: Survey) -> Survey:
        """Both surveys together; they are of chunks of one table."""
        if [found.name for found in self.columns] != [found.name for found in other.columns]:
            raise refuse("X", got="parts with different columns", want="the same columns in every part")
        plain = self.plain and other.plain
        if self.pooled is None or other.pooled is None:
            columns = tuple(a.merge(b) for a, b in zip(self.columns, other.columns, strict=True))
            return dataclasses.replace(self, columns=columns, plain=plain)
        columns = tuple(
            dataclasses.replace(
                a, summary={"n": 0, "n_missing": a.summary["n_missing"] + b.summary["n_missing"]}
            )
            for a, b in zip(self.columns, other.columns, strict=True)
        )
        return dataclasses.replace(
            self, columns=columns, plain=plain, pooled=self.pooled.merge(other.pooled),
            bytes=self.bytes and other.bytes,
        )  # fmt: skip

    def kinds(self) -> list[Kind]:
        """Each column's kind, with its facts learned."""
        if self.pooled is None:
            return [found.kind(self.plain) for found in self.columns]
        kind, summary = self.pooled.declared, self.pooled.summary
        if kind is None and set(summary["levels"]) <= {0.0, 1.0} and summary["n"]:
            kind = Binary()
        elif kind is None:
            kind = Pixels() if self.bytes else Real()
        return [kind.finish(summary, "images")] * len(self.columns)


def position(column: Any, names: tuple[str | int, ...], what: str) -> int:
    """Index of a column given by name or position; `what` names it in a refusal."""
    if column in names:
        return names.index(column)
    if isinstance(column, (int, np.integer)) and -len(names) <= column < len(names):
        return int(column) % len(names)
    fix = nearest(str(column), map(str, names))
    raise refuse(what, got=f"{column!r}", want="the name or position of a column of X", fix=fix)


def _declared(kinds: Any, names: tuple[str | int, ...]) -> list[Kind | None]:
    """The declared kind of each column, None where it is to be inferred."""
    if not isinstance(kinds, Mapping):
        return [None if kinds is None else kind_of(kinds)] * len(names)
    declared: list[Kind | None] = [None] * len(names)
    for column, kind in kinds.items():
        declared[position(column, names, "kinds")] = kind_of(kind, f"kinds[{column!r}]")
    return declared


def _given(given: Iterable[str | int] | str | int | None, names: tuple[str | int, ...]) -> list[bool]:
    """Which columns are given."""
    listed = [given] if isinstance(given, (str, int, np.integer)) else list(() if given is None else given)
    chosen = {position(column, names, "given") for column in listed}
    if len(chosen) == len(names):
        raise refuse("given", got="every column", want="some columns left to model")
    return [j in chosen for j in range(len(names))]
