"""log Z by annealed importance sampling: chains led from the product of the marginal laws to the machine."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp

from diabolo import devices
from diabolo.boltzmann.bernoulli import bernoulli
from diabolo.boltzmann.machine import Machine

__all__ = ["Annealed", "anneal", "annealed_log_z"]

# Where the temperatures lie, as the paper's 14,500: most of them near the machine itself.
_EDGES, _SHARES = (0.0, 0.5, 0.9, 1.0), (0.1, 0.3, 0.6)


class Annealed(NamedTuple):
    """log Z with its standard error, nats, and where the chains ended: (n_chains, n_hidden), drawn by their weights."""

    log_z: float
    error: float
    hidden: np.ndarray


def annealed_log_z(machine: Machine, marginal: Array, n_steps: int, n_chains: int, key: Array) -> Annealed:
    """Estimate log Z.

    Parameters
    ----------
    machine : trained
    marginal : (width,) parameters of the product of the columns' marginal laws, where the chains start
    n_steps : temperatures
    n_chains : independent chains; the error is taken from the spread of their weights, on the scale of Z

    Returns
    -------
    Annealed : an estimate; exp(log_z) is unbiased, the error is that of the log by the delta method

    Source: Salakhutdinov & Murray 2008, algorithm 1 and section 4.1 (start at the base rates), eq. 18 to 20.
    """
    key_walk, key_choice = jax.random.split(key)
    log_weights, hidden = anneal(machine, marginal, temperatures(n_steps), n_chains, key_walk)
    weights = np.asarray(log_weights, np.float64)
    total = logsumexp(weights)
    share = np.exp(weights - total)
    error = np.sqrt(n_chains * share.var(ddof=1))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_choice)))
    chosen = rng.choice(n_chains, n_chains, p=share / share.sum())
    return Annealed(float(total - np.log(n_chains)), float(error), np.asarray(hidden)[chosen])


def temperatures(n_steps: int) -> np.ndarray:
    """(n_steps + 1,) shares of the machine, from 0 to 1."""
    counts = np.maximum(np.rint(np.asarray(_SHARES) * n_steps).astype(int), 1)
    counts[-1] += n_steps - counts.sum()  # what rounding took or added
    legs = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(_EDGES, _EDGES[1:], counts, strict=False)]
    return np.concatenate([*legs, [1.0]]).astype(np.float32)


@devices.compiled
def anneal(
    machine: Machine, marginal: Array, betas: Array | np.ndarray, n_chains: int, key: Array
) -> tuple[Array, Array]:
    """Log weights (n_chains,) whose mean of exponentials estimates Z, and hidden states (n_chains, n_hidden)."""
    units = machine.units
    start, level = machine.between(marginal, jnp.zeros(()))
    every = jnp.ones(len(units.columns))
    log_z0 = machine.n_hidden * jnp.log(2.0) + jnp.sum(units.log_partition(start.bias, start.spread, level))

    def log_unnormalised(cells: Array, beta: Array) -> Array:
        at_start = _log_start(machine, cells, marginal)
        here = machine.log_visible(cells, every) - jnp.sum(units.log_seen)
        hidden = jnp.sum(machine.log_on_or_off(machine.inputs(cells), beta), axis=-1)
        return (1.0 - beta) * at_start + beta * here + hidden

    def step(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        cells, total = carry
        before, beta, number = now
        total = total + log_unnormalised(cells, beta) - log_unnormalised(cells, before)
        between, level = machine.between(marginal, beta)
        key_hidden, key_cells = jax.random.split(jax.random.fold_in(key, number))
        hidden = between_hidden(machine, cells, beta, key_hidden)
        cells = units.draw(between.params(hidden), between.spread, key_cells, level)
        return (cells, total), None

    key_start, key_end = jax.random.split(jax.random.fold_in(key, len(betas)))
    first = units.draw(jnp.broadcast_to(start.bias, (n_chains, units.width)), start.spread, key_start, level)
    betas = jnp.asarray(betas)
    steps = (betas[:-1], betas[1:], jnp.arange(len(betas) - 1))
    (cells, total), _ = jax.lax.scan(step, (first, jnp.full(n_chains, log_z0)), steps)
    return total, machine.draw_hidden(cells, key_end)


def between_hidden(machine: Machine, cells: Array, beta: Array, key: Array) -> Array:
    return bernoulli(key, jax.nn.sigmoid(beta * machine.inputs(cells)))


def _log_start(machine: Machine, cells: Array, marginal: Array) -> Array:
    """Log density of the product of the marginal laws, up to the constant that `log_partition` gives."""
    ones = jnp.ones_like(machine.spread)
    return cells @ marginal + jnp.sum(machine.units.log_measure(cells, ones), axis=-1)
