"""The importance-weighted autoencoder (Burda, Grosse & Salakhutdinov 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from diabolo.batches import Batch
from diabolo.checks import OneOf, Range
from diabolo.codes import Posterior
from diabolo.joint import JointLikelihood
from diabolo.model import Decoder, Encoder, Loss, State
from diabolo.objectives import importance_bound, weighted_mean
from diabolo.priors import FlowPrior, Mixture, PseudoInputs, StandardNormal
from diabolo.table import Schema
from diabolo.variational import Usage, VariationalModel, Weights
from diabolo.variational_estimator import VariationalEstimator

__all__ = ["IWAE"]


class ImportanceModel(VariationalModel):
    """Trained on the log of the mean weight of several draws per row.

    ```
    x ─▶ encoder ─▶ q(z | x) ─▶ z₁ ... z_k ─▶ decoder ─▶ weights p(x, z_i) / q(z_i | x) ─▶ log of their mean
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    code_prior: StandardNormal | Mixture | PseudoInputs | FlowPrior
    weights: Weights
    usage: Usage
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    n_draws: int = eqx.field(static=True)
    gradient: str = eqx.field(static=True)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative importance-weighted bound; while it warms up, log p(z) - log q(z | x) counts in part."""
        bound = self.bound(batch, key, self.weights.at(state))
        return Loss(-weighted_mean(bound, batch.weight), {"bound": jnp.mean(bound)}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The bound of as many draws."""
        return self.bound(batch, key, self.weights.beta)

    def bound(self, batch: Batch, key: Array, weight: Array) -> Array:
        """(n_rows,) nats, with the gradient that the family asks for."""
        posterior = self.posterior(batch)
        keys = jax.random.split(key, self.n_draws)
        codes = jax.vmap(posterior.draw_one)(keys)  # (n_draws, n_rows, n_components)
        if self.gradient == "plain":
            return importance_bound(self._log_weights(batch, posterior, codes, weight).T)
        # The draws' own law is fixed, and what reaches the encoder through a draw is weighed once more: the sum of the
        # squared weights times the gradient along the draw. While the bound warms up, the law that is fixed counts in
        # part, and so does the second weighing. Forwards both passes are one, and compiled as one.
        fixed = jax.lax.stop_gradient(posterior)
        seen = jax.lax.stop_gradient(self._log_weights(batch, fixed, codes, weight))
        share = jax.nn.softmax(seen, axis=0)
        along = jax.vmap(jax.vmap(_weighed))(codes, 1.0 - weight * (1.0 - share))
        log_weights = self._log_weights(batch, fixed, along, weight)
        slope = jnp.sum(share * log_weights, axis=0)
        return importance_bound(seen.T) + slope - jax.lax.stop_gradient(slope)

    def _log_weights(self, batch: Batch, posterior: Posterior, codes: Array, weight: Array) -> Array:
        """(n_draws, n_rows) nats."""

        def of_draw(code: Array) -> Array:
            groups = self.split(code)
            return self.log_likelihood(batch, groups) + weight * (
                self.log_prior(groups) - posterior.log_prob(code)
            )

        return jax.vmap(of_draw)(codes)


@jax.custom_vjp
def _weighed(code: Array, share: Array) -> Array:
    """The code itself; its gradient is multiplied by the share."""
    return code


_weighed.defvjp(
    lambda code, share: (code, share), lambda share, gradient: (gradient * share, jnp.zeros_like(share))
)


class IWAE(VariationalEstimator):
    """Importance-weighted autoencoder: a tighter bound in training, and so a code with less to hide.

    ```
    x ─▶ encoder ─▶ q(z | x) ─▶ z₁ ... z_k ─▶ decoder ─▶ log mean p(x, z_i) / q(z_i | x)
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
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
    n_draws : codes per row in the training bound; 1 is the VAE's
    gradient : "doubly_reparameterized" (Tucker et al. 2019), of less variance, or "plain"
    prior, n_prior, posterior : as for `VAE`
    warm_up : share of the steps over which log p(z) - log q(z | x) comes to count fully
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
    divergence_, active_components_, prior_gap_ : as for `VAE`

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders, eq. 8, arXiv:1509.00519. Tucker, Lawson, Gu &
    Maddison 2019, Doubly reparameterized gradient estimators, eq. 8, arXiv:1810.04152.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import IWAE
    >>> X = load_iris().data
    >>> iwae = IWAE(n_components=2, n_draws=4, max_steps=200, random_state=0).fit(X)
    >>> iwae.transform(X).shape, iwae.sample(5).shape, iwae.score_samples(X).shape
    ((150, 2), (5, 4), (150,))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: rules
            for name, rules in VariationalEstimator._constraints.items()
            if name not in ("beta", "free_bits")
        },
        "n_draws": [Range(1, whole=True)],
        "gradient": [OneOf("doubly_reparameterized", "plain")],
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
        n_draws=8,
        gradient="doubly_reparameterized",
        prior="normal",
        n_prior=50,
        posterior="diagonal",
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
        self.n_draws = n_draws
        self.gradient = gradient
        self.prior = prior
        self.n_prior = n_prior
        self.posterior = posterior
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

    def build(self, schema: Schema, key: Array) -> ImportanceModel:
        """The untrained network for a table."""
        return ImportanceModel(**self._fields(schema, key))

    def _objective(self) -> dict[str, Any]:
        return {**super()._objective(), "n_draws": int(self.n_draws), "gradient": self.gradient}
