"""The normalizing flow (Rezende & Mohamed 2015), with rational-quadratic splines (Durkan et al. 2019)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.checks import OneOf, Range, refuse
from diabolo.dequantization import Intervals, cells_at, intervals, spread_columns
from diabolo.estimator import DiaboloEstimator
from diabolo.flows import FlowLayers, FlowPlan, Tail
from diabolo.gaussian import Gaussian
from diabolo.impute import resample
from diabolo.joint import JointLikelihood
from diabolo.keys import children, host_generator
from diabolo.likelihoods.masses import log_normal_density
from diabolo.model import DirectModel, Loss, State
from diabolo.objectives import importance_bound, weighted_mean
from diabolo.table import Schema
from diabolo.wiring import layer_sizes

__all__ = ["NormalizingFlow"]

_MAX_FITTED = 4096  # training rows that the start looks at
_N_TRAINED = 8  # draws per row of a table with gaps; of one without, a fresh draw at every step serves
_N_HELD_OUT = 8
_LIGHTEST, _HEAVIEST = 0.2, 1.5  # most of a margin's log weight, to either side
_HEAVINESS = (0.0, *(1.0 / np.geomspace(2.0, 2000.0, 31)))  # of the code's tail, that are tried
_LEAST_GAIN = 2.0  # nats of all held-out rows, below which the tail stays normal: half of chi-square's 95 %
_N_CODES = 512  # proposed per row, of which its conditional draws are chosen


class Margins(eqx.Module):
    """A monotone map of each column's coordinate whose tails may be heavier than a normal law's on either side.

    t = sinh(weight · asinh((y - location) / spread) - skew)

    Attributes
    ----------
    raw : (4, n_columns), location, log spread, log weight, skew

    Source: the sinh-arcsinh transformation, Jones & Pewsey 2009, eq. 2.
    """

    raw: Array

    @classmethod
    def standard(cls, n_columns: int) -> Margins:
        return cls(np.zeros((4, n_columns), np.float32))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Array, Array, Array, Array]:
        location, log_spread, log_weight, skew = self.raw
        # hardly above 1: a light tail is the splines' to bend, and far outside sinh would leave float32 no digits
        most = jnp.where(log_weight > 0, _LIGHTEST, _HEAVIEST)
        weight = jnp.exp(most * jnp.tanh(log_weight / most))
        return location, jnp.exp(jnp.maximum(log_spread, -5.0)), weight, skew

    def __call__(self, places: Array) -> tuple[Array, Array]:
        """(..., n_columns) to the same and the log of each one's slope."""
        location, spread, weight, skew = self._parts()
        standard = (places - location) / spread
        bent = weight * jnp.arcsinh(standard) - skew
        slope = jnp.log(weight) + _log_cosh(bent) - 0.5 * jnp.log1p(standard**2) - jnp.log(spread)
        return jnp.sinh(bent), slope

    def inverse(self, bent: Array) -> Array:
        location, spread, weight, skew = self._parts()
        return location + spread * jnp.sinh((jnp.arcsinh(bent) + skew) / weight)


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


