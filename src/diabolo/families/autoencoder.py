"""The plain autoencoder (Rumelhart, Hinton & Williams 1986; Bourlard & Kamp 1988)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import equinox as eqx
from jax import Array

from diabolo.batches import Batches
from diabolo.checks import OneOf
from diabolo.deterministic import DeterministicModel
from diabolo.deterministic_estimator import DeterministicEstimator
from diabolo.joint import JointLikelihood
from diabolo.model import Decoder, Encoder
from diabolo.pretraining import Stack
from diabolo.priors import Mixture
from diabolo.table import Schema
from diabolo.wiring import Parts

__all__ = ["Autoencoder"]


class AutoencoderModel(DeterministicModel):
    """Row to code to row.

    ```
    x ─▶ encoder ─▶ code ─▶ decoder ─▶ parameters ─▶ log p(x | code)
                      └─ after training: Gaussian mixture p(code)
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    prior: Mixture
    is_scale: Array
    is_level: Array
    sharpness: Array
    level_shift: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    stack: Stack | None = None

    def fixed(self) -> tuple[Any, ...]:
        return super().fixed() if self.stack is None else (*super().fixed(), self.stack)

    def begin(self, batches: Batches, key: Array) -> Self:
        """Where `pretrain` asks for it, hidden layers that a stack of Boltzmann machines has learned."""
        if self.stack is None:
            return self
        ends = self.stack.unrolled(self.encoder, self.decoder, self.likelihood, batches, key)
        return eqx.tree_at(lambda model: (model.encoder, model.decoder), self, ends)


class Autoencoder(DeterministicEstimator):
    """Autoencoder: squared error of real columns and cross-entropy of the others, through a narrow code.

    ```
    x ─▶ encoder ─▶ code ─▶ decoder ─▶ x'        after training: p(code) by a Gaussian mixture, noise on held-out rows
    ```

    With `hidden_layer_sizes=()` it spans the subspace of PCA (Baldi & Hornik 1989).

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    pretrain : "rbm" learns the hidden layers first, one by one, as Boltzmann machines, 1,000 steps each that `n_steps_`
        does not count; it wants `activation="sigmoid"`. None starts at random
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
    Bourlard & Kamp 1988; Baldi & Hornik 1989. Goodfellow, Bengio & Courville 2016, chapter 14. Density by importance
    sampling as in Burda, Grosse & Salakhutdinov 2016, eq. 8, arXiv:1509.00519. `pretrain`: Hinton & Salakhutdinov 2006.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import Autoencoder
    >>> X = load_iris().data
    >>> ae = Autoencoder(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> ae.transform(X).shape, ae.reconstruct(X).shape
    ((150, 2), (150, 4))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DeterministicEstimator._constraints,
        "pretrain": [None, OneOf("rbm")],
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
        pretrain=None,
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
        self.pretrain = pretrain
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

    def build(self, schema: Schema, key: Array) -> AutoencoderModel:
        """The untrained network for a table."""
        parts = Parts.of(self, schema, key, n_said=int)
        model = AutoencoderModel(**parts.fields(), **parts.borrowed())
        if self.pretrain is None:
            return model
        stack = Stack.of(schema, parts.encoder, self.activation)
        return dataclasses.replace(model, stack=stack)
