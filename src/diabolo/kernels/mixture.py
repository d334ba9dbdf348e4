"""The mixture with a kernel on every training row: its density, whatever cells are missing, and its draws."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import matrices
from diabolo.batches import Batch
from diabolo.joint import JointLikelihood
from diabolo.kernels.columns import Division

__all__ = ["Kernels", "low_rank_log_prob", "products", "squared_distances"]

_FEW = 32  # columns up to which differences are squared one by one; the expanded square loses digits
_NEAREST = 16  # kernels of each row, of more columns, whose differences are squared one by one as well


class Kernels(eqx.Module):
    """p(x) = 1/n Σᵢ K(x; i); each kernel a product of a Gaussian, tables of levels, and columns' own laws.

    The Gaussian of kernel i has the covariance diag(varianceᵢ) + factorᵢᵀ factorᵢ.

    Attributes
    ----------
    division : which column is of what sort
    own : the laws of the columns that have their own
    log_weight : (n,) nats; -inf at kernels that only fill up the array
    centre : (n, n_block), block units
    variance : (n, n_block), or (1, n_block) where it is that of all kernels
    factor : (n, n_directions, n_block)
    tables : (n, n_levels) log-probability of every level
    params : (n, own.n_params)
    sharp : what whole rows need of the directions, where it is worked out beforehand; see `prepared`

    Source: Vincent & Bengio 2003, eq. 1 to 4; for levels Aitchison & Aitken 1976, with a column's own frequencies in
    place of equal ones.
    """

    division: Division
    own: JointLikelihood
    log_weight: Array
    centre: Array
    variance: Array
    factor: Array
    tables: Array
    params: Array
    sharp: tuple[Array, Array, Array] | None = None

    def prepared(self) -> Kernels:
        """The same with `sharp` worked out: once for many rows."""
        if self.sharp is not None or not self.factor.shape[1]:
            return self
        sharp = _sharpened(self.centre, self.variance, self.factor)
        return eqx.tree_at(lambda kernels: kernels.sharp, self, sharp, is_leaf=lambda leaf: leaf is None)

    def log_prob_of_all(self, batch: Batch) -> Array:
        """log (K(observed cells; i) / n), (n_rows, n) nats of the encoded cells: exact."""
        x, seen = self.division.block(batch.values, batch.observed)
        seen = seen.astype(x.dtype)
        total = self.log_weight + self._of_gaussians(x, seen)
        total += jnp.sum(seen * self.division.log_unit, axis=1)[:, None]
        if self.division.level_cells:
            total += products(self.division.levels(batch.values, batch.observed), self.tables)
        if self.division.own_columns:
            total += self._of_own_laws(batch)
        return total

    def _of_gaussians(self, x: Array, seen: Array) -> Array:
        """Log-density of the seen cells of the block: (n_rows, n) nats.

        A whole row takes matrix products alone. It does so in any company: its answer does not depend on whether
        another row has gaps.
        """
        is_whole = jnp.all(seen > 0, axis=1)
        if x.shape[1] <= _FEW:
            plain = self._independent(x, seen)
        else:
            nothing = jnp.zeros((len(x), len(self.centre)))
            with_gaps = jax.lax.cond(jnp.all(is_whole), lambda: nothing, lambda: self._independent(x, seen))
            plain = jnp.where(is_whole[:, None], self._independent_of_whole(x), with_gaps)
        return plain + self._of_directions(x, seen, is_whole) if self.factor.shape[1] else plain

    def _independent(self, x: Array, seen: Array) -> Array:
        """Without directions, whichever cells are seen: (n_rows, n) nats."""
        variance = jnp.broadcast_to(self.variance, self.centre.shape)
        square = squared_distances(x, seen, self.centre, 1.0 / variance)
        return -0.5 * (square + products(seen, jnp.log(2.0 * math.pi * variance)))

    def _independent_of_whole(self, x: Array) -> Array:
        """Without directions, for whole rows: one matrix product where all kernels have one variance, else two.

        The square is expanded and loses digits, the more the narrower kernels are: of the nearest ones, whose density
        is what counts then, it is taken anew, difference by difference.
        """
        precision = 1.0 / self.variance
        if len(self.variance) == 1:
            own = jnp.sum(x**2 * precision, axis=1)[:, None]
        else:
            own = products(x**2, precision)
        square = (
            own - 2.0 * products(x, self.centre * precision) + jnp.sum(self.centre**2 * precision, axis=1)
        )
        log_all = jnp.sum(jnp.log(2.0 * math.pi * self.variance), axis=1)
        nats = -0.5 * (jnp.maximum(square, 0.0) + log_all)
        _, near = jax.lax.top_k(nats, min(_NEAREST, nats.shape[1]))  # (n_rows, n_near)
        of_which = near if len(self.variance) > 1 else jnp.zeros_like(near)
        apart = x[:, None, :] - self.centre[near]
        exact = -0.5 * (jnp.sum(apart**2 * precision[of_which], axis=2) + log_all[of_which])
        return nats.at[jnp.arange(len(x))[:, None], near].set(exact)

    def _of_directions(self, x: Array, seen: Array, is_whole: Array) -> Array:
        """What the directions add to the log of independent Gaussians: (n_rows, n) nats."""
        n, n_directions, n_block = self.factor.shape
        sharp, place, log_root = self.sharp or _sharpened(self.centre, self.variance, self.factor)
        heights = matrices.times(sharp.reshape(n * n_directions, n_block), x.T)
        heights = heights.reshape(n, n_directions, len(x)) - place[:, :, None]
        of_whole = 0.5 * jnp.sum(heights**2, axis=1).T - log_root
        precision = jnp.broadcast_to(1.0 / self.variance, self.centre.shape)

        def of_row(row: tuple[Array, Array, Array]) -> Array:
            def with_gaps() -> Array:
                apart = (row[0] - self.centre)[:, None]
                return _directions(apart, row[1] * precision, self.factor)[:, 0]

            return jax.lax.cond(row[2], lambda: jnp.zeros(n), with_gaps)

        is_plain = is_whole | ~jnp.any(seen > 0, axis=1)  # of no cell at all directions say nothing
        return jnp.where(is_whole[:, None], of_whole, jax.lax.map(of_row, (x, seen, is_plain)))

    def _of_own_laws(self, batch: Batch) -> Array:
        cells = batch.values[:, np.array(self.division.own_cells)]
        seen = batch.observed[:, np.array(self.division.own_columns)]
        nats = self.own.log_prob(self.params, cells[:, None, :])  # (n_rows, n, n_own)
        return jnp.sum(jnp.where(seen[:, None, :], nats, 0.0), axis=2)

    def log_prob(self, batch: Batch) -> Array:
        """log p(observed cells): (n_rows,) nats."""
        return jax.nn.logsumexp(self.log_prob_of_all(batch), axis=1)

    def draw(self, key: Array, n: int) -> Array:
        """Whole rows: (n, width)."""
        choose, move = jax.random.split(key)
        chosen = jax.random.categorical(choose, self.log_weight, shape=(n,))
        nothing = jnp.zeros((n, self.division.n_block))
        return self._draw_from(chosen, nothing, nothing, move)

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """Whole rows given the observed cells, one key per row: (n_rows, n_draws, width).

        A kernel by its share in the row's density, then from that kernel given the cells.
        """
        x, seen = self.division.block(batch.values, batch.observed)
        log_share = self.log_prob_of_all(batch)

        def of_row(x: Array, seen: Array, log_share: Array, key: Array) -> Array:
            choose, move = jax.random.split(key)
            chosen = jax.random.categorical(choose, log_share, shape=(n_draws,))
            every = (n_draws, len(x))
            return self._draw_from(chosen, jnp.broadcast_to(x, every), jnp.broadcast_to(seen, every), move)

        return jax.vmap(of_row)(x, seen.astype(x.dtype), log_share, keys)

    def _draw_from(self, chosen: Array, x: Array, seen: Array, key: Array) -> Array:
        """One row from each chosen kernel (n,), given the block's cells that are seen: (n, width).

        A free draw is moved by what its seen cells lack (Matheron's rule): no root of a conditional covariance.
        """
        noise, directions, level_key, own_key = jax.random.split(key, 4)
        factor = self.factor[chosen]
        variance = jnp.broadcast_to(self.variance, self.centre.shape)[chosen]
        before, after = jax.random.normal(noise, (2, *x.shape)) * jnp.sqrt(variance)
        along = jax.random.normal(directions, factor.shape[:2])
        lack = x - self.centre[chosen] - before - jnp.einsum("nk,nkb->nb", along, factor)
        if factor.shape[1]:
            weighed, root = _system(seen / variance, factor)
            right = jnp.einsum("nkb,nb->nk", weighed, lack, precision="highest")
            along += matrices.backward(root, matrices.forward(root, right[:, :, None]))[:, :, 0]
        block = self.centre[chosen] + after + jnp.einsum("nk,nkb->nb", along, factor)
        own = self.own.draw(self.params[chosen], own_key) if self.division.own_columns else x[:, :0]
        return self.division.joined(block, self._draw_levels(self.tables[chosen], level_key), own)

    def _draw_levels(self, tables: Array, key: Array) -> Array:
        """One level of each column, by Gumbel's maximum: (n, n_levels) of 0 and 1."""
        if not tables.shape[1]:
            return tables
        column = np.array(self.division.level_columns)
        tried = tables + jax.random.gumbel(key, tables.shape)
        best = jax.ops.segment_max(tried.T, column, num_segments=int(column.max()) + 1)
        return (tried == best[column].T).astype(tables.dtype)


def low_rank_log_prob(x: Array, seen: Array | None, centre: Array, variance: Array, factor: Array) -> Array:
    """Log-density of the seen cells of m rows under each of n laws N(centre, diag(variance) + factorᵀ factor).

    Parameters
    ----------
    x, seen : (n, m, n_block); seen is 0 or 1, or None where all cells are: then m rows share a law's k x k system
    centre, variance : (n, n_block)
    factor : (n, n_directions, n_block)

    Returns
    -------
    (n, m) : nats
    """
    apart, precision = x - centre[:, None], 1.0 / variance
    cells = apart**2 * precision[:, None] + jnp.log(2.0 * math.pi * variance)[:, None]
    if seen is None:
        return -0.5 * jnp.sum(cells, axis=2) + _directions(apart, precision, factor)

    def one(apart: Array, seen: Array) -> Array:
        return _directions(apart[:, None], seen * precision, factor)[:, 0]

    return -0.5 * jnp.sum(seen * cells, axis=2) + jax.vmap(one, in_axes=1, out_axes=1)(apart, seen)


def products(one: Array, other: Array) -> Array:
    """(n, width) and (m, width) to (n, m); an accelerator would otherwise round its factors.

    As (other oneᵀ)ᵀ: `one` is a chunk of rows and `other` all kernels, and to turn the larger of the two round would
    take a processor several times as long as the product.
    """
    return matrices.times(other, one.T).T


def squared_distances(x: Array, seen: Array, centre: Array, precision: Array) -> Array:
    """Σ precision (x - centre)² over the seen cells: (n_rows, n).

    Of few columns difference by difference. Of many the square is expanded into matrix products, which on a processor
    are some thirty times faster; the sum then has an error of about 1e-7 for each column times the precision: 1e-3 for
    784 standardised columns at a width of one spread, and half a nat for 40 at a width of 0.003.
    """
    if x.shape[1] <= _FEW:
        apart = x[:, None, :] - centre[None]
        return jnp.sum(seen[:, None, :] * apart**2 * precision[None], axis=2)
    square = products(seen * x**2, precision) - 2.0 * products(seen * x, centre * precision)
    return jnp.maximum(square + products(seen, centre**2 * precision), 0.0)


def _sharpened(centre: Array, variance: Array, factor: Array) -> tuple[Array, Array, Array]:
    """What whole rows need of the directions: sharp (n, k, n_block), place (n, k) and log_root (n,).

    To the log-density of a row x they add |sharp x - place|² / 2 - log_root: Woodbury's formula and the determinant
    lemma, by Cholesky's factor.
    """
    weighed, root = _system(1.0 / variance, factor)
    eye = jnp.broadcast_to(jnp.eye(factor.shape[1]), root.shape)
    inverse = matrices.forward(root, eye)  # a system of n_block sides is slower
    sharp = matrices.times(inverse, weighed)
    return sharp, jnp.einsum("nkb,nb->nk", sharp, centre, precision="highest"), _log_determinant(root)


def _directions(apart: Array, precision: Array, factor: Array) -> Array:
    """What the directions add to the log of independent Gaussians: (n, m) nats.

    Parameters
    ----------
    apart : (n, m, n_block) of m rows from each law's centre
    precision : (n, n_block), 0 at cells that are not seen
    """
    if not factor.shape[1]:
        return jnp.zeros(apart.shape[:2])
    weighed, root = _system(precision, factor)
    along = jnp.einsum("nkb,nmb->nkm", weighed, apart, precision="highest")
    heights = matrices.forward(root, along)
    return 0.5 * jnp.sum(heights**2, axis=1) - _log_determinant(root)[:, None]


def _system(precision: Array, factor: Array) -> tuple[Array, Array]:
    """factor diag(precision), (n, k, n_block), and Cholesky's factor of I + factor diag(precision) factorᵀ, (n, k, k).

    Directions that differ much in length, as principal ones do, cost it no digits: eigenvectors would mix them.
    """
    weighed = factor * precision[:, None, :]
    matrix = jnp.einsum("nkb,nlb->nkl", weighed, factor, precision="highest")
    return weighed, matrices.cholesky(matrix + jnp.eye(factor.shape[1]))


def _log_determinant(root: Array) -> Array:
    """Half of that of root rootᵀ: (n,)."""
    return jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1)
