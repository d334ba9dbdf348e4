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
    padded_size,
)
from diabolo.keys import seed_of
from diabolo.model import Loss, Model, State, untrained
from diabolo.nets import ACTIVATIONS, MLP, Network
from diabolo.objectives import weighted_mean
from diabolo.table import Rows, Schema
from diabolo.wiring import layer_sizes

__all__ = ["NonlocalManifoldParzen"]

_START = 0.1  # of the network's answers: kernels begin on their rows
_WIDENED = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)  # variances added to judge by, in shares of the first one
_N_LOOKED_AT = 12  # neighbours of a row at one step; of more, as many by chance
_N_JUDGED, _N_CLOSEST = 500, 5  # held-out rows looked at each round, and the kernels that each is judged by


class NonlocalModel(KernelModel):
    """Kernels whose centre, spread and directions a network reads off their row.

    ```
    xᵢ ─▶ network ─▶ μᵢ, σᵢ², directions Fᵢ ─▶ loss: -log N(neighbours of xᵢ; xᵢ + μᵢ, σᵢ² I + Fᵢᵀ Fᵢ)
    ```

    Training begins at one kernel for all rows, that of greatest likelihood; what the network says moves away from it.
    """

    likelihood: JointLikelihood
    kernels: Kernels
    chart: Chart
    network: Network
    decay: Array  # (), nats per row and squared weight
    start: Array  # (n_directions, n_block) of the one kernel for all rows that suits neighbours best
    closeness: Array  # () log of its σ²
    rows: Batch | None  # training rows, and of each its nearest; while training only
    near: Array | None  # (n_rows, n_neighbors)
    near_held: Array | None  # (n_held_out, 5)
    smoothing: Array  # (2,)
    merit: Array  # ()
    asked: tuple[Any, ...] = eqx.field(static=True)  # bandwidth, smoothing, neighbours
    n_directions: int = eqx.field(static=True)
    has_gaps: bool = eqx.field(static=True)  # have the training rows any?
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def trainable(self) -> Self:
        """The network alone."""
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
        turned = factor.reshape(len(answer), self.n_directions, n_block)
        reach = jnp.sqrt(jnp.mean(self.start**2, axis=1, keepdims=True) + (_START * root) ** 2)
        return _START * root * move, noise, self.start + reach * turned

    def _around(self, kernels_of: Batch, judged: Batch, widened: Array | float = 0.0) -> Array:
        """Log-density of rows (n, n_judged) under kernels of rows (n,), a variance added: nats of the block."""
        division = self.kernels.division
        x, seen = division.block(kernels_of.values, kernels_of.observed)
        move, noise, factor = self.said(kernels_of)
        variance = jnp.maximum(noise[:, None] + widened, division.floor**2)
        variance = jnp.where(seen, variance, jnp.maximum(variance, division.spread**2))
        y, there = jax.vmap(division.block)(judged.values, judged.observed)  # (n, n_judged, n_block)
        if self.has_gaps:  # there a kernel is the column's marginal law, as in `Places`
            centre = x + move * seen
            return low_rank_log_prob(y, there.astype(y.dtype), centre, variance, factor * seen[:, None, :])
        return low_rank_log_prob(y, None, x + move, variance, factor)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Minus the mean log-density of each row's neighbours under its kernel, and the weights' prior."""
        assert self.rows is not None and self.near is not None, "set by `begin`"
        near = self.near[batch.target]
        if near.shape[1] > _N_LOOKED_AT:
            some = jax.random.randint(key, (len(near), _N_LOOKED_AT), 0, near.shape[1])
            near = jnp.take_along_axis(near, some, axis=1)
        nats = jnp.mean(self._around(batch, self.rows[near]), axis=1)
        weights = jax.tree.leaves(eqx.filter(self.network, eqx.is_inexact_array))
        square = sum(jnp.sum(array**2) for array in weights)
        return Loss(-weighted_mean(nats, batch.weight) + self.decay * square, {}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """Log of the nearest kernels' mean density at held-out rows; of all kernels few others would count.

        At the width, of some, that suits best: one is added after training, and the narrower the network has made
        kernels around the neighbours that it knows, the more is.
        """
        assert self.rows is not None and self.near_held is not None, "set by `begin`"
        near = self.near_held[batch.target]  # (n, 5)
        kernels_of = self.rows[near.reshape(-1)]
        judged = jax.tree.map(lambda leaf: jnp.repeat(leaf, near.shape[1], axis=0)[:, None], batch)

        def at(share: Array) -> Array:
            nats = self._around(kernels_of, judged, share * jnp.exp(self.closeness)).reshape(near.shape)
            nats = jax.nn.logsumexp(nats, axis=1) - jnp.log(near.shape[1])
            return nats if batch.weight is None else batch.weight * nats

        found = jax.lax.map(at, jnp.array(_WIDENED))
        return found[jnp.argmax(jnp.mean(found, axis=1))]

    def begin(self, batches: Batches, key: Array) -> Self:
        """Find the neighbours of every row; of rows that only fill up the arrays they are never asked for."""
        _, _, n_neighbors = self.asked
        n_true = batches.train.n_rows if batches.n_true is None else int(batches.n_true)
        learner, seed = Learner.of(self.kernels, batches.train[:n_true], 0), seed_of(key) % 2**31
        every = np.arange(n_true)
        x, n_near = learner.block(every), min(n_neighbors, n_true - 1)
        near = nearest(x, n_near, seed) if n_near else every[:, None]
        start, noise = _one_for_all(x, near, self.n_directions)
        near_held = None
        if batches.held_out is not None:
            held = Learner.of(self.kernels, batches.held_out, 0)
            queries = held.block(np.arange(held.n_rows))
            near_held = nearest(x, min(_N_CLOSEST, n_true), seed, queries).astype(np.int32)
        near = np.pad(near, ((0, batches.train.n_rows - n_true), (0, 0)))
        rows = Batch(batches.train.values, batches.train.observed, batches.train.given)
        return eqx.tree_at(
            lambda model: (
                model.decay,
                model.start,
                model.closeness,
                model.rows,
                model.near,
                model.near_held,
            ),
            self,
            (
                self.decay / np.float32(n_true),
                start.astype(np.float32),
                np.float32(np.log(max(noise, 1e-8))),
                rows,
                near.astype(np.int32),
                near_held,
            ),
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
        kernels = learner.places_as_said(said).at(settled.smoothing)
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
    weight_decay : precision of a normal prior on the network's weights, which all rows together are weighed against
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
    kept orthogonal, so that all is trained together by gradients; the added noise is settled after training, which
    begins at the best single kernel for all rows (Tipping & Bishop 1999).

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
        "weight_decay": [Range(0.0)],
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
        weight_decay=0.0,
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
        self.weight_decay = weight_decay
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
            decay=np.float32(0.5 * self.weight_decay),  # type: ignore[arg-type]
            start=np.zeros((n_directions, n_block), np.float32),  # type: ignore[arg-type]
            closeness=np.zeros((), np.float32),  # type: ignore[arg-type]
            rows=None,
            near=None,
            near_held=None,
            asked=(self.bandwidth, self.smoothing, int(self.n_neighbors)),
            n_directions=n_directions,
            has_gaps=bool(schema.gaps.any()),
        )

    def _batch_size(self, rows: Rows) -> int:
        """128, of few rows a power of two that is at most half of them: classes of like sizes then share programs."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        return int(2 ** np.clip(np.floor(np.log2(max(len(rows.values) / 2, 1))), 3, 7))

    def _trained(
        self,
        build: Callable[[Array], Model],
        batches: Batches,
        schedule: engine.Schedule,
        seed: int,
        on_round: engine.OnRound | None,
    ) -> engine.Run:
        """The best of `n_init` starts; each row says its number, by which its neighbours are known."""
        numbered = _numbered(batches, seed)
        begun = lambda key: build(key).begin(numbered, key)  # noqa: E731
        run = restarts.best_of(self.n_init, begun, numbered, schedule, seed, on_round=on_round)
        return run._replace(model=self._finished(run.model, batches, seed, self.n_init))


