"""Every law runs on every case: what a user may rely on, whichever member it is."""

import json
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from cases import CASES, N_ROWS, TABLES, THOROUGH, among_chances, by_quadrature, fitted, mixed, nats, points
from scipy.special import logsumexp
from sklearn.base import clone, is_classifier

import diabolo
from diabolo.batches import Batch, Batches
from diabolo.model import DirectModel

# ---- a row's answer --------------------------------------------------------------------------------------------


def test_codes_are_float64_and_two_calls_agree(case, on_mixed):
    codes = on_mixed.transform(mixed())
    assert codes.shape == (N_ROWS, on_mixed.model_.n_components) and codes.dtype == np.float64
    assert np.array_equal(codes, on_mixed.transform(mixed()))
    assert np.array_equal(on_mixed.score_samples(mixed()), on_mixed.score_samples(mixed()))
    # a code that says nothing of its row would pass every other law; of a wide layer some units see one column only
    assert np.quantile(codes.std(axis=0), 0.25 if case.no_bottleneck else 0.0) > 0.1


def test_a_row_reads_the_same_in_any_order_company_and_chunk(on_mixed):
    table = mixed()
    order = np.random.default_rng(0).permutation(N_ROWS)
    longer = pd.concat([table] * 11)  # 4,400 rows: more than one chunk of 4,096 codes and of 64 densities
    for read in (on_mixed.transform, on_mixed.score_samples):
        whole = read(table)
        assert np.array_equal(read(table.iloc[order]), whole[order])
        assert np.array_equal(np.concatenate([read(table.iloc[i : i + 1]) for i in range(8)]), whole[:8])
    assert np.array_equal(on_mixed.transform(longer)[-N_ROWS:], on_mixed.transform(table))
    assert on_mixed.reconstruct(longer).iloc[-N_ROWS:].equals(on_mixed.reconstruct(table))


def test_rows_come_back_in_the_container_they_came_in(case, on_mixed):
    table = mixed()
    for rows in (
        on_mixed.reconstruct(table),
        on_mixed.sample(5),
        on_mixed.inverse_transform(on_mixed.transform(table)[:5]),
    ):
        assert isinstance(rows, pd.DataFrame)
        assert list(rows.columns) == list(table.columns)
        assert rows.dtypes[["length", "male", "legs"]].equals(table.dtypes[["length", "male", "legs"]])
        assert set(rows["colour"]) <= {"red", "green", "blue"} and set(rows["legs"]) <= {1, 2, 3, 4}
    assert on_mixed.reconstruct(table).index.equals(table.index)
    frame = pl.from_pandas(table)
    in_polars = case().fit(frame)
    assert np.array_equal(in_polars.transform(frame), on_mixed.transform(table))
    for rows in (
        in_polars.reconstruct(frame),
        in_polars.sample(5),
        in_polars.inverse_transform(in_polars.transform(frame)[:5]),
    ):
        assert isinstance(rows, pl.DataFrame) and rows.schema == frame.schema


def test_arrays_come_back_as_float64_arrays(on_points):
    X = points()
    for rows in (
        on_points.reconstruct(X),
        on_points.sample(N_ROWS),
        on_points.inverse_transform(on_points.transform(X)),
    ):
        assert type(rows) is np.ndarray and rows.dtype == np.float64 and rows.shape == (N_ROWS, 4)


def test_reconstruction_is_the_decoded_code_and_keeps_most_of_the_row(case, on_points):
    X = points()
    rows = on_points.reconstruct(X)
    assert np.array_equal(rows, on_points.inverse_transform(on_points.transform(X)))
    if case.no_bottleneck:
        return
    # the noise off the plane is 0.25 of some 3 to 6 per column
    assert np.mean((rows - X) ** 2) < 0.15 * np.mean((X - X.mean(axis=0)) ** 2)


