"""The variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014)."""

from __future__ import annotations

import equinox as eqx
from jax import Array

from diabolo.batches import Batch
from diabolo.joint import JointLikelihood
from diabolo.model import Decoder, Encoder, Loss, State
from diabolo.priors import FlowPrior, Mixture, PseudoInputs, StandardNormal
from diabolo.table import Schema
from diabolo.variational import Usage, VariationalModel, Weights
from diabolo.variational_estimator import VariationalEstimator

__all__ = ["VAE"]


class EvidenceModel(VariationalModel):
    """Trained on the evidence bound, at one draw of the code per row.

    ```
    x ─▶ encoder ─▶ mean, log scale ─▶ z = mean + scale · noise ─▶ decoder ─▶ parameters ─▶ log p(x | z)
                          └─────────────▶ KL(q(z | x) || p(z)) ◀── p(z)
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    code_prior: StandardNormal | Mixture | PseudoInputs | FlowPrior
    weights: Weights
    usage: Usage
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative evidence bound."""
        return self.evidence_loss(batch, key, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The evidence bound."""
        return self.evidence(batch, key)


class VAE(VariationalEstimator):
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
    prior : of the code: "normal", N(0, I); "mixture" of `n_prior` Gaussians that training moves; "vamp", the encoder's
        answers to `n_prior` pseudo-inputs (Tomczak & Welling 2018), which begin at training rows; "flow", a masked
        autoregressive flow (flowjax)
    n_prior : Gaussians of the mixture, or pseudo-inputs
    posterior : "diagonal" or "full" covariance of q(z | x)
    beta : weight of the divergence; below 1 the code says more and p(x) less, above 1 the reverse (Higgins et al. 2017)
    free_bits : nats per component that the divergence may have at no cost (Kingma et al. 2016)
    warm_up : share of the steps over which the divergence's weight grows from 0 (Bowman et al. 2016)
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
    divergence_ : (n_components,) mean KL of each component's posterior to the prior's mean and spread, nats, of at most
        512 rows, held out where any are
    active_components_ : (n_components,) bool, whether its mean varies from row to row by more than 0.01
    prior_gap_ : low and high, nats, between which the KL of the aggregate posterior to the prior lies: what `sample`
        pays for drawing codes that no row has

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

    def build(self, schema: Schema, key: Array) -> EvidenceModel:
        """The untrained network for a table."""
        return EvidenceModel(**self._fields(schema, key))
