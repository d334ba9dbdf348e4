"""Where each column's cells lie in the encoded row, and the passes that fill and read them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from diabolo.columns import Binary, Kind, Real
from diabolo.columns.quantities import MAX_DEVIATION

__all__ = ["Column", "Layout", "Place", "Rows"]

BLOCK_CELLS = 2**18  # cells encoded at a time: their float64 copies stay in the cache
MANY_CELLS = 2**22  # where columns go one by one, longer pieces spare calls


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


class Place(NamedTuple):
    """Where a column's cells lie in the encoded row."""

    column: int
    kind: Kind
    start: int
    stop: int


class _Plain(NamedTuple):
    """The `Real` columns without atoms: which modelled ones, where, and their facts, each (n_plain,)."""

    place: np.ndarray
    column: np.ndarray
    start: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns' places; encodes and decodes, many like columns in one pass where the table is a block."""

    columns: tuple[Column, ...]

    @functools.cached_property
    def places(self) -> tuple[Place, ...]:
        """The modelled columns: not given, with a law."""
        return self._laid_out(given=False)

    @functools.cached_property
    def given_places(self) -> tuple[Place, ...]:
        """The given columns; after each one's cells comes its flag of a gap."""
        return self._laid_out(given=True)

    def _laid_out(self, given: bool) -> tuple[Place, ...]:
        places, start = [], 0
        for j, column in enumerate(self.columns):
            if column.given == given and (given or column.kind.counted):
                stop = start + column.kind.width
                places.append(Place(j, column.kind, start, stop))
                start = stop + given
        return tuple(places)

    @property
    def width(self) -> int:
        return self.places[-1].stop if self.places else 0

    @property
    def given_width(self) -> int:
        return self.given_places[-1].stop + 1 if self.given_places else 0

    @functools.cached_property
    def one_kind(self) -> Kind | None:
        """The kind that all columns share, as those of images do."""
        kinds = {place.kind for place in self.places}
        return next(iter(kinds)) if len(kinds) == 1 and len(self.places) == len(self.columns) > 1 else None

    @functools.cached_property
    def _plain(self) -> _Plain:
        plain = [(i, p, p.kind) for i, p in enumerate(self.places)]
        facts = [
            (i, p.column, p.start, kind.mean, kind.scale)
            for i, p, kind in plain
            if isinstance(kind, Real) and not kind.atoms
        ]
        table = np.array(facts, np.float64).reshape(-1, 5).T
        return _Plain(*table[:3].astype(int), *table[3:])

    @functools.cached_property
    def _binary(self) -> np.ndarray:
        """(4, n_binary) : place in the modelled columns, column, and both levels of `Binary` numbers."""
        facts = [
            (i, p.column, *p.kind.levels)
            for i, p in enumerate(self.places)
            if isinstance(p.kind, Binary) and not isinstance(p.kind.levels[0], str)
        ]
        return np.array(facts, np.float64).reshape(-1, 4).T

    @property
    def block_rows(self) -> int:
        """How many rows to encode at a time."""
        alike = len(self._plain.place) + self._binary.shape[1]
        few = self.one_kind is not None or len(self.columns) - alike < 4
        return max(1, (BLOCK_CELLS if few else MANY_CELLS) // len(self.columns))

    # -- in ------------------------------------------------------------------------------------------------

    def encode_block(self, block: np.ndarray, rows: Rows) -> list[int]:
        """Encode numbers (n, n_columns) float64 into rows.

        Returns
        -------
        list of int : columns with a value outside their support
        """
        if self.one_kind is not None and not len(self._plain.place):
            cells = self.one_kind.encode(block.ravel())
            rows.values[:] = cells.values.reshape(rows.values.shape)
            rows.observed[:] = cells.observed.reshape(rows.observed.shape)
            offsets = cells.offset.reshape(rows.observed.shape)
            rows.offset[:] += offsets.sum(1)
            return np.flatnonzero(np.isneginf(offsets).any(0)).tolist()
        done = self._encode_plain(block, rows) | self._encode_binary(block, rows)
        places = [(i, place) for i, place in enumerate(self.places) if i not in done]
        return self.encode_each(lambda j: block[:, j], rows, places)

    def _encode_plain(self, block: np.ndarray, rows: Rows) -> set[int]:
        """All `Real` columns without atoms at once; which modelled columns were done."""
        place, column, start, mean, scale = self._plain
        if not len(place):
            return set()
        every = len(place) == len(self.columns)
        z = (block if every else block[:, column]) - mean
        z *= 1.0 / scale
        np.clip(z, -MAX_DEVIATION, MAX_DEVIATION, out=z)
        jacobian = -np.log(scale)
        rows.offset[:] += jacobian.sum()
        seen: np.ndarray | bool = True
        if np.isnan(z.sum()):
            gaps = np.isnan(z)
            seen, z[gaps] = ~gaps, 0.0
            # taken back row by row: a full row's offset has the same bits whatever its company
            some = gaps.any(1)
            rows.offset[some] -= np.where(gaps[some], jacobian, 0.0).sum(1)
        if every:
            rows.values[:], rows.observed[:] = z, seen
        else:
            rows.values[:, start], rows.observed[:, place] = z, seen
        return set(place.tolist())

    def _encode_binary(self, block: np.ndarray, rows: Rows) -> set[int]:
        """The `Binary` columns that hold nothing but their two numbers; which modelled columns were done."""
        index, column = self._binary[:2].astype(int)
        if not len(index):
            return set()
        cells = block[:, column]
        second = cells == self._binary[3]
        clear = (second | (cells == self._binary[2])).all(0)
        start = np.array([self.places[i].start for i in index])
        rows.values[:, start[clear]], rows.observed[:, index[clear]] = second[:, clear], True
        return set(index[clear].tolist())

    def encode_each(
        self, read: Callable[[int], np.ndarray], rows: Rows, places: Iterable[tuple[int, Place]] | None = None
    ) -> list[int]:
        """Encode modelled columns one by one, and all given and uncounted ones.

        Parameters
        ----------
        read : gives the values (n,) of column j
        rows : to be filled
        places : which modelled columns; None takes all

        Returns
        -------
        list of int : columns with a value outside their support
        """
        strange = []
        for i, place in enumerate(self.places) if places is None else places:
            cells = place.kind.encode(read(place.column))
            rows.values[:, place.start : place.stop] = cells.values
            rows.observed[:, i] = cells.observed
            rows.offset[:] += cells.offset
            if np.isneginf(cells.offset).any():
                strange.append(place.column)
        for place in self.given_places:
            self.encode_given(place, read(place.column), rows.given)
        for j, column in enumerate(self.columns):
            if not column.given and not column.kind.counted:
                offset = column.kind.encode(read(j)).offset
                rows.offset[:] += offset
                if np.isneginf(offset).any():
                    strange.append(j)
        return strange

    def encode_given(self, place: Place, values: np.ndarray, given: np.ndarray) -> None:
        """Encode one given column's values (n,) into given (n, given_width)."""
        cells = place.kind.encode(values)
        given[:, place.start : place.stop] = cells.values
        given[:, place.stop] = ~cells.observed

    # -- out -----------------------------------------------------------------------------------------------

    def decode(self, values: np.ndarray, given_values: np.ndarray | None, snap: bool) -> list[np.ndarray]:
        """One array (n,) per column, float64 or object; see `Schema.decode`."""
        n_rows = len(values)
        places = {place.column: place for place in (*self.places, *self.given_places)}
        plain = self._plain
        numbers = values[:, plain.start] * plain.scale + plain.mean
        arrays = dict(zip(plain.column.tolist(), numbers.T, strict=True))
        for j, column in enumerate(self.columns):
            if column.given:
                arrays[j] = self._decode_given(column, places[j], given_values, n_rows)
            elif j not in arrays:
                cells = values[:, places[j].start : places[j].stop] if j in places else np.zeros((n_rows, 0))
                arrays[j] = column.kind.decode(cells)
        return [
            column.kind.snap(arrays[j]) if snap and not column.given else arrays[j]
            for j, column in enumerate(self.columns)
        ]

    def decode_plain(self, values: np.ndarray, snap: bool) -> np.ndarray | None:
        """(n, n_columns) float64 where every column is `Real` without atoms, else None."""
        plain = self._plain
        if len(plain.place) < len(self.columns):
            return None
        table = values * plain.scale + plain.mean
        for place in self.places if snap else ():
            table[:, place.column] = place.kind.snap(table[:, place.column])
        return table

    def decode_alike(self, kind: Kind, values: np.ndarray, snap: bool) -> np.ndarray:
        """(n, n_columns) float64 of columns that share one kind."""
        decoded = kind.decode(values.reshape(-1, kind.width))
        return (kind.snap(decoded) if snap else decoded).reshape(len(values), len(self.columns))

    def _decode_given(
        self, column: Column, place: Place, given_values: np.ndarray | None, n_rows: int
    ) -> np.ndarray:
        nothing = np.full(n_rows, None, object) if column.role == "text" else np.full(n_rows, np.nan)
        if given_values is None:
            return nothing
        cells = np.asarray(given_values, np.float64)
        return np.where(
            cells[:, place.stop] > 0.5, nothing, place.kind.decode(cells[:, place.start : place.stop])
        )
