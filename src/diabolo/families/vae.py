"""The variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian, LocalStrata
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.model import CodeModel, Decoder, Encoder, Loss, State
from diabolo.objectives import evidence_bound, warm_up, weighted_mean
from diabolo.priors import StandardNormal
from diabolo.table import Schema
from diabolo.wiring import Parts

__all__ = ["VAE"]

_WARM_UP = 0.05  # share of the steps over which the divergence grows to its full weight
# The proposal in the encoder's posteriors: 1.2 times as wide, for weights want tails heavier than the target's; every
# twentieth draw four times as wide, and the last tenth from the prior, so that no row's weights are without a limit.
_WIDTHS, _SHARES = (1.2, 4.0), (0.85, 0.05)


class VariationalModel(CodeModel):
    """Gaussian encoder q(z | x), standard normal prior p(z), the columns' likelihoods p(x | z).

    ```
    x ─▶ encoder ─▶ mean, log scale ─▶ z = mean + scale · noise ─▶ decoder ─▶ parameters ─▶ log p(x | z)
                          └─────────────▶ KL(q(z | x) || p(z)) ◀── p(z)
    ```
    """

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    @property
    def prior(self) -> StandardNormal:
        return StandardNormal(self.code_widths[0][1])

    def posterior(self, batch: Batch) -> DiagonalGaussian:
        """q(z | x) of each row."""
        mean, log_scale = jnp.split(self.encoder(self.encoder.embed(batch)), 2, axis=1)
        # A scale of e^-7 or e^2 times the prior's is as good as any beyond; the clip is smooth, so it can be left.
        return DiagonalGaussian(mean, -2.5 + 4.5 * jnp.tanh(log_scale / 4.5 + _START))

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative evidence bound, the divergence warmed up."""
        posterior = self.posterior(batch)
        log_likelihood = self.log_likelihood(batch, self.split(posterior.draw_one(key)))
        divergence = jnp.sum(posterior.divergence(), axis=1)
        weight = warm_up(state.step, _WARM_UP * state.n_steps)
        loss = -weighted_mean(evidence_bound(log_likelihood, weight * divergence), batch.weight)
        parts = {"log_likelihood": jnp.mean(log_likelihood), "divergence": jnp.mean(divergence)}
        return Loss(loss, parts, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The evidence bound at full weight, one draw per row."""
        posterior = self.posterior(batch)
        log_likelihood = self.log_likelihood(batch, self.split(posterior.draw_one(key)))
        return evidence_bound(log_likelihood, jnp.sum(posterior.divergence(), axis=1))

    def encode(self, batch: Batch) -> dict[str, Array]:
        return self.split(self.posterior(batch).mean)

    def log_prior(self, codes: dict[str, Array]) -> Array:
        return self.prior.log_prob(self.join(codes))

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        return self.split(self.prior.draw(key, n))

    def proposal(self, batch: Batch) -> LocalStrata:
        """The posterior, wider; some draws much wider or from the prior, for rows that the encoder misjudges."""
        posterior = self.posterior(batch)
        n_rows, n_components = posterior.mean.shape
        axes = jnp.broadcast_to(jnp.eye(n_components), (n_rows, n_components, n_components))
        spread = jnp.exp(posterior.log_scale)
        return LocalStrata(posterior.mean, axes, spread, self.prior, _WIDTHS, _SHARES)


_START = float(np.arctanh(2.5 / 4.5))  # so that a network's 0 is a scale of 1


class VAE(DiaboloEstimator):
    """Variational autoencoder: a manifold, a generator and a bound on the density, trained as one.

    ```
    x ─▶ encoder ─▶ q(z | x) ─▶ z ─▶ decoder ─▶ p(x | z)        p(z) = N(0, I)
    ```

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16. What is too much, the
        divergence switches off
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
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
    density_kind_ : "bound": `score_samples` lies below log p(x) in expectation

    References
    ----------
    Kingma & Welling 2014, Auto-encoding variational Bayes, arXiv:1312.6114. Rezende, Mohamed & Wierstra 2014,
    arXiv:1401.4082. Density: Burda, Grosse & Salakhutdinov 2016, eq. 8, arXiv:1509.00519, with a
    proposal 1.2 times as wide as the encoder's posterior for most draws, much wider or the prior for the rest.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import VAE
    >>> X = load_iris().data
    >>> vae = VAE(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(5).shape, vae.score_samples(X).shape
    ((150, 2), (5, 4), (150,))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "dispersion": DiaboloEstimator._dispersions,
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

    def build(self, schema: Schema, key: Array) -> VariationalModel:
        """The untrained network for a table."""
        parts = Parts.of(self, schema, key, n_code_params=2)
        return VariationalModel(**parts.fields())
