"""The masked autoencoder for distribution estimation (Germain, Gregor, Murray & Larochelle 2015)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.batches import Batch, Batches
from diabolo.checks import Range, refuse
from diabolo.conditionals import Conditionals
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.keys import children, host_generator
from diabolo.masked import MaskedMLP
from diabolo.model import DirectModel, Loss, State
from diabolo.objectives import weighted_mean
from diabolo.orders import orders_of, ranks_after
from diabolo.table import Schema
from diabolo.wiring import layer_sizes

__all__ = ["MADE"]

#: What each network has of its own; the model's have a first axis of networks.
Weights = tuple[MaskedMLP, Array]

_HIDDEN = (500,)
_N_GROUPS = 8  # rows drawn side by side come in at least so many: one wide group took 2.5 times as long
_CACHED = (
    2**18
)  # numbers of the rows drawn at once that stay in a core's cache: 784 columns took half as long again
_N_AVERAGED = 200  # last steps whose weights are averaged
_N_HELD = 4  # orders averaged where training looks at held-out rows, or one of each network


class MaskedModel(DirectModel):
    """Products of conditional laws, each of one masked network in one order, averaged over orders and networks.

    ```
    x ─▶ network k, columns in order o ─▶ parameters ─▶ log p_ko(x) = Σ_d log p(x_d | x before d)
    log p(x) = log mean over k and o of p_ko(x)
    ```

    Attributes
    ----------
    network : masked; every array has a first axis of networks
    shared : (n_networks, n_shared) what all rows share, a tenth of what it adds
    start : (n_free + n_shared,) the marginal laws' parameters, not trained
    centre : (width,) the training rows' mean, not trained
    n_rows : () training rows, not trained
    orders : (n_networks, n_orders, n_columns) int, the place of every column in each order, from 1
    agnostic : () share of the training steps that draw an order of their own, not trained
    decay : () half the precision of the normal prior on all weights, not trained
    dropout : static; share of the hidden units dropped in a training step
    gaps : static; whether training rows have any
    """

    likelihood: JointLikelihood
    network: MaskedMLP
    shared: Array
    start: Array
    centre: Array
    n_rows: Array
    orders: Array
    agnostic: Array
    decay: Array
    dropout: float = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    density_kind: ClassVar[str] = "exact"
    keeps_best: ClassVar[bool] = True

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.start, self.centre, self.n_rows, self.agnostic, self.decay)

    @property
    def _weights(self) -> Weights:
        """What each network has of its own."""
        return self.network, self.shared

    def _laws(self, weights: Weights) -> Conditionals:
        """Of one network."""
        return Conditionals(self.likelihood, *weights, self.start, self.centre, self.dropout)

    def _first(self) -> Conditionals:
        return self._laws(jax.tree.map(lambda leaf: leaf[0], self._weights))

    def _log_prob(self, laws: Conditionals) -> Callable[..., Array]:
        return laws.log_prob_gappy if self.gaps else laws.log_prob

    # ---- training ------------------------------------------------------------------------------------------

    def begin(self, batches: Batches, key: Array) -> Self:
        """The mean of the training rows' observed cells."""
        train = jax.tree.map(np.asarray, batches.train)
        seen = train.observed[:, self.likelihood.column_of_value]
        n_seen = np.maximum(seen.sum(axis=0), 1)
        centre = np.where(seen, train.values, 0.0).sum(axis=0, dtype=np.float64) / n_seen
        begun = centre.astype(np.float32), np.float32(train.n_rows)
        return eqx.tree_at(lambda model: (model.centre, model.n_rows), self, begun)

    def with_gaps(self) -> Self:
        return dataclasses.replace(self, gaps=True)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Mean of -log p_ko(observed cells) over networks, o drawn anew: an upper bound on that of the average.

        Source: Germain et al. 2015, section 4.1; orders beyond a list, Uria, Murray & Larochelle 2014, eq. 8,
        arXiv:1310.1757, but all conditionals of the order at once.
        """

        def price(weights: Weights, orders_and_key: tuple[Array, Array]) -> tuple[Array, Array]:
            orders, key = orders_and_key
            key_share, key_new, key_old, key_drop = jax.random.split(key, 4)
            new = 1 + jax.random.permutation(key_new, orders.shape[1])
            old = orders[jax.random.randint(key_old, (), 0, len(orders))]
            ranks = jnp.where(jax.random.bernoulli(key_share, self.agnostic), new, old)
            keys = jax.random.split(key_drop, batch.n_rows) if self.dropout else None
            laws = self._laws(weights)
            value = weighted_mean(self._log_prob(laws)(batch, ranks, keys), batch.weight)
            return self.decay * laws.network.square() / self.n_rows - value, value

        keys = jax.random.split(key, len(self.orders))
        loss, value = _mean_of_each(price, self._weights, (self.orders, keys))
        return Loss(loss, {"log_likelihood": value}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """log p of the average over the first few orders, nothing dropped."""
        few = self.orders[:, : max(_N_HELD // len(self.orders), 1)]
        each = self._by_order(few, lambda laws, ranks: self._log_prob(laws)(batch, ranks))
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(each))

    # ---- density -------------------------------------------------------------------------------------------

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, n_networks · n_orders) nats: log p_ko(observed cells), each an exact density of its own.

        With gaps the order is followed through the observed columns; the missing ones come last and sum to one.
        """
        return self._by_order(self.orders, lambda laws, ranks: laws.log_prob_where_whole(batch, ranks)).T

    def _by_order(self, orders: Array, function: Callable[[Conditionals, Array], Array]) -> Array:
        """(n_networks · n_orders, ...) a function of each network's laws in each of its orders."""

        def of_network(one: tuple[Weights, Array]) -> Array:
            weights, orders = one
            return lax.map(lambda ranks: function(self._laws(weights), ranks), orders)

        each = lax.map(of_network, (self._weights, orders))
        return each.reshape(-1, *each.shape[2:])

    # ---- codes ---------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Array]:
        """The first network's last hidden layer in its first order, gaps at their column's mean."""
        return {"hidden": self._first().hidden(batch, self.orders[0, 0])}

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        """Each column's typical value given those before it in the first network's first order."""
        return self._first().typical(codes["hidden"], self.orders[0, 0], given.shape[1])

    # ---- draws ---------------------------------------------------------------------------------------------

    def sample(self, key: Array, n: int, given: Array) -> Array:
        """As many rows of each order as of any other, dealt out at random, so that every row is a draw of the mean."""
        key_place, key_cells = jax.random.split(key)
        n_networks, n_orders, _ = self.orders.shape
        orders = jnp.tile(self.orders, (1, -(-_N_GROUPS // (n_networks * n_orders)), 1))
        n_each = -(-n // (n_networks * orders.shape[1]))
        dealt = (n_networks, orders.shape[1], n_each)
        n_all = math.prod(dealt)
        place = jax.random.permutation(key_place, n_all)[:n]
        conditions = jnp.zeros((n_all, given.shape[1]), given.dtype).at[place].set(given)
        keys = jax.random.split(key_cells, n_all)

        def of_network(one: tuple[Weights, Array, Array, Array]) -> Array:
            weights, ranks, given, keys = one
            laws = self._laws(weights)
            of_order = jax.vmap(laws.draw, in_axes=(0, None, 0))
            n_numbers = len(laws.centre) + sum(map(len, laws.network.degrees))
            n_groups = _drawn_at_once(len(ranks), n_each * n_numbers)
            return lax.map(lambda group: of_order(*group), (given, ranks, keys), batch_size=n_groups)

        each = (self._weights, orders, conditions.reshape(*dealt, given.shape[1]), keys.reshape(dealt))
        return lax.map(of_network, each).reshape(n_all, self.likelihood.width)[place]

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """Each draw in one order that ends with the gaps, chosen by how likely it finds the observed cells."""

        def of_row(row_and_key: tuple[Batch, Array]) -> Array:
            row, key = row_and_key
            key_network, key_each = jax.random.split(key)
            n_known = jnp.sum(row.observed)

            def of_network(one: tuple[Weights, Array, Array]) -> tuple[Array, Array]:
                weights, orders, key = one
                laws, (key_order, key_cells) = self._laws(weights), jax.random.split(key)
                ranks = jax.vmap(ranks_after, in_axes=(0, None))(orders, row.observed)

                def seen(ranks: Array) -> tuple[list[Array], Array]:
                    log_prob, hidden = laws.log_prob_and_hidden(row, ranks, None, own=True)
                    known = [degrees <= n_known for degrees in laws.network.degrees]
                    return [jnp.where(k, unit, 0.0) for k, unit in zip(known, hidden, strict=True)], log_prob

                hidden, log_probs = jax.vmap(seen)(ranks)
                chosen = jax.random.categorical(key_order, log_probs, shape=(n_draws,))
                draw = jax.vmap(laws.draw_rest, in_axes=(None, 0, 0, None, 0))
                cell_keys = jax.random.split(key_cells, n_draws)
                drawn = draw(row, ranks[chosen], [unit[chosen] for unit in hidden], n_known, cell_keys)
                return drawn, jax.nn.logsumexp(log_probs)

            # every network draws all: to choose first would copy one's weights for every draw
            each = (self._weights, self.orders, jax.random.split(key_each, len(self.orders)))
            drawn, log_probs = lax.map(of_network, each)
            chosen = jax.random.categorical(key_network, log_probs, shape=(n_draws,))
            return drawn[chosen, jnp.arange(n_draws)]

        return lax.map(of_row, (batch, keys))


def _drawn_at_once(n_groups: int, n_numbers: int) -> int:
    """How many groups of rows, each of so many numbers, are drawn at once: a divisor, as what is left is compiled anew.

    A processor takes what its cache holds, but never one group alone, which takes twice as long; others take all.
    """
    divisors = [n for n in range(2, n_groups + 1) if n_groups % n == 0] or [1]
    if jax.default_backend() != "cpu":
        return divisors[-1]
    return max((n for n in divisors if n * n_numbers <= _CACHED), default=divisors[0])


def _mean_of_each(
    price: Callable[[Weights, Any], tuple[Array, Array]], weights: Weights, others: Any
) -> tuple[Array, Array]:
    """The means over networks of a price and of what is told with it, which nothing is differentiated by.

    Each network's slope is taken while its own masks are at hand: a loop that is differentiated as it stands keeps
    all of them for the way back, and took a third longer.
    """

    @jax.custom_vjp
    def every(weights: Weights) -> tuple[Array, Array]:
        return jax.tree.map(jnp.mean, lax.map(lambda one: price(*one), (weights, others)))

    def ahead(weights: Weights) -> tuple[tuple[Array, Array], Weights]:
        prices, slopes = lax.map(lambda one: jax.value_and_grad(price, has_aux=True)(*one), (weights, others))
        return jax.tree.map(jnp.mean, prices), slopes

    def back(slopes: Weights, change: tuple[Array, Array]) -> tuple[Weights]:
        return (jax.tree.map(lambda slope: change[0] / len(slope) * slope, slopes),)

    every.defvjp(ahead, back)
    return every(weights)


class MADE(DiaboloEstimator):
    """Masked autoencoder: an exact density, each column told from those before it.

    ```
    x ─▶ masked network, order o ─▶ p(x_d | x before d in o), all d at once ─▶ log p_o(x)
    p(x) = mean of p_o(x) over the orders o, and over networks where there are several
    ```

    Every order is an exact density of its own, and so is their mean: there is no code to integrate over. A row with
    gaps is read in orders that end with them, which is exact as well: a density of the observed cells, whatever is
    missing. It is the integral over the gap of the same orders' density of whole rows, not of other orders': taking a
    cell away also changes the orders that a row is read in.

    Parameters
    ----------
    hidden_layer_sizes : widths of the masked hidden layers, one or more; "auto" is one of 500
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    n_orders : orders of each network, one taken at every step, all averaged in every reading
    orders : the first of all orders, each a list of every column by name or position, the first network's first; others
        are drawn. None is that of the columns; of images `diabolo.orders.scans(image_shape)` are worth a try
    n_networks : networks, each of its own weights and orders, trained side by side and averaged in every reading
    agnostic : share of the training steps that take an order drawn afresh: 0 is best for whole rows, more for rows
        whose gaps training rows did not have
    n_parts : laws mixed for each cell that holds a quantity; 1 is a single law with one scale per column
    direct : weights from every column to all later ones beside those through the hidden layers
    dropout : share of the hidden units dropped in a training step
    weight_decay : precision of a normal prior on the networks' weights, which the whole table is weighed against
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out density has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out density wins
    warm_start : go on from the last fit, its sizes and orders as they were
    random_state : seed of weights, orders, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells; the loss is
        of one order at a time, the score of four together or of one of each network, with nothing dropped
    density_kind_ : "exact"

    Notes
    -----
    `transform` gives the last hidden layer in the first order, gaps at their column's mean. It is no bottleneck: unit
    k sees the first m_k columns only. `inverse_transform` says each column's typical value given the columns before
    it, by the hidden layer alone (without the direct weights), so `reconstruct` never returns a row as it was.

    References
    ----------
    Germain, Gregor, Murray & Larochelle 2015, MADE, arXiv:1502.03509: masks, direct weights, several orders, their
    mean in probability; degrees are spread evenly there by chance, here by rule. Order-agnostic training and orders
    that end with the gaps: Uria, Murray & Larochelle 2014, arXiv:1310.1757. Mixtures: Uria, Murray & Larochelle 2013,
    arXiv:1306.0186.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import MADE
    >>> X = load_iris().data
    >>> made = MADE(max_steps=200, random_state=0).fit(X)
    >>> made.score_samples(X).shape, made.sample(5).shape, made.density_kind_
    ((150,), (5, 4), 'exact')
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: admitted
            for name, admitted in DiaboloEstimator._constraints.items()
            if name not in ("n_components", "network")
        },
        "n_orders": [Range(1, whole=True)],
        "orders": [None, list, tuple, np.ndarray],
        "agnostic": [Range(0.0, 1.0)],
        "n_parts": [Range(1, whole=True)],
        "direct": [bool, np.bool_],
        "dropout": [Range(0.0, 1.0, open_high=True)],
        "n_networks": [Range(1, whole=True)],
        "weight_decay": [Range(0.0)],
    }

    def __init__(
        self,
        hidden_layer_sizes="auto",
        *,
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        n_orders=8,
        orders=None,
        n_networks=1,
        agnostic=0.2,
        n_parts=8,
        dropout=0.2,
        direct=True,
        weight_decay=0.0,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.n_orders = n_orders
        self.orders = orders
        self.n_networks = n_networks
        self.agnostic = agnostic
        self.n_parts = n_parts
        self.dropout = dropout
        self.direct = direct
        self.weight_decay = weight_decay
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

    def build(self, schema: Schema, key: Array) -> MaskedModel:
        """The untrained network for a table."""
        likelihood = schema.likelihood(self.n_parts)
        sizes = layer_sizes(self.hidden_layer_sizes, _HIDDEN)
        if not sizes:
            raise refuse("parameter 'hidden_layer_sizes'", got="no layer", want="one hidden layer or more")
        key_weights, key_orders = children(key, 2)
        n_columns, n_networks = likelihood.n_columns, int(self.n_networks)
        networks = [
            MaskedMLP(
                likelihood.width + schema.given_width,
                likelihood.n_free,
                n_columns,
                sizes,
                self.activation,
                key,
                conditions=schema.given_width > 0,
                direct=self.direct,
            )
            for key in children(key_weights, n_networks)
        ]
        n_orders = int(self.n_orders)
        orders = orders_of(schema, self.orders, n_networks * n_orders, host_generator(key_orders))
        return MaskedModel(
            likelihood=likelihood,
            network=jax.tree.map(lambda *leaves: np.stack(leaves), *networks),
            shared=np.zeros((n_networks, likelihood.n_shared), np.float32),  # type: ignore[arg-type]
            start=np.asarray(likelihood.initial, np.float32),  # type: ignore[arg-type]
            centre=np.zeros(likelihood.width, np.float32),  # type: ignore[arg-type]
            n_rows=np.ones((), np.float32),  # type: ignore[arg-type]
            orders=orders.reshape(n_networks, n_orders, n_columns),  # type: ignore[arg-type]
            gaps=bool(schema.gaps.any()),
            code_widths=(("hidden", sizes[-1]),),
            **self._objective(),
        )

    def _objective(self) -> dict[str, Any]:
        return {
            "agnostic": np.asarray(self.agnostic, np.float32),
            "decay": np.asarray(0.5 * self.weight_decay, np.float32),
            "dropout": float(self.dropout),
        }

    def _n_averaged(self) -> int:
        return _N_AVERAGED
