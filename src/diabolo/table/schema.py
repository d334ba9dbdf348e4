"""The columns of a table in order: learn them, encode rows, decode cells, name their joint likelihood."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diabolo.checks import refuse
from diabolo.columns import Kind, Real
from diabolo.columns.quantities import MAX_DEVIATION
from diabolo.table.reading import FRAMES, Source, read_block, read_cells, read_table
from diabolo.table.survey import Survey
from diabolo.table.writing import write_frame

if TYPE_CHECKING:
    from diabolo.joint import JointLikelihood

__all__ = ["Column", "Rows", "Schema"]

BLOCK_CELLS = 2**18  # cells encoded at a time: the float64 copies stay in the cache


class Rows(NamedTuple):
    """Encoded rows.

    values : (n, width) float32; 0 where not observed
    observed : (n, n_columns) bool, one flag per modelled column
    given : (n, given_width) float32: the encoded cells of each given column, then its 0/1 flag of a gap
    offset : (n,) float64, nats; what the columns add to log p(row) whatever the model says
    """

    values: np.ndarray
    observed: np.ndarray
    given: np.ndarray
    offset: np.ndarray


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: its name, what it holds, and how its container stored it.

    role : "number", "text" or "day"; levels, ordered : the container's own category levels;
    gaps : did it have gaps in training?
    """

    name: str | int
    kind: Kind
    dtype: str | None = None
    given: bool = False
    role: str = "number"
    levels: tuple | None = None
    ordered: bool = False
    gaps: bool = False


