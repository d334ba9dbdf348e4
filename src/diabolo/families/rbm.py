"""The restricted Boltzmann machine (Smolensky 1986; Hinton 2002)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted

from diabolo import boltzmann
from diabolo.batches import Batch, Batches
from diabolo.boltzmann import MAX_STATES_BITS, Machine, Units
from diabolo.checks import OneOf, Range, refuse
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.keys import host_generator
from diabolo.matrices import times
from diabolo.model import DirectModel, Loss, State
from diabolo.objectives import weighted_mean
from diabolo.table import Schema

__all__ = ["RBM"]

_LOOKED_AT_BITS = 12  # hidden units up to which training looks at exact nats, and draws come from all states
_LEARNING_RATE = 0.03
_FOLLOWED = 0.01  # share of a step's mean in the centre of the hidden units
_N_KEPT = 1024  # hidden states kept of the trained machine, from which chains of draws start
_N_BURN = 200  # steps of a chain before its draw
_N_CLAMPED = 100  # steps of a chain for cells that are missing
_N_FILL = 5  # steps that fill a gap in training
_N_WALKED = 20  # steps of a chain that proposes hidden states for a row with gaps
_N_MEAN_FIELD = 10
_N_PROPOSED = 32  # filled rows whose hidden units' laws together propose states for a row with gaps


class Running(NamedTuple):
    """What a step leaves to the next: hidden units of persistent chains (n_chains, n_hidden), and their mean."""

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
    def few(self) -> bool:
        """Are the hidden states few enough to sum over all of them often?"""
        return self.machine.n_hidden <= _LOOKED_AT_BITS

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
        return (
            super().initial_state()._replace(running=Running(chains, np.asarray(self.machine.hidden_middle)))
        )

    def settled(self, state: State, rate: Array) -> Self:
        """The hidden units' centre follows their mean, of rows and draws alike; then the weights decay.

        Source: Melchior, Fischer & Wiskott 2016, How to center binary deep Boltzmann machines, algorithm 1; Loshchilov
        & Hutter 2019, Decoupled weight decay regularization, algorithm 2, arXiv:1711.05101.
        """
        middle = self.machine.hidden_middle
        followed = self.machine.recentred(middle + _FOLLOWED * (state.running.mean - middle))
        decayed = (1.0 - rate * self.decay) * followed.weights
        machine = eqx.tree_at(lambda one: one.weights, followed, decayed)
        return eqx.tree_at(lambda model: model.machine, self, machine)

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
        # rows and draws side by side are one product each way, and persistent chains go on from their part of it
        both, n_rows = jnp.concatenate([cells, drawn]), len(cells)
        inputs = self.machine.inputs(both)
        log_each = self.machine.log_unnormalised(both, jnp.ones_like(seen[:1]), inputs)
        said = jax.lax.stop_gradient(inputs)
        chains = still.draw_by(said[n_rows:], key_hidden) if self.persistent else None
        running = Running(chains, jnp.mean(jax.nn.sigmoid(said), axis=0))
        of_rows, of_draws = weighted_mean(log_each[:n_rows], batch.weight), jnp.mean(log_each[n_rows:])
        return Loss(of_draws - of_rows, {}, state._replace(running=running))

    def held_out(self, batch: Batch, key: Array) -> Array:
        """log p(x) where the states are few; beyond, log p(x | E[h | x]), which is looked at and chooses nothing."""
        cells, seen = self._inward(batch)
        if self.few:
            nats = self._log_unnormalised(cells, seen) - boltzmann.exact_log_z(self.machine)
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
            log_weights = boltzmann.log_each_state(self.machine)
            every = jnp.asarray(boltzmann.states(self.machine.n_hidden))
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
            every = jnp.asarray(boltzmann.states(machine.n_hidden))
            log_weights = boltzmann.log_state_weights(machine, cells, seen)

            def of_states(log_weights: Array, key: Array) -> Array:
                key_state, key_cells = jax.random.split(key)
                hidden = every[_chosen(key_state, log_weights, n_draws)]
                return machine.draw_cells(hidden, key_cells, rounded=True)

            return machine.units.outward(jax.vmap(of_states)(log_weights, keys))
        logits = machine.inputs(self._mean_filled(cells, seen))
        stays = machine.units.per_cell(seen)

        def of_chains(logits: Array, cells: Array, stays: Array, key: Array) -> Array:
            key_start, key_walk, key_cells = jax.random.split(key, 3)
            start = boltzmann.bernoulli(key_start, jnp.tile(jax.nn.sigmoid(logits), (n_draws, 1)))
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
            log_weights = np.asarray(boltzmann.log_each_state(self.machine), np.float64)
            log_z, error = logsumexp(log_weights), 0.0
            share = np.exp(log_weights - log_z)
            chosen = rng.choice(len(share), _N_KEPT, p=share / share.sum())
            kept = ((chosen[:, None] >> np.arange(n_hidden)) & 1).astype(np.float32)
        else:
            found = boltzmann.annealed_log_z(self.machine, self.marginal, self.n_temperatures, _N_KEPT, key)
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
        summed = jax.lax.cond(
            jnp.any(gappy), lambda: boltzmann.log_observed(self.machine, cells, seen), lambda: whole
        )
        return jnp.where(gappy, summed, whole)

    def _log_proposed(self, cells: Array, seen: Array, key: Array, n_draws: int) -> Array:
        """log p(observed cells, h) + log Z - log q(h) at draws of h for one row: (n_draws,) nats.

        q is a mixture of the hidden units' laws given the row as several chains with its seen cells clamped filled it.
        """
        machine = self.machine
        logits = machine.inputs(self._mean_filled(cells[None], seen[None]))[0]
        stays = machine.units.per_cell(seen)
        key_start, key_walk, key_cells, key_draw = jax.random.split(key, 4)
        start = boltzmann.bernoulli(key_start, jnp.tile(jax.nn.sigmoid(logits), (_N_PROPOSED, 1)))
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


class RBM(DiaboloEstimator):
    """Restricted Boltzmann machine: cells and hidden units that are independent given each other.

    ```
    cells x ◀── weights ──▶ hidden h ∈ {0, 1}         p(x) = Σ_h exp(-E(x, h)) / Z
    ```

    Two values, levels and numbers have units of their own: a logistic, a softmax and a normal one of learned spread.

    Parameters
    ----------
    n_components : hidden units; "auto" is the encoded width, between 8 and 12. Up to 20 the density is exact
    n_gibbs : steps of the chain between two updates
    persistent : chains go on from batch to batch (PCD); False starts them at the batch (CD)
    n_chains : persistent chains
    decoupled_weight_decay : each step shrinks the weights by that share of the learning rate (Loshchilov & Hutter
        2019), beside the gradient and not through Adam; 0.05 does hundreds of hidden units good
    n_temperatures : of the annealed estimate of log Z beyond 20 hidden units, which runs 1,024 chains; "auto" is 2,000
    kinds : column kinds by name, `{"age": "real"}`, or one for all, `"real"`; what is not named is inferred
    given : none: a partition function for every condition is not in reach; the parameter refuses
    image_shape : (height, width[, channels]) of rows that are flattened images
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out nats have not risen for `n_iter_no_change` rounds of 100 steps; beyond 12
        hidden units these cost too much to look at, training takes all its steps and keeps the last weights
    validation_fraction : share of the rows held out for that; beyond 12 hidden units they are watched by
        log p(x | E[h | x]), which only compares the starts of `n_init`: False above learns from all rows
    n_init : independent starts; the best held-out nats win
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained machine, the columns
    log_z_, log_z_error_ : log of the partition function, nats, and its standard error
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_ : free energy of rows minus that of draws, per round; no likelihood
    validation_scores_, best_validation_score_ : log p(x) up to 12 hidden units, beyond log p(x | E[h | x]); nats
    density_kind_ : "exact" up to 20 hidden units, rows with gaps included; "estimate" beyond, by annealed importance
        sampling, with the standard error of log Z; a row's missing cells are then summed over by importance sampling

    References
    ----------
    Hinton 2002, Training products of experts; Tieleman 2008; Hinton 2012, A practical guide. log Z: Salakhutdinov &
    Murray 2008, On the quantitative analysis of deep belief networks.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import RBM
    >>> X = np.repeat([[0.0, 0, 0, 1], [1, 1, 1, 0]], 50, axis=0)
    >>> rbm = RBM(n_components=4, max_steps=200, random_state=0).fit(X)
    >>> rbm.transform(X).shape, rbm.density_kind_
    ((100, 4), 'exact')
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        name: admitted
        for name, admitted in DiaboloEstimator._constraints.items()
        if name not in ("hidden_layer_sizes", "activation", "network")
    } | {
        "n_gibbs": [Range(1, whole=True)],
        "persistent": [bool, np.bool_],
        "n_chains": [Range(1, whole=True)],
        "decoupled_weight_decay": [Range(0.0)],
        "n_temperatures": [OneOf("auto"), Range(10, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_gibbs=5,
        persistent=True,
        n_chains=128,
        decoupled_weight_decay=0.0,
        n_temperatures="auto",
        kinds=None,
        given=(),
        image_shape=None,
        batch_size="auto",
        learning_rate="auto",
        max_steps="auto",
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=20,
        n_init=1,
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.n_gibbs = n_gibbs
        self.persistent = persistent
        self.n_chains = n_chains
        self.decoupled_weight_decay = decoupled_weight_decay
        self.n_temperatures = n_temperatures
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_init = n_init
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @property
    def log_z_(self) -> float:
        """Nats."""
        check_is_fitted(self, "model_")
        return float(self.model_.log_z)

    @property
    def log_z_error_(self) -> float:
        """Nats; 0 where all states were summed."""
        check_is_fitted(self, "model_")
        return float(self.model_.log_z_error)

    def free_energy(self, X: Any) -> np.ndarray:
        """F(x) = -log Σ_h exp(-E(x, h)) in the user's units, so that log p(x) = -F(x) - log Z.

        Two rows are compared by it whatever Z is. Gaps are summed over as in `score_samples`.

        Parameters
        ----------
        X : rows, as `fit` takes them

        Returns
        -------
        (n_rows,) nats; the smaller the likelier

        Source: Hinton 2012, A practical guide to training restricted Boltzmann machines, eq. 25.
        """
        return -(self.score_samples(X) + self.log_z_)

    def build(self, schema: Schema, key: Array) -> RBMModel:
        """The untrained machine for a table."""
        places = schema.layout.places
        names = [schema.columns[place.column].name for place in places]
        units, marginal = Units.of([place.kind for place in places], names)
        n_hidden = self._n_hidden(schema)
        zero: Any = np.zeros((), np.float32)
        kept: Any = np.zeros((_N_KEPT, n_hidden), np.float32)
        return RBMModel(
            likelihood=schema.likelihood(),
            machine=Machine.starting(units, marginal, n_hidden, key),
            marginal=np.asarray(marginal, np.float32),  # type: ignore[arg-type]
            log_z=zero,
            log_z_error=zero,
            kept=kept,
            code_widths=(("hidden", n_hidden),),
            gaps=bool(schema.gaps.any()),
            **self._objective(),
        )

    def _objective(self) -> dict[str, Any]:
        n_temperatures = 2000 if self.n_temperatures == "auto" else int(self.n_temperatures)
        return {
            "n_gibbs": int(self.n_gibbs),
            "n_chains": int(self.n_chains),
            "persistent": bool(self.persistent),
            "n_temperatures": n_temperatures,
            "decay": np.asarray(self.decoupled_weight_decay, np.float32),
        }

    def _rate(self) -> float:
        return _LEARNING_RATE if self.learning_rate == "auto" else float(self.learning_rate)

    def _n_hidden(self, schema: Schema) -> int:
        if self.n_components != "auto":
            return int(self.n_components)
        return int(np.clip(schema.width, 8, _LOOKED_AT_BITS))

    def _look_over(self, schema: Schema) -> None:
        if schema.given_width:
            raise refuse(
                "parameter 'given'",
                got="columns that are conditions",
                want="none, because every condition would have a partition function of its own",
                fix="Leave them among the columns, or use ConditionalVAE.",
            )
