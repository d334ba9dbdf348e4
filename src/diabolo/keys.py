"""Seeds as users give them, and random keys made on the host: `jax.random.split` compiles one program per number of
keys, this none."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array

from diabolo.checks import refuse

__all__ = ["children", "host_generator", "key_of", "seed_from", "seed_of"]


def seed_from(random_state: Any) -> int:
    """A seed below 2³¹; None draws one from the system, and no global generator is touched."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if (
        isinstance(random_state, (int, np.integer))
        and not isinstance(random_state, bool)
        and random_state >= 0
    ):
        return int(random_state) % 2**31
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    raise refuse(
        "parameter 'random_state'",
        got=repr(random_state),
        want="a whole number, a numpy generator or None",
    )


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
