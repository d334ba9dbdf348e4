"""Surprise and blame against quadrature over the code; the detector against its promises."""

import pickle

import numpy as np
import pandas as pd
import pytest
from cases import SMALL, by_quadrature, fitted, mixed, points
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diabolo import VAE, InputError, InputTypeError, OutlierDetector
from diabolo.outliers import blame, surprise, usual_blame

FEW = {**SMALL, "max_steps": 400}

# ---- surprise --------------------------------------------------------------------------------------------------


def test_a_surprise_is_minus_log_p_with_its_mean_over_draws_taken_off():
    """The difference to -log p is one number per pattern of gaps, and the mean over fresh draws is about 0."""
    estimator = fitted("VAE", "mixed")
    drawn = estimator.sample(600, random_state=99)  # not those that the mean was taken over
    rows = drawn.astype({"mass": float, "colour": object})
    rows.loc[rows.index[200:400], "mass"] = np.nan
    rows.loc[rows.index[400:], ["colour", "length"]] = None
    found, nats = surprise(estimator, rows), -estimator.score_samples(rows)
    for part in (slice(0, 200), slice(200, 400), slice(400, 600)):
        taken = nats[part] - found[part]
        assert np.ptp(taken) < 1e-9
        error = nats[part].std() * (1 / 200 + 1 / 256) ** 0.5
        assert abs(found[part].mean()) < 4.0 * error
        assert nats[part].mean() > 10 * error  # which -log p itself is far from


def test_a_surprise_does_not_depend_on_company():
    estimator = fitted("VAE", "mixed")
    whole = surprise(estimator, mixed())
    order = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(surprise(estimator, mixed().iloc[order]), whole[order])
    assert np.array_equal(surprise(estimator, mixed().iloc[3:9]), whole[3:9])


def test_what_is_expected_under_conditions_is_refused():
    estimator = VAE(**{**SMALL, "max_steps": 10}, given=["male"]).fit(mixed())
    with pytest.raises(
        InputError, match="surprise: got a model with given columns; expected a model without"
    ):
        surprise(estimator, mixed())
    with pytest.raises(InputError, match="surprise: got a model with given columns"):
        OutlierDetector(VAE(**{**SMALL, "max_steps": 10}, given=["male"])).fit(mixed())
    with pytest.raises(InputError, match="blame: got a model with given columns"):
        blame(estimator, mixed())


# ---- blame -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VAE", "Autoencoder"])
def test_blame_is_what_a_cell_adds_to_the_surprise_of_the_rest(name):
    """-log p(cell | rest) = log p(rest) - log p(row), both by quadrature."""
    estimator = fitted(name, "mixed")
    table, schema = mixed().iloc[:12], estimator.schema_
    found = blame(estimator, table, usual=np.zeros(5))
    assert found.columns == ("length", "mass", "colour", "male", "legs")
    whole = by_quadrature(estimator, schema.encode(table), 201)
    for j, column in enumerate(table):
        rest = by_quadrature(estimator, schema.encode(table.assign(**{column: None})), 201)
        seen = table[column].notna().to_numpy()
        assert np.array_equal(np.isnan(found.nats[:, j]), ~seen)
        apart = found.nats[seen, j] - (rest - whole)[seen]
        # 256 codes, of which the encoder's blind spots leave the worth of some thirty; fewer explain an odd cell
        assert np.mean(np.abs(apart)) < 0.25, column
        assert np.all(np.abs(apart) < 0.3 + 0.3 * np.abs(rest - whole)[seen]), column
        assert abs(np.mean(apart)) < 0.2, column
        assert np.ptp(found.nats[seen, j]) > 1.0, column
    assert np.array_equal(found.excess, found.nats, equal_nan=True)


def test_what_is_usual_is_the_mean_over_the_models_own_draws():
    estimator = fitted("VAE", "mixed")
    drawn = estimator.sample(300, random_state=7)
    excess = blame(estimator, drawn).excess
    error = excess.std(axis=0) * (1 / 300 + 1 / 128) ** 0.5
    assert np.all(np.abs(excess.mean(axis=0)) < 4.5 * error)
    assert usual_blame(estimator)[0] > usual_blame(estimator)[1] + 1.0  # `length` is on ten times the scale


