"""Units that are on or off, drawn at 16 random bits each: a chain draws hundreds of millions of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry_2x32

__all__ = ["bernoulli"]


def bernoulli(key: Array, probability: Array) -> Array:
    """1 with the given probabilities, else 0: float32, of their shape.

    The uniform number behind a unit is (k + r) / 2^16, k of its own 16 bits and r, of 8, common to the call: each
    unit has its probability to 2^-24, as by `jax.random.bernoulli`, which makes 64 bits for it. What they have in
    common correlates two units by less than 2^-32.
    """
    *pair, common = jax.random.bits(key, (3,))
    n = probability.size
    words = threefry_2x32(jnp.stack(pair), jnp.arange((n + 1) // 2, dtype=jnp.uint32))
    own = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:n].reshape(probability.shape)
    below = 65536.0 * probability - (common >> 24).astype(jnp.float32) / 256.0
    return (own.astype(jnp.float32) < below).astype(jnp.float32)
