"""Random keys made on the host: `jax.random.split` compiles one program per number of keys, this none."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array

__all__ = ["children", "host_generator", "key_of", "seed_of"]


def key_of(seed: int, *path: int) -> Array:
    """The key at the end of a path from a seed; different paths give independent keys."""
    words: Any = np.random.SeedSequence(seed, spawn_key=path).generate_state(2)
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def children(key: Array, n: int) -> list[Array]:
    """n independent keys from one."""
    seed = seed_of(key)
    return [key_of(seed, i) for i in range(n)]


def seed_of(key: Array) -> int:
    """The bits of a key as one whole number, for generators on the host."""
    return int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes(), "little")


def host_generator(key: Array) -> np.random.Generator:
    """numpy's generator, seeded by a key."""
    return np.random.default_rng(seed_of(key))