class _Place(NamedTuple):
    """Where a column's cells lie in the encoded row."""

    column: int
    kind: Kind
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns in order.

    Parameters
    ----------
    columns : tuple of Column
    container : {"numpy", "images", "pandas", "polars", "pyarrow"}
        What the training table came in; decoded rows come back in it.
    image_shape : tuple or None

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
        for name, said in (
            ("constant", "hold one value or none; they are kept in outputs and not modelled"),
            ("identifier", "hold mostly distinct text; they are set aside"),
        ):
            found_names = [str(column.name) for column in columns if column.kind.name == name]
            if found_names:
                more = f" and {len(found_names) - 5} more" if len(found_names) > 5 else ""
                warnings.warn(
                    f"columns {', '.join(found_names[:5])}{more} {said}.", UserWarning, stacklevel=4
                )
        return cls(columns, survey.container, survey.image_shape)

    # -- shape ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def places(self) -> tuple[_Place, ...]:
        """The modelled columns: not given, with a law."""
        return self._laid_out(given=False)

    @functools.cached_property
    def given_places(self) -> tuple[_Place, ...]:
        """The given columns; after each one's cells comes its flag of a gap."""
        return self._laid_out(given=True)

    def _laid_out(self, given: bool) -> tuple[_Place, ...]:
        places, start = [], 0
        for j, column in enumerate(self.columns):
            if column.given == given and (given or column.kind.counted):
                stop = start + column.kind.width
                places.append(_Place(j, column.kind, start, stop))
                start = stop + given
        return tuple(places)

    @property
    def width(self) -> int:
        """Encoded cells per row."""
        return self.places[-1].stop if self.places else 0

    @property
    def given_width(self) -> int:
        """Encoded cells per row of the given columns, their flags included."""
        return self.given_places[-1].stop + 1 if self.given_places else 0

    @property
    def n_columns(self) -> int:
        """Modelled columns: d, by which a density per dimension is divided."""
        return len(self.places)

    @property
    def n_counted(self) -> int:
        """The same number, by the name that the design gives it."""
        return self.n_columns

    @property
    def n_features(self) -> int:
        """Columns of the table, all of them."""
        return len(self.columns)

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """(n_columns,) bool: which modelled columns had gaps in training."""
        return np.array([self.columns[place.column].gaps for place in self.places], bool)

    def likelihood(self) -> JointLikelihood:
        """The joint law of the modelled columns."""
        from diabolo.joint import JointLikelihood

        kinds = [place.kind for place in self.places]
        return JointLikelihood.stack([k.likelihood() for k in kinds], [k.initial() for k in kinds])

    def describe(self) -> list[tuple[str, str]]:
        """Name and one line of facts per column."""
        return [
            (str(column.name), column.kind.line() + (", given" if column.given else ""))
            for column in self.columns
        ]

    # -- in ------------------------------------------------------------------------------------------------

    def encode(self, X: Any) -> Rows:
        """Rows of X as the model sees them.

        Warns once when a value lies outside its column's support; such a row scores -inf.
        """
        source = self._opened(X)
        n_rows = source.n_rows
        values = np.zeros((n_rows, self.width), np.float32)
        observed = np.empty((n_rows, self.n_columns), bool)
        given = np.zeros((n_rows, self.given_width), np.float32)
        offset = np.zeros(n_rows)
        strange: list[str | int] = []
        if source.block is not None:
            step = max(1, BLOCK_CELLS // source.block.shape[1])
            for start in range(0, n_rows, step):
                part = slice(start, start + step)
                block = read_block(source.block[part], source.names)
                arrays = values[part], observed[part], given[part], offset[part]
                self._encode_block(block, *arrays, strange=strange)
        else:
            read = functools.cache(lambda j: self._values_of(source, j))
            places, given_places = enumerate(self.places), self.given_places
            self._encode_each(read, places, given_places, values, observed, given, offset, strange)
        if strange:
            names = ", ".join(dict.fromkeys(repr(name) for name in strange))
            said = f"columns {names}: values outside the support of the column's kind; those rows score -inf."
            warnings.warn(said, UserWarning, stacklevel=2)
        return Rows(values, observed, given, offset)

    def encode_given(self, X: Any) -> np.ndarray:
        """Given cells (n, given_width) float32 of a table with all columns, or with the given ones only."""
        source = read_table(X)
        wanted = [place.column for place in self.given_places]
        if len(source.names) == len(self.columns):
            source = self._checked(source).part(wanted)
        else:
            names = tuple(self.columns[j].name for j in wanted)
            if len(source.names) != len(wanted) or (source.container in FRAMES and source.names != names):
                raise refuse("given", got=f"columns {source.names}", want=f"the given columns {names}")
        given = np.zeros((source.n_rows, self.given_width), np.float32)
        for i, place in enumerate(self.given_places):
            self._encode_given_column(place, self._values_of(source, i, place.column), given)
        return given

    def _opened(self, X: Any) -> Source:
        shape = self.image_shape if self.container == "numpy" and np.ndim(X) == 2 else None
        return self._checked(read_table(X, shape))

    def _checked(self, source: Source) -> Source:
        """The source, if its columns are the training columns."""
        n_columns, names = len(self.columns), tuple(column.name for column in self.columns)
        if self.image_shape is not None and source.image_shape not in (None, self.image_shape):
            raise refuse("X", got=f"images of shape {source.image_shape}", want=f"shape {self.image_shape}")
        if self.container in FRAMES and source.container in FRAMES and source.names != names:
            missing = [name for name in names if name not in source.names]
            new = [name for name in source.names if name not in names]
            parts = [f"no column {missing[0]!r}"] if missing else []
            parts += [f"an unknown column {new[0]!r}"] if new else []
            got = " and ".join(parts) or "the columns in another order"
            raise refuse("X", got=got, want="the columns of the training table, in their order",
                         fix="Use X[list(schema.names)]." if not parts else "")  # fmt: skip
        if len(source.names) != n_columns:
            raise refuse("X", got=f"{len(source.names)} columns", want=f"{n_columns}, as in training")
        return source

    def _values_of(self, source: Source, j: int, column: int | None = None) -> np.ndarray:
        """Column j of the source as the values that the schema's column holds."""
        known = self.columns[j if column is None else column]
        where = f"column {known.name!r}"
        if source.block is not None:
            values = read_block(source.block[:, j : j + 1], source.names[j : j + 1])[:, 0]
            role = "number"
        else:
            values, role = read_cells(source.cells[j], where, keep_text=known.role == "text")[:2]
        if role == known.role:
            return values
        if known.role == "text":
            # numbers where text was learned: read them as a person would write them
            texts = [None if np.isnan(v) else f"{v:.15g}" for v in values]
            values = np.empty(len(texts), object)
            values[:] = texts
            return values
        if role == "text" and all(v is None for v in values):
            return np.full(len(values), np.nan)
        if role == "day" and np.isnan(values).all():
            return values
        got = {"text": "text", "day": "dates", "number": "numbers"}[role]
        want = {"number": "numbers", "day": "dates"}[known.role]
        raise refuse(where, got=got, want=f"{want}, as in training")

    @functools.cached_property
    def _plain(self) -> tuple[np.ndarray, ...]:
        """Places, columns, starts, means and scales of the `Real` columns without atoms."""
        plain = [(i, p) for i, p in enumerate(self.places) if isinstance(p.kind, Real) and not p.kind.atoms]
        facts = [(i, p.column, p.start, p.kind.mean, p.kind.scale) for i, p in plain]
        index, column, start, mean, scale = zip(*facts, strict=True) if facts else ((),) * 5
        whole = tuple(np.array(ints, int) for ints in (index, column, start))
        return (*whole, np.array(mean, np.float64), np.array(scale, np.float64))

    @functools.cached_property
    def _one_kind(self) -> Kind | None:
        """The kind that all columns share, as those of images do."""
        kinds = {place.kind for place in self.places}
        return next(iter(kinds)) if len(kinds) == 1 and self.n_columns == len(self.columns) > 1 else None

    def _encode_block(
        self,
        block: np.ndarray,
        values: np.ndarray,
        observed: np.ndarray,
        given: np.ndarray,
        offset: np.ndarray,
        strange: list[str | int],
    ) -> None:
        """Encode numbers (n, n_columns) into the arrays, many columns at a time where they are alike."""
        if self._one_kind is not None and not self._plain[0].size:
            cells = self._one_kind.encode(block.ravel())
            values[:] = cells.values.reshape(values.shape)
            observed[:] = cells.observed.reshape(observed.shape)
            offsets = cells.offset.reshape(observed.shape)
            offset += offsets.sum(1)
            strange += [self.columns[j].name for j in np.flatnonzero(np.isneginf(offsets).any(0))]
            return
        index, column, start, mean, scale = self._plain
        if len(index):
            every = len(index) == len(self.columns)
            z = (block if every else block[:, column]) - mean
            z *= 1.0 / scale
            np.clip(z, -MAX_DEVIATION, MAX_DEVIATION, out=z)
            jacobian = -np.log(scale)
            seen: np.ndarray | bool = True
            if np.isnan(z.sum()):
                seen = ~np.isnan(z)
                z[~seen] = 0.0
                offset += seen @ jacobian
            else:
                offset += jacobian.sum()
            if every:
                values[:], observed[:] = z, seen
                return
            values[:, start], observed[:, index] = z, seen
        plain = set(index.tolist())
        places = ((i, place) for i, place in enumerate(self.places) if i not in plain)
        read = lambda j: block[:, j]  # noqa: E731
        self._encode_each(read, places, self.given_places, values, observed, given, offset, strange)

    def _encode_each(
        self, read: Any, places: Any, given_places: Any, values: np.ndarray, observed: np.ndarray,
        given: np.ndarray, offset: np.ndarray, strange: list[str | int],
    ) -> None:  # fmt: skip
        """Encode column by column into the arrays; `read` gives the values of column j."""
        for i, place in places:
            cells = place.kind.encode(read(place.column))
            values[:, place.start : place.stop] = cells.values
            observed[:, i] = cells.observed
            self._add(cells.offset, place.column, offset, strange)
        for place in given_places:
            self._encode_given_column(place, read(place.column), given)
        for j, column in enumerate(self.columns):
            if not column.given and not column.kind.counted:
                self._add(column.kind.encode(read(j)).offset, j, offset, strange)

    def _add(self, cell_offset: np.ndarray, j: int, offset: np.ndarray, strange: list[str | int]) -> None:
        if np.isneginf(cell_offset).any():
            strange.append(self.columns[j].name)
        offset += cell_offset

    def _encode_given_column(self, place: _Place, values: np.ndarray, given: np.ndarray) -> None:
        cells = place.kind.encode(values)
        given[:, place.start : place.stop] = cells.values
        given[:, place.stop] = ~cells.observed

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
        """
        values = np.asarray(values, np.float64)
        places = {place.column: place for place in self.places}
        if self._one_kind is not None and self.container in ("numpy", "images"):
            decoded = self._one_kind.decode(values.reshape(-1, self._one_kind.width))
            table = (self._one_kind.snap(decoded) if snap else decoded).reshape(len(values), -1)
            return self._shaped(table)
        conditions = {place.column: place for place in self.given_places}
        arrays = []
        for j, column in enumerate(self.columns):
            kind = column.kind
            if column.given:
                array = self._decoded_given(conditions[j], given_values, len(values))
            elif j in places:
                array = kind.decode(values[:, places[j].start : places[j].stop])
                array = kind.snap(array) if snap else array
            else:
                array = kind.decode(np.zeros((len(values), 0)))
            arrays.append(array)
        if self.container in FRAMES:
            return write_frame(self.container, self.columns, arrays, like)
        dtype = object if any(column.role == "text" for column in self.columns) else np.float64
        table = np.empty((len(values), len(arrays)), dtype)
        for j, array in enumerate(arrays):
            table[:, j] = array
        return self._shaped(table)

    def _shaped(self, table: np.ndarray) -> np.ndarray:
        return table.reshape(len(table), *self.image_shape) if self.container == "images" else table

    def _decoded_given(self, place: _Place, given_values: np.ndarray | None, n_rows: int) -> np.ndarray:
        text = self.columns[place.column].role == "text"
        nothing = np.full(n_rows, None, object) if text else np.full(n_rows, np.nan)
        if given_values is None:
            return nothing
        cells = np.asarray(given_values, np.float64)
        decoded = place.kind.decode(cells[:, place.start : place.stop])
        return np.where(cells[:, place.stop] > 0.5, nothing, decoded)

    # -- storage -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        columns = []
        for column in self.columns:
            record = {f.name: getattr(column, f.name) for f in dataclasses.fields(column)}
            record["kind"] = column.kind.to_json()
            record["levels"] = None if column.levels is None else list(column.levels)
            columns.append(record)
        shape = None if self.image_shape is None else list(self.image_shape)
        return {"container": self.container, "image_shape": shape, "columns": columns}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Schema:
        """The schema that `to_json` wrote."""
        columns = tuple(
            Column(**{
                **facts,
                "kind": Kind.from_json(facts["kind"]),
                "levels": None if facts["levels"] is None else tuple(facts["levels"]),
            })
            for facts in record["columns"]
        )  # fmt: skip
        shape = record["image_shape"]
        return cls(columns, record["container"], None if shape is None else tuple(shape))
