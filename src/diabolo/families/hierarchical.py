"""The hierarchical variational autoencoder, a ladder of codes (Sønderby et al. 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo import passes
from diabolo.checks import Range, refuse
from diabolo.keys import children
from diabolo.ladder import LadderModel
from diabolo.nets import MLP
from diabolo.table import Schema
from diabolo.variational import Usage
from diabolo.variational_estimator import VariationalEstimator
from diabolo.wiring import Parts, layer_sizes, width_of

__all__ = ["HierarchicalVAE"]

_BETWEEN = (64,)  # where level_layer_sizes is "auto"
_N_FEATURES = 64  # that go up from one level to the next


class HierarchicalVAE(VariationalEstimator):
    """Variational autoencoder with levels of codes: the higher say what the lower have in common.

    ```
    x ─▶ encoder ─▶ said of z₁ ─▶ said of z₂          q(z₂ | x) ∝ p(z₂) · said of z₂,     p(z₂) = N(0, I)
                        z₁, z₂ ─▶ decoder ─▶ p(x | z₁, z₂)      q(z₁ | z₂, x) ∝ p(z₁ | z₂) · said of z₁
    ```

    Parameters
    ----------
    n_components : width of the lowest level, each higher one half as wide; "auto" is half the encoded width, between 2
        and 16. Several numbers are the widths of all levels, the lowest first
    n_levels : levels, where `n_components` does not list them
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    level_layer_sizes : widths of the hidden layers between two levels, up and down; "auto" is one of 64
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
    n_draws : codes per row in the training bound; above 1 it is importance-weighted (Burda et al. 2016)
    beta : weight of the divergence, where n_draws is 1
    free_bits : nats per component that the divergence may have at no cost, where n_draws is 1
    warm_up : share of the steps over which the divergence's weight grows from 0; without it the upper levels are
        seldom used (Sønderby et al. 2016, section 3)
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
    level_widths_ : components of each level, the lowest first; `transform` gives them side by side
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells
    density_kind_ : "bound": `score_samples` lies below log p(x) in expectation
    divergence_ : (n_components,) mean KL of each component's posterior to its prior given the level above, nats
    active_components_ : (n_components,) bool, whether its mean varies from row to row by more than 0.01
    prior_gap_ : low and high, nats, between which the KL of the aggregate posterior to the prior lies

    References
    ----------
    Sønderby, Raiko, Maaløe, Sønderby & Winther 2016, Ladder variational autoencoders, arXiv:1602.02282. Departures: the
    highest level has a prior to be multiplied with as well, and the decoder reads all levels, not the lowest alone, as
    the skip connections of Maaløe et al. 2019, arXiv:1902.02102, do. Density: Burda, Grosse & Salakhutdinov 2016,
    eq. 8, arXiv:1509.00519.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import HierarchicalVAE
    >>> X = load_iris().data
    >>> ladder = HierarchicalVAE(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> ladder.level_widths_, [level.shape for level in ladder.transform_levels(X)]
    ((2, 1), [(150, 2), (150, 1)])
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: rules
            for name, rules in VariationalEstimator._constraints.items()
            if name not in ("prior", "n_prior", "posterior")
        },
        "n_components": [VariationalEstimator._auto, Range(1, whole=True), tuple, list, np.ndarray],
        "n_levels": [Range(1, whole=True)],
        "level_layer_sizes": VariationalEstimator._constraints["hidden_layer_sizes"],
        "n_draws": [Range(1, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_levels=2,
        hidden_layer_sizes="auto",
        level_layer_sizes="auto",
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        network=None,
        dispersion="column",
        n_draws=1,
        beta=1.0,
        free_bits=0.0,
        warm_up=0.2,
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
        self.n_levels = n_levels
        self.hidden_layer_sizes = hidden_layer_sizes
        self.level_layer_sizes = level_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.network = network
        self.dispersion = dispersion
        self.n_draws = n_draws
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

    def build(self, schema: Schema, key: Array) -> LadderModel:
        """The untrained network for a table."""
        widths = self._widths(schema)
        between = layer_sizes(self.level_layer_sizes, _BETWEEN, "level_layer_sizes")
        key_parts, *keys = children(key, 2 * len(widths) - 1)
        said = [2 * width + _N_FEATURES for width in widths[:-1]] + [2 * widths[-1]]
        names = tuple((f"level_{i + 1}", width) for i, width in enumerate(widths))
        parts = Parts.of(self, schema, key_parts, lambda _: said[0], names)
        upward = [
            MLP(_N_FEATURES, said[i + 1], between, self.activation, keys[2 * i])
            for i in range(len(widths) - 1)
        ]
        downward = [
            MLP(widths[i + 1], 2 * widths[i], between[::-1], self.activation, keys[2 * i + 1])
            for i in range(len(widths) - 1)
        ]
        return LadderModel(
            **parts.fields(),
            upward=tuple(upward),
            downward=tuple(downward),
            **self._objective(),
            usage=Usage.unknown(parts.n_components),
        )

    def _objective(self) -> dict[str, Any]:
        if self.n_draws > 1 and (self.beta != 1.0 or self.free_bits):
            got = f"{self.n_draws} beside beta={self.beta} and free_bits={self.free_bits}"
            want = "1 draw there: the bound of several has no divergence to weigh"
            raise refuse("parameter 'n_draws'", got=got, want=want, fix="Set beta=1 and free_bits=0.")
        return {**super()._objective(), "n_draws": int(self.n_draws)}

    def _widths(self, schema: Schema) -> tuple[int, ...]:
        if isinstance(self.n_components, (tuple, list, np.ndarray)):
            if not len(self.n_components):
                raise refuse("parameter 'n_components'", got="no level", want="a width for each level")
            return layer_sizes(self.n_components, (), "n_components", "a level")
        width = width_of(self.n_components, schema.width)
        return tuple(max(-(-width // 2**i), 1) for i in range(int(self.n_levels)))

    @property
    def level_widths_(self) -> tuple[int, ...]:
        """Components of each level, the lowest first."""
        check_is_fitted(self, "model_")
        return tuple(width for _, width in self.model_.code_widths)

    def transform_levels(self, X: Any) -> tuple[np.ndarray, ...]:
        """Codes of rows level by level, the lowest first: (n_rows, width) float64 each."""
        codes = self.transform(X)
        return tuple(np.split(codes, np.cumsum(self.level_widths_)[:-1], axis=1))

    def reconstruct_from(self, X: Any, level: int) -> Any:
        """Rows as the code's levels from `level` up remember them, those beneath put to the mean of their prior.

        Parameters
        ----------
        X : rows
        level : 1 is the lowest, and keeps all that `reconstruct` keeps

        Returns
        -------
        rows in the container of X
        """
        rows = self._encode(X)
        names = [name for name, _ in self.model_.code_widths]
        if level not in Range(1, whole=True) or level > len(names):
            want = f"a whole number from 1 to {len(names)}"
            raise refuse("parameter 'level'", got=repr(level), want=want)
        codes = self.model_.split(jnp.asarray(passes.codes(self.model_, rows), jnp.float32))
        upper = {name: codes[name] for name in names[level - 1 :]}
        kept = self.model_.join(self.model_.descended(upper, len(rows.values), lambda _, prior: prior.mean))
        values = passes.means(self.model_, np.asarray(kept), rows.given)
        return self.schema_.decode(values, like=X, given_values=rows.given)
