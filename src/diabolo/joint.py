"""The joint law of a row's cells given the decoder's parameters: like columns are stacked and vectorised.

Given the code, cells are independent: a row's nats are the sum over its observed cells. Columns whose
likelihoods have equal structure (a *group*) share one set of fused operations, whatever their number; which
column sits where is static, what was learned about it is an array leaf.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.likelihoods import Likelihood

__all__ = ["JointLikelihood"]


class JointLikelihood(eqx.Module):
    """The likelihoods of all modelled columns, side by side.

    Parameters are laid out for the machine, not in column order: first what the decoder says about each row,
    group by group, then what all rows share, group by group. So their gradients pass no gather, and a decoder
    puts out `n_free` numbers per row and holds `n_shared` more. Values and results are in column order.

    ```
    params (..., n_params) = [free | shared] ─▶ per group (n, its n_params) ─▶ vmapped law ─▶ (..., n_columns)
    ```

    Attributes
    ----------
    groups : one stacked likelihood per structure; no gradient reaches its leaves
    initial : (n_params,)   raw parameters of the product of the columns' marginal laws
    columns : static; per group, the columns that it holds

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo.likelihoods import Bernoulli, Normal
    >>> plain = Normal(0.0, [], coarse=False)
    >>> joint = JointLikelihood.stack([plain, Bernoulli(), plain], [[0, 0], [0], [0, 0]])
    >>> joint.column_of_param.tolist(), joint.shared.astype(int).tolist()
    ([0, 2, 1, 0, 2], [0, 0, 0, 1, 1])
    >>> joint.log_prob(joint.initial, np.zeros(3)).round(3).tolist()
    [-0.919, -0.693, -0.919]
    """

    groups: tuple[Likelihood, ...]
    initial: Array
    columns: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @classmethod
    def stack(cls, likelihoods: Sequence[Likelihood], initial: Sequence[Any]) -> JointLikelihood:
        """Group and stack the modelled columns' likelihoods, in order, each with its initial parameters."""
        members: dict[Any, list[int]] = {}
        for i, likelihood in enumerate(likelihoods):
            leaves, structure = jax.tree.flatten(likelihood)
            members.setdefault((structure, tuple(np.shape(leaf) for leaf in leaves)), []).append(i)
        for likelihood, start in zip(likelihoods, initial, strict=True):
            assert np.shape(start) == (likelihood.n_params,), (likelihood, np.shape(start))
        columns = tuple(tuple(group) for group in members.values())
        # numpy stacks hundreds of host leaves, then each stack is one transfer
        groups = tuple(
            jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *(likelihoods[i] for i in group))
            for group in columns
        )
        parts = [np.zeros(0)]
        for is_shared in (False, True):
            for i in itertools.chain.from_iterable(columns):
                n_free = likelihoods[i].n_params - likelihoods[i].n_shared
                parts.append(
                    np.asarray(initial[i])[n_free:] if is_shared else np.asarray(initial[i])[:n_free]
                )
        return cls(groups, jnp.asarray(np.concatenate(parts), jnp.float32), columns)

    @property
    def n_columns(self) -> int:
        return sum(len(group) for group in self.columns)

    @property
    def n_params(self) -> int:
        return sum(len(c) * group.n_params for group, c in self._stacks())

    @property
    def n_shared(self) -> int:
        """Parameters that all rows share, over all columns: the last ones."""
        return sum(len(c) * group.n_shared for group, c in self._stacks())

    @property
    def n_free(self) -> int:
        """Parameters that the decoder supplies for every row, over all columns: the first ones."""
        return self.n_params - self.n_shared

    @property
    def width(self) -> int:
        return sum(len(c) * group.width for group, c in self._stacks())

    @property
    def column_of_value(self) -> np.ndarray:
        """(width,) : the modelled column that each encoded value belongs to."""
        widths = {c: group.width for group, columns in self._stacks() for c in columns}
        return np.repeat(np.arange(self.n_columns), [widths[c] for c in range(self.n_columns)])

    @property
    def first_value(self) -> np.ndarray:
        """(n_columns,) the place of each column's first encoded value."""
        return np.unique(self.column_of_value, return_index=True)[1]

    @property
    def column_of_param(self) -> np.ndarray:
        """(n_params,) : the modelled column that each parameter belongs to."""
        free = [np.repeat(c, group.n_params - group.n_shared) for group, c in self._stacks()]
        shared = [np.repeat(c, group.n_shared) for group, c in self._stacks()]
        return np.concatenate([np.zeros(0, int), *free, *shared])

    @property
    def shared(self) -> np.ndarray:
        """(n_params,) : whether a parameter is one number for all rows."""
        return np.arange(self.n_params) >= self.n_free

    @property
    def scale(self) -> np.ndarray:
        """(n_params,) : whether a parameter is an observation scale; these are among the shared ones."""
        marks = [np.zeros(self.n_free, bool)]
        for group, columns in self._stacks():
            last = np.arange(group.n_shared) >= group.n_shared - group.n_scale
            marks.append(np.tile(last, len(columns)))
        return np.concatenate(marks)

    def assemble(self, free: Array, shared: Array) -> Array:
        """Put what the decoder says of each row beside what all rows share.

        Cheaper than one array from the network: XLA then computes scales once per column, not once per cell.

        Parameters
        ----------
        free : (..., n_free)   the parameters where `~self.shared`
        shared : (n_shared,) or (..., n_shared)   those where `self.shared`

        Returns
        -------
        (..., n_params)
        """
        return jnp.concatenate([free, jnp.broadcast_to(shared, (*free.shape[:-1], self.n_shared))], axis=-1)

    def log_prob(self, params: Array, values: Array) -> Array:
        """Nats of each cell as if it were observed: the caller drops the others with `where`.

        Parameters
        ----------
        params : (..., n_params)   raw parameters
        values : (..., width)      encoded rows; leading dimensions broadcast against those of `params`

        Returns
        -------
        (..., n_columns) : exact nats per unit of the encoded value; the host's offset makes them the user's.
        """

        def law(likelihood: Likelihood, params: Array, cell: Array) -> Array:
            return likelihood.log_prob(params, cell)[None]

        def one_row(params: Array, values: Array) -> Array:
            return self._apply(law, params, _split(values, self.columns, self._sizes("width")))

        return jnp.vectorize(one_row, signature="(p),(v)->(c)")(params, values)

    def mean(self, params: Array) -> Array:
        """The encoded row that stands for the law, (..., n_params) -> (..., width)."""

        def law(likelihood: Likelihood, params: Array) -> Array:
            return likelihood.mean(params)

        return jnp.vectorize(lambda row: self._apply(law, row), signature="(p)->(v)")(params)

    def draw(self, params: Array, key: Array) -> Array:
        """One encoded row from the law, (..., n_params) -> (..., width); noise by key and place."""

        def law(likelihood: Likelihood, params: Array, cell_key: Array) -> Array:
            return likelihood.draw(params, cell_key)

        def one_row(params: Array, row_key: Array) -> Array:
            keys = jax.random.split(row_key, self.n_columns)
            return self._apply(law, params, [keys[np.array(group)] for group in self.columns])

        rows = params.reshape(math.prod(params.shape[:-1]), params.shape[-1])
        drawn = jax.vmap(one_row)(rows, jax.random.split(key, len(rows)))
        return drawn.reshape(*params.shape[:-1], self.width)

    def each(self, function: Callable[[Likelihood, Array, Array], Array], row: Array) -> Array:
        """A function of each column's law, marginal parameters and cell, of one row (width,), in column order."""
        return self._apply(function, self.initial, _split(row, self.columns, self._sizes("width")))

    def each_at(self, function: Callable[[Likelihood, Array, Array], Array], places: Array) -> Array:
        """The same of one number for each column (n_columns,) in place of its cell."""
        return self._apply(function, self.initial, [places[np.array(group)] for group in self.columns])

    def draw_cell(self, column: Array, free: Array, shared: Array, key: Array) -> Array:
        """One cell of one row; which column's may be known to the program only.

        Parameters
        ----------
        column : () int
        free : (n,)   of the column's free parameters, which are adjacent: these first, whatever follows them
        shared : (n_shared,)   what all rows share
        key : one key

        Returns
        -------
        (widest column's width,) : the cell, and zeros after it
        """
        group_of, member_of = np.zeros(self.n_columns, np.int32), np.zeros(self.n_columns, np.int32)
        for i, group in enumerate(self.columns):
            group_of[np.array(group)], member_of[np.array(group)] = i, np.arange(len(group))
        member = jnp.asarray(member_of)[column]
        widest = max(self._sizes("width"))
        ends = np.cumsum(
            [0, *(len(c) * n for c, n in zip(self.columns, self._sizes("n_shared"), strict=True))]
        )

        def of(i: int) -> Callable[[Array, Array], Array]:
            def branch(free: Array, key: Array) -> Array:
                law = jax.tree.map(lambda leaf: leaf[member], self.groups[i])
                theirs = shared[ends[i] : ends[i + 1]].reshape(len(self.columns[i]), law.n_shared)[member]
                cell = law.draw(jnp.concatenate([free[: law.n_params - law.n_shared], theirs]), key)
                return jnp.pad(cell, (0, widest - law.width))

            return branch

        return jax.lax.switch(
            jnp.asarray(group_of)[column], [of(i) for i in range(len(self.groups))], free, key
        )

    def _apply(self, law: Callable[..., Array], params: Array, *per_group: Sequence[Array]) -> Array:
        """Apply `law` to every column of one row and join the results in column order."""
        free, shared = jnp.split(params, [self.n_free])
        n_shared = self._sizes("n_shared")
        n_free = tuple(n - s for n, s in zip(self._sizes("n_params"), n_shared, strict=True))
        results = []
        for group, *one in zip(
            jax.lax.stop_gradient(self.groups),  # facts about the training values, not weights
            _cut(free, self.columns, n_free),
            _cut(shared, self.columns, n_shared),
            *per_group,
            strict=True,
        ):
            results.append(jax.vmap(law)(group, jnp.concatenate(one[:2], axis=1), *one[2:]))
        return _join(results, self.columns)

    def _stacks(self) -> list[tuple[Likelihood, tuple[int, ...]]]:
        return list(zip(self.groups, self.columns, strict=True))

    def _sizes(self, fact: str) -> tuple[int, ...]:
        """Per group, one of the likelihood's counts."""
        return tuple(getattr(group, fact) for group in self.groups)


