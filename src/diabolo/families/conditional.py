"""The conditional variational autoencoder (Sohn, Lee & Yan 2015)."""

from __future__ import annotations

import functools
import warnings
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import passes
from diabolo.batches import Batch
from diabolo.checks import Range, refuse
from diabolo.columns import Binary, Categorical, Ordinal
from diabolo.joint import JointLikelihood
from diabolo.model import Decoder, Encoder, Loss, State
from diabolo.nets import Network
from diabolo.priors import FlowPrior, Mixture, PseudoInputs, StandardNormal
from diabolo.table import Schema
from diabolo.variational import Usage, VariationalModel, Weights
from diabolo.variational_estimator import VariationalEstimator

__all__ = ["ConditionalVAE"]


# A code that learns to say the label as well makes draws under a label depend on the code drawn, so labels are made
# louder than it. Of 100 digits drawn, 87 were as asked at a gain of 1, 95 at 3, and 98 at 10, where the density given
# the label was 0.8 nats lower (benchmarks/conditions.py).
_GAIN = 3.0


class Amplified(eqx.Module):
    """A network behind a fixed gain, one number for each of its inputs."""

    network: Network
    gain: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, inputs: Array) -> Array:
        return self.network(np.asarray(self.gain, np.float32) * inputs)


class ConditionalModel(VariationalModel):
    """Trained on the evidence bound of the rows given their conditions, which a share of the rows does not see.

    ```
    x ─▶ encoder ─▶ q(z | x, y) ─▶ z ─▶ decoder ─▶ parameters ─▶ log p(x | z, y)
    y ─────┘             │         y ─────┘
                         └─▶ KL(q(z | x, y) || p(z)) ◀── p(z)
    ```

    Attributes
    ----------
    unknown : (given_width,) the given cells of a row of which no condition is known, not trained
    dropout : () share of the rows whose conditions are hidden, not trained
    alone : static; first and last given cell, and one, of each condition that may be missing while others are known
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    code_prior: StandardNormal | Mixture | PseudoInputs | FlowPrior
    weights: Weights
    usage: Usage
    unknown: Array
    dropout: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    alone: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative evidence bound, some conditions hidden."""
        key_hidden, key_code = jax.random.split(key)
        return self.evidence_loss(self.hiding(batch, key_hidden), key_code, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The evidence bound of the same mixture of rows with and without conditions."""
        key_hidden, key_code = jax.random.split(key)
        return self.evidence(self.hiding(batch, key_hidden), key_code)

    def hiding(self, batch: Batch, key: Array) -> Batch:
        """All conditions of some rows hidden; of others, each by itself, those that may be missing alone."""
        n_given = batch.given.shape[1]
        if not n_given:
            return batch
        key_all, key_alone = jax.random.split(key)
        hidden = jax.random.bernoulli(key_all, self.dropout, (batch.n_rows, 1))
        for i, (start, stop) in enumerate(self.alone):
            one = jax.random.bernoulli(jax.random.fold_in(key_alone, i), self.dropout, (batch.n_rows, 1))
            hidden |= one & (np.arange(n_given) >= start) & (np.arange(n_given) < stop)
        given = jnp.where(hidden, self.unknown, batch.given)
        return eqx.tree_at(lambda one: one.given, batch, given)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.unknown, self.dropout)


class ConditionalVAE(VariationalEstimator):
    """Variational autoencoder given conditions: draws under a condition, and analogies.

    ```
    x ─▶ encoder ─▶ q(z | x, y) ─▶ z ─▶ decoder ─▶ p(x | z, y)        p(z) = N(0, I), whatever y
    y ─────┘                       y ─────┘
    ```

    The condition y is `fit`'s y, a column beside the table, or columns of X named in `given`, or both. The prior of the
    code does not look at it: what the code says of a row is what the condition does not say.

    A condition may be missing, in training and later: y with None or nan, or no y at all. Every density is log p(x | y)
    where y is known; where it is not, log p(x) as the network learned it from rows without a condition. That is a
    reading of its own, and not the mean of p(x | y) over y, below which it lies the further, the fewer rows had none.
    `fit_transform(X, y)` is scikit-learn's `fit(X, y).transform(X)`: codes of rows whose condition is not said.

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16. What is too much, the
        divergence switches off
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns of X that are conditions, beside or instead of `fit`'s y
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
    given_dropout : share of the rows whose conditions a training step hides, so that the readings also work where they
        are not known. As often again each condition that may be missing is hidden alone, where there are several: y,
        and columns of X with gaps
    prior, n_prior, posterior, beta, free_bits, warm_up : as for `VAE`; the prior does not look at the condition
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out bound has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out bound wins
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells
    density_kind_ : "bound": `score_samples` lies below log p(x | condition) in expectation
    divergence_, active_components_, prior_gap_ : as for `VAE`, each row under its own condition

    References
    ----------
    Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional generative models, NeurIPS
    28; here p(z) does not depend on the condition, which their section 4 allows. Hiding conditions at random: Ho &
    Salimans 2022, section 3.2, arXiv:2207.12598, for the trick alone. Density: as for `VAE`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ConditionalVAE
    >>> iris = load_iris()
    >>> species = iris.target_names[iris.target]
    >>> cvae = ConditionalVAE(n_components=2, max_steps=200, random_state=0).fit(iris.data, species)
    >>> cvae.transform(iris.data, species).shape, cvae.sample(5, given="setosa").shape
    ((150, 2), (5, 4))
    >>> cvae.analogy(iris.data[:1], given=["setosa", "virginica"]).shape
    (2, 4)
    """

    _conditions_on_y: ClassVar[bool] = True
    _constraints: ClassVar[dict[str, list[Any]]] = {
        **VariationalEstimator._constraints,
        "given_dropout": [Range(0.0, 1.0, open_high=True)],
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
        dispersion="column",
        given_dropout=0.1,
        prior="normal",
        n_prior=50,
        posterior="diagonal",
        beta=1.0,
        free_bits=0.0,
        warm_up=0.05,
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
        self.dispersion = dispersion
        self.given_dropout = given_dropout
        self.prior = prior
        self.n_prior = n_prior
        self.posterior = posterior
        self.beta = beta
        self.free_bits = free_bits
        self.warm_up = warm_up
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

    def build(self, schema: Schema, key: Array) -> ConditionalModel:
        """The untrained network for a table."""
        fields, gain = self._fields(schema, key), [1.0] * schema.given_width
        for column, flag in schema.conditions:
            if isinstance(column.kind, (Binary, Categorical, Ordinal)):
                gain[flag - column.kind.width : flag] = [_GAIN] * column.kind.width
        n_components = sum(width for _, width in fields["code_widths"])
        n_inputs = schema.width + len(fields["encoder"].gap_columns)
        for name, n_others in (("encoder", n_inputs), ("decoder", n_components)):
            whole = (*[1.0] * n_others, *gain)
            fields[name] = eqx.tree_at(
                lambda part: part.network, fields[name], replace_fn=functools.partial(Amplified, gain=whole)
            )
        return ConditionalModel(
            **fields,
            unknown=schema.unknown(1)[0],  # type: ignore[arg-type]
            alone=_alone(schema),
        )

    def _objective(self) -> dict[str, Any]:
        return {**super()._objective(), "dropout": np.asarray(self.given_dropout, np.float32)}

    def analogy(self, X: Any, given: Any, y: Any = None) -> Any:
        """What each row would be under another condition: its code, decoded there.

        Parameters
        ----------
        X : rows, or one row for several conditions
        given : the new condition, one for all or one for each row, as `sample` takes it
        y : the rows' own conditions, as for `transform`

        Returns
        -------
        rows in the container of the training data; in columns named in `given` stand the new conditions
        """
        rows = self._encode(X, y)
        n_rows = len(rows.values)
        if n_rows == 1 and given is not None:
            n_rows = len(self.schema_.encode_given(given)) if self.schema_.given_width else 1
        conditions = self._conditions(given, n_rows)
        codes = passes.codes(self.model_, rows)
        values = passes.means(self.model_, np.broadcast_to(codes, (n_rows, codes.shape[1])), conditions)
        return self.schema_.decode(values, like=X, given_values=conditions)

    def _look_over(self, schema: Schema) -> None:
        if not schema.given_width:
            said = "no condition: got neither y nor given=, so this is a plain VAE. Pass y, or name columns in given=."
            warnings.warn(said, UserWarning, stacklevel=4)

    def _admit(self, given: np.ndarray) -> None:
        if self.model_.dropout > 0.0:
            return
        for column, flag in self.schema_.conditions:
            n_unknown = int(np.sum(given[:, flag] > 0.5))
            if n_unknown and not column.gaps:
                beside = column in self.schema_.beside
                want = f"{'y, ' if beside else ''}column {column.name!r}, as every training row had it"
                fix = f"{'Pass y' if beside else 'Fill it'}, or fit with given_dropout above 0."
                raise refuse(
                    f"condition of {n_unknown} of {len(given)} rows", got="no condition", want=want, fix=fix
                )

    def _unconditioned(self, n_rows: int) -> np.ndarray:
        given = self.schema_.unknown(n_rows)
        self._admit(given)
        return given


def _alone(schema: Schema) -> tuple[tuple[int, int], ...]:
    """Given cells of each condition that may be missing while others are known."""
    if len(schema.conditions) < 2:
        return ()
    may_be_missing = [one for one in schema.conditions if one[0].gaps or one[0] in schema.beside]
    return tuple((flag - column.kind.width, flag + 1) for column, flag in may_be_missing)
