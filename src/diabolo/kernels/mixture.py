"""The mixture with a kernel on every training row: its density, whatever cells are missing, and its draws."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.batches import Batch
from diabolo.joint import JointLikelihood
from diabolo.kernels.columns import Division

__all__ = ["Kernels", "low_rank_log_prob", "products", "squared_distances"]

_FEW = 32  # columns up to which differences are squared one by one; the expanded square loses digits


class Kernels(eqx.Module):
    """p(x) = 1/n Σᵢ K(x; i); each kernel a product of a Gaussian, tables of levels, and columns' own laws.

    The Gaussian of kernel i has the covariance diag(varianceᵢ) + factorᵢᵀ factorᵢ. The rows of a factor are turned so
    that factorᵢ diag(1/varianceᵢ) factorᵢᵀ is diagonal: a whole row then needs no k x k system (Woodbury's formula).

    Attributes
    ----------
    division : which column is of what sort
    own : the laws of the columns that have their own
    log_weight : (n,) nats; -inf at kernels that only fill up the array
    centre, variance : (n, n_block), block units
    factor : (n, n_directions, n_block)
    tables : (n, n_levels) log-probability of every level
    params : (n, own.n_params)

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

    def log_prob_of_all(self, batch: Batch) -> Array:
        """log (K(observed cells; i) / n), (n_rows, n) nats of the encoded cells: exact."""
        x, seen = self.division.block(batch.values, batch.observed)
        seen = seen.astype(x.dtype)
        precision = 1.0 / self.variance
        total = self.log_weight - 0.5 * squared_distances(x, seen, self.centre, precision)
        total -= 0.5 * products(seen, jnp.log(2.0 * math.pi * self.variance))
        total += jnp.sum(seen * self.division.log_unit, axis=1)[:, None]
        if self.factor.shape[1]:
            total += self._of_directions(x, seen, precision)
        if self.division.level_cells:
            total += products(self.division.levels(batch.values, batch.observed), self.tables)
        if self.division.own_columns:
            total += self._of_own_laws(batch)
        return total

    def _of_directions(self, x: Array, seen: Array, precision: Array) -> Array:
        """What the directions add to the log of independent Gaussians: (n_rows, n) nats."""
        n, n_directions, n_block = self.factor.shape
        weighed = self.factor * precision[:, None, :]
        heights = products(x, weighed.reshape(n * n_directions, n_block)).reshape(len(x), n, n_directions)
        heights -= jnp.einsum("nkb,nb->nk", weighed, self.centre, precision="highest")
        gain = 1.0 + jnp.sum(weighed * self.factor, axis=2)  # (n, n_directions)
        of_whole = 0.5 * jnp.sum(heights**2 / gain - jnp.log(gain), axis=2)

        def of_row(row: tuple[Array, Array, Array]) -> Array:
            def with_gaps() -> Array:
                return _directions(row[0] - self.centre, row[1] * precision, self.factor)

            return jax.lax.cond(row[2], lambda: jnp.zeros(n), with_gaps)

        is_whole = jnp.all(seen > 0, axis=1)
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
        factor, variance = self.factor[chosen], self.variance[chosen]
        before, after = jax.random.normal(noise, (2, *x.shape)) * jnp.sqrt(variance)
        along = jax.random.normal(directions, factor.shape[:2])
        lack = x - self.centre[chosen] - before - jnp.einsum("nk,nkb->nb", along, factor)
        if factor.shape[1]:
            along += _solved(*_system(lack, seen / variance, factor))[0]
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


def low_rank_log_prob(x: Array, seen: Array, centre: Array, variance: Array, factor: Array) -> Array:
    """Log-density of the seen cells under N(centre, diag(variance) + factorᵀ factor): (n,) nats.

    Parameters
    ----------
    x, seen, centre, variance : (n, n_block); seen is 0 or 1
    factor : (n, n_directions, n_block)
    """
    apart, precision = x - centre, seen / variance
    plain = -0.5 * jnp.sum(apart**2 * precision + seen * jnp.log(2.0 * math.pi * variance), axis=-1)
    return plain + _directions(apart, precision, factor)


def products(one: Array, other: Array) -> Array:
    """(n, width) and (m, width) to (n, m); an accelerator would otherwise round its factors."""
    return jnp.matmul(one, other.T, precision="highest")


def squared_distances(x: Array, seen: Array, centre: Array, precision: Array) -> Array:
    """Σ precision (x - centre)² over the seen cells: (n_rows, n).

    Of few columns difference by difference. Of many the square is expanded into matrix products, which on a processor
    are some thirty times faster; of 784 standardised columns the sum then has an error of about 1e-3.
    """
    if x.shape[1] <= _FEW:
        apart = x[:, None, :] - centre[None]
        return jnp.sum(seen[:, None, :] * apart**2 * precision[None], axis=2)
    square = products(seen * x**2, precision) - 2.0 * products(seen * x, centre * precision)
    return jnp.maximum(square + products(seen, centre**2 * precision), 0.0)


def _system(apart: Array, precision: Array, factor: Array) -> tuple[Array, Array]:
    """I + factor diag(precision) factorᵀ, (n, k, k), and factor (precision apart), (n, k)."""
    weighed = factor * precision[:, None, :]
    matrix = jnp.einsum("nkb,nlb->nkl", weighed, factor, precision="highest")
    return matrix + jnp.eye(factor.shape[1]), jnp.einsum("nkb,nb->nk", weighed, apart, precision="highest")


def _directions(apart: Array, precision: Array, factor: Array) -> Array:
    """What the directions add to the log of independent Gaussians, for any precisions: (n,) nats."""
    if not factor.shape[1]:
        return jnp.zeros(len(factor))
    matrix, heights = _system(apart, precision, factor)
    solution, log_determinant = _solved(matrix, heights)
    return 0.5 * (jnp.sum(heights * solution, axis=1) - log_determinant)


def _solved(matrix: Array, right: Array) -> tuple[Array, Array]:
    """matrix⁻¹ right, (n, k), and log det, (n,), by elimination: matrices are positive, and LAPACK would take them
    one by one."""
    places = jnp.arange(matrix.shape[1])

    def step(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        matrix, right, total = carry
        pivot = matrix[:, j, j]
        row, entry = matrix[:, j] / pivot[:, None], right[:, j] / pivot
        others = jnp.where(places == j, 0.0, matrix[:, :, j])
        matrix = (matrix - others[:, :, None] * row[:, None, :]).at[:, j].set(row)
        right = (right - others * entry[:, None]).at[:, j].set(entry)
        return matrix, right, total + jnp.log(pivot)

    start = (matrix, right, jnp.zeros(len(matrix)))
    _, solution, total = jax.lax.fori_loop(0, matrix.shape[1], step, start)
    return solution, total