def test_other_types_and_layouts_of_the_same_numbers_read_the_same(on_points):
    X = np.rint(points())
    frozen = X.copy()
    frozen.flags.writeable = False
    whole = on_points.transform(X), on_points.score_samples(X)
    strided = np.repeat(X, 2, axis=0)[::2]
    for same in (
        np.asfortranarray(X),
        frozen,
        strided,
        X.astype(int),
        X.astype(np.float32),
        X.astype(object),
    ):
        assert np.array_equal(on_points.transform(same), whole[0])
        assert np.array_equal(on_points.score_samples(same), whole[1])


# ---- density ---------------------------------------------------------------------------------------------------


def test_the_score_is_the_mean_of_the_rows(on_points):
    X = points()
    reading = on_points.log_density(X, n_draws=128)
    if not is_classifier(on_points):  # whose score is the accuracy
        assert on_points.score(X) == np.mean(on_points.score_samples(X))
    assert np.array_equal(reading.values, on_points.score_samples(X))
    assert set(reading.kind) == {on_points.density_kind_} and reading.unit == "nats"


def test_a_change_of_unit_moves_the_log_density_by_its_logarithm(case, on_mixed):
    """A refit on 1,024 times the numbers sees the very same encoded bits, so each observed cell pays log 1,024."""
    table, numbers = mixed(), ["length", "mass"]
    larger = table.copy()
    larger[numbers] *= 1024.0
    refit = case().fit(larger)
    n_cells = table[numbers].notna().sum(axis=1).to_numpy()
    assert set(n_cells) == {1, 2}
    moved = refit.score_samples(larger) - on_mixed.score_samples(table)
    np.testing.assert_allclose(moved, -n_cells * np.log(1024.0), atol=1e-9)


def test_a_thousand_times_the_numbers_cost_a_logarithm_per_cell(case, on_points):
    """1,000 is no power of two: other last bits make another training, which moves the mean by about 0.02 nats."""
    X = points()
    refit = case().fit(1000.0 * X)
    assert abs(nats(refit, 1000.0 * X) - (nats(on_points, X) - 4.0 * np.log(1000.0))) < 0.1


def test_a_gap_is_the_integral_over_its_cell(case, on_points):
    X = points()[:20]
    spread = points().std(axis=0)[2]
    side = np.linspace(-4.0, 4.0, 81) * spread + points().mean(axis=0)[2]
    filled = np.repeat(X, len(side), axis=0)
    filled[:, 2] = np.tile(side, len(X))
    gaps = X.copy()
    gaps[:, 2] = np.nan
    if case.with_cell is None:
        whole = on_points.log_density(filled, n_draws=1000)
        centred = whole.values + 0.5 * whole.standard_error**2
    else:
        centred = case.with_cell(on_points, on_points.schema_.encode(filled), 2)
    integral = logsumexp(centred.reshape(len(X), -1), axis=1) + np.log(side[1] - side[0])
    assert np.all(np.abs(by_quadrature(on_points, on_points.schema_.encode(gaps)) - integral) < 0.05)
    # no gap was seen in training, so the encoder looks elsewhere, and not every row has an interval
    reading = on_points.log_density(gaps, n_draws=300)
    low, high = reading.interval(0.9999)
    held = (low - 0.05 < integral) & (integral < high + 0.05)
    assert np.sum(~reading.withheld) >= 10
    assert np.all(held | reading.withheld)


def test_a_gap_is_the_sum_over_its_levels_and_the_unseen(case, on_mixed):
    table = mixed()[:10]
    with_cell = case.with_cell or (lambda estimator, rows, column: by_quadrature(estimator, rows))

    def with_colour(level):
        return table.assign(colour=pd.Series([level] * len(table), index=table.index, dtype=object))

    kind = on_mixed.schema_.columns[2].kind
    assert kind.reserved == 1.0 / (
        mixed()["colour"].notna().sum() + 1
    )  # no level was seen once: the least there is
    gap, unseen = (
        by_quadrature(on_mixed, on_mixed.schema_.encode(with_colour(level))) for level in (None, "puce")
    )
    seen = [with_cell(on_mixed, on_mixed.schema_.encode(with_colour(level)), 2) for level in kind.levels]
    # a bound that a model says itself is asked by draws, not on a grid
    close = 0.05 if isinstance(on_mixed.model_, DirectModel) and on_mixed.density_kind_ != "exact" else 1e-3
    np.testing.assert_allclose(logsumexp([unseen, *seen], axis=0), gap, atol=close)
    np.testing.assert_allclose(unseen, gap + np.log(kind.reserved), atol=1e-9)
    assert np.all(gap > np.max(seen, axis=0))


