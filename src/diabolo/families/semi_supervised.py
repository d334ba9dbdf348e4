"""The semi-supervised variational autoencoder, M2, and stacked on a VAE's code, M1 + M2 (Kingma et al. 2014)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from jax import Array
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from diabolo import passes
from diabolo.checks import InputError, OneOf, Range, refuse
from diabolo.columns import Categorical
from diabolo.estimator import DiaboloEstimator
from diabolo.keys import children
from diabolo.labels import LabelledModel, StackedModel, side_by_side, starting_at_zero
from diabolo.model import Encoder
from diabolo.nets import MLP
from diabolo.table import Schema
from diabolo.wiring import Parts, layer_sizes, networks, width_of

__all__ = ["SemiSupervisedVAE"]

_HIDDEN = (128,)  # of the networks on top of M1's code, where label_layer_sizes is "auto"


class SemiSupervisedVAE(ClassifierMixin, DiaboloEstimator):
    """Variational autoencoder of rows of which some have a label: a classifier that learns from the others too.

    ```
    x ─▶ classifier ─▶ q(y | x)      x, y ─▶ encoder ─▶ q(z | x, y) ─▶ z      y, z ─▶ decoder ─▶ p(x | y, z)
    ```

    A label is -1 (unless the labels are exactly -1 and 1), None or nan where it is not known; it is then summed out.
    The code is the style z beside the probabilities of the classes. Every density is log p(x), the label summed out by
    draws; `score_samples(X, y)` is log p(x | y) where y is known. `score` is the classifier's accuracy.

    Parameters
    ----------
    n_components : width of the style; "auto" is half the encoded width, between 2 and 16
    stacked : False is M2; True is M1 + M2: first a VAE of the rows, then M2 on its code, for many rows of many
        columns
    n_feature_components : width of M1's code, where stacked; "auto" as for n_components
    shares : where stacked, how the steps are shared out: M1 alone, M2 on its codes, both together
    alpha : weight of the classifier's mean cross-entropy over labelled rows, beside the mean bound of all rows. The
        paper has 0.1
    hidden_layer_sizes : widths of the hidden layers of encoder and classifier, the decoder's in reverse; "auto" suits
        the data
    label_layer_sizes : widths of the hidden layers on top of M1's code, where stacked; "auto" is one of 128
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns of X that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder, decoder and, in M2, classifier
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
    warm_up : share of the steps over which the style's divergence grows from 0
    batch_size, learning_rate, max_steps : of training; "auto" suits the data. Where few rows have labels, an eighth of
        every batch is of them, and weights make up for it
    early_stopping : stop when the held-out bound has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that; of those without labels, where more than half have none
    n_init : independent starts; the best held-out bound wins
    warm_start : go on from the last fit, where stacked through its phases once more
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    classes_ : (n_classes,) the labels, in order
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells
    density_kind_ : "bound": `score_samples` lies below log p(x) in expectation

    References
    ----------
    Kingma, Mohamed, Rezende & Welling 2014, Semi-supervised learning with deep generative models, eqs. 6 to 9,
    arXiv:1406.5298. p(y) are the labelled rows' frequencies. Density: Burda, Grosse & Salakhutdinov 2016, eq. 8,
    arXiv:1509.00519.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import SemiSupervisedVAE
    >>> X, y = load_iris(return_X_y=True)
    >>> few = np.where(np.arange(150) % 10 == 0, y, -1)
    >>> m2 = SemiSupervisedVAE(n_components=2, max_steps=500, random_state=0).fit(X, few)
    >>> m2.predict_proba(X).shape, m2.transform(X).shape, m2.sample(5, given=[0, 0, 1, 1, 2]).shape
    ((150, 3), (150, 5), (5, 4))
    """

    _conditions_on_y: ClassVar[bool] = True
    _kind_of_y = "categorical"
    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "dispersion": DiaboloEstimator._dispersions,
        "stacked": [bool, np.bool_],
        "n_feature_components": [OneOf("auto"), Range(1, whole=True)],
        "shares": [tuple, list, np.ndarray],
        "alpha": [Range(0.0)],
        "label_layer_sizes": DiaboloEstimator._constraints["hidden_layer_sizes"],
        "warm_up": [Range(0.0, 1.0)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        stacked=False,
        n_feature_components="auto",
        shares=(0.4, 0.2, 0.4),
        alpha=10.0,
        hidden_layer_sizes="auto",
        label_layer_sizes="auto",
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        network=None,
        dispersion="column",
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
        self.stacked = stacked
        self.n_feature_components = n_feature_components
        self.shares = shares
        self.alpha = alpha
        self.hidden_layer_sizes = hidden_layer_sizes
        self.label_layer_sizes = label_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.network = network
        self.dispersion = dispersion
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

    def build(self, schema: Schema, key: Array) -> LabelledModel | StackedModel:
        """The untrained network for a table."""
        kind = schema.beside[0].kind
        n_classes, style = kind.width, width_of(self.n_components, schema.width)
        key_parts, key_classes, key_inner, key_outer = children(key, 4)
        facts: dict[str, Any] = {
            "log_frequency": np.asarray(kind.initial(), np.float32),
            **self._objective(),
        }
        if not self.stacked:
            parts = Parts.of(self, schema, key_parts, lambda n: 2 * n, (("style", style),))
            n_inputs = Encoder.n_inputs(schema.width, parts.encoder.gap_columns, schema.given_width)
            classifier = networks(self, schema, (0,))[0](n_inputs, n_classes, key_classes)
            fields = parts.fields() | {"code_widths": (("style", style), ("label", n_classes))}
            return LabelledModel(**fields, **facts, classifier=classifier)
        width = width_of(self.n_feature_components, schema.width)
        parts = Parts.of(self, schema, key_parts, lambda n: 2 * n, (("features", width),))
        hidden = layer_sizes(self.label_layer_sizes, _HIDDEN, "label_layer_sizes")
        fields = parts.fields() | {
            "code_widths": (("features", width), ("style", style), ("label", n_classes))
        }
        return StackedModel(
            **fields,
            **facts,
            classifier=MLP(width, n_classes, hidden, self.activation, key_classes),
            inner=side_by_side(
                [
                    MLP(width, 2 * style, hidden, self.activation, key)
                    for key in children(key_inner, n_classes)
                ]
            ),
            outer=side_by_side(
                [
                    starting_at_zero(MLP(style, 2 * width, hidden[::-1], self.activation, key))
                    for key in children(key_outer, n_classes)
                ]
            ),
        )

    def _objective(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "alpha": np.asarray(self.alpha, np.float32),
            "warm": np.asarray(self.warm_up, np.float32),
        }
        return facts | {"shares": _shares(self.shares)} if self.stacked else facts

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """As for every member; `classes` lists all labels in the first call, where its rows may lack some.

        y without any label, or no y at all, is welcome in later calls.
        """
        if classes is not None and not hasattr(self, "model_"):
            levels = np.unique(np.asarray(classes)).tolist()
            known = Categorical(levels=tuple(one if isinstance(one, str) else float(one) for one in levels))
            self._kind_of_y = known
        try:
            return super().partial_fit(X, y)
        finally:
            if "_kind_of_y" in vars(self):
                del self._kind_of_y

    # ---- labels --------------------------------------------------------------------------------------------

    @property
    def classes_(self) -> np.ndarray:
        """(n_classes,) the labels, in order."""
        check_is_fitted(self, "schema_")
        return _as_labels(self.schema_)[0]

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row: (n_rows,)."""
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The classifier's q(y | x), classes in the order of `classes_`: (n_rows, n_classes)."""
        rows = self._encode(X)
        return passes.classes(self.model_, rows)[:, _as_labels(self.schema_)[1]]

    def _beside(self, y: Any, known: bool = True) -> Any:
        """Labels, None or nan where there is none.

        Whether -1 is a label is decided once: by the first call's `classes`, else by its y.
        """
        classes: Any = self._kind_of_y.levels if isinstance(self._kind_of_y, Categorical) else None
        if known:
            classes = self.classes_.tolist()
        try:
            labels = column_or_1d(y, warn=True)
        except ValueError as error:
            raise InputError(str(error)) from None
        if labels.dtype.kind in "biuf":
            labels = labels.astype(np.float64)
            if np.isinf(labels).any():
                raise refuse("y", got="infinite values (Input y contains infinity)", want="labels")
            unknown = np.isnan(labels)
            if classes is None:
                found = set(np.unique(labels[~unknown]))
                classes = found if found == {-1.0, 1.0} else ()
            if -1.0 not in classes:
                unknown |= labels == -1.0
            gap: Any = np.nan
        else:
            labels = labels.astype(object)
            unknown = np.array([one is None or one != one or one == -1 for one in labels], bool)
            gap = None
        if unknown.all() and not known:
            fix = "Label some rows, or take a VAE."
            raise refuse("y", got="no label", want="at least one row with a label", fix=fix)
        try:
            check_classification_targets(labels[~unknown])
        except ValueError as error:
            raise refuse("y", got=str(error), want="labels of classes") from None
        labels[unknown] = gap
        return labels

    def _look_over(self, schema: Schema) -> None:
        if not schema.beside:
            raise refuse(
                "y",
                got="None (this estimator requires y to be passed, but the target y is None)",
                want="labels, -1 where there is none",
            )

    def _scarce(self, given: np.ndarray) -> np.ndarray | None:
        return given[:, -1] < 0.5

    def _unconditioned(self, n_rows: int) -> np.ndarray:
        if self.schema_.layout.given_width:
            raise refuse("given", got="nothing", want="a value for each column the model was conditioned on")
        given = np.zeros((n_rows, self.schema_.given_width), np.float32)
        given[:, -1] = 1.0
        return given


def _shares(shares: Any) -> tuple[float, float, float]:
    """Three shares that sum to one."""
    parts = tuple(shares)
    if len(parts) != 3 or any(part not in Range(0.0) for part in parts) or not sum(parts):
        want = "three numbers at least 0, not all of them 0"
        raise refuse("parameter 'shares'", got=f"{shares!r}", want=want, fix="Leave it at (0.4, 0.2, 0.4).")
    of_features, of_labels, of_both = (float(part) / float(sum(parts)) for part in parts)
    return of_features, of_labels, of_both


def _as_labels(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """The classes in order, whole numbers as such, and the place of each among the columns' levels."""
    levels = np.asarray(schema.beside[0].kind.levels)  # type: ignore[attr-defined]
    order = np.argsort(levels)
    classes = levels[order]
    if classes.dtype.kind == "f" and np.all(classes == np.rint(classes)):
        classes = classes.astype(np.int64)
    return classes, order
