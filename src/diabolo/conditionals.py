"""The law of each column given those before it in an order, said by one masked network."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.batches import Batch
from diabolo.joint import JointLikelihood
from diabolo.masked import MaskedMLP
from diabolo.model import SHARED_GAIN
from diabolo.orders import ranks_after

__all__ = ["Conditionals"]

_TOGETHER = 2**23  # numbers masked at once where each row has masks of its own


class Conditionals(eqx.Module):
    """A product of conditional laws, one per column in whichever order; an exact density in each.

    ```
    x ─▶ masked network, columns in order o ─▶ parameters ─▶ log p_o(x) = Σ_d log p(x_d | x before d)
    ```

    Attributes
    ----------
    network : masked
    shared : (n_shared,) what all rows share, a tenth of what it adds
    start : (n_free + n_shared,) the marginal laws' parameters
    centre : (width,) the training rows' mean, taken off what the network sees: what it may not see looks like the mean
    dropout : static; share of the hidden units dropped where a key says which
    """

    likelihood: JointLikelihood
    network: MaskedMLP
    shared: Array
    start: Array
    centre: Array
    dropout: float = eqx.field(static=True, default=0.0)

    # ---- density -------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch, ranks: Array, keys: Array | None = None) -> Array:
        """(n_rows,) nats of rows in one order, whatever is missing: the masks are shared."""
        axes = (0, None, None if keys is None else 0)
        return jax.vmap(self.log_prob_in, in_axes=axes)(batch, ranks, keys)

    def log_prob_gappy(self, batch: Batch, ranks: Array, keys: Array | None = None) -> Array:
        """(n_rows,) nats, each row in its own version of the order; some rows at once, as each has its own masks."""

        @jax.checkpoint
        def of_row(row_and_key: tuple[Batch, Array | None]) -> Array:
            row, key = row_and_key
            return self.log_prob_in(row, ranks_after(ranks, row.observed), key, own=True)

        n_each = self.likelihood.n_free * (self.likelihood.width + self.likelihood.n_columns)
        n_together = max(_TOGETHER // n_each, 1)
        return lax.map(of_row, (batch, keys), batch_size=min(n_together, batch.n_rows))

    def log_prob_where_whole(self, batch: Batch, ranks: Array) -> Array:
        """(n_rows,) nats: whole rows with masks that they share, the others one by one."""
        whole = jnp.all(batch.observed, axis=1)

        def of_row(row: Batch) -> Array:
            own = ranks_after(ranks, row.observed)
            return lax.cond(
                jnp.all(row.observed), lambda: jnp.zeros(()), lambda: self.log_prob_in(row, own, own=True)
            )

        return jnp.where(whole, self.log_prob(batch, ranks), lax.map(of_row, batch))

    def log_prob_in(self, row: Batch, ranks: Array, key: Array | None = None, *, own: bool = False) -> Array:
        """() nats over the observed cells of one row; they are to stand before its gaps in the order (n_columns,).

        own : whether the order is the row's own, as one that ends with its gaps
        """
        return self.log_prob_and_hidden(row, ranks, key, own)[0]

    def log_prob_and_hidden(
        self, row: Batch, ranks: Array, key: Array | None, own: bool
    ) -> tuple[Array, list[Array]]:
        """The same, with each hidden layer."""
        inputs, places = self._inputs(row), self._places(ranks, row)
        hidden = self.network.hidden(inputs, places, key, self.dropout, own=own)
        params = self._params(hidden[-1], inputs, places, ranks, own)
        cells = self.likelihood.log_prob(params, row.values)
        return jnp.sum(jnp.where(row.observed, cells, 0.0)), hidden

    def _inputs(self, row: Batch) -> Array:
        """(width + given_width,) of one row."""
        seen = row.observed[self.likelihood.column_of_value]
        return jnp.concatenate([jnp.where(seen, row.values - self.centre, 0.0), row.given])

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

    def hidden(self, batch: Batch, ranks: Array) -> Array:
        """(n_rows, n_units) the last hidden layer in an order, gaps at their column's mean."""

        def of_row(row: Batch) -> Array:
            return self.network.hidden(self._inputs(row), self._places(ranks, row))[-1]

        return jax.vmap(of_row)(batch)

    def typical(self, hidden: Array, ranks: Array, given_width: int) -> Array:
        """(n_rows, width) each column's typical value, by the last hidden layer alone."""
        nothing = jnp.zeros(self.likelihood.width + given_width)

        def of_row(hidden: Array) -> Array:
            return self._params(hidden, nothing, jnp.zeros(len(nothing), int), ranks)

        return self.likelihood.mean(jax.vmap(of_row)(hidden))

    # ---- draws ---------------------------------------------------------------------------------------------

    def draw(self, given: Array, ranks: Array, key: Array) -> Array:
        """(width,) one row with these conditions, all its cells drawn one after the other."""
        nothing = jnp.zeros(self.likelihood.n_columns, bool)
        row = Batch(jnp.zeros(self.likelihood.width), nothing, given)
        hidden = [jnp.zeros(len(degrees)) for degrees in self.network.degrees]
        return self.draw_rest(row, ranks, hidden, jnp.int32(0), key)

    def draw_rest(self, row: Batch, ranks: Array, hidden: list[Array], n_known: Array, key: Array) -> Array:
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

        def step(n_done: Array, carry: tuple[Array, Array, list[Array]]) -> tuple[Array, Array, list[Array]]:
            values, inputs, hidden = carry
            hidden = self.network.reach(inputs, hidden, n_done, n_known)
            column = column_at[n_done]
            first = jnp.asarray(free_first)[column]
            said = hidden[-1] @ lax.dynamic_slice(weight, (0, first), (weight.shape[0], free_most))
            said += lax.dynamic_slice(bias, (first,), (free_most,))
            if direct is not None:
                said += inputs @ lax.dynamic_slice(direct, (0, first), (len(inputs), free_most))
            cell = likelihood.draw_cell(column, said, common, jax.random.fold_in(key, n_done))
            begins = jnp.asarray(cell_first)[column]
            place = jnp.minimum(begins, len(values) - cell_most)  # a slice of the widest size stays inside
            at = jnp.arange(cell_most) + place - begins
            theirs = (at >= 0) & (at < jnp.asarray(cell_width)[column])
            drawn = cell[jnp.clip(at, 0)]

            def put(new: Array, whole: Array) -> Array:
                new = jnp.where(theirs, new, lax.dynamic_slice(whole, (place,), (cell_most,)))
                return lax.dynamic_update_slice(whole, new, (place,))

            centred = drawn - lax.dynamic_slice(self.centre, (place,), (cell_most,))
            return put(drawn, values), put(centred, inputs), hidden

        return lax.fori_loop(n_known, n_columns, step, (row.values, inputs, hidden))[0]


def _runs(column_of: np.ndarray, n_columns: int) -> tuple[np.ndarray, int]:
    """Where each column's entries begin, which lie side by side, and the most that any column has."""
    counts = np.bincount(column_of, minlength=n_columns)
    first = np.zeros(n_columns, int)
    first[column_of[::-1]] = np.arange(len(column_of))[::-1]
    return first, int(counts.max(initial=1))
