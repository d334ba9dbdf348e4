"""Gaps filled: draws against quadrature over the code, and nothing else of the table touched."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from cases import SMALL, fitted, law_given_rest, mixed, points

from diabolo import VAE, InputError
from diabolo.impute import conditional_draws

N_DRAWS = 500


def draws_of(estimator, rows):
    """(n_rows, N_DRAWS, width) float64."""
    return np.concatenate(list(conditional_draws(estimator.model_, rows, N_DRAWS, seed=0))).astype(np.float64)


# ---- the law ---------------------------------------------------------------------------------------------------


def test_draws_of_a_number_have_its_mean_and_spread_given_the_rest(name, case):
    estimator = fitted(name, "mixed")
    rows = estimator.schema_.encode(mixed().iloc[:24].assign(mass=np.nan))
    mean, spread = law_given_rest(estimator, rows, 1)
    drawn = draws_of(estimator, rows)[:, :, estimator.schema_.layout.places[1].start]
    # 500 draws of one law: 4.5 standard errors of their mean, and a sixth of a spread for the codes proposed
    assert np.all(
        np.abs(drawn.mean(axis=1) - mean[:, 0]) < (4.5 / N_DRAWS**0.5 + 0.16 + case.chained) * spread
    )
    assert np.all(np.abs(drawn.std(axis=1) / spread - 1.0) < 0.3 + case.chained)
    assert (
        abs(np.mean((drawn.mean(axis=1) - mean[:, 0]) / spread)) < 0.05 + case.chained
    )  # and none of it on one side
    assert np.std(mean[:, 0]) > 0.5 * np.median(spread)  # the other cells say where it lies


def test_draws_of_a_level_have_its_probabilities_given_the_rest(name):
    estimator = fitted(name, "mixed")
    table = mixed().iloc[:24].assign(colour=None)
    rows = estimator.schema_.encode(table)
    place = estimator.schema_.layout.places[2]
    shares, _ = law_given_rest(estimator, rows, 2)
    drawn = draws_of(estimator, rows)[:, :, place.start : place.stop]
    assert np.all(drawn.sum(axis=2) == 1.0)
    assert np.max(np.abs(drawn.mean(axis=1) - shares)) < 0.15
    assert np.mean(np.abs(drawn.mean(axis=1) - shares)) < 0.02
    assert np.mean(shares.max(axis=1)) > 0.6  # the other cells say much of it: alone, half are of one level


def test_the_centre_is_the_mean_of_numbers_and_the_likeliest_of_levels():
    estimator = fitted("VAE", "mixed")
    table = mixed().iloc[:24]
    gaps = table.assign(colour=None, mass=np.nan)
    rows = estimator.schema_.encode(gaps)
    filled = estimator.impute(gaps)
    mean, spread = law_given_rest(estimator, rows, 1)
    kind = estimator.schema_.columns[1].kind
    truth = mean[:, 0] * kind.scale + kind.mean
    assert np.all(np.abs(filled["mass"] - truth) < 0.4 * spread * kind.scale)
    shares, _ = law_given_rest(estimator, rows, 2)
    levels = np.array(estimator.schema_.columns[2].kind.levels)
    told = shares[np.arange(24), [levels.tolist().index(level) for level in filled["colour"]]]
    assert np.all(told > shares.max(axis=1) - 0.1)


def test_many_fillings_are_as_many_and_lie_around_the_middle():
    estimator = fitted("VAE", "mixed")
    table = mixed().iloc[:100].assign(mass=np.nan)
    many = estimator.impute(table, 20, random_state=0)
    assert len(many) == 20
    cells, middle = np.array([one["mass"] for one in many]), estimator.impute(table)["mass"].to_numpy()
    assert np.all(cells.std(axis=0) > 0.1)
    z = (cells.mean(axis=0) - middle) / (cells.std(axis=0, ddof=1) / 20**0.5)
    assert abs(z.mean()) < 0.4 and 0.7 < z.std() < 1.6


# ---- what is random, what is not -------------------------------------------------------------------------------


def test_a_middle_is_deterministic_and_draws_go_by_their_seed():
    estimator = fitted("VAE", "mixed")
    table = mixed()
    assert estimator.impute(table).equals(estimator.impute(table))
    one, same, other = (estimator.impute(table, 2, random_state=seed) for seed in (3, 3, 4))
    assert one[0].equals(same[0]) and one[1].equals(same[1])
    gaps = table["mass"].isna()
    unseeded = [estimator.impute(table, 2)[0]["mass"][gaps] for _ in range(2)]
    for mass in (one[1]["mass"][gaps], other[0]["mass"][gaps], unseeded[1]):
        assert not np.any(one[0]["mass"][gaps] == mass)
    assert not np.any(unseeded[0] == unseeded[1])


def test_a_row_is_filled_the_same_in_any_company():
    estimator = fitted("VAE", "mixed")
    table = mixed()
    order = np.random.default_rng(0).permutation(len(table))
    whole = estimator.impute(table)
    assert estimator.impute(table.iloc[order]).equals(whole.iloc[order])
    some = np.flatnonzero(table.isna().any(axis=1))[:6]
    for i in some:
        assert estimator.impute(table.iloc[i : i + 1]).equals(whole.iloc[i : i + 1])
    drawn = estimator.impute(table, 2, random_state=0)
    alone = estimator.impute(table.iloc[some], 2, random_state=0)
    assert all(few.equals(all_.iloc[some]) for few, all_ in zip(alone, drawn, strict=True))


@pytest.mark.parametrize("n_draws", [0, 2.5, True, "many"])
def test_a_number_of_draws_is_a_number(n_draws):
    with pytest.raises(InputError, match=r"parameter 'n_draws': got .*; expected None or a whole number"):
        fitted("VAE", "points").impute(points(), n_draws)


# ---- what is touched, what is not ------------------------------------------------------------------------------


def test_observed_cells_of_an_array_keep_their_bits():
    estimator = fitted("VAE", "points")
    X = points()
    holes = np.random.default_rng(0).random(X.shape) < 0.2
    holes[0] = True
    X[holes] = np.nan
    before = X.copy()
    for filled in (estimator.impute(X), *estimator.impute(X, 2, random_state=0)):
        assert filled.dtype == np.float64 and not np.isnan(filled).any()
        assert np.array_equal(filled[~holes].view(np.int64), X[~holes].view(np.int64))
    assert np.array_equal(X.view(np.int64), before.view(np.int64))  # nor is the caller's own array
    single = estimator.impute(X.astype(np.float32))
    assert single.dtype == np.float32
    assert np.array_equal(single[~holes].view(np.int32), X.astype(np.float32)[~holes].view(np.int32))


def test_rows_without_gaps_come_back_equal():
    on_points, on_mixed = fitted("VAE", "points"), fitted("VAE", "mixed")
    assert np.array_equal(on_points.impute(points()), points())
    whole = mixed().dropna()
    pd.testing.assert_frame_equal(on_mixed.impute(whole), whole)
    assert len(on_points.impute(points(), 3)) == 3  # nothing is drawn
    assert np.array_equal(on_points.impute(points(), 3)[2], points())
    assert np.array_equal(on_points.impute(np.rint(points()).astype(int)), np.rint(points()))


def many_types() -> pd.DataFrame:
    """80 rows of what pandas has, gaps in every column that can hold one."""
    generator = np.random.default_rng(0)
    n = 80
    group = generator.integers(0, 3, n)
    table = pd.DataFrame(
        {
            "float": group + 0.1 * generator.normal(size=n),
            "single": (group + 0.1 * generator.normal(size=n)).astype("float32"),
            "nullable": pd.array(100 * group + generator.integers(0, 20, n), dtype="Int64"),
            "whole": 10 * group + generator.integers(0, 12, n),
            "flag": pd.array(group == 1, dtype="boolean"),
            "category": pd.Categorical.from_codes(group, ["x", "y", "z"]),
            "ordered": pd.Categorical.from_codes(group, ["low", "mid", "high"], ordered=True),
            "text": np.array(["red", "green", "blue"], object)[group],
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(30 * group, unit="D"),
            "name": [f"name {i}" for i in range(n)],
        },
        index=[f"row {i // 2}" for i in range(n)],  # labels need not differ
    )
    table["day"] += pd.to_timedelta(generator.integers(0, 9, n), unit="D")
    for column in table.columns.drop("whole"):
        table.iloc[np.flatnonzero(generator.random(n) < 0.15), table.columns.get_loc(column)] = None
    return table


@pytest.fixture(scope="module")
def types():
    with pytest.warns(UserWarning, match="name holds mostly distinct text"):
        return VAE(**{**SMALL, "max_steps": 100}).fit(many_types())


def same_container(frame):
    """A model of the same rows in another library's frame."""
    with pytest.warns(UserWarning, match="name holds mostly distinct text"):
        return VAE(**{**SMALL, "max_steps": 100}).fit(frame)


