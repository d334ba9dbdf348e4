"""The columns of a table in order: learn them, encode rows, decode cells, name their joint likelihood."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np

from diabolo.checks import refuse
from diabolo.columns import Binary, Categorical, Kind, kind_of
from diabolo.table.layout import Column, Layout, Place, Rows
from diabolo.table.reading import (
    FRAMES,
    Source,
    read_beside,
    read_block,
    read_by_name,
    read_cells,
    read_table,
)
from diabolo.table.remarks import say_what_is_not_modelled
from diabolo.table.survey import Found, Survey
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
    beside : tuple of Column
        Conditions given beside the table, as `fit`'s y: all of them given, none of them decoded.

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
    beside: tuple[Column, ...] = ()

    @classmethod
    def learn(
        cls,
        X: Any,
        kinds: str | Kind | Mapping[str | int, str | Kind] | None = None,
        given: Sequence[str | int] = (),
        image_shape: tuple[int, ...] | None = None,
        beside: Any = None,
        kind_beside: str | Kind | None = None,
    ) -> Schema:
        """Learn the columns of X, one chunk.

        Parameters
        ----------
        X : array (n, d), data frame, or images (n, h, w) or (n, h, w, c)
        kinds : None, or a name or instance for all columns, or a dict of them by column name or position
        given : names or positions of the columns that densities are conditional on
        image_shape : (h, w) or (h, w, c) where the rows of X (n, h * w * c) are images
        beside, kind_beside : None, or a condition of each row and its kind, as `with_beside` takes them; a dict of
            kinds may also name it
        """
        if beside is None:
            return cls.of(Survey.of(X, kinds, given, image_shape))
        own = read_beside(beside).names[0]
        if isinstance(kinds, Mapping) and own in kinds and own not in read_table(X, image_shape).names:
            kind_beside = kind_beside or kinds[own]
            kinds = {column: kind for column, kind in kinds.items() if column != own}
        return cls.of(Survey.of(X, kinds, given, image_shape)).with_beside(beside, kind=kind_beside)

    @classmethod
    def of(cls, survey: Survey) -> Schema:
        """The schema of a survey, of one chunk or of many merged ones."""
        columns = tuple(map(_column, survey.columns, survey.kinds()))
        say_what_is_not_modelled(columns, survey.columns)
        return cls(columns, survey.container, survey.image_shape)

    def with_beside(self, y: Any, name: str | None = None, kind: str | Kind | None = None) -> Schema:
        """The same table with a column of conditions beside it, learned from y.

        Parameters
        ----------
        y : array, list or series (n,), or one column (n, 1); None and nan are gaps: the condition is not known
        name : None takes the series' name, else "y"
        kind : a kind or its name; None infers it as for a data frame's column, so that whole numbers of few values
            are levels even where a gap made them floats
        """
        source = read_beside(y, name)
        own = source.names[0]
        if own in self.names and (name is not None or own != "y"):
            got = f"the name {own!r}, which a column of X has"
            fix = "Drop that column of X, or name it in given= and leave y out."
            raise refuse("y", got=got, want="a name of its own", fix=fix)
        declared = None if kind is None else kind_of(kind, "y")
        found = Found.of(source, 0, declared, given=True, everywhere=False)
        learned = found.kind(plain=False)
        if declared is None and isinstance(learned, Binary):
            # a cell of 0 would be next to none: each of two labels has a cell of its own, as each of three has
            learned = Categorical().finish(found.summary, found.where)
        if learned.name == "identifier":
            got = f"{found.summary['n_distinct']} different texts in {found.summary['n']} rows"
            raise refuse(f"y, column {own!r}", got=got, want="labels that recur, or numbers")
        return dataclasses.replace(self, beside=(*self.beside, _column(found, learned)))

    # -- shape ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def layout(self) -> Layout:
        """The columns' places in the encoded row."""
        return Layout(self.columns)

    @functools.cached_property
    def _beside_layout(self) -> Layout:
        """The places of the conditions beside the table, after those of its own given columns."""
        return Layout(self.beside)

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
        """Encoded cells per row of all conditions, their flags included: given columns, then those beside."""
        return self.layout.given_width + self._beside_layout.given_width

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

    def likelihood(self, n_parts: int = 1) -> JointLikelihood:
        """The joint law of the modelled columns, quantities as mixtures of `n_parts`."""
        from diabolo.joint import JointLikelihood
        from diabolo.likelihoods import mixed

        kinds = [place.kind for place in self.layout.places]
        laws = [
            mixed(law, kind.initial(), n_parts) for kind in kinds if (law := kind.likelihood()) is not None
        ]
        return JointLikelihood.stack([law for law, _ in laws], [initial for _, initial in laws])

    def describe(self) -> list[tuple[str, str]]:
        """Name and one line of facts per column."""
        return [
            (str(column.name), column.kind.line() + (", given" if column.given else ""))
            for column in self.columns
        ]

    # -- in ------------------------------------------------------------------------------------------------

    def encode(self, X: Any, hidden: np.ndarray | None = None, beside: Any = None) -> Rows:
        """Rows of X as the model sees them; a value outside its column's support warns, and scores -inf.

        Parameters
        ----------
        X : the table
        hidden : (n, n_features) bool or None, cells to be read as gaps
        beside : (n,) or (n, 1), the condition beside each row; gaps, and all rows where it is None, are not known
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
        if beside is not None and not self.beside:
            raise refuse("y", got="conditions", want="none: the columns were learned without any")
        if self.beside:
            rows.given[:, layout.given_width :] = self._encode_beside(beside, n_rows)
        if strange:
            names = ", ".join(repr(self.columns[j].name) for j in sorted(set(strange))[:5])
            said = f"column {names}: values outside the support of the column's kind; those rows score -inf."
            warnings.warn(said, UserWarning, stacklevel=2)
        return rows

    def encode_given(self, X: Any) -> np.ndarray:
        """Conditions as a model takes them.

        Parameters
        ----------
        X : a table of the given columns, then what is beside the table; or a table of all columns, with or without it;
            or a dict of their values, one or (n,) under a name. Of a single condition also its values (n,), or one

        Returns
        -------
        (n, given_width) float32; a condition beside the table that is left out is not known
        """
        places = self.layout.given_places
        names = [column.name for column, _ in self.conditions]
        if not isinstance(X, Mapping) and _is_flat(X):
            if len(names) > 1:
                like = ", ".join(f"{name!r}: ..." for name in names)
                raise refuse(
                    "given", got=repr(X), want=f"values of {len(names)} columns", fix=f"Say {{{like}}}."
                )
            if not places:
                return self._encode_beside(X)
            X = {names[0]: X}
        source = read_by_name(X, names) if isinstance(X, Mapping) else read_table(X)
        table, beside = self._conditions_in(source)
        given = np.zeros((source.n_rows, self.given_width), np.float32)
        for i, place in zip(table, places, strict=True):
            column = self.columns[place.column]
            if (
                _encode_known(self.layout, column, place, self._values(source, i, column), given)
                and not column.gaps
            ):
                want = "a value, as in every training row"
                raise refuse(f"given column {column.name!r}", got="a gap", want=want)
        given[:, self.layout.given_width :] = self._encode_beside(source.part(beside) if beside else None)
        return given

    def unknown(self, n_rows: int) -> np.ndarray:
        """Conditions of which none is known: (n_rows, given_width) float32, flags of gaps and no cells."""
        given = np.zeros((n_rows, self.given_width), np.float32)
        given[:, [flag for _, flag in self.conditions]] = 1.0
        return given

    @property
    def conditions(self) -> list[tuple[Column, int]]:
        """Each condition, and which of the given cells flags its gaps; those of the table first."""
        table = [(self.columns[place.column], place.stop) for place in self.layout.given_places]
        ends = [self.layout.given_width + place.stop for place in self._beside_layout.given_places]
        return [*table, *zip(self.beside, ends, strict=True)]

    def _conditions_in(self, source: Source) -> tuple[list[int], list[int]]:
        """Places in a table of the given columns, and of what is beside the table; the latter may be left out."""
        at, n = [place.column for place in self.layout.given_places], len(self.columns)
        own, beside = tuple(self.columns[j].name for j in at), tuple(column.name for column in self.beside)
        last = list(range(len(beside)))
        shapes = [
            ((*own, *beside), list(range(len(own))), [len(own) + i for i in last]),
            (self.names, at, []),
            ((*self.names, *beside), at, [n + i for i in last]),
            (own, list(range(len(own))), []),
        ]
        named = self.container in FRAMES and source.container in FRAMES
        for names, table, rest in shapes:
            if names and (source.names == names if named else len(source.names) == len(names)):
                return table, rest
        got, want = f"columns {list(source.names)}", f"the given columns {[*own, *beside]}"
        raise refuse("given", got=got, want=want)

    def _encode_beside(self, y: Any, n_rows: int | None = None) -> np.ndarray:
        """Cells of what is beside the table, of a source or of values; of none at all they are not known."""
        if y is None:
            return self.unknown(n_rows or 1)[:, self.layout.given_width :]
        layout, source = self._beside_layout, y if isinstance(y, Source) else read_beside(y)
        if n_rows is not None and source.n_rows != n_rows:
            got, want = f"{source.n_rows} values", f"{n_rows}, one for each row of X"
            raise refuse("y", got=got, want=want, fix="Pass X and y of the same rows.")
        given = np.zeros((source.n_rows, layout.given_width), np.float32)
        for i, (column, place) in enumerate(zip(self.beside, layout.given_places, strict=True)):
            _encode_known(layout, column, place, self._values(source, i, column), given)
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
        return self._values(source, i, self.columns[column])

    def _values(self, source: Source, i: int, known: Column) -> np.ndarray:
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
        fix = {("text", "day"): "Convert it, in pandas by pd.to_datetime.",
               ("day", "text"): "Give it as text, or learn again from dates."}.get((role, known.role), "")  # fmt: skip
        raise refuse(where, got=plural[role], want=f"{plural[known.role]}, as in training", fix=fix)

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
            One whose index the answer keeps (pandas); one of the same columns in another library's frame is answered
            in that library's.
        snap : bool
            Move the values onto what each column can hold; for draws.
        given_values : (n, given_width) or None
            The given columns' cells; without them those columns come back as gaps. What is beside the table does not
            come back.

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
            return write_frame(*self._written_as(like), arrays, like)
        dtype = object if any(column.role == "text" for column in self.columns) else np.float64
        table = np.empty((len(values), len(arrays)), dtype)
        for j, array in enumerate(arrays):
            table[:, j] = array
        return table

    def _written_as(self, like: Any) -> tuple[str, Sequence[Column]]:
        """Library and columns of an answer: the training table's, or those of rows in another library's frame."""
        if not nw.dependencies.is_into_dataframe(like):
            return self.container, self.columns
        source = read_table(like)
        if source.container == self.container or source.names != self.names:  # others are codes
            return self.container, self.columns
        columns = []
        for column, dtype, cells in zip(self.columns, source.dtypes, source.cells, strict=True):
            levels = column.levels or tuple(getattr(column.kind, "levels", None) or ())
            known = column.role != "text" or not cells.dtype.is_numeric()
            columns.append(dataclasses.replace(column, dtype=dtype if known else "", levels=levels))
        return source.container, columns

    # -- storage -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        columns, beside = (
            [
                {f.name: getattr(column, f.name) for f in dataclasses.fields(column)}
                | {"kind": column.kind.to_json(), "levels": _listed(column.levels)}
                for column in part
            ]
            for part in (self.columns, self.beside)
        )
        shape = _listed(self.image_shape)
        return {"container": self.container, "image_shape": shape, "columns": columns, "beside": beside}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Schema:
        """The schema that `to_json` wrote."""
        columns, beside = (
            tuple(
                Column(
                    **(facts | {"kind": Kind.from_json(facts["kind"]), "levels": _unlisted(facts["levels"])})
                )
                for facts in part
            )
            for part in (record["columns"], record.get("beside", ()))  # older files have none
        )
        return cls(columns, record["container"], _unlisted(record["image_shape"]), beside)


def _column(found: Found, kind: Kind) -> Column:
    return Column(
        name=found.name,
        kind=kind,
        dtype=found.dtype,
        given=found.given,
        role=found.role,
        levels=found.levels,
        ordered=found.ordered,
        gaps=found.summary["n_missing"] > 0,
    )


def _encode_known(
    layout: Layout, column: Column, place: Place, values: np.ndarray, given: np.ndarray
) -> bool:
    """Encode conditions (n,) into given (n, given_width), refusing what training never saw; is any of them a gap?"""
    layout.encode_given(place, values, given)
    unknown = np.flatnonzero(given[:, place.stop] > 0.5)
    left = values[unknown].tolist()
    gap = [value is None or value != value for value in left]
    if not all(gap):
        got = f"{left[gap.index(False)]!r}, which no training row held"
        raise refuse(f"given column {column.name!r}", got=got, want="a level of the training rows")
    return bool(gap)


def _is_flat(X: Any) -> bool:
    """Values alone, or a single one: no table."""
    try:
        return np.ndim(X) < 2
    except ValueError:  # lists of different lengths, which the reader refuses in our words
        return False


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
