"""The conditional member against a set whose law given the label is known; what is beside the table, to the face."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from cases import SMALL, by_quadrature
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import diabolo
from diabolo import VAE, ConditionalVAE, InputError
from diabolo.batches import Batch

N_ROWS, NOISE = 600, 0.3
NAMES = np.array(["gentoo", "adelie", "chinstrap"])
EFFECT = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, -2.0], [0.0, 5.0, 1.0]])
SLOPE = np.array([[2.0, -2.0, 1.0]])
COVARIANCE = SLOPE.T @ SLOPE + NOISE**2 * np.eye(3)


@functools.cache
def labelled(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (600, 3) = style · slope + effect of the label + noise, and their labels 0, 1, 2."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, N_ROWS)
    style = generator.normal(size=(N_ROWS, 1))
    return style @ SLOPE + EFFECT[label] + NOISE * generator.normal(size=(N_ROWS, 3)), label


def log_given(X: np.ndarray, label: int) -> np.ndarray:
    """The true log p(x | label), (n_rows,) nats."""
    return multivariate_normal(EFFECT[label], COVARIANCE).logpdf(X)


@functools.cache
def trained(given_dropout: float = 0.1, known: float = 1.0) -> ConditionalVAE:
    """Fitted on text labels, a share of which is known."""
    X, label = labelled()
    y = NAMES[label].astype(object)
    y[np.random.default_rng(1).random(N_ROWS) > known] = None
    return ConditionalVAE(**SMALL, given_dropout=given_dropout).fit(X, y)


# ---- what a condition does -------------------------------------------------------------------------------------


def test_draws_and_densities_are_those_of_their_label():
    X, label = labelled(5)  # rows that training did not see
    cvae = trained()
    each = np.stack([cvae.score_samples(X, [name] * N_ROWS) for name in NAMES], axis=1)
    truth = np.stack([log_given(X, k) for k in range(3)], axis=1)
    assert np.mean(each.argmax(axis=1) == label) > 0.99
    own = np.arange(N_ROWS), label
    assert np.array_equal(cvae.score_samples(X, NAMES[label]), each[own])
    assert abs(np.mean(each[own] - truth[own])) < 0.6 and cvae.score(X, NAMES[label]) == np.mean(each[own])
    # summed over the labels it is the density of the rows
    assert abs(np.mean(logsumexp(each, axis=1) - logsumexp(truth, axis=1))) < 0.6
    for k, name in enumerate(NAMES):
        draws = cvae.sample(2000, given=name, random_state=0)
        assert np.all(np.abs(draws.mean(axis=0) - EFFECT[k]) < 0.5)
        assert np.all(np.abs(np.cov(draws.T) - COVARIANCE) < 1.0)


def test_readings_are_what_quadrature_gives_whether_the_condition_is_known_or_not():
    X, label = labelled()
    y = NAMES[label][:90].astype(object)
    y[::3] = None
    cvae = trained()
    rows = cvae.schema_.encode(X[:90], beside=y)
    assert np.array_equal(rows.given[:, 3] > 0.5, [name is None for name in y])
    truth, reading = by_quadrature(cvae, rows, 301), cvae.log_density(X[:90], 1000, y)
    apart = np.abs(reading.values + 0.5 * reading.standard_error**2 - truth)
    assert np.mean(apart < 4.0 * reading.standard_error + 1e-3) > 0.97
    known = rows.given[:, 3] < 0.5
    assert abs(np.mean((reading.values - truth)[known])) < 0.02
    assert set(reading.kind) == {"bound"} == {cvae.density_kind_}


def test_an_analogy_keeps_the_codes_part_and_takes_the_conditions():
    X, label = labelled()
    cvae, y = trained(), NAMES[label]
    for k, name in enumerate(NAMES):
        moved = cvae.analogy(X, name, y)
        error = moved - (X - EFFECT[label] + EFFECT[k])  # of columns whose labels lie up to 5 apart
        assert np.sqrt(np.mean(error**2)) < 0.55
    assert np.array_equal(cvae.analogy(X, y, y), cvae.reconstruct(X, y))  # under its own condition
    one = cvae.analogy(X[:1], list(NAMES), y[:1])  # one row under each condition
    assert np.array_equal(one, np.concatenate([cvae.analogy(X[:1], [name], y[:1]) for name in NAMES]))


def test_a_known_condition_helps_to_fill_a_gap():
    X, label = labelled()
    gappy = X[:100].copy()
    gappy[:, 1] = np.nan
    rest, own = COVARIANCE[1, [0, 2]], COVARIANCE[np.ix_([0, 2], [0, 2])]
    centre = EFFECT[label[:100]]
    expected = centre[:, 1] + (X[:100] - centre)[:, [0, 2]] @ np.linalg.solve(own, rest)
    filled = trained().impute(gappy, y=NAMES[label[:100]])
    assert np.array_equal(filled[:, [0, 2]], gappy[:, [0, 2]])
    assert np.sqrt(np.mean((filled[:, 1] - expected) ** 2)) < 0.6


# ---- conditions that are not known -----------------------------------------------------------------------------


def test_half_of_the_labels_teach_both_readings():
    X, label = labelled(5)
    half = trained(known=0.5)
    own = np.mean([log_given(row, k) for row, k in zip(X, label, strict=True)])
    blind = np.mean(logsumexp([log_given(X, k) for k in range(3)], axis=0) - np.log(3.0))
    assert abs(half.score(X, NAMES[label]) - own) < 0.7
    assert -2.0 < half.score(X) - blind < 0.1
    for k, name in enumerate(NAMES):
        assert np.all(np.abs(half.sample(2000, given=name, random_state=0).mean(axis=0) - EFFECT[k]) < 0.8)
    blindly = half.sample(4000, random_state=0)
    assert np.all(np.abs(blindly.mean(axis=0) - X.mean(axis=0)) < 0.3 * X.std(axis=0))
    assert np.all(np.abs(blindly.std(axis=0) / X.std(axis=0) - 1.0) < 0.25)


def test_the_share_that_is_hidden_is_the_share_that_is_asked_for():
    X, label = labelled()
    sees = {share: trained(share).score(X) for share in (0.1, 0.5)}
    assert sees[0.5] > sees[0.1] + 0.2  # more rows without a condition teach more of such rows
    model = ConditionalVAE(**SMALL, given_dropout=0.3).build(trained().schema_, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, Batch.of(trained().schema_.encode(X, beside=NAMES[label])))
    hidden = np.asarray(model.hiding(batch, jax.random.key(0)).given)
    blind = hidden[:, 3] == 1.0
    assert abs(blind.mean() - 0.3) < 0.06 and np.all(hidden[blind, :3] == 0.0)
    assert np.array_equal(hidden[~blind], np.asarray(batch.given)[~blind])
    after = trained().model_  # what training leaves alone
    assert np.array_equal(after.unknown, [0.0, 0.0, 0.0, 1.0]) and after.dropout == np.float32(0.1)
    assert np.array_equal(after.decoder.network.gain, [1.0, 1.0, 3.0, 3.0, 3.0, 1.0])
    assert np.array_equal(after.encoder.network.gain, [1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0])


def test_without_hidden_conditions_a_reading_wants_one():
    X, label = labelled()
    sure, y = trained(0.0), NAMES[label].astype(object)
    assert abs(sure.score(X, y) - np.mean([log_given(x, k) for x, k in zip(X, label, strict=True)])) < 0.5
    said = r"condition of 600 of 600 rows: got no condition; expected y, column 'y', .*Pass y, or fit with given_dropo"
    with pytest.raises(InputError, match=said):
        sure.transform(X)
    with pytest.raises(InputError, match=r"condition of 1 of 1 rows: got no condition"):
        sure.sample()
    y[7] = None
    with pytest.raises(InputError, match=r"condition of 1 of 600 rows: got no condition"):
        sure.score_samples(X, y)


# ---- forms of y ------------------------------------------------------------------------------------------------


def test_labels_as_numbers_say_what_labels_as_text_say():
    X, label = labelled()
    numbers = ConditionalVAE(**SMALL).fit(X, np.unique(NAMES[label], return_inverse=True)[1])
    assert numbers.schema_.beside[0].kind.levels == (0.0, 1.0, 2.0)
    assert np.array_equal(
        numbers.sample(9, given=2, random_state=0), trained().sample(9, given="gentoo", random_state=0)
    )


def test_a_number_is_a_condition_and_a_file_keeps_it(tmp_path):
    generator = np.random.default_rng(2)
    dose = pd.Series(generator.normal(size=N_ROWS), name="dose")
    X = 3.0 * dose.to_numpy()[:, None] * [1.0, -1.0, 0.0] + generator.normal(size=(N_ROWS, 3))
    cvae = ConditionalVAE(**SMALL).fit(X, dose)
    for at in (-1.0, 1.5):
        draws = cvae.sample(2000, given=at, random_state=0)
        assert np.all(np.abs(draws.mean(axis=0) - [3.0 * at, -3.0 * at, 0.0]) < 0.5)
    cvae.save(tmp_path / "m.safetensors")
    again = diabolo.load(tmp_path / "m.safetensors")
    assert again.schema_ == cvae.schema_ and again.schema_.beside[0].name == "dose"
    assert np.array_equal(again.transform(X, dose), cvae.transform(X, dose))
    assert np.array_equal(
        again.sample(5, given=[[0.5]], random_state=1), cvae.sample(5, given=0.5, random_state=1)
    )
    assert np.array_equal(again.sample(5, random_state=1), cvae.sample(5, random_state=1))


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_columns_of_the_table_and_y_are_conditions_together(library):
    X, label = labelled()
    table = library.DataFrame(
        {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "sex": np.where(label == 0, "f", "m")}
    )
    species = library.DataFrame({"species": NAMES[label]})["species"]
    cvae = ConditionalVAE(**{**SMALL, "max_steps": 100}, given=["sex"]).fit(table, species)
    assert [column.name for column, _ in cvae.schema_.conditions] == ["sex", "species"]
    assert cvae.schema_.given_width == 2 + 4 and cvae.model_.alone == ((2, 6),)
    now = library.DataFrame({"sex": ["f"], "species": ["adelie"]})
    draws = cvae.sample(3, given=now, random_state=0)
    assert list(draws.columns) == ["a", "b", "c", "sex"] and list(draws["sex"]) == ["f"] * 3
    moved = cvae.analogy(table, now, NAMES[label])
    assert type(moved) is type(table) and set(moved["sex"]) == {"f"} and len(moved) == N_ROWS
    blind = cvae.analogy(table, now)  # the sex is known from the table, the species is not
    assert not np.array_equal(np.asarray(blind["a"]), np.asarray(moved["a"]))
    batch = Batch.of(cvae.schema_.encode(table, beside=NAMES[label]))
    given = np.concatenate(
        [np.asarray(cvae.model_.hiding(batch, jax.random.key(i)).given) for i in range(10)]
    )
    sex, species = given[:, 1] == 1.0, given[:, 5] == 1.0
    assert not np.any(sex & ~species)
    assert abs(sex.mean() - 0.1) < 0.02 and abs(species.mean() - 0.19) < 0.02


def test_a_condition_with_gaps_may_be_unknown_alone():
    X, label = labelled()
    table = pd.DataFrame(X, columns=list("abc")).assign(species=NAMES[label])
    table["size"] = np.where(X[:, 0] > EFFECT[label, 0], "large", "small")
    table.loc[:5, "size"] = None  # too few to teach it
    cvae = ConditionalVAE(**SMALL, given=["species", "size"], given_dropout=0.3).fit(table)
    for k, name in enumerate(NAMES):
        draws = cvae.sample(2000, given={"species": name}, random_state=0)[["a", "b", "c"]]
        assert np.all(np.abs(draws.mean() - EFFECT[k]) < 0.7) and 1.4 < draws["a"].std() < 2.6
    both = {"species": ["adelie", "gentoo"], "size": "large"}
    assert list(cvae.sample(2, given=both, random_state=0)["species"]) == ["adelie", "gentoo"]
    as_table = pd.DataFrame({"species": ["adelie", "gentoo"], "size": ["large", "large"]})
    assert cvae.sample(2, given=both, random_state=0).equals(cvae.sample(2, given=as_table, random_state=0))


def test_images_under_labels():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 200)
    images = np.zeros((200, 4, 4))
    images[label == 0, :2], images[label == 1, 2:] = 200.0, 200.0
    images = np.clip(images + generator.integers(0, 40, images.shape), 0, 255).astype(np.uint8)
    cvae = ConditionalVAE(**SMALL).fit(images, label)
    for k in (0, 1):
        draws = cvae.sample(100, given=k, random_state=0)
        assert draws.shape == (100, 4, 4)
        upper, lower = draws[:, :2].mean(), draws[:, 2:].mean()
        assert (upper - lower if k == 0 else lower - upper) > 150.0
    flipped = cvae.analogy(images[label == 0], 1, label[label == 0])
    assert np.all(flipped[:, 2:].mean(axis=(1, 2)) > 150.0) and flipped.shape[1:] == (4, 4)


def test_further_rows_bring_their_conditions():
    X, label = labelled()
    y = NAMES[label]
    cvae = ConditionalVAE(**SMALL, warm_start=True).partial_fit(X, y)
    before, n_before = cvae.score(X, y), cvae.n_steps_
    assert cvae.partial_fit(X, y).n_steps_ > n_before and cvae.score(X, y) > before
    cvae.partial_fit(X)  # without conditions
    assert cvae.fit(X, y).score(X, y) > before + 1.0
    with pytest.raises(
        InputError, match=r"y: got 599 values; expected 600, one for each row of X\. Pass X and y"
    ):
        cvae.partial_fit(X, y[1:])


# ---- refusals --------------------------------------------------------------------------------------------------


def test_conditions_that_cannot_be_are_refused():
    X, label = labelled()
    cvae, y = trained(), NAMES[label]
    with pytest.raises(InputError, match="y: got 10 values; expected 600"):
        cvae.transform(X, y[:10])
    with pytest.raises(
        InputError, match="given column 'y': got 'emperor', which no training row held; expected a level"
    ):
        cvae.sample(3, given="emperor")
    with pytest.raises(InputError, match="given: got 2 rows; expected 1 or 3 rows"):
        cvae.sample(3, given=["gentoo", "adelie"])
    with pytest.raises(InputError, match="given: got 2 rows; expected 1 or 600 rows"):
        cvae.analogy(X, ["gentoo", "adelie"], y)
    with pytest.raises(
        InputError, match=r"parameter 'given_dropout': got 1\.0; expected a number at least 0 and below 1"
    ):
        ConditionalVAE(given_dropout=1.0).fit(X, y)


def test_conditions_by_name_that_cannot_be_are_refused():
    X, label = labelled()
    table = pd.DataFrame(X, columns=list("abc")).assign(species=NAMES[label], sex="m")
    table.loc[::2, "sex"] = "f"
    cvae = ConditionalVAE(**{**SMALL, "max_steps": 1}, given=["species", "sex"]).fit(table)
    for given, said in {
        "gentoo": r"given: got 'gentoo'; expected values of 2 columns\. Say {'species': \.\.\., 'sex'",
        ("gentoo", "m"): r"given: got \('gentoo', 'm'\); expected values of 2 columns",
    }.items():
        with pytest.raises(InputError, match=said):
            cvae.sample(2, given=given)
    with pytest.raises(InputError, match=r"given: got a column 'specie'; .* Did you mean 'species'\?"):
        cvae.sample(2, given={"specie": "gentoo"})
    with pytest.raises(
        InputError, match=r"got values of shapes 'species': \(2,\), 'sex': \(3,\); expected one"
    ):
        cvae.sample(2, given={"species": ["gentoo", "adelie"], "sex": ["m", "f", "m"]})
    with pytest.raises(InputError, match="given column 'species': got a gap"):
        cvae.sample(2, given={"sex": "m"})


def test_without_any_condition_it_is_a_plain_vae_and_says_so():
    X, label = labelled()
    few = {**SMALL, "max_steps": 100, "warm_start": True}
    with pytest.warns(UserWarning, match="no condition: got neither y nor given=, so this is a plain VAE"):
        alone = ConditionalVAE(**few).fit(X)
    assert np.array_equal(
        alone.transform(X, label), alone.transform(X)
    )  # as for every member fitted without y
    with pytest.raises(InputError, match=r"given: got conditions; expected none\. Fit with given="):
        alone.analogy(X, "gentoo")
    with pytest.raises(
        InputError, match=r"y: got conditions; expected none, as in the first fit\. Fit anew, without"
    ):
        alone.fit(X, label)
    vae = VAE(**few).fit(X, label)
    assert vae.schema_.beside == () and np.array_equal(vae.transform(X, label), vae.transform(X))


def test_the_share_of_hidden_conditions_may_be_set_anew():
    X, label = labelled()
    cvae = ConditionalVAE(**{**SMALL, "max_steps": 1}).fit(X, label)
    assert float(cvae.set_params(given_dropout=0.7).partial_fit(X, label).model_.dropout) == np.float32(0.7)
