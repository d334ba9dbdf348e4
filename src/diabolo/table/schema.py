"""The columns of a table in order: learn them, encode rows, decode cells, name their joint likelihood."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diabolo.checks import refuse
from diabolo.columns import Kind
from diabolo.table.layout import Column, Layout, Rows
from diabolo.table.reading import FRAMES, Source, read_block, read_cells, read_table
from diabolo.table.survey import Survey
from diabolo.table.writing import write_frame

if TYPE_CHECKING:
    from diabolo.joint import JointLikelihood

__all__ = ["Schema"]


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns in order.

    Parameters
    ----------
    columns : tuple of Column
    container : {"numpy", "images", "pandas", "polars", "pyarrow"}
        What the training table came in; decoded rows come back in it.
    image_shape : tuple or None

    ```
    X ─▶ encode ─▶ Rows(values, observed, given, offset)
                     │
    X ◀─ decode ◀─ values
    ```

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo.table import Schema
    >>> X = np.array([[1.0, 0.0], [2.5, 1.0], [np.nan, 1.0]])
    >>> schema = Schema.learn(X)
    >>> [column.kind.name for column in schema.columns]
    ['real', 'binary']
    >>> rows = schema.encode(X)
    >>> rows.observed
    array([[ True,  True],
           [ True,  True],
           [False,  True]])
    >>> schema.decode(rows.values)[:2]
    array([[1. , 0. ],
           [2.5, 1. ]])
    """

    columns: tuple[Column, ...]
    container: str = "numpy"
    image_shape: tuple[int, ...] | None = None

    @classmethod
    def learn(
        cls,
        X: Any,
        kinds: str | Kind | Mapping[str | int, str | Kind] | None = None,
        given: Sequence[str | int] = (),
        image_shape: tuple[int, ...] | None = None,
    ) -> Schema:
        """Learn the columns of X, one chunk.

        Parameters
        ----------
        X : array (n, d), data frame, or images (n, h, w) or (n, h, w, c)
        kinds : None, or a name or instance for all columns, or a dict of them by column name or position
        given : names or positions of the columns that densities are conditional on
        image_shape : (h, w) or (h, w, c) where the rows of X (n, h * w * c) are images
        """
        return cls.of(Survey.of(X, kinds, given, image_shape))

    @classmethod
    def of(cls, survey: Survey) -> Schema:
        """The schema of a survey, of one chunk or of many merged ones."""
        columns = tuple(
            Column(
                name=found.name,
                kind=kind,
                dtype=found.dtype,
                given=found.given,
                role=found.role,
                levels=found.levels,
                ordered=found.ordered,
                gaps=found.summary["n_missing"] > 0,
            )
            for found, kind in zip(survey.columns, survey.kinds(), strict=True)
        )
        _say_aside(columns, "constant", "hold one value or none: kept in outputs, not modelled")
        _say_aside(columns, "identifier", "hold mostly distinct text: set aside")
        return cls(columns, survey.container, survey.image_shape)

    # -- shape ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def layout(self) -> Layout:
        """The columns' places in the encoded row."""
        return Layout(self.columns)

    @property
    def names(self) -> tuple[str | int, ...]:
        """The columns' names; arrays' are x0, x1, ..., images' pixel_0_0, pixel_0_1, ..."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """Encoded cells per row."""
        return self.layout.width

    @property
    def given_width(self) -> int:
        """Encoded cells per row of the given columns, their flags included."""
        return self.layout.given_width

    @property
    def n_features(self) -> int:
        """Columns of the table, all of them."""
        return len(self.columns)

    @property
    def n_columns(self) -> int:
        """Modelled columns: not given, with a law."""
        return len(self.layout.places)

    @property
    def n_counted(self) -> int:
        """d, by which a density per dimension is divided: the modelled columns."""
        return self.n_columns

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """(n_columns,) bool: which modelled columns had gaps in training."""
        return np.array([self.columns[place.column].gaps for place in self.layout.places], bool)

    def likelihood(self) -> JointLikelihood:
        """The joint law of the modelled columns."""
        from diabolo.joint import JointLikelihood

        kinds = [place.kind for place in self.layout.places]
        laws = [law for kind in kinds if (law := kind.likelihood()) is not None]
        return JointLikelihood.stack(laws, [kind.initial() for kind in kinds])

    def describe(self) -> list[tuple[str, str]]:
        """Name and one line of facts per column."""
        return [
            (str(column.name), column.kind.line() + (", given" if column.given else ""))
            for column in self.columns
        ]

    # -- in ------------------------------------------------------------------------------------------------

    def encode(self, X: Any, hidden: np.ndarray | None = None) -> Rows:
        """Rows of X as the model sees them; a value outside its column's support warns, and scores -inf.

        Parameters
        ----------
        X : the table
        hidden : (n, n_features) bool or None, cells to be read as gaps
        """
        source = self.checked(read_table(X))
        n_rows, layout = source.n_rows, self.layout
        rows = Rows(
            np.zeros((n_rows, self.width), np.float32),
            np.empty((n_rows, self.n_columns), bool),
            np.zeros((n_rows, self.given_width), np.float32),
            np.zeros(n_rows),
        )
        if source.block is not None and all(column.role == "number" for column in self.columns):
            strange = []
            for start in range(0, n_rows, layout.block_rows):
                part = slice(start, start + layout.block_rows)
                block = read_block(source.block[part], source.names)
                if hidden is not None:
                    block = np.where(hidden[part], np.nan, block)
                strange += layout.encode_block(block, Rows(*(array[part] for array in rows)))
        else:
            strange = layout.encode_each(lambda j: _hide(self.values_of(source, j, j), hidden, j), rows)
        if strange:
            names = ", ".join(repr(self.columns[j].name) for j in sorted(set(strange))[:5])
            said = f"column {names}: values outside the support of the column's kind; those rows score -inf."
            warnings.warn(said, UserWarning, stacklevel=2)
        return rows

    def encode_given(self, X: Any) -> np.ndarray:
        """Given cells (n, given_width) float32 of a table with all columns, or with the given ones only."""
        source, places = read_table(X), self.layout.given_places
        names = tuple(self.columns[place.column].name for place in places)
        if len(source.names) == len(self.columns):
            source = self.checked(source).part([place.column for place in places])
        elif len(source.names) != len(names) or (source.container in FRAMES and source.names != names):
            got, want = f"columns {list(source.names)}", f"the given columns {list(names)}"
            raise refuse("given", got=got, want=want)
        given = np.zeros((source.n_rows, self.given_width), np.float32)
        for i, place in enumerate(places):
            values, column = self.values_of(source, i, place.column), self.columns[place.column]
            self.layout.encode_given(place, values, given)
            unknown = np.flatnonzero(given[:, place.stop] > 0.5)
            gap = [value is None or value != value for value in values[unknown].tolist()]
            if not all(gap):
                got = f"{values[unknown[gap.index(False)]]!r}, which no training row held"
                raise refuse(f"given column {column.name!r}", got=got, want="a level of the training rows")
            if gap and not column.gaps:
                want = "a value, as in every training row"
                raise refuse(f"given column {column.name!r}", got="a gap", want=want)
        return given

    def checked(self, source: Source) -> Source:
        """The source, if its columns are the training columns."""
        names = self.names
        if self.image_shape is not None and source.image_shape not in (None, self.image_shape):
            raise refuse("X", got=f"images of shape {source.image_shape}", want=f"shape {self.image_shape}")
        if self.container in FRAMES and source.container in FRAMES and source.names != names:
            got = [f"no column {name!r}" for name in names if name not in source.names][:1]
            got += [f"an unknown column {name!r}" for name in source.names if name not in names][:1]
            want = "the columns of the training table in their order"
            raise refuse("X", got=" and ".join(got) or "the columns in another order", want=want)
        if len(source.names) != len(names):
            raise refuse("X", got=f"{len(source.names)} columns", want=f"{len(names)}, as in training")
        return dataclasses.replace(source, names=names)

    def values_of(self, source: Source, i: int, column: int) -> np.ndarray:
        """Column i of the source as the values that the schema's column holds."""
        known = self.columns[column]
        where = f"column {known.name!r}"
        if source.block is not None:
            values, role = read_block(source.block[:, i : i + 1], [known.name])[:, 0], "number"
        else:
            values, role = read_cells(source.cells[i], where, keep_text=known.role == "text")[:2]
        if role == known.role:
            return values
        if known.role == "text" and role == "number":
            # numbers where text was learned: read them as a person would write them
            texts = np.empty(len(values), object)
            texts[:] = [None if np.isnan(value) else f"{value:.15g}" for value in values]
            return texts
        if all(value is None or value != value for value in values):
            gap, dtype = (None, object) if known.role == "text" else (np.nan, np.float64)
            return np.full(len(values), gap, dtype)
        plural = {"text": "text", "day": "dates", "number": "numbers"}
        raise refuse(where, got=plural[role], want=f"{plural[known.role]}, as in training")

    # -- out -----------------------------------------------------------------------------------------------

    def decode(
        self,
        values: np.ndarray,
        *,
        like: Any = None,
        snap: bool = False,
        given_values: np.ndarray | None = None,
    ) -> Any:
        """Encoded cells back in the training table's container and units.

        Parameters
        ----------
        values : (n, width)
        like : data frame or None
            One whose index the answer keeps (pandas).
        snap : bool
            Move the values onto what each column can hold; for draws.
        given_values : (n, given_width) or None
            The given columns' cells; without them those columns come back as gaps.

        Returns
        -------
        As the training table: a frame of its library with its types; images (n, h, w[, c]); else an array
        (n, n_features) of float64 (dates in days since 1970), of objects where a column holds text.
        """
        values = np.asarray(values, np.float64)
        kind = self.layout.one_kind
        if kind is not None and self.container not in FRAMES and self.columns[0].role != "text":
            table = self.layout.decode_alike(kind, values, snap)
            shape = self.image_shape if self.container == "images" else None
            return table if shape is None else table.reshape(len(table), *shape)
        if self.container == "numpy" and (plain := self.layout.decode_plain(values, snap)) is not None:
            return plain
        arrays = self.layout.decode(values, given_values, snap)
        if self.container in FRAMES:
            return write_frame(self.container, self.columns, arrays, like)
        dtype = object if any(column.role == "text" for column in self.columns) else np.float64
        table = np.empty((len(values), len(arrays)), dtype)
        for j, array in enumerate(arrays):
            table[:, j] = array
        return table

    # -- storage -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        columns = [
            {f.name: getattr(column, f.name) for f in dataclasses.fields(column)}
            | {"kind": column.kind.to_json(), "levels": _listed(column.levels)}
            for column in self.columns
        ]
        return {"container": self.container, "image_shape": _listed(self.image_shape), "columns": columns}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Schema:
        """The schema that `to_json` wrote."""
        columns = tuple(
            Column(**(facts | {"kind": Kind.from_json(facts["kind"]), "levels": _unlisted(facts["levels"])}))
            for facts in record["columns"]
        )
        return cls(columns, record["container"], _unlisted(record["image_shape"]))


def _hide(values: np.ndarray, hidden: np.ndarray | None, column: int) -> np.ndarray:
    """Values (n,) with gaps where `hidden` says so."""
    if hidden is None or not hidden[:, column].any():
        return values
    gap: Any = None if values.dtype == object else np.nan
    return np.where(hidden[:, column], gap, values)


def _listed(fact: tuple | None) -> list | None:
    return None if fact is None else list(fact)


def _unlisted(fact: list | None) -> tuple | None:
    return None if fact is None else tuple(fact)


def _say_aside(columns: tuple[Column, ...], name: str, said: str) -> None:
    """Warn once of all columns of an uncounted kind."""
    found = [str(column.name) for column in columns if column.kind.name == name]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        warnings.warn(f"columns {', '.join(found[:5])}{more} {said}.", UserWarning, stacklevel=4)
