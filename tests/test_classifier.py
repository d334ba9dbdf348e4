"""Bayes' rule over densities."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity

from diabolo import BayesClassifier, InputError, ParzenWindow, Pixels, Real, SemiSupervisedVAE
from diabolo.outliers import OutlierDetector

IRIS = load_iris(return_X_y=True)


def test_over_scikit_learns_densities_it_is_bayes_rule():
    X, y = IRIS
    ours = BayesClassifier(GaussianMixture(1, covariance_type="diag", reg_covar=1e-9)).fit(X, y)
    theirs = GaussianNB().fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(ours.log_joint(X), theirs.predict_joint_log_proba(X), rtol=1e-4)
    priors = BayesClassifier(KernelDensity(bandwidth=0.3), priors=[0.2, 0.3, 0.5]).fit(X, y)
    np.testing.assert_allclose(
        priors.score_samples(X), np.log(np.exp(priors.log_joint(X)).sum(axis=1)), atol=1e-9
    )
    assert np.array_equal(priors.class_prior_, [0.2, 0.3, 0.5])


def test_the_densities_of_all_classes_share_the_columns():
    """A column of one value in one class, and a level that only the other has."""
    generator = np.random.default_rng(0)
    y = np.repeat(["ill", "well"], 60)
    table = pd.DataFrame(
        {
            "dose": np.where(y == "ill", generator.normal(3.0, 1.0, 120), 0.0),
            "ward": np.where(y == "ill", generator.choice(["a", "b"], 120), "a").astype(object),
        }
    )
    classifier = BayesClassifier(ParzenWindow(kinds={"dose": Real(atoms=())}, random_state=0)).fit(table, y)
    one, other = (estimator.schema_ for estimator in classifier.estimators_)
    assert one is other and one.columns[0].kind.name == "real"
    assert np.isfinite(classifier.log_joint(table)).all()
    odd = pd.DataFrame({"dose": [0.0, 4.0, 0.0], "ward": ["a", "b", None]})
    assert classifier.predict(odd).tolist() == ["well", "ill", "well"]
    # log p(x), the classes summed out, integrates to one over doses and wards; what training never saw has a share too
    doses = np.linspace(-6.0, 12.0, 3001)
    grid = pd.DataFrame({"dose": np.tile(doses, 3), "ward": np.repeat(["a", "b", "new"], len(doses))})
    with pytest.warns(UserWarning, match="training never saw|outside the support|unseen"):
        total = np.exp(classifier.score_samples(grid)).sum() * (doses[1] - doses[0])
    assert total == pytest.approx(1.0, abs=1e-4)


def test_digits_are_told_apart():
    """In grey levels, with every pixel measured alike, by kernels written out."""
    images, y = load_digits(return_X_y=True)
    X, grey = images.reshape(-1, 8, 8), Pixels(n_levels=17)
    ours = BayesClassifier(ParzenWindow(kinds=grey, scaling="unit", bandwidth=2.0)).fit(X[:900], y[:900])
    kernels = -cdist(images[900:], images[:900], "sqeuclidean") / 8.0
    by_class = [logsumexp(kernels[:, y[:900] == c], axis=1) for c in range(10)]  # shares of rows included
    joint = np.stack(by_class, axis=1) - np.log(900) - 32 * np.log(2 * np.pi * 4.0)
    np.testing.assert_allclose(ours.log_joint(X[900:]), joint, rtol=1e-4)
    assert np.array_equal(ours.predict(X[900:]), joint.argmax(axis=1))
    assert ours.score(X[900:], y[900:]) > 0.95


def test_draws_have_the_classes_shares_and_their_rows():
    X, y = IRIS
    for estimator in (ParzenWindow(random_state=0), KernelDensity(bandwidth=0.2), GaussianMixture(2)):
        classifier = BayesClassifier(estimator, priors=[0.6, 0.3, 0.1]).fit(X, y)
        rows, classes = classifier.sample(2000, random_state=0)
        again = classifier.sample(2000, random_state=0)
        assert (
            rows.shape == (2000, 4) and np.array_equal(rows, again[0]) and np.array_equal(classes, again[1])
        )
        share = np.bincount(classes, minlength=3) / 2000
        assert np.all(np.abs(share - [0.6, 0.3, 0.1]) < 0.05)
        for c in range(3):
            apart = np.abs(rows[classes == c].mean(axis=0) - X[y == c].mean(axis=0))
            assert np.all(apart < 0.25), (estimator, c)


def test_draws_come_in_the_training_tables_container():
    X, y = load_iris(return_X_y=True, as_frame=True)
    classifier = BayesClassifier(ParzenWindow(random_state=0)).fit(X, y)
    rows, _ = classifier.sample(9, random_state=0)
    assert isinstance(rows, pd.DataFrame) and list(rows.columns) == list(X.columns) and len(rows) == 9
    assert classifier.feature_names_in_.tolist() == list(X.columns)


def test_a_row_that_no_class_can_hold_has_the_priors():
    X = np.array([[0.0], [1.0]] * 20)
    y = np.repeat([0, 1], [10, 30])
    classifier = BayesClassifier(ParzenWindow(kinds="binary")).fit(X, y)
    with pytest.warns(UserWarning):
        assert np.allclose(classifier.predict_proba([[7.0]]), [[0.25, 0.75]])


def test_what_cannot_be_is_said():
    X, y = IRIS
    with pytest.raises(InputError, match="score_samples"):
        BayesClassifier(GaussianNB()).fit(X, y)
    with pytest.raises(InputError, match="random_state"):
        BayesClassifier(ParzenWindow(bandwidth=0.3)).fit(X, y).sample(2, random_state=-1)
    with pytest.raises(InputError, match="a classifier itself; expected a density"):
        BayesClassifier(SemiSupervisedVAE()).fit(X, y)
    with pytest.raises(InputError, match="two or more classes"):
        BayesClassifier(ParzenWindow()).fit(X, np.zeros(150))
    with pytest.raises(InputError, match="sum to 1"):
        BayesClassifier(ParzenWindow(), priors=[0.5, 0.5]).fit(X, y)
    with pytest.raises(InputError, match="one for each"):
        BayesClassifier(ParzenWindow()).fit(X, y[:9])


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["a", None, np.nan], "y: got 2 gaps; expected a class for each of 150 rows"),
        ([0.0, np.nan, 1.0], "y: got 1 gap; "),
        (pd.array(["a", "b", pd.NA], "string"), "y: got 1 gap; "),
        (["a", 3, "b"], "y: got 149 texts among 150 labels; expected labels of one type"),
        (["a"], "y: got one class, 'a'; expected two or more classes"),
    ],
)
def test_labels_that_do_not_sort_are_refused(cells, sentence):
    y = pd.Series(["a"] * 150, dtype=object) if isinstance(cells[0], str) else pd.Series(np.zeros(150))
    y.iloc[: len(cells)] = cells
    with pytest.raises(InputError, match=sentence):
        BayesClassifier(ParzenWindow()).fit(IRIS[0], y)


def test_what_a_mask_hides_is_a_gap():
    X, y = IRIS
    spoilt, mask = X.copy(), np.zeros(X.shape, bool)
    spoilt[:20, 0], mask[:20, 0] = 99.0, True
    windows = ParzenWindow(bandwidth=0.3, random_state=0)
    hidden = BayesClassifier(windows).fit(np.ma.array(spoilt, mask=mask), y).score_samples(X[:5])
    gaps = BayesClassifier(windows).fit(np.where(mask, np.nan, X), y).score_samples(X[:5])
    np.testing.assert_array_equal(hidden, gaps)


def test_draws_of_a_frame_are_numbered_through_and_names_go_with_their_fit():
    X, y = IRIS
    frame = pd.DataFrame(X, columns=list("abcd"))
    bayes = BayesClassifier(ParzenWindow(bandwidth=0.3, random_state=0)).fit(frame, y)
    assert bayes.sample(9, random_state=0)[0].index.tolist() == list(range(9))
    assert not hasattr(bayes.fit(X, y), "feature_names_in_")


def test_a_density_of_a_class_may_be_fitted_anew():
    classifier = BayesClassifier(ParzenWindow(random_state=0)).fit(*IRIS)
    one = classifier.estimators_[0].fit(IRIS[0] + 1000.0)
    assert one.schema_.columns[0].kind.mean > 900


@pytest.mark.parametrize("estimator", [IsolationForest(), OutlierDetector(ParzenWindow()), ParzenWindow])
def test_what_says_no_nats_is_refused(estimator):
    with pytest.raises(InputError, match="parameter 'estimator': got"):
        BayesClassifier(estimator).fit(*IRIS)


@pytest.mark.parametrize("priors", ["abc", {0: 0.5}, [0.5, 0.5]])
def test_what_is_no_prior_is_refused(priors):
    with pytest.raises(InputError, match="expected 3 probabilities above 0 that sum to 1"):
        BayesClassifier(ParzenWindow(), priors=priors).fit(*IRIS)