class FlowModel(DirectModel):
    """Cells to places on lines, places to independent normal numbers, every step invertible.

    ```
    x ─▶ dequantization ─▶ margins ─▶ whitening ─▶ [splines ─▶ other order] · n_layers ─▶ tail ─▶ code ~ N(0, I)
                                                          log p(x) = log N(code) + log |d code / d x|
    ```

    A missing cell is one more coordinate that is integrated over, with draws from a Gaussian given the others.
    """

    density_kind: ClassVar[str] = "exact"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    margins: Margins
    gaussian: Gaussian
    layers: FlowLayers
    tail: Tail
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    decay: Array  # (), nats of all rows together per squared weight
    n_rows: Array  # (), that it is shared out over: those trained on at first
    spread: tuple[bool, ...] = eqx.field(static=True)  # columns whose cells are intervals
    n_trained: int = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.gaussian, self.tail, self.decay, self.n_rows)

    # ---- training ------------------------------------------------------------------------------------------

    def begin(self, batches: Batches, key: Array) -> Self:
        """Margins and Gaussian of greatest likelihood: the splines bend what these leave."""
        train, rng = batches.train, host_generator(key)
        some = rng.choice(train.n_rows, min(train.n_rows, _MAX_FITTED), replace=False)
        part = jax.tree.map(lambda leaf: np.asarray(leaf)[np.sort(some)], train)
        uniform = rng.uniform(size=part.observed.shape).astype(np.float32)
        places = np.asarray(_places(self.likelihood, part.values, uniform))
        margins = _fitted_margins(self.margins, places, part.observed)
        bent = np.asarray(margins(places)[0], np.float64)
        gaussian = Gaussian.fitted(np.where(part.observed, bent, np.nan))
        begun = (margins, gaussian, np.float32(train.n_rows))
        return eqx.tree_at(lambda model: (model.margins, model.gaussian, model.n_rows), self, begun)

    def finish(self, batches: Batches, key: Array) -> Self:
        """The tail under which held-out rows are likeliest; training rows were bent in by the layers themselves."""
        if batches.held_out is None:
            return self
        bare = eqx.tree_at(lambda model: model.tail, self, Tail.normal())
        square, log_weights = (np.asarray(part, np.float64) for part in _lengths(bare, batches.held_out, key))

        def nats(heaviness: float) -> float:
            share, log_det = Tail(heaviness).of_square(square, self.n_components)  # type: ignore[arg-type]
            moved = log_weights + 0.5 * square * (1.0 - np.asarray(share)) + np.asarray(log_det)
            return float(np.mean(importance_bound(moved)))

        best = max(_HEAVINESS, key=nats)
        if (nats(best) - nats(0.0)) * len(square) < _LEAST_GAIN:
            return bare
        return eqx.tree_at(lambda model: model.tail, self, Tail(np.float32(best)))  # type: ignore[arg-type]

    def with_gaps(self) -> Self:
        return dataclasses.replace(self, n_trained=_N_TRAINED)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative log-likelihood, or the negative bound where cells are spread or missing."""
        bound = self._bound(batch, key, self.n_trained)
        decay = self.decay / self.n_rows * self.layers.square()
        return Loss(decay - weighted_mean(bound, batch.weight), {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The same with more draws."""
        return self._bound(batch, key, _N_HELD_OUT if any(self.spread) else self.n_trained)

    def _bound(self, batch: Batch, key: Array, n_draws: int) -> Array:
        keys, gaps = jax.random.split(key, batch.n_rows), self.n_trained > 1
        return importance_bound(self._weighted(batch, n_draws, keys, gaps)[1])

    # ---- density -------------------------------------------------------------------------------------------

    def kinds(self, observed: np.ndarray) -> np.ndarray:
        """A bound where a cell is missing or spread over an interval."""
        exact = (observed & ~np.asarray(self.spread, bool)).all(axis=1)
        return np.where(exact, "exact", "bound").astype("<U8")

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """log p(places, gaps) - log q(noise, gaps); the same n_draws times where nothing is spread or missing."""
        if any(self.spread):
            return self._weighted(batch, n_draws, keys)[1]
        whole = jnp.all(batch.observed, axis=1)
        # by itself, so that a row's answer does not depend on whether another one has gaps
        exact = jnp.broadcast_to(self._weighted(batch, 1, keys, gaps=False)[1], (batch.n_rows, n_draws))

        def with_gaps() -> Array:
            return jnp.where(whole[:, None], exact, self._weighted(batch, n_draws, keys)[1])

        return jax.lax.cond(jnp.all(whole), lambda: exact, with_gaps)

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        bent, log_weights = self._weighted(batch, max(_N_CODES, n_draws), keys)

        def one_row(key: Array, bent: Array, log_weights: Array) -> Array:
            chosen = bent[resample(jax.random.fold_in(key, 1), log_weights, n_draws)]
            return cells_at(self.likelihood, self.margins.inverse(chosen))

        return jax.vmap(one_row)(keys, bent, log_weights)

    def _weighted(self, batch: Batch, n_draws: int, keys: Array, gaps: bool = True) -> tuple[Array, Array]:
        """Rows bent by the margins, whole, (n_rows, n_draws, n_columns), and their log weights (n_rows, n_draws)."""
        n_columns = self.likelihood.n_columns
        where = intervals(self.likelihood, batch.values)

        def one_row(key: Array, where: Intervals, observed: Array, given: Array) -> tuple[Array, Array]:
            key_cells = jax.random.fold_in(key, 2)
            uniform = jax.random.uniform(key_cells, (n_draws, n_columns)) if any(self.spread) else None
            bent, moved = self._bent(where, uniform, observed)
            bent, moved = (jnp.broadcast_to(part, (n_draws, n_columns)) for part in (bent, moved))
            return bent, jnp.sum(jnp.where(observed, moved, 0.0), axis=1)

        bent, moved = jax.vmap(one_row)(keys, where, batch.observed, batch.given)

        def filled() -> tuple[Array, Array]:
            def one_row(key: Array, bent: Array, observed: Array) -> tuple[Array, Array]:
                key_noise, key_width = jax.random.split(jax.random.fold_in(key, 0))
                noise = jax.random.normal(key_noise, bent.shape)
                return self.gaussian.fill(bent, observed, noise, jax.random.uniform(key_width, (n_draws,)))

            rows, log_q = jax.vmap(one_row)(keys, bent, batch.observed)
            return rows, moved - log_q

        if gaps:
            bent, moved = jax.lax.cond(jnp.all(batch.observed), lambda: (bent, moved), filled)
        flat = bent.reshape(batch.n_rows * n_draws, n_columns)
        codes, log_det = self._codes(flat, jnp.repeat(batch.given, n_draws, axis=0))
        log_p = jnp.sum(log_normal_density(codes), axis=1) + log_det
        return bent, log_p.reshape(moved.shape) + moved

    def _bent(self, where: Intervals, uniform: Array | None, observed: Array) -> tuple[Array, Array]:
        """Through noise and margins: (..., n_columns), and log of each cell's slope and -log q, nats."""
        places, moved = (where.edge, 0.0) if uniform is None else where.at(uniform)
        bent, slope = self.margins(jnp.where(observed, places, 0.0))
        return bent, moved + slope

    def _codes(self, bent: Array, given: Array) -> tuple[Array, Array]:
        white, log_scale = self.gaussian.whiten(bent)
        codes, log_det = self.layers.codes(white, given)
        codes, at_tail = self.tail(codes)
        return codes, log_det + log_scale + at_tail

    # ---- codes ---------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Array]:
        """The middle of each cell's interval, gaps at the Gaussian's mean given the other cells."""
        where = intervals(self.likelihood, batch.values)
        middle = jnp.full(batch.observed.shape, 0.5) if any(self.spread) else None
        bent, _ = self._bent(where, middle, batch.observed)

        def filled() -> Array:
            def one_row(bent: Array, observed: Array) -> Array:
                return self.gaussian.fill(bent[None], observed, jnp.zeros_like(bent)[None], jnp.zeros(1))[0][
                    0
                ]

            return jax.vmap(one_row)(bent, batch.observed)

        bent = jax.lax.cond(jnp.all(batch.observed), lambda: bent, filled)
        return self.split(self._codes(bent, batch.given)[0])

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        """The row at a code: exactly the one that was encoded."""
        return self._rows(self.join(codes), given)

    def sample(self, key: Array, n: int, given: Array) -> Array:
        return self._rows(jax.random.normal(key, (n, self.n_components)), given)

    def _rows(self, codes: Array, given: Array) -> Array:
        bent = self.gaussian.colour(self.layers.rows(self.tail.inverse(codes), given))
        return cells_at(self.likelihood, self.margins.inverse(bent))