@pytest.mark.parametrize("table", ["points", "mixed"])
def test_intervals_hold_the_truth_as_often_as_they_say(name, table):
    if table == "points" and not THOROUGH:
        pytest.skip("the mixed table has all that this one has")
    model = fitted(name, table)
    rows = model.schema_.encode(TABLES[table]()[:48])
    truth, readings = among_chances(name, table, rows, 1 if model.density_kind_ == "exact" else 16)
    if set(readings[0].kind) == {"exact"}:  # there is nothing to be wrong about
        reading = readings[0]
        assert np.all(reading.standard_error == 0) and not reading.withheld.any()
        np.testing.assert_allclose(reading.values, truth, atol=1e-4)
        return
    n_held, n_given, n_withheld = 0, 0, 0
    for reading in readings:
        low, high = reading.interval(0.95)
        assert np.array_equal(np.isnan(low), reading.withheld)
        n_held += np.sum((low <= truth) & (truth <= high))
        n_given += np.sum(~reading.withheld)
        n_withheld += np.sum(reading.withheld)
    # where a reading's rows share their error, sixteen readings are not many
    low, high = (0.92, 0.97) if CASES[name].anew is None else (0.88, 0.995)
    assert low <= n_held / n_given <= high
    # a reading that mostly withholds its interval gives none
    assert n_withheld < 0.5 * (n_given + n_withheld)


def test_the_density_of_all_rows_there_can_be_sums_to_one(case):
    """Six columns of three levels, so alike that they are one group: 729 rows."""
    cells = np.stack(np.meshgrid(*[range(3)] * 6), axis=-1).reshape(-1, 6)
    rows = pd.DataFrame(cells, columns=list("abcdef"))
    drawn = rows.sample(N_ROWS, replace=True, random_state=0, weights=1.0 + 8.0 * (rows["a"] == rows["b"]))
    model = case().fit(drawn.reset_index(drop=True))
    seen = 1.0 - 1.0 / (N_ROWS + 1)  # of a column's mass: the least there is is kept for a level never seen
    assert np.exp(model.score_samples(rows)).sum() == pytest.approx(seen**6, abs=0.03)


def test_training_beats_an_untrained_copy(case, on_points):
    """On rows of the same law that neither has seen."""
    if case.untrained:
        pytest.skip(case.untrained)
    schema, unseen = on_points.schema_, points(seed=1)
    batches = Batches.split(Batch.of(schema.encode(points())), 128, 0.1, seed=0)
    untrained = clone(on_points)
    vars(untrained).update(vars(on_points))
    untrained.model_ = untrained.build(schema, jax.random.key(0)).finish(batches, jax.random.key(1))
    assert nats(on_points, unseen) > nats(untrained, unseen) + 0.5


# ---- generation ------------------------------------------------------------------------------------------------


def test_draws_with_a_seed_agree_and_without_one_differ(on_points):
    assert np.array_equal(on_points.sample(40, random_state=3), on_points.sample(40, random_state=3))
    assert not np.any(on_points.sample(40, random_state=3) == on_points.sample(40, random_state=4))
    assert not np.any(on_points.sample(40) == on_points.sample(40))
    many = on_points.sample(1100, random_state=3)
    assert len(np.unique(many[:, 0])) > 1090  # no chunk of draws repeats another