def test_a_pandas_frame_keeps_its_types_its_index_and_what_it_held(types):
    table = many_types()
    before = table.copy()
    for filled in (types.impute(table), types.impute(table, 2, random_state=0)[1]):
        pd.testing.assert_frame_equal(table, before)
        assert filled.index.equals(table.index) and filled.dtypes.equals(table.dtypes)
        for column in table:
            seen = table[column].notna()
            assert filled[column][seen].equals(table[column][seen]), column
            assert filled[column].notna().all() == (column != "name"), column
        assert set(filled["text"]) == {"red", "green", "blue"}
        assert filled["name"].isna().equals(table["name"].isna())  # no law knows a name
        assert filled["day"].between("2019-10-01", "2020-07-01").all()


def test_a_polars_frame_keeps_its_types_and_what_it_held(types):
    frame = pl.from_pandas(many_types().reset_index(drop=True))
    for estimator in (types, same_container(frame)):
        filled = estimator.impute(frame)
        assert filled.schema == frame.schema
        for column in frame.columns:
            seen = frame[column].is_not_null()
            assert filled[column].filter(seen).equals(frame[column].filter(seen)), column
            assert filled[column].null_count() == (frame[column].null_count() if column == "name" else 0)


def test_an_arrow_table_keeps_its_types_and_what_it_held(types):
    frame = pa.Table.from_pandas(many_types(), preserve_index=False)
    for estimator in (types, same_container(frame)):
        filled = estimator.impute(frame)
        assert filled.schema.equals(frame.schema)
        for column in frame.column_names:
            seen = frame[column].is_valid()
            assert filled[column].filter(seen).to_pylist() == frame[column].filter(seen).to_pylist(), column
            assert filled[column].null_count == (frame[column].null_count if column == "name" else 0)