@devices.compiled
def _places(likelihood: JointLikelihood, values: Array, uniform: Array) -> Array:
    return intervals(likelihood, values).at(uniform)[0]


@devices.compiled
def _lengths(model: FlowModel, batch: Batch, key: Array) -> tuple[Array, Array]:
    """Squared lengths of rows' codes and their log weights, (n_rows, n_draws) each; of a model with a normal tail."""
    n_draws = _N_HELD_OUT if any(model.spread) else model.n_trained
    bent, log_weights = model._weighted(
        batch, n_draws, jax.random.split(key, batch.n_rows), model.n_trained > 1
    )
    flat = bent.reshape(batch.n_rows * n_draws, bent.shape[2])
    codes, _ = model._codes(flat, jnp.repeat(batch.given, n_draws, axis=0))
    return jnp.sum(codes**2, axis=1).reshape(log_weights.shape), log_weights


@devices.compiled
def _fitted_margins(start: Margins, places: Array, observed: Array, n_steps: int = 300) -> Margins:
    """Each column's own margin of greatest likelihood under a normal law, by Adam, a row's worth of prior beside."""
    adam = optax.adam(optax.cosine_decay_schedule(0.05, n_steps))

    def loss(margins: Margins) -> Array:
        bent, slope = margins(jnp.where(observed, places, 0.0))
        nats = jnp.sum(jnp.where(observed, slope - 0.5 * bent**2, 0.0), axis=0)
        return jnp.sum((0.5 * jnp.sum(margins.raw**2, axis=0) - nats) / (jnp.sum(observed, axis=0) + 1.0))

    def step(_: int, carry: tuple[Margins, optax.OptState]) -> tuple[Margins, optax.OptState]:
        margins, state = carry
        update, state = adam.update(jax.grad(loss)(margins), state)
        return eqx.apply_updates(margins, update), state

    return jax.lax.fori_loop(0, n_steps, step, (start, adam.init(start)))[0]


