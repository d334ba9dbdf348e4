"""Rows as the models see them, and the order in which training visits them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.table import Rows

__all__ = ["Batch", "Batches", "Reservoir", "chunks", "row_keys", "rows_together"]

_MAX_HELD = 10_000  # rows: more cost every round and say nothing more about when to stop
_DRAWS_TOGETHER = (
    8192  # codes decoded at once: wide enough for the matrix products, small enough for the cache
)


class Batch(eqx.Module):
    """Encoded rows on the device.

    Attributes
    ----------
    values : (n_rows, width) float32, 0 where not observed
    observed : (n_rows, n_columns) bool
    given : (n_rows, given_width) float32, the conditions
    target : (n_rows,) or None, labels
    weight : (n_rows,) or None, weight of each row in the loss
    row_key : (n_rows,) random keys or None; only readings need them
    """

    values: Array
    observed: Array
    given: Array
    target: Array | None = None
    weight: Array | None = None
    row_key: Array | None = None

    @classmethod
    def of(cls, rows: Rows, target: np.ndarray | None = None, weight: np.ndarray | None = None) -> Batch:
        """On the host still: what is cut out of it moves to the device when it is used."""
        return cls(rows.values, rows.observed, rows.given, target, weight)

    def __getitem__(self, index: Array | np.ndarray | slice) -> Batch:
        return jax.tree.map(lambda leaf: leaf[index], self)

    @property
    def n_rows(self) -> int:
        return self.values.shape[0]


class Batches(eqx.Module):
    """Training rows and held-out rows, on the device once, and how many make a step.

    Attributes
    ----------
    train, held_out : the rows
    scarce : (n_scarce,) indices of training rows of which every batch has some, or None
    batch_size : static
    n_scarce : static; how many of a batch's rows these are, its first
    n_true : () how many of the training rows are true, where others only fill the arrays up, or None; training visits
        the true ones, and one compiled program serves several numbers of rows
    """

    train: Batch
    held_out: Batch | None
    scarce: Array | None = None
    batch_size: int = eqx.field(static=True, default=1)
    n_scarce: int = eqx.field(static=True, default=0)
    n_true: Array | None = None

    @classmethod
    def split(
        cls,
        batch: Batch,
        batch_size: int,
        validation_fraction: float,
        seed: int,
        scarce: np.ndarray | None = None,
    ) -> Batches:
        """Set a random share of the rows aside, at most 10,000; with fewer than 20 rows there is nothing to spare.

        `scarce`, (n_rows,) bool, marks rows that are too few to be left to chance, as labelled ones: none of them is
        set aside, every batch has an eighth of them at least, and weights make up for it in the loss.
        """
        n_rows = batch.n_rows
        if scarce is not None and not 0 < scarce.sum() < n_rows / 2:
            scarce = None
        spare = np.arange(n_rows) if scarce is None else np.flatnonzero(~scarce)
        n_held = (
            min(round(validation_fraction * len(spare)), len(spare) - 1, _MAX_HELD) if n_rows >= 20 else 0
        )
        train, rest = np.arange(n_rows), None
        if n_held:
            order = np.random.default_rng(seed).permutation(len(spare))
            held = np.sort(spare[order[:n_held]])
            train, rest = np.setdiff1d(train, held), batch[held]
        batch_size, kept = min(batch_size, len(train)), batch[train] if n_held else batch
        if scarce is None:
            return cls(*devices.everywhere((kept, rest)), None, batch_size)
        few = scarce[train]
        share = max(few.mean(), 0.125)
        n_first = min(max(round(share * batch_size), 1), batch_size - 1)
        if not n_first:
            return cls(*devices.everywhere((kept, rest)), None, batch_size)
        drawn = np.where(few, n_first / few.sum(), (batch_size - n_first) / (~few).sum())
        weight = (batch_size / len(train) / drawn).astype(np.float32)
        kept = eqx.tree_at(lambda one: one.weight, kept, weight, is_leaf=lambda leaf: leaf is None)
        scattered = devices.everywhere((kept, rest, np.flatnonzero(few).astype(np.int32)))
        return cls(*scattered, batch_size, n_first)

    def orders(self, n_steps: int, seed: int) -> Iterator[np.ndarray]:
        """Endless blocks of row indices (n_steps, batch_size): one permutation after the other."""
        rng = np.random.default_rng(seed)
        n_rows = self.train.n_rows if self.n_true is None else int(self.n_true)
        every = np.arange(n_rows, dtype=np.int32)
        if self.scarce is None:
            yield from _permuted(every, n_steps, self.batch_size, rng)
            return
        few = np.asarray(self.scarce)
        first = _permuted(few, n_steps, self.n_scarce, rng)
        others = _permuted(np.setdiff1d(every, few), n_steps, self.batch_size - self.n_scarce, rng)
        for blocks in zip(first, others, strict=True):
            yield np.concatenate(blocks, axis=1)


def _permuted(rows: np.ndarray, n_steps: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless blocks (n_steps, size) of the rows in ever new orders."""
    need, waiting = n_steps * size, rows[:0]
    while True:
        pieces, n_have = [waiting], len(waiting)
        while n_have < need:
            pieces.append(rng.permutation(rows))
            n_have += len(rows)
        stream = np.concatenate(pieces)
        waiting = stream[need:]
        yield stream[:need].reshape(n_steps, size)


