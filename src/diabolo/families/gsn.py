"""The generative stochastic network (Bengio, Thibodeau-Laufer, Alain & Yosinski 2014), by walkback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.checks import Range, refuse
from diabolo.columns.quantities import MAX_DEVIATION
from diabolo.estimator import DiaboloEstimator
from diabolo.impute import resample
from diabolo.joint import JointLikelihood
from diabolo.keys import children, host_generator
from diabolo.likelihoods import Bernoulli, Categorical, Ordinal
from diabolo.model import Decoder, DirectModel, Encoder, Loss, State
from diabolo.objectives import weighted_mean
from diabolo.table import Schema
from diabolo.wiring import Parts

__all__ = ["GSN"]

_N_CLAMPED = 10  # steps of a chain whose observed cells are clamped, before it gives the missing ones
_RUN_TOGETHER = 1024  # chains, and states that a row is compared with at once
_N_JUDGED = 256  # rows that say whether the chains have come to rest
_LEVELS = (Bernoulli, Categorical, Ordinal)


class GSNModel(DirectModel):
    """A chain over rows, and some of its states.

    ```
    x ─▶ noise ─▶ x̃ ─▶ encoder ─▶ code ─▶ decoder ─▶ P(x | x̃) ─▶ draw ─▶ x ─▶ ...
                                    └─ states of the trained chain: p(x) ≈ their mean of P(x | code)
    ```

    Attributes
    ----------
    noise : () standard deviation added to quantities, encoded units
    resampling : () probability that a level, or an atom or what is beside it, is drawn anew from its column's own law
    kept : (n_states, n_components) codes at which as many independent chains ended
    drift : () mean nats of rows by these states less those by the states halfway there
    """

    density_kind: ClassVar[str] = "estimate"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    noise: Array
    resampling: Array
    kept: Array
    drift: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    n_walkback: int = eqx.field(static=True)
    n_states: int = eqx.field(static=True)
    n_burn: int = eqx.field(static=True)

    # ---- the chain -----------------------------------------------------------------------------------------

    def said(self, codes: Array) -> Array:
        """Parameters of P(x | code): (n_rows, n_params)."""
        return self.likelihood.assemble(*self.decoder(codes, jnp.zeros((len(codes), 0))))

    def code_of(self, values: Array, observed: Array) -> Array:
        """(n_rows, n_components) of rows as the encoder takes them."""
        return self.encoder(self.encoder.embed(Batch(values, observed, jnp.zeros((len(values), 0)))))

    def step(
        self, params: Array, key: Array, row: Array, stays: Array, observed: Array | None = None
    ) -> Array:
        """Draw rows, put back the cells that stay, add noise, encode.

        Parameters
        ----------
        params : (n_rows, n_params) the laws that rows are drawn from
        row, stays : broadcast to (n_rows, width); cells, and which of them stand in place of the drawn ones
        observed : (n_rows, n_columns) cells that the encoder sees, all by default

        Returns
        -------
        (n_rows, n_components) : codes of x̃
        """
        likelihood, n_rows = self.likelihood, len(params)
        owner, is_quantity, jumps, has_atoms = self._layout()
        key_draw, key_hit, key_shift = jax.random.split(key, 3)
        if np.any(jumps):  # what noise puts in a cell is drawn along with the rows: one program for both
            marginal = jnp.broadcast_to(likelihood.initial, params.shape)
            both = likelihood.draw(jnp.concatenate([params, marginal]), key_draw)
            drawn, anew = jnp.split(both, 2)
        else:
            drawn = anew = likelihood.draw(params, key_draw)
        values = jnp.where(stays, row, jax.lax.stop_gradient(drawn))
        if np.any(jumps):
            hit = jumps & jax.random.bernoulli(key_hit, self.resampling, (n_rows, likelihood.n_columns))
            values = jnp.where(hit[:, owner], anew, values)
        moved = values + self.noise * jax.random.normal(key_shift, values.shape)
        at_atom = jnp.zeros(values.shape, bool)
        if np.any(has_atoms):
            flags = jnp.where(is_quantity, 0.0, values)
            at_atom = (jnp.zeros((n_rows, likelihood.n_columns)).at[:, owner].add(flags) > 0)[:, owner]
        values = jnp.where(is_quantity & ~at_atom, moved, values)
        if observed is None:
            observed = jnp.ones((n_rows, likelihood.n_columns), bool)
        # a chain that has left the rows behind stays finite, as rows do
        values = jnp.clip(values, -MAX_DEVIATION, MAX_DEVIATION)
        return self.code_of(jnp.where(observed[:, owner], values, 0.0), observed)

    def _layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Static facts: each cell's column and whether it is a quantity, (width,); which columns jump, and which of
        those because they have atoms, (n_columns,)."""
        owner = self.likelihood.column_of_value
        is_first = np.isin(np.arange(len(owner)), self.likelihood.first_value)
        is_level, has_atoms = np.zeros((2, self.likelihood.n_columns), bool)
        for law, columns in zip(self.likelihood.groups, self.likelihood.columns, strict=True):
            is_level[list(columns)] = isinstance(law, _LEVELS)
            has_atoms[list(columns)] = not isinstance(law, _LEVELS) and law.width > 1
        return owner, is_first & ~is_level[owner], is_level | has_atoms, has_atoms

    def walk(
        self, codes: Array, key: Array, n_steps: int, row: Array | float = 0.0, stays: Array | bool = False
    ) -> Array:
        """Codes (n, n_components) after some steps of the chain, those cells of a row put back that stay at each."""

        def step(codes: Array, key: Array) -> tuple[Array, None]:
            return self.step(self.said(codes), key, jnp.asarray(row), jnp.asarray(stays)), None

        return jax.lax.scan(step, codes, jax.random.split(key, n_steps))[0]

    # ---- training ------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Mean of -log P(x | x̃) over the chain's first steps away from x: from each it is to find the way back.

        Source: Bengio, Yao, Alain & Vincent 2013, arXiv:1305.6663, the walkback algorithm, of a number of steps that is
        fixed, as in Bengio et al. 2014, arXiv:1306.1091.
        """
        value = weighted_mean(self._ways_back(batch, key), batch.weight)
        return Loss(-value, {"log_likelihood": value}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The same of held-out rows: no density."""
        return self._ways_back(batch, key)

    def _ways_back(self, batch: Batch, key: Array) -> Array:
        """Mean over the steps of log P(x | x̃), (n_rows,) nats of the observed cells."""

        def step(params: Array, number_and_key: tuple[Array, Array]) -> tuple[Array, Array]:
            begins, key = number_and_key[0] == 0, number_and_key[1]
            params = self.said(self.step(params, key, batch.values, begins, batch.observed | ~begins))
            return params, self._nats(params, batch.values, batch.observed)

        start = jnp.broadcast_to(self.likelihood.initial, (batch.n_rows, self.likelihood.n_params))
        steps = jnp.arange(self.n_walkback), jax.random.split(key, self.n_walkback)
        return jnp.mean(jax.lax.scan(step, start, steps)[1], axis=0)

    def fixed(self) -> tuple[Any, ...]:
        facts = (self.decoder.start, self.noise, self.resampling, self.kept, self.drift)
        return (*super().fixed(), *facts)

    def finish(self, batches: Batches, key: Array) -> Self:
        """Run as many independent chains as states are kept, each from a training row."""
        key_rows, key_chains = children(key, 2)
        rows = batches.train[host_generator(key_rows).integers(0, batches.train.n_rows, self.n_states)]
        codes = _by_parts(lambda part, key: _begun(self, part, key), rows, key_rows)
        return self._ended(codes, rows, key_chains)

    def carry_on(self, key: Array) -> Self:
        """Run the chains on from the states that are kept."""
        key_rows, key_chains = children(key, 2)
        codes = self.kept[host_generator(key_rows).permutation(self.n_states) % len(self.kept)]
        drawn = _by_parts(lambda part, key: _drawn(self, part, key), codes, key_rows)
        rows = Batch(drawn, np.ones((len(drawn), self.likelihood.n_columns), bool), drawn[:, :0])
        return self._ended(codes, rows, key_chains)

    def _ended(self, codes: np.ndarray, rows: Batch, key: Array) -> Self:
        """The states after the chains' steps, and by how much they find rows likelier than those halfway."""
        key_first, key_second = children(key, 2)
        half = self.n_burn // 2
        middle = _by_parts(lambda part, key: _walked(self, part, key, half), codes, key_first)
        last = _by_parts(lambda part, key: _walked(self, part, key, self.n_burn - half), middle, key_second)
        judged = jax.tree.map(lambda leaf: np.resize(leaf, (_N_JUDGED, *leaf.shape[1:])), rows)
        drift = _log_mean(self, judged, last) - _log_mean(self, judged, middle)
        return eqx.tree_at(lambda model: (model.kept, model.drift), self, (last, np.float32(drift)))

    # ---- readings ------------------------------------------------------------------------------------------

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, n_states): log P(observed cells | state), whatever `n_draws` is: the states are there already.

        Source: Bengio, Yao & Cho 2013, arXiv:1311.6184, the conservative sampling-based log-likelihood estimator.
        """
        params = self.said(self.kept)
        return jax.lax.map(lambda row: self._nats(params, *row), (batch.values, batch.observed))

    def n_weights(self, n_draws: int) -> int:
        return len(self.kept)

    def _nats(self, params: Array, values: Array, observed: Array) -> Array:
        """log P of observed cells, (n,) nats, of rows each under its law or of one row under many."""
        return jnp.sum(jnp.where(observed, self.likelihood.log_prob(params, values), 0.0), axis=-1)

    def encode(self, batch: Batch) -> dict[str, Array]:
        return self.split(self.code_of(batch.values, batch.observed))

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        return self.likelihood.mean(self.said(self.join(codes)))

    def sample(self, key: Array, n: int, given: Array) -> Array:
        """By chains that go on from states of the trained chain."""
        key_start, key_walk, key_cells = jax.random.split(key, 3)
        start = self.kept[jax.random.randint(key_start, (n,), 0, len(self.kept))]
        return self.likelihood.draw(self.said(self.walk(start, key_walk, self.n_burn)), key_cells)

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """By chains whose observed cells are put back at every step, from states that find these cells likely.

        The states and P(missing | state) alone would be the conditional law of the density that `log_weights` says. The
        steps lead away from it, to where the clamped chain rests: nearer to the observed cells, as no state was.

        Source: Bengio et al. 2014, arXiv:1306.1091, "Handling missing inputs or structured output". It is p(missing |
        observed) where P(x | x̃) belongs to one joint law, which independent columns given x̃ only come near.
        """
        params, owner = self.said(self.kept), self.likelihood.column_of_value

        def of_row(row: tuple[Array, Array, Array]) -> Array:
            values, observed, key = row
            key_start, key_walk, key_cells = jax.random.split(key, 3)
            chosen = resample(key_start, self._nats(params, values, observed), n_draws)
            codes = self.walk(self.kept[chosen], key_walk, _N_CLAMPED, values, observed[owner])
            return self.likelihood.draw(self.said(codes), key_cells)

        return jax.lax.map(of_row, (batch.values, batch.observed, keys))


@devices.compiled
def _begun(model: GSNModel, batch: Batch, key: Array) -> Array:
    """Codes of noisy rows."""
    params = jnp.broadcast_to(model.likelihood.initial, (batch.n_rows, model.likelihood.n_params))
    return model.step(params, key, batch.values, jnp.asarray(True), batch.observed)


@devices.compiled
def _walked(model: GSNModel, codes: Array, key: Array, n_steps: int) -> Array:
    return model.walk(codes, key, n_steps)


@devices.compiled
def _drawn(model: GSNModel, codes: Array, key: Array) -> Array:
    return model.likelihood.draw(model.said(codes), key)


@devices.compiled
def _nats_of_all(model: GSNModel, batch: Batch, states: Array) -> Array:
    params = model.said(states)
    return jax.lax.map(lambda row: model._nats(params, *row), (batch.values, batch.observed))


def _log_mean(model: GSNModel, batch: Batch, states: np.ndarray) -> float:
    """Mean over rows of log of the mean over states of P(row | state): nats."""
    return float(np.mean(logsumexp(np.asarray(_nats_of_all(model, batch, states), np.float64), axis=1)))


def _by_parts(function: Callable[[Any, Array], Array], things: Any, key: Array) -> np.ndarray:
    """A compiled function of many chains, some at once, so that memory does not limit their number."""
    n = jax.tree.leaves(things)[0].shape[0]
    starts = range(0, n, _RUN_TOGETHER)
    size = n if n < _RUN_TOGETHER else _RUN_TOGETHER
    out = []
    for start, key_part in zip(starts, children(key, len(starts)), strict=True):
        part = jax.tree.map(lambda leaf, i=start: np.asarray(leaf[i : i + size]), things)
        short = size - jax.tree.leaves(part)[0].shape[0]
        padded = jax.tree.map(lambda leaf, n=short: np.pad(leaf, ((0, n), *[(0, 0)] * (leaf.ndim - 1))), part)
        out.append(np.asarray(function(padded, key_part))[: size - short])
    return np.concatenate(out)


class GSN(DiaboloEstimator):
    """Generative stochastic network: a chain of noise and denoising, whose rows are draws.

    ```
    x ─▶ noise ─▶ x̃ ─▶ encoder ─▶ code ─▶ decoder ─▶ P(x | x̃) ─▶ draw ─▶ x ─▶ noise ─▶ ...
                                    └─ states of the trained chain: p(x) = mean of P(x | state)
    ```

    A denoising autoencoder that says the law of the clean row given the noisy one. Noise and draws by turns are a
    Markov chain, and where it comes to rest is the model's p(x). Training walks along it: from each of its first steps
    away from a row the network is to find the way back (walkback).

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : none: every condition would have a chain of its own; the parameter refuses
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    noise : standard deviation added to quantities at every step of the chain, in spreads of their column, of grey
        levels in halves of their range
    resampling : probability at every step that a level is drawn anew from its column's own law; likewise a cell of a
        column with atoms. Little noise makes a sharp law and a chain that wanders slowly, much noise the contrary
    n_walkback : steps of the chain in training; 1 is the plain denoising autoencoder, whose chain may stay for ever at
        places that no row has taught it to leave
    n_states : independent chains that are run after training; p(x) is the mean over the states where they end, so a
        reading costs as many laws for every row
    n_burn : steps of each of them, from a training row; of the chains of `sample`, too, which go on from these states
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out log P(x | x̃) has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out log P(x | x̃) wins
    warm_start : go on from the last fit
    random_state : seed of weights, batches, noise and chains
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network and the states, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : -log P(x | x̃) and its negative on held-out rows, mean over
        the steps of the walk, nats per row of the encoded cells: no density of x
    drift_ : nats, by how much likelier rows are by the states where the chains ended than by those halfway there; far
        from 0, `n_burn` is too small for the chain to have come to rest
    density_kind_ : "estimate": the mean of P(x | state) is low on the average, as the log of any such mean, and its
        standard error is of the states as a sample, the same ones for all rows. It is of the chain after `n_burn` steps

    Notes
    -----
    The states were drawn when the network was trained, and a reading takes them all: `n_draws` of `log_density` changes
    nothing. `impute` draws by chains whose observed cells are put back at every step, ten of them, from states that
    find these cells likely; they rest near p(missing | observed) as `score_samples` has it, not at it. Given x̃ columns
    are independent, so that what is left open between them is lost at every step; `resampling` near 0 leaves little
    open. After `partial_fit` the chains start at rows of all calls, of a model from a file at its own states.

    References
    ----------
    Bengio, Thibodeau-Laufer, Alain & Yosinski 2014, arXiv:1306.1091; walkback: Bengio, Yao, Alain & Vincent 2013,
    arXiv:1305.6663; the density: Bengio, Yao & Cho 2013, arXiv:1311.6184. Departures: nothing hidden is carried from
    step to step, the noise is on the row alone, and no gradient passes through a draw.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import GSN
    >>> X = load_iris().data
    >>> gsn = GSN(n_components=2, max_steps=200, n_states=256, random_state=0).fit(X)
    >>> gsn.sample(5).shape, gsn.score_samples(X).shape, gsn.density_kind_
    ((5, 4), (150,), 'estimate')
    """

    _finishes: ClassVar[bool] = True

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "noise": [Range(0.0, open_low=True)],
        "resampling": [Range(0.0, 1.0, open_low=True)],
        "n_walkback": [Range(1, whole=True)],
        "n_states": [Range(2, whole=True)],
        "n_burn": [Range(2, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        hidden_layer_sizes="auto",
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        network=None,
        noise=0.2,
        resampling=0.1,
        n_walkback=3,
        n_states=4096,
        n_burn=100,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.network = network
        self.noise = noise
        self.resampling = resampling
        self.n_walkback = n_walkback
        self.n_states = n_states
        self.n_burn = n_burn
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

    def build(self, schema: Schema, key: Array) -> GSNModel:
        """The untrained network for a table."""
        parts = Parts.of(self, schema, key, n_said=int)
        objective = self._objective()
        kept: Any = np.zeros((objective["n_states"], parts.n_components), np.float32)
        return GSNModel(**parts.fields(), kept=kept, drift=np.float32(np.nan), **objective)  # type: ignore[arg-type]

    def _objective(self) -> dict[str, Any]:
        return {
            "noise": np.asarray(self.noise, np.float32),
            "resampling": np.asarray(self.resampling, np.float32),
            "n_walkback": int(self.n_walkback),
            "n_states": int(self.n_states),
            "n_burn": int(self.n_burn),
        }

    @property
    def drift_(self) -> float:
        """Nats."""
        check_is_fitted(self, "model_")
        return float(self.model_.drift)

    def _look_over(self, schema: Schema) -> None:
        if schema.given_width:
            raise refuse(
                "parameter 'given'",
                got="columns that are conditions",
                want="none, because every condition would have a chain of its own",
                fix="Leave them among the columns, or use ConditionalVAE.",
            )