class NormalizingFlow(DiaboloEstimator):
    """Normalizing flow: an invertible map from rows to independent normal numbers, whose density is one formula.

    ```
    x ─▶ dequantization ─▶ margins ─▶ whitening ─▶ spline layers ─▶ code ~ N(0, I)        and all the way back
    ```

    Its code has one number for each column: nothing is lost, and nothing is summed up. As independent numbers behind
    the columns it is a nonlinear ICA, with the caveat that many codes fit the same density (Hyvärinen & Pajunen 1999).

    Parameters
    ----------
    transformation : "autoregressive", each number's spline is said by all numbers before it, and drawing a row takes a
        pass per column; or "coupling", said by the first half of them, one pass each way
    n_layers : layers of splines, each in another order of the columns
    n_bins : of each spline, between which it is smooth
    hidden_layer_sizes : of the networks that say the splines; all of one width; "auto" is 64
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    weight_decay : precision of a normal prior on the networks' weights, which the whole table is weighed against
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out nats have not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out nats win
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells
    density_kind_ : of rows without gaps: "exact" where every column is real or positive, without a grid or atoms, else
        "bound": a cell on a grid, an atom or a level is the integral over an interval, by draws. Rows with gaps have
        a bound, too

    References
    ----------
    Rezende & Mohamed 2015, arXiv:1505.05770, eq. 6; Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057; Durkan,
    Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032. Dequantization: Theis, van den Oord & Bethge 2016,
    arXiv:1511.01844, as importance sampling. The layers are flowjax's.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import NormalizingFlow
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> flow = NormalizingFlow(n_layers=1, max_steps=100, random_state=0).fit(X)
    >>> flow.density_kind_, bool(np.allclose(flow.inverse_transform(flow.transform(X)), X, atol=1e-4))
    ('exact', True)
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: admitted
            for name, admitted in DiaboloEstimator._constraints.items()
            if name not in ("n_components", "network")
        },
        "transformation": [OneOf("autoregressive", "coupling")],
        "n_layers": [Range(1, whole=True)],
        "weight_decay": [Range(0.0)],
        "n_bins": [Range(2, 50, whole=True)],
    }

    def __init__(
        self,
        transformation="autoregressive",
        *,
        n_layers=2,
        n_bins=8,
        hidden_layer_sizes="auto",
        activation="silu",
        weight_decay=30.0,
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
        self.transformation = transformation
        self.n_layers = n_layers
        self.n_bins = n_bins
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.weight_decay = weight_decay
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

    def build(self, schema: Schema, key: Array) -> FlowModel:
        """The untrained network for a table."""
        likelihood = schema.likelihood()
        n_columns = likelihood.n_columns
        widths = layer_sizes(self.hidden_layer_sizes, (64,))
        if not widths or len(set(widths)) > 1:
            want = "one hidden layer or more, all of one width: flowjax's networks have no others"
            raise refuse("parameter 'hidden_layer_sizes'", got=repr(self.hidden_layer_sizes), want=want)
        sizes = (n_columns, schema.given_width, int(self.n_layers), widths[0], len(widths))
        plan = FlowPlan(self.transformation, *sizes, self.activation, int(self.n_bins))
        return FlowModel(
            likelihood=likelihood,
            margins=Margins.standard(n_columns),
            gaussian=Gaussian.standard(n_columns),
            layers=FlowLayers.starting(plan, children(key, 1)[0]),
            tail=Tail.normal(),
            code_widths=(("code", n_columns),),
            n_rows=np.ones((), np.float32),  # type: ignore[arg-type]
            **self._objective(),
            spread=tuple(spread_columns(likelihood).tolist()),
            n_trained=_N_TRAINED if schema.gaps.any() else 1,
        )

    def _objective(self) -> dict[str, Any]:
        return {"decay": np.asarray(0.5 * self.weight_decay, np.float32)}
