"""The joint law of a row's cells given the decoder's parameters: like columns are stacked and vectorised.

Given the code, cells are independent: a row's nats are the sum over its observed cells. Columns whose
likelihoods have equal structure (a *group*) share one set of fused operations, whatever their number; which
column sits where is static, what was learned about it is an array leaf.
"""

from __future__ import annotations

import itertools
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

    ```
    params (..., n_params) ─▶ split by group (its n, its n_params) ─▶ vmapped law ─▶ join in column order
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
    ([0, 0, 1, 2, 2], [0, 1, 0, 0, 1])
    >>> joint.log_prob(joint.initial, np.zeros(3)).round(3).tolist()
    [-0.9190000295639038, -0.6930000185966492, -0.9190000295639038]
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
        # numpy stacks hundreds of host leaves, then each group is one transfer
        groups = tuple(
            jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *(likelihoods[i] for i in group))
            for group in members.values()
        )
        flat = np.concatenate([np.zeros(0), *initial]).astype(np.float32)
        return cls(groups, jnp.asarray(flat), tuple(tuple(group) for group in members.values()))

    @property
    def n_columns(self) -> int:
        return sum(len(group) for group in self.columns)

    @property
    def n_params(self) -> int:
        return len(self.column_of_param)

    @property
    def n_shared(self) -> int:
        """Parameters that all rows share, over all columns."""
        return int(self.shared.sum())

    @property
    def width(self) -> int:
        return len(self.column_of_value)

    @property
    def column_of_value(self) -> np.ndarray:
        """(width,) : the modelled column that each encoded value belongs to."""
        return np.repeat(np.arange(self.n_columns), self._sizes("width"))

    @property
    def column_of_param(self) -> np.ndarray:
        """(n_params,) : the modelled column that each parameter belongs to."""
        return np.repeat(np.arange(self.n_columns), self._sizes("n_params"))

    @property
    def shared(self) -> np.ndarray:
        """(n_params,) : whether a parameter is one number for all rows (each column's last ones)."""
        return self._last("n_shared")

    @property
    def scale(self) -> np.ndarray:
        """(n_params,) : whether a parameter is an observation scale; these are among the shared ones."""
        return self._last("n_scale")

    def assemble(self, free: Array, shared: Array) -> Array:
        """Interleave what the decoder puts out with what all rows share.

        Parameters
        ----------
        free : (..., n_params - n_shared)   the parameters where `~self.shared`, in order
        shared : (n_shared,)                those where `self.shared`; leading dimensions broadcast

        Returns
        -------
        (..., n_params)
        """
        n_shared = tuple(group.n_shared for group in self.groups)
        n_free = tuple(group.n_params - group.n_shared for group in self.groups)

        def one_row(free: Array, shared: Array) -> Array:
            pairs = zip(
                _split(free, self.columns, n_free), _split(shared, self.columns, n_shared), strict=True
            )
            return _join([jnp.concatenate(pair, axis=1) for pair in pairs], self.columns)

        return jnp.vectorize(one_row, signature="(f),(s)->(p)")(free, shared)

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

        return jnp.vectorize(self._by_group(law), signature="(p),(v)->(c)")(params, values)

    def mean(self, params: Array) -> Array:
        """The encoded row that stands for the law, (..., n_params) -> (..., width)."""

        def law(likelihood: Likelihood, params: Array) -> Array:
            return likelihood.mean(params)

        return jnp.vectorize(self._by_group(law), signature="(p)->(v)")(params)

    def draw(self, params: Array, key: Array) -> Array:
        """One encoded row from the law, (..., n_params) -> (..., width); noise by key and place."""

        def law(likelihood: Likelihood, params: Array, cell_key: Array) -> Array:
            return likelihood.draw(params, cell_key)

        def one_row(params: Array, row_key: Array) -> Array:
            return self._by_group(law, keys=jax.random.split(row_key, self.n_columns))(params)

        rows = params.reshape(-1, params.shape[-1])
        drawn = jax.vmap(one_row)(rows, jax.random.split(key, len(rows)))
        return drawn.reshape(*params.shape[:-1], self.width)

    def _by_group(self, law: Callable[..., Array], keys: Array | None = None) -> Callable[..., Array]:
        """A function of one row that applies `law` to every column and joins the results in column order."""
        n_params = tuple(group.n_params for group in self.groups)
        width = tuple(group.width for group in self.groups)
        groups = jax.lax.stop_gradient(self.groups)  # facts about the training values, not weights

        def one_row(params: Array, *values: Array) -> Array:
            arguments = [_split(params, self.columns, n_params)]
            arguments += [_split(v, self.columns, width) for v in values]
            if keys is not None:
                arguments.append([keys[np.array(group)] for group in self.columns])
            results = [jax.vmap(law)(group, *one) for group, *one in zip(groups, *arguments, strict=True)]
            return _join(results, self.columns)

        return one_row

    def _sizes(self, fact: str) -> np.ndarray:
        """(n_columns,) : one of the likelihoods' counts, in column order."""
        sizes = np.zeros(self.n_columns, int)
        for group, columns in zip(self.groups, self.columns, strict=True):
            sizes[list(columns)] = getattr(group, fact)
        return sizes

    def _last(self, fact: str) -> np.ndarray:
        """(n_params,) : whether a parameter is among its column's last `fact` ones."""
        n_params = self._sizes("n_params")
        place = np.arange(n_params.sum()) - np.repeat(np.cumsum(n_params) - n_params, n_params)
        return place >= np.repeat(n_params - self._sizes(fact), n_params)


@lru_cache(maxsize=256)
def _order(
    columns: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions in column order of what lies group by group, and the inverse; None where the orders agree."""
    per_column = {c: size for group, size in zip(columns, sizes, strict=True) for c in group}
    starts = dict(
        zip(
            sorted(per_column),
            itertools.accumulate((per_column[c] for c in sorted(per_column)), initial=0),
            strict=False,
        )
    )
    order = np.array([starts[c] + i for group in columns for c in group for i in range(per_column[c])], int)
    return None if np.array_equal(order, np.arange(len(order))) else (order, np.argsort(order))


def _split(row: Array, columns: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]) -> list[Array]:
    """(total,) -> per group (its n columns, its size): slices, and a gather only where groups interleave."""
    order = _order(columns, sizes)
    if order is not None:
        row = row[order[0]]
    lengths = [len(group) * size for group, size in zip(columns, sizes, strict=True)]
    parts = jnp.split(row, list(itertools.accumulate(lengths))[:-1]) if lengths else []
    return [part.reshape(len(group), size) for part, group, size in zip(parts, columns, sizes, strict=True)]


def _join(parts: list[Array], columns: tuple[tuple[int, ...], ...]) -> Array:
    """Per group (its n columns, size) -> (total,) in column order: the inverse of `_split`."""
    if not parts:
        return jnp.zeros(0)
    order = _order(columns, tuple(part.shape[1] for part in parts))
    row = jnp.concatenate([part.reshape(-1) for part in parts])
    return row if order is None else row[order[1]]