def _numbered(batches: Batches, seed: int) -> Batches:
    """The same rows, each with its number for a target, and filled up: numbers of rows alike share a program.

    At most 500 held-out rows are kept, and weighed so that the mean over all is the mean over the true ones.
    """
    train, held = _filled(batches.train), batches.held_out
    if held is not None:
        n_held = min(held.n_rows, _N_JUDGED)
        # they lie in the table's order: the first of them need not be like the others
        some = np.random.default_rng(seed).permutation(held.n_rows)[:n_held]
        held = _filled(held[np.sort(some)])
        weight = np.where(np.arange(held.n_rows) < n_held, held.n_rows / n_held, 0.0).astype(np.float32)
        held = eqx.tree_at(lambda one: one.weight, held, weight, is_leaf=lambda leaf: leaf is None)
    parts = devices.everywhere((train, held, np.int32(batches.train.n_rows)))
    return Batches(parts[0], parts[1], n_true=parts[2], batch_size=batches.batch_size)


def _filled(batch: Batch) -> Batch:
    """Numbered rows, with empty ones up to a size that other tables have as well; on the host."""
    short = padded_size(batch.n_rows) - batch.n_rows
    parts = (batch.values, batch.observed, batch.given)
    values, observed, given = (np.pad(np.asarray(part), ((0, short), (0, 0))) for part in parts)
    return Batch(values, observed, given, np.arange(len(values), dtype=np.int32))  # type: ignore[arg-type]


def _with_directions(kernels: Kernels, n_directions: int) -> Kernels:
    """A mixture without kernels, with room for directions."""
    factor = np.zeros((0, n_directions, kernels.division.n_block), np.float32)
    return eqx.tree_at(lambda one: one.factor, kernels, factor)


def _one_for_all(x: np.ndarray, near: np.ndarray, n_directions: int) -> tuple[np.ndarray, float]:
    """Directions (n_directions, n_block) and noise of the one kernel under which neighbours (n, n_neighbors) of rows
    (n, n_block) are likeliest.

    Source: Tipping & Bishop 1999, eq. 7 and 8, of the differences, whose mean is taken for 0.
    """
    n_block = x.shape[1]
    start = np.zeros((n_directions, n_block))
    if not n_block:
        return start, 1.0
    apart = (x[near] - x[:, None]).reshape(-1, n_block)
    squares, axes = np.linalg.eigh(apart.T @ apart / len(apart))
    top, axes = squares[::-1][:n_directions], axes[:, ::-1][:, :n_directions]
    rest = squares[: n_block - n_directions]
    noise = rest.mean() if len(rest) else 0.5 * top[-1]
    start[:] = (np.sqrt(np.maximum(top - noise, 0.0)) * axes).T
    return start, float(noise)
