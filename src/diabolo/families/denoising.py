"""The denoising autoencoder (Vincent, Larochelle, Bengio & Manzagol 2008)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.batches import Batch
from diabolo.checks import OneOf, Range
from diabolo.deterministic import DeterministicModel
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.model import Decoder, Encoder
from diabolo.priors import MixturePrior
from diabolo.table import Schema
from diabolo.wiring import Parts

__all__ = ["DenoisingAutoencoder"]


class DenoisingModel(DeterministicModel):
    """Corrupted row to code to clean row.

    ```
    x ─▶ corruption ─▶ encoder ─▶ code ─▶ decoder ─▶ parameters ─▶ log p(x | code)
                                    └─ after training: Gaussian mixture p(code) of uncorrupted rows
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    prior: MixturePrior
    is_scale: Array
    level: Array  # () probability or standard deviation, not trained
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    corruption: str = eqx.field(static=True)

    def trainable(self) -> DenoisingModel:
        return eqx.tree_at(lambda model: model.level, super().trainable(), replace=False)

    def shown(self, batch: Batch, key: Array) -> Batch:
        """The corrupted rows, fresh at every step."""
        if self.corruption == "gaussian":
            noise = self.level * jax.random.normal(key, batch.values.shape)
            known = jnp.take(batch.observed, self.likelihood.column_of_value, axis=1)
            return eqx.tree_at(lambda b: b.values, batch, jnp.where(known, batch.values + noise, 0.0))
        kept = batch.observed & ~jax.random.bernoulli(key, self.level, batch.observed.shape)
        values = jnp.where(jnp.take(kept, self.likelihood.column_of_value, axis=1), batch.values, 0.0)
        return eqx.tree_at(lambda b: (b.values, b.observed), batch, (values, kept))


class DenoisingAutoencoder(DiaboloEstimator):
    """Denoising autoencoder: gives back the clean row from a corrupted one, and so learns where data lie.

    ```
    x ─▶ corruption ─▶ encoder ─▶ code ─▶ decoder ─▶ x'      after training: p(code) by a Gaussian mixture, noise
    ```

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    corruption : "masking" hides cells of a row, "gaussian" adds noise to the encoded row
    corruption_level : probability that a cell is hidden; standard deviation of the noise, in spreads of the column
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out error has not fallen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that, and for the noise
    n_init : independent starts; the best held-out error wins
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row at unit spread
    density_kind_ : "bound" on the density under a prior borrowed for the codes: a Gaussian mixture, fitted after
        training, its size by BIC. The training objective itself defines no p(x)

    References
    ----------
    Vincent, Larochelle, Bengio & Manzagol 2008, Extracting and composing robust features with denoising autoencoders;
    2010, JMLR 11, section 3. Density by importance sampling as in Burda, Grosse & Salakhutdinov 2016, eq. 8,
    arXiv:1509.00519.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import DenoisingAutoencoder
    >>> X = load_iris().data
    >>> dae = DenoisingAutoencoder(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> dae.transform(X).shape, dae.reconstruct(X).shape
    ((150, 2), (150, 4))
    """

    _finishes: ClassVar[bool] = True
    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "corruption": [OneOf("masking", "gaussian")],
        "corruption_level": [Range(0.0)],
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
        corruption="masking",
        corruption_level=0.1,
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
        self.corruption = corruption
        self.corruption_level = corruption_level
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

    def build(self, schema: Schema, key: Array) -> DenoisingModel:
        """The untrained network for a table."""
        parts = Parts.of(self, schema, key, n_said=int)
        level = np.float32(self.corruption_level)
        return DenoisingModel(**parts.fields(), **parts.borrowed(), level=level, corruption=self.corruption)
