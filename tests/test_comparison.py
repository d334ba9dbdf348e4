"""Gains over independent columns and paired differences, against products and means computed by hand."""

import numpy as np
import pandas as pd
import pytest
from cases import CASES, fitted, mixed, points
from scipy import stats
from sklearn.model_selection import train_test_split

import diabolo
from diabolo import InputError
from diabolo.comparison import Gain, gain, independent_columns
from diabolo.table import Schema


def small_table() -> pd.DataFrame:
    """60 rows: a density, two values, and text of which one level is seen once."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": 5.0 + 2.0 * generator.normal(size=60),
            "yes": np.resize([True, False, False], 60),
            "text": ["once", *np.resize(["a", "a", "b"], 59)],
        }
    )


def test_independent_columns_are_the_product_of_the_marginal_laws():
    table = small_table()
    table.loc[7, "x"] = np.nan  # in the schema's moments, too: a gap is none of them
    schema = Schema.learn(table)
    asked = table.iloc[[1, 2, 3, 7, 8]].reset_index(drop=True)
    asked.loc[4, "text"] = "unseen"
    x = table["x"].dropna()
    nats = stats.norm(x.mean(), x.std(ddof=0)).logpdf(asked["x"])
    expected = np.where(np.isnan(nats), 0.0, nats)
    expected += np.log(np.where(asked["yes"], 20.5 / 61, 40.5 / 61))  # half a row each
    counts = table["text"].value_counts()
    seen = 1.0 - 1.0 / 60  # one level of one row: a sixtieth is kept for the unseen
    expected += [np.log(seen * counts[t] / 60) if t in counts else np.log(1 / 60) for t in asked["text"]]
    np.testing.assert_allclose(independent_columns(schema, asked), expected, atol=1e-5)


def test_a_gain_is_the_mean_difference_to_independent_columns():
    estimator = fitted("VAE", "mixed")
    table = mixed()
    found = gain(estimator, table)
    apart = estimator.score_samples(table) - independent_columns(estimator.schema_, table)
    assert found.mean == pytest.approx(apart.mean())
    assert found.standard_error == pytest.approx(stats.sem(apart))
    assert (found.n_rows, found.n_outside, found.kind) == (400, 0, "bound")
    assert found.mean > 1.0  # three clusters: the columns are far from independent


def test_rows_outside_the_support_are_counted_and_left_out():
    estimator = fitted("VAE", "mixed")
    table = mixed().iloc[:40].assign(male=lambda rows: rows["male"].astype(int))
    inside = gain(estimator, table)
    table.loc[table.index[3], "male"] = 2
    with pytest.warns(UserWarning, match="column 'male': values outside the support"):
        found = gain(estimator, table)
    assert (found.n_rows, found.n_outside) == (39, 1)
    assert found.mean == pytest.approx(inside.mean, abs=0.3)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Gain(4.123, 0.1, 812, 0, "bound"), "4.1 ± 0.1 nats per row better than independent columns (lower bound)"),
        (Gain(-0.5, 0.02, 9, 0, "exact"), "0.50 ± 0.02 nats per row worse than independent columns"),
        (Gain(12.0, 0.3, 9, 0, "estimate"), "12.0 ± 0.3 nats per row better than independent columns (estimate)"),
    ],
)  # fmt: skip
def test_a_gain_says_what_it_is(found, said):
    assert str(found) == said


def test_models_are_compared_in_pairs_on_rows_that_none_has_seen():
    X, few = points(), {"max_steps": 300}
    models = {
        "small": CASES["VAE"](max_steps=10),
        "plain": CASES["Autoencoder"](**few),
        "vae": CASES["VAE"](**few),
    }
    entries = diabolo.compare(models, X, test_size=0.25, random_state=3)
    train, test = train_test_split(X, test_size=0.25, random_state=3)
    gains = {}
    for entry in entries:
        again = models[entry.name].fit(train)
        assert np.array_equal(entry.estimator.score_samples(test), again.score_samples(test))
        assert entry.estimator is not models[entry.name]
        gains[entry.name] = again.score_samples(test) - independent_columns(again.schema_, test)
        assert entry.gain.mean == pytest.approx(gains[entry.name].mean()) and entry.gain.n_rows == 100
        assert entry.seconds > 0.0
    assert [entry.name for entry in entries] == sorted(gains, key=lambda name: -gains[name].mean())
    best, *_, worst = entries
    assert (best.behind, best.behind_error) == (0.0, 0.0) and worst.name == "small"
    apart = gains["small"] - gains[best.name]
    assert worst.behind == pytest.approx(apart.mean())
    assert worst.behind_error == pytest.approx(stats.sem(apart))
    assert worst.behind < -10 * worst.behind_error  # in pairs the rows' own spread is gone


def test_refusals():
    with pytest.raises(InputError, match=r"compare: got no model; expected estimators by name"):
        diabolo.compare({}, points())
    with pytest.raises(InputError, match=r"compare: got a list; expected estimators by name"):
        diabolo.compare([CASES["VAE"]()], points())
    with pytest.raises(
        InputError, match=r"parameter 'test_size': got 1\.5; expected a number between 0 and 1"
    ):
        diabolo.compare({"vae": CASES["VAE"]()}, points(), test_size=1.5)
