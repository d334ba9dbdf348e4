"""A classifier of densities: one for each class, weighed by how common the class is."""

from __future__ import annotations

import copy
from typing import Any, Self

import narwhals as nw
import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier, is_outlier_detector
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from diabolo.checks import InputTypeError, Range, refuse
from diabolo.estimator import DiaboloEstimator
from diabolo.keys import seed_from
from diabolo.table import as_array, rows_at

__all__ = ["BayesClassifier"]


class BayesClassifier(ClassifierMixin, BaseEstimator):
    """Bayes' rule over densities: p(class | x) is in proportion to p(x | class) p(class).

    ```
    x ─┬─▶ density of class 1 ─▶ + log p(class 1) ─┐
       └─▶ density of class 2 ─▶ + log p(class 2) ─┴─▶ p(class | x), log p(x) = log Σ p(x | class) p(class)
    ```

    The columns are learned once, from all rows, and shared by the densities of all classes: a pixel that is always
    blank in one class still has a spread there, and nats of different classes are of the same thing. Kernels settle
    their width for each class by its likelihood; one `bandwidth` for all classes may make fewer mistakes.

    Parameters
    ----------
    estimator : a member with a density that is fitted without y, or any with `fit` and `score_samples`, nats; one clone
        is fitted to each class. None is `VAE()`
    priors : (n_classes,) the classes' probabilities, in their sorted order; None takes their shares of the rows

    Attributes
    ----------
    classes_ : (n_classes,) sorted
    class_prior_ : (n_classes,)
    estimators_ : one per class, in that order
    n_features_in_, feature_names_in_ : of the training data

    References
    ----------
    Duda & Hart 1973, chapter 2. With kernels: Bengio, Larochelle & Vincent 2006, section 5.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import BayesClassifier, ParzenWindow
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = BayesClassifier(ParzenWindow(random_state=0)).fit(X[::2], y[::2])
    >>> bool(classifier.score(X[1::2], y[1::2]) > 0.9), classifier.predict_proba(X[:1]).shape
    (True, (1, 3))
    """

    def __init__(self, estimator=None, *, priors=None):
        self.estimator = estimator
        self.priors = priors

    def fit(self, X: Any, y: Any) -> Self:
        """Fit one density to the rows of each class.

        Parameters
        ----------
        X : rows, as the estimator takes them
        y : (n_rows,) classes

        Returns
        -------
        self
        """
        estimator = _default() if self.estimator is None else self.estimator
        _must_be_density(estimator)
        if y is None:
            want = "a class for each row: a classifier requires y to be passed, but the target y is None"
            raise refuse("y", got="None", want=want)
        # first of all: it refuses what is no table
        shared = clone(estimator).columns_of(X) if isinstance(estimator, DiaboloEstimator) else None
        X = X if nw.dependencies.is_into_dataframe(X) else as_array(X)  # what a mask hides is a gap
        _must_be_labels(y)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise refuse("y", got=f"{len(y)} labels", want=f"one for each of the {len(X)} rows of X")
        self.classes_, which = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise refuse("y", got=f"one class, {self.classes_.tolist()[0]!r}", want="two or more classes")
        self.class_prior_ = self._priors(which)
        self.estimators_ = []
        for number in range(len(self.classes_)):
            one = clone(estimator)
            if shared is not None:
                one._columns = shared
            self.estimators_.append(one.fit(rows_at(X, np.flatnonzero(which == number))))
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimators_[0], name):
                setattr(self, name, getattr(self.estimators_[0], name))
            elif hasattr(self, name):  # of an earlier fit
                delattr(self, name)
        return self

    def _priors(self, which: np.ndarray) -> np.ndarray:
        """(n_classes,) of the rows' classes by number."""
        n_classes = len(self.classes_)
        if self.priors is None:
            return np.bincount(which, minlength=n_classes) / len(which)
        want = f"{n_classes} probabilities above 0 that sum to 1"
        try:
            priors = np.asarray(self.priors, np.float64)
        except (TypeError, ValueError):
            raise refuse("parameter 'priors'", got=repr(self.priors), want=want) from None
        if priors.shape != (n_classes,) or not (priors > 0).all() or abs(priors.sum() - 1.0) > 1e-6:
            raise refuse("parameter 'priors'", got=repr(self.priors), want=want)
        return priors

    def log_joint(self, X: Any) -> np.ndarray:
        """log p(x, class): (n_rows, n_classes) nats."""
        check_is_fitted(self)
        each = [one.score_samples(X) for one in self.estimators_]
        return np.stack(each, axis=1) + np.log(self.class_prior_)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x), the classes summed out: (n_rows,) nats."""
        return logsumexp(self.log_joint(X), axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log p(class | x): (n_rows, n_classes). A row that no class can hold has the classes' priors."""
        joint = self.log_joint(X)
        joint = np.where(np.isneginf(joint).all(axis=1, keepdims=True), np.log(self.class_prior_), joint)
        return joint - logsumexp(joint, axis=1, keepdims=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(class | x): (n_rows, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row: (n_rows,)."""
        chances = self.predict_log_proba(X)
        return self.classes_[chances.argmax(axis=1)]

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> tuple[Any, np.ndarray]:
        """Draw classes by their priors, then a row of each.

        Returns
        -------
        rows as the estimators draw them, sorted by class; (n_samples,) their classes
        """
        check_is_fitted(self)
        if n_samples not in Range(1, whole=True):
            raise refuse("parameter 'n_samples'", got=repr(n_samples), want="a whole number at least 1")
        seed = seed_from(random_state)
        seeds = np.random.default_rng(seed).integers(2**31 - 1, size=len(self.classes_) + 1)
        counts = np.random.default_rng(seeds[-1]).multinomial(n_samples, self.class_prior_)
        parts = []
        for one, n, seed in zip(self.estimators_, counts, seeds[:-1], strict=True):
            if n:
                parts.append(_drawn(one, int(n), int(seed)))
        return _stacked(parts), np.repeat(self.classes_, counts)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.estimator is None or isinstance(self.estimator, DiaboloEstimator)
        return tags


def _must_be_labels(y: Any) -> None:
    """Refuse gaps, and text among numbers, before they are sorted."""
    cells = np.asarray(y, object)
    if cells.ndim != 1:  # scikit-learn has words for that
        return
    gaps = sum(one is None or str(one) in ("nan", "NaT", "<NA>") for one in cells)
    if gaps:
        fix = "Leave those rows out; SemiSupervisedVAE learns from them as well."
        raise refuse(
            "y", got=f"{gaps} gap{'s' * (gaps != 1)}", want=f"a class for each of {len(cells)} rows", fix=fix
        )
    n_texts = sum(isinstance(one, str) for one in cells)
    if 0 < n_texts < len(cells):
        got = f"{n_texts} texts among {len(cells)} labels"
        raise refuse(
            "y", got=got, want="labels of one type", fix="Use 'y.astype(str)'.", error=InputTypeError
        )


def _must_be_density(estimator: Any) -> None:
    """Refuse what gives no nats for rows without y."""
    want, got = "", type(estimator).__name__
    if not hasattr(estimator, "score_samples"):
        want, got = (
            "a density: something with score_samples, such as ParzenWindow()",
            f"{got}, which has none",
        )
    elif isinstance(estimator, type):
        want, got = "an estimator, such as ParzenWindow()", f"the class {estimator.__name__}"
    elif is_outlier_detector(estimator):
        want = "a density: its score_samples must be nats, to be compared between classes"
        got = f"{got}, whose scores are no log-densities"
    elif is_classifier(estimator):
        want = "a density that is fitted to a class's rows without y, such as VAE()"
        got = f"{got}, a classifier itself"
    if want:
        raise refuse("parameter 'estimator'", got=got, want=want, error=InputTypeError)


def _drawn(estimator: Any, n: int, seed: int) -> Any:
    """Rows of a density, ours or scikit-learn's."""
    if not hasattr(estimator, "sample"):
        want = "estimators that can sample"
        raise refuse("sample", got=f"{type(estimator).__name__}, which cannot", want=want)
    if isinstance(estimator, DiaboloEstimator) or "random_state" not in estimator.get_params():
        return estimator.sample(n, random_state=seed)
    # a Gaussian mixture has its seed as a parameter, and says beside the rows which of its parts drew them
    rows = copy.deepcopy(estimator).set_params(random_state=seed).sample(n)
    return rows[0] if isinstance(rows, tuple) else rows


def _stacked(parts: list[Any]) -> Any:
    """Tables one under the other, in their container."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return nw.maybe_reset_index(nw.concat([nw.from_native(part) for part in parts])).to_native()


def _default() -> Any:
    from diabolo.families.vae import VAE

    return VAE()
