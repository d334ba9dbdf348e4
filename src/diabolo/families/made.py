"""The masked autoencoder for distribution estimation (Germain, Gregor, Murray & Larochelle 2015)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.batches import Batch
from diabolo.checks import Range, refuse
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.keys import children, host_generator
from diabolo.masked import MaskedMLP, ranks_after
from diabolo.model import SHARED_GAIN, DirectModel, Loss, State
from diabolo.objectives import weighted_mean
from diabolo.table import Schema
from diabolo.wiring import layer_sizes

__all__ = ["MADE"]

_HIDDEN = (500,)
_N_GROUPS = 8  # rows drawn side by side come in at least so many: one wide group took 2.5 times as long
_TOGETHER = 2**23  # numbers masked at once where each row has masks of its own
_N_HELD = 4  # orders averaged where training looks at held-out rows


class MaskedModel(DirectModel):
    """A product of conditional laws, one per column in an order, from one masked network; averaged over orders.

    ```
    x ─▶ masked network, columns in order o ─▶ parameters ─▶ log p_o(x) = Σ_d log p(x_d | x before d)
    log p(x) = log mean over o of p_o(x)
    ```

    Attributes
    ----------
    network : masked
    shared : (n_shared,) what all rows share, a tenth of what it adds
    start : (n_free + n_shared,) the marginal laws' parameters, not trained
    orders : (n_orders, n_columns) int, the place of every column in each order, from 1
    agnostic : () share of the training steps that draw an order of their own, not trained
    dropout : static; share of the hidden units dropped in a training step
    gaps : static; whether training rows have any
    """

    likelihood: JointLikelihood
    network: MaskedMLP
    shared: Array
    start: Array
    orders: Array
    agnostic: Array
    dropout: float = eqx.field(static=True)
    gaps: bool = eqx.field(static=True)
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    density_kind: ClassVar[str] = "exact"
    keeps_best: ClassVar[bool] = True

    # ---- training ------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Mean of -log p_o(observed cells), o drawn anew: an upper bound on that of the average over orders.

        Source: Germain et al. 2015, section 4.1; orders beyond a list, Uria, Murray & Larochelle 2014, eq. 8,
        arXiv:1310.1757, but all conditionals of the order at once.
        """
        key_share, key_new, key_old, key_drop = jax.random.split(key, 4)
        new = 1 + jax.random.permutation(key_new, self.orders.shape[1])
        old = self.orders[jax.random.randint(key_old, (), 0, len(self.orders))]
        ranks = jnp.where(jax.random.bernoulli(key_share, self.agnostic), new, old)
        keys = jax.random.split(key_drop, batch.n_rows) if self.dropout else None
        log_prob = self._log_prob_gappy if self.gaps else self._log_prob
        value = weighted_mean(log_prob(batch, ranks, keys), batch.weight)
        return Loss(-value, {"log_likelihood": value}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """log p of the average over the first few orders, nothing dropped."""
        log_prob = self._log_prob_gappy if self.gaps else self._log_prob
        each = lax.map(lambda ranks: log_prob(batch, ranks), self.orders[:_N_HELD])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(each))

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.start, self.agnostic)

    # ---- density -------------------------------------------------------------------------------------------

    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, n_orders) nats: log p_o(observed cells) of each order, an exact density of its own.

        With gaps the order is followed through the observed columns; the missing ones come last and sum to one.
        """
        whole = jnp.all(batch.observed, axis=1)

        def of_order(ranks: Array) -> Array:
            def of_row(row: Batch) -> Array:
                own = ranks_after(ranks, row.observed)
                return lax.cond(
                    jnp.all(row.observed), lambda: jnp.zeros(()), lambda: self.log_prob_in(row, own, own=True)
                )

            return jnp.where(whole, self._log_prob(batch, ranks), lax.map(of_row, batch))

        return lax.map(of_order, self.orders).T

    def _log_prob(self, batch: Batch, ranks: Array, keys: Array | None = None) -> Array:
        """(n_rows,) nats of rows in one order, whatever is missing: the masks are shared."""
        axes = (0, None, None if keys is None else 0)
        return jax.vmap(self.log_prob_in, in_axes=axes)(batch, ranks, keys)

    def _log_prob_gappy(self, batch: Batch, ranks: Array, keys: Array | None = None) -> Array:
        """(n_rows,) nats, each row in its own version of the order; some rows at once, as each has its own masks."""

        @jax.checkpoint
        def of_row(row_and_key: tuple[Batch, Array | None]) -> Array:
            row, key = row_and_key
            return self.log_prob_in(row, ranks_after(ranks, row.observed), key, own=True)

        n_each = self.likelihood.n_free * (self.likelihood.width + self.likelihood.n_columns)
        n_together = max(_TOGETHER // n_each, 1)
        return lax.map(of_row, (batch, keys), batch_size=min(n_together, batch.n_rows))

    def log_prob_in(self, row: Batch, ranks: Array, key: Array | None = None, *, own: bool = False) -> Array:
        """() nats over the observed cells of one row; they are to stand before its gaps in the order (n_columns,).

        own : whether the order is the row's own, as one that ends with its gaps
        """
        return self._log_prob_and_hidden(row, ranks, key, own)[0]

    def _log_prob_and_hidden(
        self, row: Batch, ranks: Array, key: Array | None, own: bool
    ) -> tuple[Array, list[Array]]:
        inputs, places = self._inputs(row), self._places(ranks, row)
        hidden = self.network.hidden(inputs, places, key, self.dropout, own=own)
        params = self._params(hidden[-1], inputs, places, ranks, own)
        cells = self.likelihood.log_prob(params, row.values)
        return jnp.sum(jnp.where(row.observed, cells, 0.0)), hidden

    def _inputs(self, row: Batch) -> Array:
        """(width + given_width,) of one row."""
        values = jnp.where(row.observed[self.likelihood.column_of_value], row.values, 0.0)
        return jnp.concatenate([values, row.given])

    def _places(self, ranks: Array, row: Batch) -> Array:
        """Of the inputs; conditions come before all columns."""
        given = jnp.zeros(row.given.shape[-1], ranks.dtype)
        return jnp.concatenate([ranks[self.likelihood.column_of_value], given])

    def _params(self, hidden: Array, inputs: Array, places: Array, ranks: Array, own: bool = False) -> Array:
        """(n_params,) of one row from its last hidden layer and its inputs."""
        n_free = self.likelihood.n_free
        places_out = ranks[self.likelihood.column_of_param[:n_free]]
        said = self.network.say(hidden, inputs, places, places_out, own=own)
        return self.likelihood.assemble(said + self.start[:n_free], self._common())

    def _common(self) -> Array:
        """(n_shared,) what all rows share."""
        return self.start[self.likelihood.n_free :] + SHARED_GAIN * self.shared

    # ---- codes ---------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Array]:
        """The last hidden layer in the first order, gaps at their column's mean."""

        def of_row(row: Batch) -> Array:
            return self.network.hidden(self._inputs(row), self._places(self.orders[0], row))[-1]

        return {"hidden": jax.vmap(of_row)(batch)}

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        """Each column's typical value given those before it in the first order."""
        nothing = jnp.zeros(self.likelihood.width + given.shape[1])

        def of_row(hidden: Array) -> Array:
            return self._params(hidden, nothing, jnp.zeros(len(nothing), int), self.orders[0])

        return self.likelihood.mean(jax.vmap(of_row)(codes["hidden"]))

    # ---- draws ---------------------------------------------------------------------------------------------

    def sample(self, key: Array, n: int, given: Array) -> Array:
        """As many rows of each order as of any other, dealt out at random, so that every row is a draw of the mean."""
        key_place, key_cells = jax.random.split(key)
        orders = jnp.tile(self.orders, (-(-_N_GROUPS // len(self.orders)), 1))
        n_groups = len(orders)
        n_each = -(-n // n_groups)
        place = jax.random.permutation(key_place, n_groups * n_each)[:n]
        dealt = jnp.zeros((n_groups * n_each, given.shape[1]), given.dtype).at[place].set(given)
        keys = jax.random.split(key_cells, n_groups * n_each)
        nothing = jnp.zeros(self.likelihood.n_columns, bool)

        def of_row(ranks: Array, given: Array, key: Array) -> Array:
            row = Batch(jnp.zeros(self.likelihood.width), nothing, given)
            hidden = [jnp.zeros(len(degrees)) for degrees in self.network.degrees]
            return self._drawn(row, ranks, hidden, jnp.int32(0), key)

        of_order = jax.vmap(of_row, in_axes=(None, 0, 0))
        rows = jax.vmap(of_order)(
            orders, dealt.reshape(n_groups, n_each, given.shape[1]), keys.reshape(n_groups, n_each)
        )
        return rows.reshape(n_groups * n_each, self.likelihood.width)[place]

    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """Each draw in one order that ends with the gaps, chosen by how likely it finds the observed cells."""

        def of_row(row_and_key: tuple[Batch, Array]) -> Array:
            row, key = row_and_key
            key_order, key_cells = jax.random.split(key)
            ranks = jax.vmap(ranks_after, in_axes=(0, None))(self.orders, row.observed)
            n_known = jnp.sum(row.observed)

            def seen(ranks: Array) -> tuple[list[Array], Array]:
                log_prob, hidden = self._log_prob_and_hidden(row, ranks, None, own=True)
                known = [degrees <= n_known for degrees in self.network.degrees]
                return [jnp.where(k, unit, 0.0) for k, unit in zip(known, hidden, strict=True)], log_prob

            hidden, log_probs = jax.vmap(seen)(ranks)
            chosen = jax.random.categorical(key_order, log_probs, shape=(n_draws,))
            draw = jax.vmap(self._drawn, in_axes=(None, 0, 0, None, 0))
            cell_keys = jax.random.split(key_cells, n_draws)
            return draw(row, ranks[chosen], [unit[chosen] for unit in hidden], n_known, cell_keys)

        return lax.map(of_row, (batch, keys))

    def _drawn(self, row: Batch, ranks: Array, hidden: list[Array], n_known: Array, key: Array) -> Array:
        """(width,) one row, its missing cells drawn one after the other in an order that ends with them.

        Parameters
        ----------
        row : its observed cells
        ranks : (n_columns,)
        hidden : the units that see the first `n_known` columns or fewer; 0 elsewhere
        n_known : () int, observed cells
        key : of this row's cells
        """
        likelihood, n_columns = self.likelihood, self.likelihood.n_columns
        if not n_columns:
            return row.values
        column_of_free = likelihood.column_of_param[: likelihood.n_free]
        free_first, free_most = _runs(column_of_free, n_columns)
        cell_first, cell_most = _runs(likelihood.column_of_value, n_columns)
        cell_width = np.bincount(likelihood.column_of_value, minlength=n_columns)
        # slices as wide as the widest column's stay inside
        weight = jnp.pad(self.network.last.weight, ((0, 0), (0, free_most)))
        bias = jnp.pad(self.network.last.bias + self.start[: likelihood.n_free], (0, free_most))
        direct = self.network.direct
        if direct is not None:
            direct = jnp.pad(direct, ((0, 0), (0, free_most)))
        column_at, common, inputs = jnp.argsort(ranks), self._common(), self._inputs(row)

        def step(n_done: Array, carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            inputs, hidden = carry
            hidden = self.network.reach(inputs, hidden, n_done, n_known)
            column = column_at[n_done]
            first = jnp.asarray(free_first)[column]
            said = hidden[-1] @ lax.dynamic_slice(weight, (0, first), (weight.shape[0], free_most))
            said += lax.dynamic_slice(bias, (first,), (free_most,))
            if direct is not None:
                said += inputs @ lax.dynamic_slice(direct, (0, first), (len(inputs), free_most))
            cell = likelihood.draw_cell(column, said, common, jax.random.fold_in(key, n_done))
            begins = jnp.asarray(cell_first)[column]
            place = jnp.minimum(begins, len(inputs) - cell_most)  # a slice of the widest size stays inside
            at = jnp.arange(cell_most) + place - begins
            theirs = (at >= 0) & (at < jnp.asarray(cell_width)[column])
            old = lax.dynamic_slice(inputs, (place,), (cell_most,))
            new = jnp.where(theirs, cell[jnp.clip(at, 0)], old)
            return lax.dynamic_update_slice(inputs, new, (place,)), hidden

        return lax.fori_loop(n_known, n_columns, step, (inputs, hidden))[0][: likelihood.width]


def _runs(column_of: np.ndarray, n_columns: int) -> tuple[np.ndarray, int]:
    """Where each column's entries begin, which lie side by side, and the most that any column has."""
    counts = np.bincount(column_of, minlength=n_columns)
    first = np.zeros(n_columns, int)
    first[column_of[::-1]] = np.arange(len(column_of))[::-1]
    return first, int(counts.max(initial=1))


class MADE(DiaboloEstimator):
    """Masked autoencoder: an exact density, each column told from those before it.

    ```
    x ─▶ masked network, order o ─▶ p(x_d | x before d in o), all d at once ─▶ log p_o(x)
    p(x) = mean over the orders o of p_o(x)
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
    n_orders : orders trained in turn and averaged in every reading; the first is that of the columns
    agnostic : share of the training steps that take an order drawn afresh: 0 is best for whole rows, more for rows
        whose gaps training rows did not have
    n_parts : laws mixed for each cell that holds a quantity; 1 is a single law with one scale per column
    direct : weights from every column to all later ones beside those through the hidden layers
    dropout : share of the hidden units dropped in a training step
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out density has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out density wins
    warm_start : go on from the last fit
    random_state : seed of weights, orders, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells; the loss is
        of one order at a time, the score of at most four together, with nothing dropped
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
        "agnostic": [Range(0.0, 1.0)],
        "n_parts": [Range(1, whole=True)],
        "direct": [bool, np.bool_],
        "dropout": [Range(0.0, 1.0, open_high=True)],
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
        agnostic=0.2,
        n_parts=8,
        dropout=0.2,
        direct=True,
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
        self.agnostic = agnostic
        self.n_parts = n_parts
        self.dropout = dropout
        self.direct = direct
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
        n_columns = likelihood.n_columns
        network = MaskedMLP(
            likelihood.width + schema.given_width,
            likelihood.n_free,
            n_columns,
            sizes,
            self.activation,
            key_weights,
            conditions=schema.given_width > 0,
            direct=self.direct,
        )
        rng = host_generator(key_orders)
        others = [rng.permutation(n_columns) for _ in range(self.n_orders - 1)]
        orders = 1 + np.array([np.arange(n_columns), *others], np.int32)
        return MaskedModel(
            likelihood=likelihood,
            network=network,
            shared=np.zeros(likelihood.n_shared, np.float32),  # type: ignore[arg-type]
            start=np.asarray(likelihood.initial, np.float32),  # type: ignore[arg-type]
            orders=orders.astype(np.int32),  # type: ignore[arg-type]
            gaps=bool(schema.gaps.any()),
            code_widths=(("hidden", sizes[-1]),),
            **self._objective(),
        )

    def _objective(self) -> dict[str, Any]:
        return {"agnostic": np.asarray(self.agnostic, np.float32), "dropout": float(self.dropout)}
