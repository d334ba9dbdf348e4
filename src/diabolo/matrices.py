"""Small matrices, many at once, and the one reason why LAPACK does not see them so.

jaxlib 0.10's LAPACK calls split a batch over XLA's own CPU threads and wait for them from inside one: two such calls at
once wait for each other for ever. A batch of one is not split; what needs no LAPACK is safe at any size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["backward", "cholesky", "eigh", "forward", "times", "times_each"]


def times(one: Array, other: Array) -> Array:
    """The matrix product in whole float32, which a GPU gives at the highest precision only."""
    return jnp.matmul(one, other, precision="highest")


@jax.custom_vjp
def times_each(one: Array, two: Array, right: Array) -> tuple[Array, Array]:
    """Two products with one matrix, whose gradient is one product: of both factors' rows, side by side."""
    return times(one, right), times(two, right)


def _times_each_forward(
    one: Array, two: Array, right: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return times_each(one, two, right), (one, two, right)


def _times_each_backward(kept: tuple[Array, ...], gradients: tuple[Array, Array]) -> tuple[Array, ...]:
    one, two, right = kept
    of_one, of_two = (times(gradient, right.T) for gradient in gradients)
    return of_one, of_two, times(jnp.concatenate([one, two]).T, jnp.concatenate(gradients))


times_each.defvjp(_times_each_forward, _times_each_backward)


def eigh(matrices: Array) -> tuple[Array, Array]:
    """Eigenvalues (n, k) and vectors of symmetric (n, k, k), by LAPACK, one matrix at a time."""
    if matrices.shape[-1] == 1:
        return matrices[:, 0], jnp.ones_like(matrices)
    return jax.lax.map(jnp.linalg.eigh, matrices)


def cholesky(matrices: Array) -> Array:
    """The lower factor of positive (n, k, k), column by column."""
    places = jnp.arange(matrices.shape[1])

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, root = carry
        column = jnp.where(places >= j, rest[:, :, j] / jnp.sqrt(rest[:, j, j])[:, None], 0.0)
        return rest - column[:, :, None] * column[:, None, :], root.at[:, :, j].set(column)

    return jax.lax.fori_loop(0, matrices.shape[1], step, (matrices, jnp.zeros_like(matrices)))[1]


def forward(lower: Array, right: Array) -> Array:
    """lower⁻¹ right, (n, k, m), of lower triangles (n, k, k), line by line."""
    places = jnp.arange(lower.shape[1])

    def step(j: Array, rest: Array) -> Array:
        line = rest[:, j] / lower[:, j, j][:, None]
        below = jnp.where(places > j, lower[:, :, j], 0.0)
        return (rest - below[:, :, None] * line[:, None, :]).at[:, j].set(line)

    return jax.lax.fori_loop(0, lower.shape[1], step, right)


def backward(lower: Array, right: Array) -> Array:
    """lower⁻ᵀ right, (n, k, m), of lower triangles (n, k, k): forward, from the other end."""
    return forward(lower.swapaxes(1, 2)[:, ::-1, ::-1], right[:, ::-1])[:, ::-1]
