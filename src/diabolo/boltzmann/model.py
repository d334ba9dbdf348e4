"""The model that a machine is: training by its chains, readings by sums over its states or by draws of them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp

from diabolo.batches import Batch, Batches
from diabolo.boltzmann.annealing import annealed_log_z
from diabolo.boltzmann.bernoulli import bernoulli
from diabolo.boltzmann.enumeration import (
    MAX_STATES_BITS,
    exact_log_z,
    log_each_state,
    log_observed,
    log_state_weights,
    states,
)
from diabolo.boltzmann.machine import Machine
from diabolo.joint import JointLikelihood
from diabolo.keys import host_generator
from diabolo.matrices import times
from diabolo.model import DirectModel, Loss, State
from diabolo.objectives import weighted_mean

__all__ = ["LOOKED_AT_BITS", "N_KEPT", "RBMModel"]

LOOKED_AT_BITS = 12  # hidden units up to which training looks at exact nats, and draws come from all states
N_KEPT = 1024  # hidden states kept of the trained machine, from which chains of draws start
_FOLLOWED = 0.01  # share of a step in the running mean of the hidden units
_BETWEEN = 10  # steps between two moves of their centre, a pass over the weights each
# weights from which products are YNNPACK's: of 392,000 a step takes 7 to 13 % less time, of 20,000 30 % more
_WIDE = 2**18
_N_BURN = 200  # steps of a chain before its draw
_N_CLAMPED = 100  # steps of a chain for cells that are missing
_N_FILL = 5  # steps that fill a gap in training
_N_WALKED = 20  # steps of a chain that proposes hidden states for a row with gaps
_N_MEAN_FIELD = 10
_N_PROPOSED = 32  # filled rows whose hidden units' laws together propose states for a row with gaps


class Running(NamedTuple):
    """What a step leaves to the next: hidden units of persistent chains (n_chains, n_hidden), their running mean."""

    chains: Array | None
    mean: Array


class RBMModel(DirectModel):
    """A machine, its partition function and some of its states.

    ```
    cells x ◀── weights ──▶ hidden h ∈ {0, 1}       p(x, h) = exp(-E(x, h)) / Z
    ```

    Attributes
    ----------
    marginal : (width,) parameters of the columns' marginal laws, in the order of the units
    log_z, log_z_error : () nats; the error is 0 where the states were enumerated
    kept : (n_kept, n_hidden) hidden states of the trained machine
    decay : () share of the rate by which a step shrinks the weights, not trained
    """

    density_kind: ClassVar[str] = "estimate"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    machine: Machine
    marginal: Array
    log_z: Array
    log_z_error: Array
    kept: Array
    decay: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    n_gibbs: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    n_temperatures: int = eqx.field(static=True)
    persistent: bool = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)

    @property
    def chooses(self) -> bool:
        """Only nats choose weights well, and these are known while the hidden units are few."""
        return self.few

    @property
    def mostly_products(self) -> bool:
        return self.machine.weights.size >= _WIDE

    @property
    def few(self) -> bool:
        """Are the hidden states few enough to sum over all of them often?"""
        return self.machine.n_hidden <= LOOKED_AT_BITS

    @property
    def enumerated(self) -> bool:
        return self.machine.n_hidden <= MAX_STATES_BITS

    def fixed(self) -> tuple[Any, ...]:
        facts = (
            self.machine.units,
            self.machine.middle,
            self.marginal,
            self.log_z,
            self.log_z_error,
            self.kept,
            self.decay,
        )
        return (*super().fixed(), *facts)

    def initial_state(self) -> State:
        chains: Any = None
        if self.persistent:  # -1: not begun, whatever the step is: chains may be asked for between two calls
            chains = np.full((self.n_chains, self.machine.n_hidden), -1.0, np.float32)
        running = Running(chains, self.machine.hidden_middle)
        return super().initial_state()._replace(running=running)

    def settled(self, state: State, rate: Array) -> Self:
        """The weights decay; every few steps the hidden units' centre follows their mean, of rows and draws alike.

        Source: Melchior, Fischer & Wiskott 2016, How to center binary deep Boltzmann machines, algorithm 1; Loshchilov
        & Hutter 2019, Decoupled weight decay regularization, algorithm 2, arXiv:1711.05101.
        """
        weights = (1.0 - rate * self.decay) * self.machine.weights
        machine = dataclasses.replace(self.machine, weights=weights)

        def moved() -> tuple[Array, Array]:
            there = machine.recentred(state.running.mean)
            return there.bias, there.hidden_middle

        now = state.step % _BETWEEN == 0
        bias, middle = jax.lax.cond(now, moved, lambda: (machine.bias, machine.hidden_middle))
        machine = dataclasses.replace(machine, bias=bias, hidden_middle=middle)
        return dataclasses.replace(self, machine=machine)

    def with_gaps(self) -> Self:
        return dataclasses.replace(self, gaps=True)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Free energy of the rows minus that of the model's own draws: its gradient is the likelihood's.

        Source: Hinton 2002, eq. 5 (contrastive divergence); Tieleman 2008 (chains that go on from batch to batch).
        Rows with gaps are filled by a few steps of a chain whose seen cells are clamped.
        """
        key_fill, key_hidden, key_walk, key_cells = jax.random.split(key, 4)
        still = jax.lax.stop_gradient(self.machine)
        cells, seen = self._inward(batch)
        if self.gaps:
            cells = jax.lax.stop_gradient(self._filled(still, cells, seen, key_fill))
        chains = state.running.chains
        if self.persistent:
            firsts = jnp.take(cells, jnp.arange(self.n_chains), axis=0, mode="wrap")
            hidden = jax.lax.cond(
                chains[0, 0] < 0, lambda: still.draw_hidden(firsts, key_hidden), lambda: chains
            )
        else:
            hidden = still.draw_hidden(cells, key_hidden)
        hidden = still.walk(hidden, key_walk, self.n_gibbs - 1)
        key_cells, key_hidden = jax.random.split(key_cells)
        drawn = jax.lax.stop_gradient(still.draw_cells(hidden, key_cells))
        machine, every = self.machine, jnp.ones_like(seen[:1])
        inputs = machine.inputs_each(cells, drawn)
        of_rows = weighted_mean(machine.log_unnormalised(cells, every, inputs[0]), batch.weight)
        of_draws = jnp.mean(machine.log_unnormalised(drawn, every, inputs[1]))
        said, walked = jax.lax.stop_gradient(inputs)
        # persistent chains go on from the inputs that their draws have anyway
        chains = still.draw_by(walked, key_hidden) if self.persistent else None
        mean = state.running.mean
        here = 0.5 * (jnp.mean(jax.nn.sigmoid(said), axis=0) + jnp.mean(jax.nn.sigmoid(walked), axis=0))
        running = Running(chains, mean + _FOLLOWED * (here - mean))
        return Loss(of_draws - of_rows, {}, state._replace(running=running))

    def held_out(self, batch: Batch, key: Array) -> Array:
        """log p(x) where the states are few; beyond, log p(x | E[h | x]), which is looked at and chooses nothing."""
        cells, seen = self._inward(batch)
        if self.few:
            nats = self._log_unnormalised(cells, seen) - exact_log_z(self.machine)
            return jnp.where(jnp.any(seen > 0, axis=-1), nats, 0.0)  # of no cell at all
        machine = self.machine
        params = machine.params(jax.nn.sigmoid(machine.inputs(self._mean_filled(cells, seen))))
        said = params * machine.units.per_cell(seen) * cells / machine.spread
        sums = machine.units.log_partition(params, machine.spread)
        measure = machine.units.log_measure(cells, machine.spread)
        return jnp.sum(said, axis=-1) + jnp.sum(seen * (measure + machine.units.log_seen - sums), axis=-1)

    def encode(self, batch: Batch) -> dict[str, Array]:
        """P(h = 1 | x); missing cells at their means, by turns with the hidden units (mean field)."""
        cells, seen = self._inward(batch)
        return {"hidden": jax.nn.sigmoid(self.machine.inputs(self._mean_filled(cells, seen)))}

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        machine = self.machine
        cells = machine.units.centre(machine.params(codes["hidden"]), machine.spread)
        return machine.units.outward(cells)

    def sample(self, key: Array, n: int, given: Array) -> Array:
        """From all hidden states where these are few, else by chains that start at states of the trained machine."""
        key_start, key_walk, key_cells = jax.random.split(key, 3)
        if self.few:
            log_weights = log_each_state(self.machine)
            every = jnp.asarray(states(self.machine.n_hidden))
            hidden = every[_chosen(key_start, log_weights, n)]
        else:
            start = self.kept[jax.random.randint(key_start, (n,), 0, len(self.kept))]
            hidden = self.machine.walk(start, key_walk, _N_BURN)
        return self.machine.units.outward(self.machine.draw_cells(hidden, key_cells, rounded=True))

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """One weight per row, exact, up to 20 hidden units; beyond, for rows with gaps, one per draw of them."""
        cells, seen = self._inward(batch)
        if self.enumerated:
            return (self._log_unnormalised(cells, seen) - self.log_z)[:, None]
        whole = self.machine.log_unnormalised(cells, seen)[:, None]
        gappy = _has_gaps(seen)

        def by_draws() -> Array:
            return jax.vmap(self._log_proposed, in_axes=(0, 0, 0, None))(cells, seen, keys, n_draws)

        shape = (len(cells), n_draws)
        drawn = jax.lax.cond(jnp.any(gappy), by_draws, lambda: jnp.broadcast_to(whole, shape))
        return jnp.where(gappy[:, None], drawn, whole) - self.log_z

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """From all hidden states where these are few, else by chains of 100 steps whose seen cells are clamped."""
        cells, seen = self._inward(batch)
        machine = self.machine
        if self.few:
            every = jnp.asarray(states(machine.n_hidden))
            log_weights = log_state_weights(machine, cells, seen)

            def of_states(log_weights: Array, key: Array) -> Array:
                key_state, key_cells = jax.random.split(key)
                hidden = every[_chosen(key_state, log_weights, n_draws)]
                return machine.draw_cells(hidden, key_cells, rounded=True)

            return machine.units.outward(jax.vmap(of_states)(log_weights, keys))
        logits = machine.inputs(self._mean_filled(cells, seen))
        stays = machine.units.per_cell(seen)

        def of_chains(logits: Array, cells: Array, stays: Array, key: Array) -> Array:
            key_start, key_walk, key_cells = jax.random.split(key, 3)
            start = bernoulli(key_start, jnp.tile(jax.nn.sigmoid(logits), (n_draws, 1)))
            hidden = machine.walk(start, key_walk, _N_CLAMPED, (cells, stays))
            return machine.draw_cells(hidden, key_cells, rounded=True)

        return machine.units.outward(jax.vmap(of_chains)(logits, cells, stays, keys))

    def kinds(self, observed: np.ndarray) -> np.ndarray:
        return np.full(len(observed), "exact" if self.enumerated else self.density_kind, "<U8")

    def common_error(self) -> float:
        return float(self.log_z_error)

    def finish(self, batches: Batches, key: Array) -> Self:
        """log Z: the sum over all hidden states up to 20 units, by annealed importance sampling beyond."""
        n_hidden, rng = self.machine.n_hidden, host_generator(key)
        if self.enumerated:
            log_weights = np.asarray(log_each_state(self.machine), np.float64)
            log_z, error = logsumexp(log_weights), 0.0
            share = np.exp(log_weights - log_z)
            chosen = rng.choice(len(share), N_KEPT, p=share / share.sum())
            kept = ((chosen[:, None] >> np.arange(n_hidden)) & 1).astype(np.float32)
        else:
            found = annealed_log_z(self.machine, self.marginal, self.n_temperatures, N_KEPT, key)
            log_z, error, kept = found.log_z, found.error, found.hidden
        numbers = (np.float32(log_z), np.float32(error), kept)
        return eqx.tree_at(lambda model: (model.log_z, model.log_z_error, model.kept), self, numbers)

    def _inward(self, batch: Batch) -> tuple[Array, Array]:
        units = self.machine.units
        return units.inward(batch.values), units.seen(batch.observed)

    def _log_unnormalised(self, cells: Array, seen: Array) -> Array:
        """log p(observed cells) + log Z, (n_rows,) nats; the sum over states is run only where a row has gaps."""
        whole = self.machine.log_unnormalised(cells, seen)
        gappy = _has_gaps(seen)
        summed = jax.lax.cond(jnp.any(gappy), lambda: log_observed(self.machine, cells, seen), lambda: whole)
        return jnp.where(gappy, summed, whole)

    def _log_proposed(self, cells: Array, seen: Array, key: Array, n_draws: int) -> Array:
        """log p(observed cells, h) + log Z - log q(h) at draws of h for one row: (n_draws,) nats.

        q is a mixture of the hidden units' laws given the row as several chains with its seen cells clamped filled it.
        """
        machine = self.machine
        logits = machine.inputs(self._mean_filled(cells[None], seen[None]))[0]
        stays = machine.units.per_cell(seen)
        key_start, key_walk, key_cells, key_draw = jax.random.split(key, 4)
        start = bernoulli(key_start, jnp.tile(jax.nn.sigmoid(logits), (_N_PROPOSED, 1)))
        walked = machine.walk(start, key_walk, _N_WALKED, (cells, stays))
        filled = jnp.where(stays > 0, cells, machine.draw_cells(walked, key_cells))
        # every other one less sure: together they reach what no chain has visited
        logits = jnp.where(jnp.arange(_N_PROPOSED) % 2 == 0, 1.0, 0.7)[:, None] * machine.inputs(filled)
        own = logits[jnp.arange(n_draws) % _N_PROPOSED]
        hidden = machine.draw_by(own, key_draw)
        sure = jnp.sum(jax.nn.softplus(logits), axis=-1)
        each = times(hidden, logits.T) - sure  # (n_draws, _N_PROPOSED)
        share = jnp.bincount(jnp.arange(n_draws) % _N_PROPOSED, length=_N_PROPOSED) / n_draws
        log_q = jax.nn.logsumexp(each + jnp.log(share), axis=-1)
        bias, columns = machine.log_hidden(hidden)
        said = machine.together(hidden, machine.said(cells))
        missing = times(columns, 1.0 - seen)
        return machine.log_visible(cells, seen) + bias + said + missing - log_q

    def _mean_filled(self, cells: Array, seen: Array) -> Array:
        """Cells with the missing ones at their means given the hidden units' means, a fixed point of both."""
        machine = self.machine
        stays = machine.units.per_cell(seen)

        def again(_: int, filled: Array) -> Array:
            params = machine.params(jax.nn.sigmoid(machine.inputs(filled)))
            return jnp.where(stays > 0, cells, machine.units.centre(params, machine.spread, mean=True))

        begin = machine.units.centre(self.marginal, machine.spread, mean=True)
        start, gappy = jnp.where(stays > 0, cells, begin), _has_gaps(seen)
        settled = jax.lax.cond(
            jnp.any(gappy), lambda: jax.lax.fori_loop(0, _N_MEAN_FIELD, again, start), lambda: start
        )
        # by row: one of nothing but gaps has the same code in any company
        return jnp.where(gappy[:, None], settled, start)

    def _filled(self, machine: Machine, cells: Array, seen: Array, key: Array) -> Array:
        """Cells with the missing ones drawn by a chain that starts at their marginal laws."""
        key_start, key_hidden, key_walk, key_cells = jax.random.split(key, 4)
        stays = machine.units.per_cell(seen)
        apart = jnp.broadcast_to(self.marginal, cells.shape)
        start = jnp.where(stays > 0, cells, machine.units.draw(apart, machine.spread, key_start))
        hidden = machine.walk(machine.draw_hidden(start, key_hidden), key_walk, _N_FILL, (cells, stays))
        return jnp.where(stays > 0, cells, machine.draw_cells(hidden, key_cells))


def _has_gaps(seen: Array) -> Array:
    """(n_rows,) bool: some cells are missing, and not all; of no cell at all nobody asks the density."""
    return jnp.any(seen == 0, axis=-1) & jnp.any(seen > 0, axis=-1)


def _chosen(key: Array, log_weights: Array, n: int) -> Array:
    """n places of (n_states,) by their weights; one uniform number each, where Gumbel's trick takes n_states."""
    return jax.random.choice(key, len(log_weights), (n,), p=jax.nn.softmax(log_weights))
