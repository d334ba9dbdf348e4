"""Non-local manifold Parzen windows: a network says each kernel's shape (Bengio, Larochelle & Vincent 2006)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices, engine, restarts
from diabolo.batches import Batch, Batches
from diabolo.checks import OneOf, Range
from diabolo.joint import JointLikelihood
from diabolo.kernel_estimator import KernelEstimator
from diabolo.kernels import (
    Chart,
    KernelModel,
    Kernels,
    Learner,
    low_rank_log_prob,
    nearest,
)
from diabolo.keys import key_of, seed_of
from diabolo.model import Loss, Model, State, untrained
from diabolo.nets import ACTIVATIONS, MLP, Network
from diabolo.objectives import weighted_mean
from diabolo.table import Schema
from diabolo.wiring import layer_sizes

__all__ = ["NonlocalManifoldParzen"]

_START = 0.1  # of the network's answers: kernels begin round and on their rows
_N_JUDGED, _N_CLOSEST = 500, 5  # held-out rows looked at each round, and the kernels that each is judged by


class NonlocalModel(KernelModel):
    """Kernels whose centre, spread and directions a network reads off their row.

    ```
    xᵢ ─▶ network ─▶ μᵢ, σᵢ², directions Fᵢ ─▶ loss: -log N(neighbours of xᵢ; xᵢ + μᵢ, σᵢ² I + Fᵢᵀ Fᵢ)
    ```
    """

    likelihood: JointLikelihood
    kernels: Kernels
    chart: Chart
    network: Network
    closeness: Array  # () log of a typical squared distance per cell: where log σ² begins
    rows: Batch | None  # training rows, and of each its nearest; while training only
    near: Array | None  # (n_rows, n_neighbors)
    near_held: Array | None  # (n_held_out, 5)
    smoothing: Array  # (2,)
    merit: Array  # ()
    asked: tuple[Any, ...] = eqx.field(static=True)  # bandwidth, smoothing, neighbours
    n_directions: int = eqx.field(static=True)
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        """All but the network."""
        learned = (self.kernels, self.chart, self.closeness, self.rows, self.near, self.near_held)
        return (*super().fixed(), *learned, self.smoothing, self.merit)

    def trainable(self) -> Self:
        none = untrained(self)
        return eqx.tree_at(
            lambda model: model.network, none, jax.tree.map(eqx.is_inexact_array_like, self.network)
        )

    def said(self, batch: Batch) -> tuple[Array, Array, Array]:
        """Of each row: move (n, n_block), noise (n,) and factor (n, n_directions, n_block)."""
        n_block = self.kernels.division.n_block
        answer = jax.vmap(self.network)(batch.values)
        move, factor, spread = jnp.split(answer, [n_block, answer.shape[1] - 1], axis=1)
        root = jnp.exp(0.5 * self.closeness)
        noise = jnp.exp(self.closeness + jnp.clip(spread[:, 0], -12.0, 12.0))
        shape = (len(answer), self.n_directions, n_block)
        # begins with factors as long as the neighbours are far, all directions together
        return _START * root * move, noise, root * factor.reshape(shape) / self.n_directions**0.5

    def _around(self, kernels_of: Batch, judged: Batch) -> Array:
        """Log-density of rows (n, n_judged) under the kernels of rows (n,): nats of the block."""
        division = self.kernels.division
        x, seen = division.block(kernels_of.values, kernels_of.observed)
        move, noise, factor = self.said(kernels_of)
        variance = jnp.maximum(noise[:, None], division.floor**2)
        variance = jnp.where(seen, variance, jnp.maximum(variance, division.spread**2))
        kernel = (x + move, variance, factor * seen[:, None, :])

        def one(values: Array, observed: Array) -> Array:
            y, there = division.block(values, observed)
            return low_rank_log_prob(y, there.astype(y.dtype), *kernel)

        return jax.vmap(one, in_axes=1, out_axes=1)(judged.values, judged.observed)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Minus the mean log-density of each row's neighbours under its kernel."""
        assert self.rows is not None and self.near is not None, "set by `begin`"
        nats = jnp.mean(self._around(batch, self.rows[self.near[batch.target]]), axis=1)
        return Loss(-weighted_mean(nats, batch.weight), {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """Log of the nearest kernels' mean density at held-out rows; of all kernels few others would count."""
        assert self.rows is not None and self.near_held is not None, "set by `begin`"
        batch = batch[:_N_JUDGED]
        near = self.near_held[batch.target]  # (n, 5)
        kernels_of = self.rows[near.reshape(-1)]
        judged = jax.tree.map(lambda leaf: jnp.repeat(leaf, near.shape[1], axis=0)[:, None], batch)
        nats = self._around(kernels_of, judged).reshape(near.shape)
        return jax.nn.logsumexp(nats, axis=1) - jnp.log(near.shape[1])

    def begin(self, batches: Batches, key: Array) -> Self:
        """Find every row's neighbours."""
        _, _, n_neighbors = self.asked
        learner, seed = Learner.of(self.kernels, batches.train, 0), seed_of(key) % 2**31
        every = np.arange(learner.n_rows)
        x, n_near = learner.block(every), min(n_neighbors, learner.n_rows - 1)
        near = nearest(x, n_near, seed) if n_near else every[:, None]
        typical = np.mean(np.square(x[near] - x[:, None])) if n_near and x.shape[1] else 1.0
        near_held = None
        if batches.held_out is not None:
            held = Learner.of(self.kernels, batches.held_out, 0)
            queries = held.block(np.arange(held.n_rows))
            near_held = nearest(x, min(_N_CLOSEST, learner.n_rows), seed, queries).astype(np.int32)
        rows = Batch(batches.train.values, batches.train.observed, batches.train.given)
        return eqx.tree_at(
            lambda model: (model.closeness, model.rows, model.near, model.near_held),
            self,
            (np.float32(np.log(max(typical, 1e-8))), rows, near.astype(np.int32), near_held),
            is_leaf=lambda leaf: leaf is None,
        )

    def finish(self, batches: Batches, key: Array) -> Self:
        """Settle the widths on held-out rows, then put a kernel on every row, held-out ones too."""
        bandwidth, smoothing, _ = self.asked
        learner = Learner.joined(self.kernels, batches, seed_of(key) % 2**31)
        every = Batch(learner.values, learner.observed, np.zeros((learner.n_rows, 0), np.float32))  # type: ignore[arg-type]
        said = tuple(np.concatenate(parts) for parts in zip(*_all_said(self, every), strict=True))
        n_train = batches.train.n_rows if batches.held_out is not None else None
        settled = learner.settled_as_said(bandwidth, smoothing, said, n_train)
        kernels = learner.kernels_as_said(settled.smoothing, said)
        return eqx.tree_at(
            lambda m: (m.kernels, m.chart, m.smoothing, m.merit, m.rows, m.near, m.near_held),
            self,
            (
                kernels,
                learner.chart(self.n_components),
                np.array(settled.smoothing, np.float32),
                np.float32(settled.merit),
                None,
                None,
                None,
            ),
            is_leaf=lambda leaf: leaf is None,
        )


@devices.compiled
def _said(model: NonlocalModel, batch: Batch) -> tuple[Array, Array, Array]:
    return model.said(batch)


def _all_said(model: NonlocalModel, rows: Batch) -> list[tuple[np.ndarray, ...]]:
    """What the network says of many rows, block by block."""
    out = []
    for start in range(0, rows.n_rows, 256):
        part = rows[start : start + 256]
        n, short = part.n_rows, 256 - part.n_rows
        padded = jax.tree.map(lambda leaf, short=short: np.pad(leaf, ((0, short), (0, 0))), part)
        out.append(tuple(np.asarray(answer, np.float64)[:n] for answer in _said(model, padded)))
    return out


class NonlocalManifoldParzen(KernelEstimator):
    """Non-local manifold Parzen windows: one network says every kernel's centre, spread and directions.

    ```
    xᵢ ─▶ network ─▶ μᵢ, σᵢ², Fᵢ         trained on the density of xᵢ's neighbours under its kernel
    x ─▶ 1/n Σᵢ N(x; xᵢ + μᵢ, (σᵢ² + h²) I + Fᵢᵀ Fᵢ) ─▶ p(x)
    ```

    What is learned of directions at one place serves at others: it needs fewer rows there than `ManifoldParzen`.
    Other columns than real ones have kernels as in `ParzenWindow`.

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    n_neighbors : of each row, whose density under its kernel is trained
    n_directions : that the network says for each kernel; "auto" is 7, or as many as there are real columns
    bandwidth : standard deviation added in all directions after training, in spreads of a column; "auto" is the one
        under which held-out rows are likeliest
    smoothing, scaling : as in `ParzenWindow`
    hidden_layer_sizes : widths of the network's hidden layers; "auto" is two of 128
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    image_shape : (height, width[, channels]) of rows that are flattened images
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out density has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that, and for the bandwidth
    n_init : independent starts; the best held-out density wins
    random_state : seed of weights, batches, landmarks and draws
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : network and kernels, the columns
    n_features_in_, feature_names_in_ : of the training data
    bandwidth_, smoothing_ : the widths used
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded real cells
    density_kind_ : "exact"; "bound" with columns of pixels, where a Gaussian's mass beyond black and white is left out

    References
    ----------
    Bengio, Larochelle & Vincent 2006, "Non-local manifold Parzen windows", eq. 2 to 4. Departures: directions are not
    kept orthogonal, so that all is trained together by gradients; the added noise is settled after training.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import NonlocalManifoldParzen
    >>> X = load_iris().data
    >>> windows = NonlocalManifoldParzen(n_directions=2, max_steps=200, random_state=0).fit(X)
    >>> windows.sample(5).shape, windows.score_samples(X).shape
    ((5, 4), (150,))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **KernelEstimator._kernel_constraints,
        "n_neighbors": [Range(1, whole=True)],
        "n_directions": [OneOf("auto"), Range(1, whole=True)],
        "hidden_layer_sizes": [OneOf("auto"), Range(1, whole=True), tuple, list, np.ndarray],
        "activation": [OneOf(*ACTIVATIONS)],
        "batch_size": [OneOf("auto"), Range(1, whole=True)],
        "learning_rate": [OneOf("auto"), Range(0.0, open_low=True)],
        "max_steps": [OneOf("auto"), Range(1, whole=True)],
        "early_stopping": [bool, np.bool_],
        "validation_fraction": [Range(0.0, 1.0, open_low=True, open_high=True)],
        "n_iter_no_change": [Range(1, whole=True)],
        "n_init": [Range(1, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_neighbors=11,
        n_directions="auto",
        bandwidth="auto",
        smoothing="auto",
        scaling="column",
        hidden_layer_sizes="auto",
        activation="silu",
        kinds=None,
        image_shape=None,
        batch_size="auto",
        learning_rate="auto",
        max_steps="auto",
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=20,
        n_init=1,
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.n_directions = n_directions
        self.bandwidth = bandwidth
        self.smoothing = smoothing
        self.scaling = scaling
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_init = n_init
        self.random_state = random_state
        self.verbose = verbose

    def build(self, schema: Schema, key: Array) -> NonlocalModel:
        """The untrained network for a table."""
        blank = self._blank(schema)
        n_block = blank["kernels"].division.n_block
        n_directions = min(7 if self.n_directions == "auto" else int(self.n_directions), n_block)
        sizes = layer_sizes(self.hidden_layer_sizes, (128, 128))
        n_said = n_block * (1 + n_directions) + 1
        blank["kernels"] = _with_directions(blank["kernels"], n_directions)
        return NonlocalModel(
            **blank,
            network=MLP(schema.width, n_said, sizes, self.activation, key),
            closeness=np.zeros((), np.float32),  # type: ignore[arg-type]
            rows=None,
            near=None,
            near_held=None,
            asked=(self.bandwidth, self.smoothing, int(self.n_neighbors)),
            n_directions=n_directions,
        )

    def _trained(
        self,
        build: Callable[[Array], Model],
        batches: Batches,
        schedule: engine.Schedule,
        seed: int,
        on_round: engine.OnRound | None,
    ) -> engine.Run:
        """The best of `n_init` starts; each row says its number, by which its neighbours are known."""
        numbered = _numbered(batches)
        begun = lambda key: build(key).begin(numbered, key)  # noqa: E731
        run = restarts.best_of(self.n_init, begun, numbered, schedule, seed, on_round=on_round)
        return run._replace(model=run.model.finish(batches, key_of(seed, self.n_init)))


def _numbered(batches: Batches) -> Batches:
    """The same rows, each with its number for a target."""

    def number(batch: Batch) -> Batch:
        places = np.arange(batch.n_rows, dtype=np.int32)
        return eqx.tree_at(lambda one: one.target, batch, places, is_leaf=lambda leaf: leaf is None)

    numbered = eqx.tree_at(lambda one: one.train, batches, number(batches.train))
    if batches.held_out is None:
        return numbered
    return eqx.tree_at(lambda one: one.held_out, numbered, number(batches.held_out))


def _with_directions(kernels: Kernels, n_directions: int) -> Kernels:
    """A mixture without kernels, with room for directions."""
    factor = np.zeros((0, n_directions, kernels.division.n_block), np.float32)
    return eqx.tree_at(lambda one: one.factor, kernels, factor)
