"""Units that are on or off, drawn at 16 random bits each: a chain draws hundreds of millions of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["bernoulli"]

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def bernoulli(key: Array, probability: Array) -> Array:
    """1 with the given probabilities, else 0: float32, of their shape.

    The uniform number behind a unit is (k + r) / 2^16, k of its own 16 bits and r, of 8, common to the call: each
    unit has its probability to 2^-24, as by `jax.random.bernoulli`, which makes 64 bits for it. What they have in
    common gives two units a covariance of at most 2^-34.
    """
    *pair, common = jax.random.bits(key, (3,))
    # a quarter of the rows, or of the first axis of four, from each half of the two words: in blocks and not one by
    # one, so that an inner loop has no choice to make for every unit
    axis = next((i for i, n in enumerate(probability.shape) if n >= 4), 0)
    n = probability.shape[axis]
    shape = (*probability.shape[:axis], -(-n // 4), *probability.shape[axis + 1 :])
    one, other = (word.reshape(shape) for word in _threefry(pair, math.prod(shape)))
    four = jnp.concatenate([one & 0xFFFF, one >> 16, other & 0xFFFF, other >> 16], axis=axis)
    own = jax.lax.slice_in_dim(four, 0, n, axis=axis)
    below = 65536.0 * probability - (common >> 24).astype(jnp.float32) / 256.0
    return (own.astype(jnp.int32).astype(jnp.float32) < below).astype(jnp.float32)


def _threefry(pair: list[Array], n: int) -> tuple[Array, Array]:
    """2 n random words, as `jax.extend.random.threefry_2x32` makes of a key's pair and 0, 1, ... 2 n - 1.

    That one goes through memory after every fourth of the 20 rounds, this one after every eighth. All 20 at once were
    five times slower: LLVM leaves so long a body in scalar code. And XLA works each array out by itself: both words of
    a pair go through memory as one complex number, or every round would be done twice.

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Threefry-2x32, 20 rounds).
    """
    first, second = pair
    keys = (first, second, first ^ second ^ jnp.uint32(_PARITY))
    counts = jnp.arange(n, dtype=jnp.uint32)

    def eight(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        words, *keys = carry
        one, other = _apart(words)
        one, other = _four_rounds(one, other, _ROTATIONS[0], keys[1], keys[2], 2 * i + 1)
        one, other = _four_rounds(one, other, _ROTATIONS[1], keys[2], keys[0], 2 * i + 2)
        return _together(one, other), keys[2], keys[0], keys[1]

    start = _together(counts + keys[0], counts + jnp.uint32(n) + keys[1])
    words, *keys_left = jax.lax.fori_loop(0, 2, eight, (start, *keys))
    return _four_rounds(*_apart(words), _ROTATIONS[0], keys_left[1], keys_left[2], 5)


def _together(one: Array, other: Array) -> Array:
    """Two words as a complex number, of which nothing but the bits is meant; some are those of a nan.

    JAX_DEBUG_NANS does not see them within a compiled program, as all of ours are.
    """
    return jax.lax.complex(*(jax.lax.bitcast_convert_type(word, jnp.float32) for word in (one, other)))


def _apart(words: Array) -> tuple[Array, Array]:
    """The two words again."""
    parts = jnp.real(words), jnp.imag(words)
    return tuple(jax.lax.bitcast_convert_type(part, jnp.uint32) for part in parts)  # type: ignore[return-value]


def _four_rounds(
    one: Array, other: Array, rotations: tuple[int, ...], add: Array, add_other: Array, number: Array | int
) -> tuple[Array, Array]:
    """Four rounds and the key's next words."""
    for rotation in rotations:
        one = one + other
        other = one ^ ((other << rotation) | (other >> (32 - rotation)))
    return one + add, other + add_other + jnp.asarray(number).astype(jnp.uint32)