def test_ranges_hold_what_they_promise():
    estimator = fitted("VAE", "mixed")
    drawn = estimator.sample(300, random_state=8)
    found = blame(estimator, drawn, usual=np.zeros(5))
    for j, column in enumerate(["length", "mass"]):
        assert np.all(found.low[:, j] < found.expected[j]) and np.all(found.expected[j] < found.high[:, j])
        inside = (found.low[:, j] <= drawn[column]) & (drawn[column] <= found.high[:, j])
        assert 0.84 < inside.mean() < 0.96
    assert np.isnan(found.low[:, 2:]).all() and np.isnan(found.high[:, 2:]).all()  # levels have no order
    assert set(found.expected[2]) <= {"red", "green", "blue"}


def people() -> pd.DataFrame:
    """400 rows of age, job, income and a truth value that hang together, some gaps; row 17 is 203 years old."""
    generator = np.random.default_rng(0)
    job = generator.choice(3, 400, p=[0.3, 0.5, 0.2])
    age = np.rint(np.array([22.0, 43.0, 70.0])[job] + 5.0 * generator.normal(size=400))
    table = pd.DataFrame(
        {
            "age": age,
            "job": np.array(["student", "clerk", "retired"], object)[job],
            "income": np.rint(1000 + 40 * age + 300 * generator.normal(size=400)),
            "owner": generator.random(400) < 1 / (1 + np.exp(-(age - 40) / 8)),
        }
    )
    table.loc[generator.random(400) < 0.1, "income"] = np.nan
    table.loc[17, ["age", "income", "job"]] = [203.0, 2600.0, "clerk"]
    return table


def test_an_age_of_203_is_found_and_blamed_on_the_age():
    table = people()
    detector = OutlierDetector(VAE(**{**SMALL, "max_steps": 1000})).fit(table)
    assert detector.score_samples(table).argmin() == 17 and detector.predict(table)[17] == -1
    found = detector.explain(table.iloc[[17, 40, 41]])
    assert found.worst()[0] == 0 and found.columns[0] == "age"
    assert found.excess[0, 0] > 5.0 and found.excess[0, 0] > np.nanmax(found.excess[1:]) + 3.0
    # a clerk who earns 2,600 is some 43 years old
    assert 25 < found.low[0, 0] < found.expected[0][0] < found.high[0, 0] < 65


# ---- the detector ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    return OutlierDetector(VAE(**FEW), contamination=0.1).fit(points())


def test_scores_labels_and_threshold_agree(detector):
    X = points()
    scores = detector.score_samples(X)
    assert np.array_equal(scores, -surprise(detector.estimator_, X))
    assert np.array_equal(detector.decision_function(X), scores - detector.offset_)
    labels = detector.predict(X)
    assert np.array_equal(labels, np.where(scores < detector.offset_, -1, 1))
    assert np.sum(labels == -1) == 40  # a tenth of the training rows
    assert np.array_equal(detector.fit_predict(X), labels)
    far = X[:20] + 30.0
    assert np.all(detector.predict(far) == -1)
    assert np.all(detector.decision_function(far) < detector.decision_function(X).min())


def test_a_detector_is_cloned_pickled_and_works_in_a_pipeline(detector):
    X = points()
    copy = clone(detector)
    assert copy.contamination == 0.1 and not hasattr(copy, "estimator_")
    again = pickle.loads(pickle.dumps(detector))
    assert np.array_equal(again.predict(X), detector.predict(X))
    pipe = make_pipeline(StandardScaler(), PCA(3), OutlierDetector(VAE(**FEW), contamination=0.02)).fit(X)
    assert np.sum(pipe.predict(X) == -1) == 8 and pipe.n_features_in_ == 4
    assert np.array_equal(pipe.score_samples(X), pipe[-1].score_samples(pipe[:-1].transform(X)))


def test_names_of_columns_are_kept_and_the_given_estimator_is_not_fitted():
    vae = VAE(**{**SMALL, "max_steps": 10})
    found = OutlierDetector(vae).fit(mixed())
    assert list(found.feature_names_in_) == list(mixed().columns) and found.n_features_in_ == 5
    assert not hasattr(vae, "model_")
    assert np.isfinite(found.score_samples(mixed())).all()  # gaps and text and all


@pytest.mark.parametrize("contamination", [0.0, 0.7, "auto", None])
def test_a_contamination_is_a_share(contamination):
    said = "parameter 'contamination': got .*; expected a number above 0 and at most 0.5"
    with pytest.raises(InputError, match=said):
        OutlierDetector(contamination=contamination).fit(points())


def test_another_librarys_estimator_is_refused():
    with pytest.raises(
        InputTypeError, match="parameter 'estimator': got PCA, which is none of this library's"
    ):
        OutlierDetector(PCA(2)).fit(points())
    with pytest.raises(InputTypeError, match="parameter 'estimator': got int"):
        OutlierDetector(3).fit(points())