@lru_cache(maxsize=256)
def _order(columns: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]) -> np.ndarray | None:
    """Places in column order of what lies group by group; None where the two orders agree."""
    per_column = {c: size for group, size in zip(columns, sizes, strict=True) for c in group}
    ends = list(itertools.accumulate(per_column[c] for c in range(len(per_column))))
    places = [range(ends[c] - per_column[c], ends[c]) for group in columns for c in group]
    order = np.fromiter(itertools.chain.from_iterable(places), int)
    return None if np.array_equal(order, np.arange(len(order))) else order


def _cut(row: Array, columns: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]) -> list[Array]:
    """(total,) that lies group by group -> per group (its n columns, its size)."""
    lengths = [len(group) * size for group, size in zip(columns, sizes, strict=True)]
    parts = jnp.split(row, list(itertools.accumulate(lengths))[:-1]) if lengths else []
    return [part.reshape(len(group), size) for part, group, size in zip(parts, columns, sizes, strict=True)]


def _split(row: Array, columns: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]) -> list[Array]:
    """(total,) in column order -> per group (its n columns, its size)."""
    order = _order(columns, sizes)
    return _cut(row if order is None else row[order], columns, sizes)


def _join(parts: Sequence[Array], columns: tuple[tuple[int, ...], ...]) -> Array:
    """Per group (its n columns, size) -> (total,) in column order: the inverse of `_split`."""
    if not parts:
        return jnp.zeros(0)
    order = _order(columns, tuple(part.shape[1] for part in parts))
    row = jnp.concatenate([part.reshape(-1) for part in parts])
    return row if order is None else row[np.argsort(order)]