def test_draws_have_the_frequencies_and_spreads_of_the_data(on_mixed):
    table, draws = mixed(), on_mixed.sample(4000, random_state=0)
    # 4 standard errors of a share of 400 rows are 0.1; the likeliest level alone would give 0 or 1
    for column in ("colour", "male", "legs"):
        data = table[column].dropna().value_counts(normalize=True)
        drawn = draws[column].value_counts(normalize=True).reindex(data.index, fill_value=0.0)
        assert np.all(np.abs(drawn - data) < 0.1), (column, drawn, data)
    # a normal prior fills the space between three clusters: that costs a VAE up to a sixth of a spread
    for column in ("length", "mass"):
        assert abs(draws[column].std() / table[column].std() - 1.0) < 0.2
        assert abs(draws[column].mean() - table[column].mean()) < 0.2 * table[column].std()
    # columns hang together as in the data: mass by colour
    data, drawn = (rows.groupby("colour")["mass"].mean() for rows in (table, draws))
    assert 0.5 < (drawn["blue"] - drawn["red"]) / (data["blue"] - data["red"]) < 1.2


# ---- keeping ---------------------------------------------------------------------------------------------------


def test_a_file_a_pickle_and_a_copy_keep_every_reading(on_mixed, tmp_path):
    table = mixed()
    on_mixed.save(tmp_path / "model.safetensors")
    for again in (diabolo.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(on_mixed))):
        assert type(again) is type(on_mixed) and again.schema_ == on_mixed.schema_
        assert np.array_equal(again.transform(table), on_mixed.transform(table))
        assert np.array_equal(again.score_samples(table), on_mixed.score_samples(table))
        assert again.sample(9, random_state=1).equals(on_mixed.sample(9, random_state=1))
        assert again.reconstruct(table).equals(on_mixed.reconstruct(table))
        for fact in ("n_iter_", "n_steps_", "loss_curve_", "validation_scores_", "best_validation_score_",
                     "density_kind_", "n_features_in_"):  # fmt: skip
            assert getattr(again, fact) == getattr(on_mixed, fact), fact
        assert list(again.feature_names_in_) == list(table.columns)
        assert again.get_params() == on_mixed.get_params()


def test_a_clone_has_the_parameters_and_nothing_learned(on_mixed):
    copy = clone(on_mixed)
    assert copy.get_params() == on_mixed.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]


_ELSEWHERE = """
import json, sys
import numpy as np
import diabolo
answers = {}
for name in sys.argv[1:]:
    model = diabolo.load(f"{name}.safetensors")
    rows = np.load("rows.npy")
    answers[name] = {
        "transform": model.transform(rows).tolist(),
        "score_samples": model.score_samples(rows).tolist(),
        "reconstruct": model.reconstruct(rows).tolist(),
        "sample": model.sample(5, random_state=1).tolist(),
    }
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Every case's answers from its file, in one process that never saw the training rows."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.save(folder / "rows.npy", points()[:10])
    for name in CASES:
        fitted(name, "points").save(folder / f"{name}.safetensors")
    # members that share a reading share its program
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder), **os.environ}
    run = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *CASES],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_a_file_answers_the_same_in_a_fresh_process(name, on_points, elsewhere):
    X = points()[:10]
    assert elsewhere[name]["transform"] == on_points.transform(X).tolist()
    assert elsewhere[name]["score_samples"] == on_points.score_samples(X).tolist()
    assert elsewhere[name]["reconstruct"] == on_points.reconstruct(X).tolist()
    assert elsewhere[name]["sample"] == on_points.sample(5, random_state=1).tolist()


def test_a_refit_forgets_the_first_fit(case, on_points):
    again = case().fit(mixed())
    again.fit(points())
    assert np.array_equal(again.transform(points()), on_points.transform(points()))
    assert np.array_equal(again.score_samples(points()), on_points.score_samples(points()))
    assert again.loss_curve_ == on_points.loss_curve_ and again.n_steps_ == on_points.n_steps_
    assert not hasattr(again, "feature_names_in_") and again.n_features_in_ == 4


# ---- scikit-learn ----------------------------------------------------------------------------------------------


def test_codes_come_as_a_frame_where_that_is_asked_for(name, on_mixed):
    framed = pickle.loads(pickle.dumps(on_mixed)).set_output(transform="pandas").transform(mixed())
    assert list(framed.columns) == [
        f"{type(on_mixed).__name__.lower()}{k}" for k in range(on_mixed.model_.n_components)
    ]
    assert framed.index.equals(mixed().index)
    assert np.array_equal(framed.to_numpy(), on_mixed.transform(mixed()))
