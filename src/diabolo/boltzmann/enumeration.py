"""Sums over all states of the hidden units, exact: up to 20 of them, in blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.boltzmann.machine import Machine
from diabolo.matrices import times

__all__ = ["MAX_STATES_BITS", "exact_log_z", "log_each_state", "log_observed", "log_state_weights", "states"]

MAX_STATES_BITS = 20
_BLOCK_BITS = 10  # states summed together


def states(n_bits: int) -> np.ndarray:
    """All states of few hidden units: (2^n_bits, n_bits) float32."""
    return ((np.arange(2**n_bits)[:, None] >> np.arange(n_bits)) & 1).astype(np.float32)


def exact_log_z(machine: Machine) -> Array:
    """log Z, () nats: the sum over all hidden states of the closed sum over the cells."""
    nothing = jnp.zeros((1, machine.units.width)), jnp.zeros((1, len(machine.units.columns)))
    return _log_sum(machine, *nothing)[0]


@devices.compiled
def log_each_state(machine: Machine) -> Array:
    """log p(h) + log Z of every hidden state, (2^n_hidden,) nats, in the order of `states`."""
    n_low = min(machine.n_hidden, _BLOCK_BITS)
    low, n_high = jnp.asarray(states(n_low)), machine.n_hidden - n_low

    def block(number: Array) -> Array:
        bias, columns = machine.log_hidden(_with_high(low, number, n_high))
        return bias + jnp.sum(columns, axis=-1)

    return jax.lax.map(block, jnp.arange(2**n_high)).ravel()


def log_observed(machine: Machine, cells: Array, seen: Array) -> Array:
    """log p(observed cells) + log Z of rows with gaps, (n_rows,) nats.

    Given the hidden units the missing cells sum to a closed form; the sum over the hidden units is over all of them.
    """
    return machine.log_visible(cells, seen) + _log_sum(machine, cells, seen)


def log_state_weights(machine: Machine, cells: Array, seen: Array) -> Array:
    """Log weight of each of few hidden states given the observed cells, (n_rows, 2^n_hidden), up to a constant."""
    each = jnp.asarray(states(machine.n_hidden))
    return _log_block(machine, each, machine.said(cells), seen).T


def _log_sum(machine: Machine, cells: Array, seen: Array) -> Array:
    n_low = min(machine.n_hidden, _BLOCK_BITS)
    low, n_high = jnp.asarray(states(n_low)), machine.n_hidden - n_low
    said = machine.said(cells)

    def add(total: Array, number: Array) -> tuple[Array, None]:
        block = _log_block(machine, _with_high(low, number, n_high), said, seen)
        here = jax.nn.logsumexp(block, axis=0)
        return jnp.logaddexp(total, here), None

    start = jnp.full(said.shape[0], -jnp.inf)
    return jax.lax.scan(add, start, jnp.arange(2**n_high))[0]


def _with_high(low: Array, number: Array, n_high: int) -> Array:
    """The states whose last `n_high` units are the bits of a number."""
    high = ((number >> jnp.arange(n_high)) & 1).astype(jnp.float32)
    return jnp.concatenate([low, jnp.broadcast_to(high, (len(low), n_high))], axis=1)


def _log_block(machine: Machine, block: Array, said: Array, seen: Array) -> Array:
    """(n_states, n_rows) nats of hidden states (n_states, n_hidden); said : (n_rows, n_hidden) by the cells."""
    bias, columns = machine.log_hidden(block)
    missing = times(columns, (1.0 - seen).T)
    return bias[:, None] + machine.together(block, said) + missing
