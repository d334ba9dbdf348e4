"""Which columns have a joint Gaussian kernel, which a table of levels, and which a kernel of their own law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.columns import Binary, Categorical, Kind, Ordinal, Pixels, Positive, Real
from diabolo.joint import JointLikelihood
from diabolo.table import Schema

__all__ = ["Division"]

# With a standard deviation of so many steps, densities at grid points times the step sum to one within 2 exp(-2 pi²
# 0.75²), 3e-5 (Poisson's summation formula): nothing need be integrated over a step.
_STEPS = 0.75


class Division(eqx.Module):
    """The modelled columns, divided by the sort of their kernels.

    ```
    values ─┬─ block  (n_rows, n_block)   real columns: one Gaussian over all of them
            ├─ levels (n_rows, n_levels)  0 or 1 for each level of each column of levels
            └─ own    (n_rows, ...)       columns with atoms, counts, coarse positive numbers: their own laws
    ```

    Attributes
    ----------
    shift, stretch : (n_block,), block = (value - shift) stretch
    log_unit : (n_block,) nats that turn the block's density into that of the encoded value
    floor : (n_block,), the least standard deviation of a kernel, block units: three quarters of the column's step
    spread : (n_block,), standard deviation of the column itself, block units
    block_cells, block_columns : static; places in the encoded row, and columns
    level_cells, level_columns, level_signs : static, per level; -1 marks the first level of two, which has no cell
    own_cells, own_columns : static
    kinds : static; of the columns beside the block, by their number
    own_units : static; of each such column, the unit of its law in block units
    reach : static; the typical spread of a column, block units: 1 unless all are in the user's unit
    is_cut : static; are there pixels, whose values end where a Gaussian does not?
    """

    shift: Array
    stretch: Array
    log_unit: Array
    floor: Array
    spread: Array
    block_cells: tuple[int, ...] = eqx.field(static=True)
    block_columns: tuple[int, ...] = eqx.field(static=True)
    level_cells: tuple[int, ...] = eqx.field(static=True)
    level_columns: tuple[int, ...] = eqx.field(static=True)
    level_signs: tuple[int, ...] = eqx.field(static=True)
    own_cells: tuple[int, ...] = eqx.field(static=True)
    own_columns: tuple[int, ...] = eqx.field(static=True)
    own_units: tuple[float, ...] = eqx.field(static=True)
    reach: float = eqx.field(static=True)
    kinds: tuple[tuple[int, Kind], ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    is_cut: bool = eqx.field(static=True)

    @classmethod
    def of(cls, schema: Schema, scaling: str) -> Division:
        """Of a table.

        Parameters
        ----------
        schema : the columns
        scaling : "column" measures each real column by its own spread, "unit" all in the user's unit; positive numbers
            and counts, whose laws are of logarithms and have no unit, then are as wide as the others typically
        """
        every = [place.kind for place in schema.layout.places]
        linear = [kind.scale for kind in every if isinstance(kind, (Real, Pixels))]
        in_units = scaling == "unit" and bool(linear)
        reach = float(np.sqrt(np.mean(np.square(linear)))) if in_units else 1.0
        facts, block, levels, own, own_units, kinds = [], [], [], [], [], []
        for i, place in enumerate(schema.layout.places):
            kind = place.kind
            if _is_near(kind):
                facts.append(_facts(kind, scaling, reach))
                block.append((place.start, i))
                continue
            kinds.append((i, kind))
            if isinstance(kind, Binary):
                levels += [(place.start, i, -1), (place.start, i, 1)]
            elif isinstance(kind, (Categorical, Ordinal)):
                levels += [(cell, i, 1) for cell in range(place.start, place.stop)]
            else:
                own += [(cell, i) for cell in range(place.start, place.stop)]
                own_units.append(kind.scale if in_units and isinstance(kind, Real) else reach)
        table = np.array(facts, np.float64).reshape(-1, 5).T.astype(np.float32)
        places: tuple[Any, ...] = (*table, *_columns_of(block, 2), *_columns_of(levels, 3))
        return cls(  # type: ignore[misc]
            *places,
            own_cells=_columns_of(own, 2)[0],
            own_columns=tuple(dict.fromkeys(i for _, i in own)),
            own_units=tuple(own_units),
            reach=reach,
            kinds=tuple(kinds),
            width=schema.width,
            is_cut=any(isinstance(place.kind, Pixels) for place in schema.layout.places),
        )

    @property
    def n_block(self) -> int:
        return len(self.block_cells)

    def block(self, values: Any, observed: Any) -> tuple[Any, Any]:
        """Values and which are there, (n_rows, n_block) each; on the host or on the device."""
        seen = _picked(observed, self.block_columns)
        near = (_picked(values, self.block_cells) - self.shift) * self.stretch
        return near * seen, seen

    def levels(self, values: Any, observed: Any) -> Any:
        """(n_rows, n_levels) : 1 at the level of each observed cell, else 0."""
        sign = np.array(self.level_signs, np.float32)
        cells = values[:, np.array(self.level_cells, int)]
        seen = observed[:, np.array(self.level_columns, int)]
        return ((sign < 0) + sign * cells) * seen

    def joined(self, block: Array, levels: Array, own: Array) -> Array:
        """Encoded rows, (n_rows, width), of their parts."""
        out = jnp.zeros((len(block), self.width))
        out = out.at[:, np.array(self.block_cells, int)].set(block / self.stretch + self.shift)
        second = np.flatnonzero(np.array(self.level_signs) > 0)
        out = out.at[:, np.array(self.level_cells, int)[second]].set(levels[:, second])
        return out.at[:, np.array(self.own_cells, int)].set(own)

    @property
    def column_of_value(self) -> np.ndarray:
        """(width,) : the modelled column of each encoded value."""
        out = np.zeros(self.width, int)
        for cells, columns in (
            (self.block_cells, self.block_columns),
            (self.level_cells, self.level_columns),
            (self.own_cells, np.repeat(self.own_columns, [self.kind_of[i].width for i in self.own_columns])),
        ):
            out[np.array(cells, int)] = np.array(columns, int)
        return out

    @property
    def kind_of(self) -> dict[int, Kind]:
        """The kinds of the columns beside the block."""
        return dict(self.kinds)

    @property
    def own_starts(self) -> list[int]:
        """The first cell of each column that has its own law."""
        widths = [self.kind_of[i].width for i in self.own_columns]
        return [self.own_cells[end - width] for width, end in zip(widths, np.cumsum(widths), strict=True)]

    def own_laws(self) -> JointLikelihood:
        """The laws of the columns that have their own."""
        kinds = [self.kind_of[i] for i in self.own_columns]
        laws = [kind.likelihood() for kind in kinds]
        return JointLikelihood.stack(
            [law for law in laws if law is not None], [kind.initial() for kind in kinds]
        )


def _is_near(kind: Kind) -> bool:
    """Is it part of the joint Gaussian?"""
    if isinstance(kind, Real):
        return not kind.atoms
    if isinstance(kind, Positive):
        return not kind.coarse  # else its steps are of all widths on the log scale
    return isinstance(kind, Pixels)


def _facts(kind: Kind, scaling: str, reach: float) -> tuple[float, float, float, float, float]:
    """shift, stretch, log_unit, floor and spread of a column of the block."""
    if isinstance(kind, Pixels):
        step = 2.0 / (kind.n_levels - 1)  # of the encoded value, which runs from -1 to 1
        spread = kind.scale * step
        stretch = 1.0 / spread if scaling == "column" else 1.0 / step
        return (
            kind.mean * step - 1.0,
            stretch,
            np.log(stretch * step),
            _STEPS * step * stretch,
            spread * stretch,
        )
    if isinstance(kind, Positive):
        return 0.0, reach, np.log(reach), 0.0, reach
    assert isinstance(kind, Real), kind
    stretch = 1.0 if scaling == "column" else kind.scale
    floor = _STEPS * kind.resolution / kind.scale * stretch if kind.coarse else 0.0
    return 0.0, stretch, np.log(stretch), floor, stretch


def _picked(table: Any, places: tuple[int, ...]) -> Any:
    """Some columns (n_rows, len(places)); all of them in their order as they are, since XLA would copy one by one."""
    if places == tuple(range(table.shape[-1])):
        return table
    return table[..., np.array(places, int)]


def _columns_of(table: Sequence[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """n columns of a list of rows, which may be empty."""
    return [tuple(row[j] for row in table) for j in range(n)]