class Reservoir(NamedTuple):
    """A sample of all rows seen so far, every one of them as likely to be in it, and how many they were."""

    rows: Rows
    n_seen: int

    @classmethod
    def of(cls, rows: Rows, before: Reservoir | None = None, size: int = 10_000) -> Reservoir:
        """The sample with further rows; which ones it keeps depends on nothing but the numbers of rows."""
        n_new = len(rows.values)
        n_old, n_seen = (0, 0) if before is None else (len(before.rows.values), before.n_seen)
        if before is not None:
            rows = Rows(*map(np.concatenate, zip(before.rows, rows, strict=True)))
        if n_old + n_new > size:
            share = np.repeat([n_seen / max(n_old, 1), 1.0], [n_old, n_new]) / (n_seen + n_new)
            rng = np.random.default_rng(n_seen + n_new)
            some = np.sort(rng.choice(n_old + n_new, size, replace=False, p=share))
            rows = Rows(*(part[some] for part in rows))
        return cls(rows, n_seen + n_new)


def chunks(rows: Rows, size: int) -> Iterator[tuple[Batch, int]]:
    """Cut rows into batches of exactly `size`, the last one padded, each with its number of true rows.

    One size means one compiled program for every number of rows, and a row's answer that does not depend on
    its company.
    """
    n_rows = len(rows.values)
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        parts = (rows.values[start:stop], rows.observed[start:stop], rows.given[start:stop])
        if stop - start < size:
            parts = tuple(np.pad(part, ((0, size - (stop - start)), (0, 0))) for part in parts)  # type: ignore[assignment]
        yield devices.shared_out(Batch(*parts)), stop - start


def rows_together(n_draws: int) -> int:
    """How many rows, a power of two, to read at once where each brings so many draws."""
    return 1 << max(_DRAWS_TOGETHER // n_draws, 1).bit_length() - 1


def row_keys(batch: Batch, key: Array) -> Array:
    """A random key per row from the seed and the bits of the row itself.

    Parameters
    ----------
    batch : n_rows rows
    key : one key, the seed

    Returns
    -------
    (n_rows,) keys. Equal rows have equal keys, in any order and any company; different rows have independent
    ones, up to collisions of a 64-bit hash.
    """
    words = [
        jax.lax.bitcast_convert_type(batch.values, jnp.uint32),
        jax.lax.bitcast_convert_type(batch.given, jnp.uint32),
        batch.observed.astype(jnp.uint32),
    ]
    word = jnp.concatenate(words, axis=1)  # (n_rows, n_words)
    place = jnp.arange(word.shape[1], dtype=jnp.uint32)

    def hashed(salt: int) -> Array:
        # Integer arithmetic wraps and is associative: the sum is the same however it is split.
        return _mix(jnp.sum(_mix(word ^ _mix(place + jnp.uint32(salt))), axis=1, dtype=jnp.uint32))

    fold = jax.vmap(lambda one, other: jax.random.fold_in(jax.random.fold_in(key, one), other))
    return fold(hashed(0x9E3779B9), hashed(0x85EBCA6B))


def _mix(word: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby 2011, public domain): every input bit moves every output bit."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