def test_images_keep_their_shape_and_the_pixels_that_were_seen():
    generator = np.random.default_rng(0)
    light = generator.random((60, 1, 1))
    images = light + 0.05 * generator.normal(size=(60, 4, 4))
    holes = generator.random(images.shape) < 0.2
    images[holes] = np.nan
    filled = VAE(**{**SMALL, "max_steps": 500}).fit(images).impute(images)
    assert filled.shape == images.shape and not np.isnan(filled).any()
    assert np.array_equal(filled[~holes].view(np.int64), images[~holes].view(np.int64))
    # a pixel is its picture's light: a spread of 0.29 between pictures, 0.05 within one
    assert np.sqrt(np.mean((filled - light)[holes] ** 2)) < 0.15


def test_an_unseen_level_is_no_gap():
    estimator = fitted("VAE", "mixed")
    table = mixed().iloc[:8].assign(colour="puce")
    table.loc[table.index[0], "colour"] = None
    filled = estimator.impute(table)
    assert list(filled["colour"][1:]) == ["puce"] * 7 and filled["colour"].iloc[0] in {"red", "green", "blue"}


def test_what_was_given_and_what_has_no_law_stay_gaps():
    table = mixed()
    table["day"] = datetime.date(2020, 1, 1)
    table.loc[table.index[:5], "day"] = None
    with pytest.warns(UserWarning, match="day holds one value"):
        estimator = VAE(**{**SMALL, "max_steps": 100}, given=["colour"]).fit(table)
    filled = estimator.impute(table)
    assert filled["colour"].isna().equals(table["colour"].isna())
    assert filled["mass"].notna().all()
    assert (filled["day"] == datetime.date(2020, 1, 1)).all()  # the one value a constant can have
