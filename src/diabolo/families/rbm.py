"""The restricted Boltzmann machine (Smolensky 1986; Hinton 2002)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo.boltzmann import LOOKED_AT_BITS, N_KEPT, Machine, RBMModel, Units
from diabolo.checks import OneOf, Range, refuse
from diabolo.estimator import DiaboloEstimator
from diabolo.table import Schema

__all__ = ["RBM"]

_LEARNING_RATE = 0.03


class RBM(DiaboloEstimator):
    """Restricted Boltzmann machine: cells and hidden units that are independent given each other.

    ```
    cells x ◀── weights ──▶ hidden h ∈ {0, 1}         p(x) = Σ_h exp(-E(x, h)) / Z
    ```

    Two values, levels and numbers have units of their own: a logistic, a softmax and a normal one of learned spread.

    Parameters
    ----------
    n_components : hidden units; "auto" is the encoded width, between 8 and 12. Up to 20 the density is exact
    n_gibbs : steps of the chain between two updates
    persistent : chains go on from batch to batch (PCD); False starts them at the batch (CD)
    n_chains : persistent chains
    decoupled_weight_decay : each step shrinks the weights by that share of the learning rate (Loshchilov & Hutter
        2019), beside the gradient and not through Adam; 0.05 does hundreds of hidden units good
    n_temperatures : of the annealed estimate of log Z beyond 20 hidden units, which runs 1,024 chains; "auto" is 2,000
    kinds : column kinds by name, `{"age": "real"}`, or one for all, `"real"`; what is not named is inferred
    given : none: a partition function for every condition is not in reach; the parameter refuses
    image_shape : (height, width[, channels]) of rows that are flattened images
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out nats have not risen for `n_iter_no_change` rounds of 100 steps; beyond 12
        hidden units these cost too much to look at, training takes all its steps and keeps the last weights
    validation_fraction : share of the rows held out for that; beyond 12 hidden units they are watched by
        log p(x | E[h | x]), which only compares the starts of `n_init`: False above learns from all rows
    n_init : independent starts; the best held-out nats win
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained machine, the columns
    log_z_, log_z_error_ : log of the partition function, nats, and its standard error
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_ : free energy of rows minus that of draws, per round; no likelihood
    validation_scores_, best_validation_score_ : log p(x) up to 12 hidden units, beyond log p(x | E[h | x]); nats
    density_kind_ : "exact" up to 20 hidden units, rows with gaps included; "estimate" beyond, by annealed importance
        sampling, with the standard error of log Z; a row's missing cells are then summed over by importance sampling

    References
    ----------
    Hinton 2002, Training products of experts; Tieleman 2008; Hinton 2012, A practical guide. log Z: Salakhutdinov &
    Murray 2008, On the quantitative analysis of deep belief networks.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import RBM
    >>> X = np.repeat([[0.0, 0, 0, 1], [1, 1, 1, 0]], 50, axis=0)
    >>> rbm = RBM(n_components=4, max_steps=200, random_state=0).fit(X)
    >>> rbm.transform(X).shape, rbm.density_kind_
    ((100, 4), 'exact')
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        name: admitted
        for name, admitted in DiaboloEstimator._constraints.items()
        if name not in ("hidden_layer_sizes", "activation", "network")
    } | {
        "n_gibbs": [Range(1, whole=True)],
        "persistent": [bool, np.bool_],
        "n_chains": [Range(1, whole=True)],
        "decoupled_weight_decay": [Range(0.0)],
        "n_temperatures": [OneOf("auto"), Range(10, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_gibbs=5,
        persistent=True,
        n_chains=128,
        decoupled_weight_decay=0.0,
        n_temperatures="auto",
        kinds=None,
        given=(),
        image_shape=None,
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
        self.n_gibbs = n_gibbs
        self.persistent = persistent
        self.n_chains = n_chains
        self.decoupled_weight_decay = decoupled_weight_decay
        self.n_temperatures = n_temperatures
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
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

    @property
    def log_z_(self) -> float:
        """Nats."""
        check_is_fitted(self, "model_")
        return float(self.model_.log_z)

    @property
    def log_z_error_(self) -> float:
        """Nats; 0 where all states were summed."""
        check_is_fitted(self, "model_")
        return float(self.model_.log_z_error)

    def free_energy(self, X: Any) -> np.ndarray:
        """F(x) = -log Σ_h exp(-E(x, h)) in the user's units, so that log p(x) = -F(x) - log Z.

        Two rows are compared by it whatever Z is. Gaps are summed over as in `score_samples`.

        Parameters
        ----------
        X : rows, as `fit` takes them

        Returns
        -------
        (n_rows,) nats; the smaller the likelier

        Source: Hinton 2012, A practical guide to training restricted Boltzmann machines, eq. 25.
        """
        return -(self.score_samples(X) + self.log_z_)

    def build(self, schema: Schema, key: Array) -> RBMModel:
        """The untrained machine for a table."""
        places = schema.layout.places
        names = [schema.columns[place.column].name for place in places]
        units, marginal = Units.of([place.kind for place in places], names)
        n_hidden = self._n_hidden(schema)
        zero: Any = np.zeros((), np.float32)
        kept: Any = np.zeros((N_KEPT, n_hidden), np.float32)
        return RBMModel(
            likelihood=schema.likelihood(),
            machine=Machine.starting(units, marginal, n_hidden, key),
            marginal=np.asarray(marginal, np.float32),  # type: ignore[arg-type]
            log_z=zero,
            log_z_error=zero,
            kept=kept,
            code_widths=(("hidden", n_hidden),),
            gaps=bool(schema.gaps.any()),
            **self._objective(),
        )

    def _objective(self) -> dict[str, Any]:
        n_temperatures = 2000 if self.n_temperatures == "auto" else int(self.n_temperatures)
        return {
            "n_gibbs": int(self.n_gibbs),
            "n_chains": int(self.n_chains),
            "persistent": bool(self.persistent),
            "n_temperatures": n_temperatures,
            "decay": np.asarray(self.decoupled_weight_decay, np.float32),
        }

    def _rate(self) -> float:
        return _LEARNING_RATE if self.learning_rate == "auto" else float(self.learning_rate)

    def _n_hidden(self, schema: Schema) -> int:
        if self.n_components != "auto":
            return int(self.n_components)
        return int(np.clip(schema.width, 8, LOOKED_AT_BITS))

    def _look_over(self, schema: Schema) -> None:
        if schema.given_width:
            raise refuse(
                "parameter 'given'",
                got="columns that are conditions",
                want="none, because every condition would have a partition function of its own",
                fix="Leave them among the columns, or use ConditionalVAE.",
            )
