"""Kernels on the training rows against closed forms: scikit-learn's, scipy's, grids and sums."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
from cases import mixed, points
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import KernelPCA
from sklearn.neighbors import KernelDensity, NearestNeighbors

import diabolo
from diabolo import InputError, ManifoldParzen, NonlocalManifoldParzen, ParzenWindow, Real
from diabolo.cli import held
from diabolo.kernels import bandwidth, neighbours
from diabolo.kernels.assembly import padded_size
from diabolo.kernels.learner import directions


def spiral(n, seed=0, noise=0.02):
    """Rows near a spiral: (n, 2)."""
    generator = np.random.default_rng(seed)
    turn = 3.0 * generator.random(n) ** 0.5 * np.pi + 1.0
    return 0.1 * np.stack([turn * np.cos(turn), turn * np.sin(turn)], 1) + noise * generator.normal(
        size=(n, 2)
    )


def mixture(model):
    """Means and covariances of the kernels of a fitted member of real columns, float64."""
    kernels, n = model.model_.kernels, len(model.schema_.columns)
    real = np.isfinite(kernels.log_weight)
    factor = np.asarray(kernels.factor[real], np.float64)
    variance = np.broadcast_to(kernels.variance, kernels.centre.shape)  # of one row, or one for each kernel
    covariances = np.asarray(variance[real], np.float64)[:, :, None] * np.eye(n)
    return np.asarray(kernels.centre[real], np.float64), covariances + factor.swapaxes(1, 2) @ factor


@pytest.mark.parametrize("member", [ParzenWindow, ManifoldParzen])
def test_round_kernels_are_scikit_learns_kernel_density(member):
    X = points()
    round_ones = {"n_directions": 0} if member is ManifoldParzen else {}
    new = X + np.random.default_rng(1).normal(size=X.shape)
    ours = member(bandwidth=0.6, scaling="unit", **round_ones).fit(X).score_samples(new)
    np.testing.assert_allclose(ours, KernelDensity(bandwidth=0.6).fit(X).score_samples(new), rtol=1e-6)
    ours = member(bandwidth=0.3, **round_ones).fit(X).score_samples(new)
    Z, z = ((rows - X.mean(axis=0)) / X.std(axis=0) for rows in (X, new))
    theirs = KernelDensity(bandwidth=0.3).fit(Z).score_samples(z) - np.log(X.std(axis=0)).sum()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_narrow_kernels_of_many_columns_lose_no_digits():
    """Every row four times: the width that suits held-out rows is the least there is."""
    X = np.repeat(np.random.default_rng(0).normal(size=(50, 40)), 4, axis=0)
    model = ParzenWindow(kinds="real", random_state=0).fit(X)
    assert model.bandwidth_ < 0.01
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    theirs = KernelDensity(bandwidth=model.bandwidth_).fit(z).score_samples(z) - np.log(X.std(axis=0)).sum()
    np.testing.assert_allclose(model.score_samples(X), theirs, atol=0.01)  # of some 190; it was a nat


def test_any_rows_judge_a_width_not_the_first_of_the_table():
    kept, judges = next(bandwidth.folds(12_000, 0))
    assert len(judges) == 1000 and not np.intersect1d(kept, judges).size
    assert 5000 < np.median(judges) < 7000 and (np.diff(judges) > 0).all()


@pytest.mark.parametrize("spread", [2.0**-7, 128.0])
def test_in_the_users_unit_every_column_moves_with_it(spread):
    """Beside a plain column one with an atom, one of positive numbers and a count, which have a law of their own."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": rng.normal(size=80),
            "b": rng.normal(size=80) * (rng.random(80) < 0.7),
            "c": np.exp(rng.normal(size=80)),
            "d": rng.poisson(3.0, 80),
        }
    )
    options = {
        "kinds": {"b": Real(atoms=(0.0,)), "c": "positive", "d": "count"},
        "scaling": "unit",
        "random_state": 0,
    }
    one = ParzenWindow(**options).fit(table)
    larger = table.assign(a=spread * table["a"], b=spread * table["b"])
    other = ParzenWindow(**options).fit(larger)
    np.testing.assert_allclose(other.bandwidth_, spread * one.bandwidth_, rtol=1e-5)
    moved = other.score_samples(larger) - one.score_samples(table)
    np.testing.assert_allclose(
        moved, -2.0 * np.log(spread), atol=1e-3
    )  # an atom's probability is per spread, too


def test_a_width_that_no_float_can_square_is_refused():
    with pytest.raises(InputError, match="at least 1e-15"):
        ParzenWindow(bandwidth=1e-20).fit(points())


def test_many_columns_go_through_matrix_products_and_stay_near_the_differences():
    X = np.random.default_rng(0).normal(size=(100, 50)) + 100.0
    ours = ParzenWindow(bandwidth=0.5, scaling="unit").fit(X[:60]).score_samples(X[60:])
    np.testing.assert_allclose(
        ours, KernelDensity(bandwidth=0.5).fit(X[:60]).score_samples(X[60:]), atol=1e-3
    )


@pytest.mark.parametrize("with_gaps", [False, True])
def test_many_columns_with_directions_are_the_mixture_in_any_company(with_gaps):
    """With and without kernels that share a variance, whole rows beside rows with gaps."""
    X = np.random.default_rng(0).normal(size=(80, 40)) @ np.random.default_rng(1).normal(size=(40, 40)) / 6
    train, new = X[:60].copy(), X[60:].copy()
    if with_gaps:
        train[::7, 5] = np.nan
    model = ManifoldParzen(n_neighbors=9, n_directions=4, bandwidth=0.4, scaling="unit").fit(train)
    whole = model.score_samples(new)
    new[3, ::2] = np.nan
    beside = model.score_samples(new)
    np.testing.assert_array_equal(np.delete(beside, 3), np.delete(whole, 3))
    means, covariances = mixture(model)
    for i in (0, 3):
        left = np.flatnonzero(np.isfinite(new[i]))
        z = (new[i] - np.nanmean(train, axis=0))[left]
        parts = zip(means, covariances, strict=True)
        each = [multivariate_normal(m[left], c[np.ix_(left, left)]).logpdf(z) for m, c in parts]
        assert beside[i] == pytest.approx(logsumexp(each) - np.log(60), abs=2e-3)


def test_directions_are_the_second_moments_of_the_neighbours():
    X = points()
    model = ManifoldParzen(n_neighbors=9, n_directions=2, bandwidth=0.25, scaling="unit").fit(X)
    means, covariances = mixture(model)
    np.testing.assert_allclose(means, X - X.mean(axis=0), atol=1e-5)
    found = NearestNeighbors(n_neighbors=9).fit(X).kneighbors(return_distance=False)
    for i in (0, 100, 399):
        apart = X[found[i]] - X[i]
        sizes, axes = np.linalg.eigh(apart.T @ apart / 9)
        leading = axes[:, 2:] * sizes[2:] @ axes[:, 2:].T
        np.testing.assert_allclose(covariances[i], leading + 0.25**2 * np.eye(4), atol=1e-4)


def test_fewer_neighbours_than_columns_have_the_same_directions():
    x = np.random.default_rng(0).normal(size=(30, 12))
    near = NearestNeighbors(n_neighbors=5).fit(x).kneighbors(return_distance=False)
    found = directions(x, near, 7)
    for i in (0, 29):
        apart = (x[near[i]] - x[i]) / np.sqrt(5)
        np.testing.assert_allclose(found[i].T @ found[i], apart.T @ apart, atol=1e-12)
        lengths = np.linalg.svd(apart)[1]
        np.testing.assert_allclose(np.linalg.norm(found[i], axis=1), [*lengths, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("gaps", [(), (2,), (0, 3), (0, 1, 3)])
def test_the_density_is_the_mixtures_and_a_gap_its_marginal(gaps):
    X = points()
    model = ManifoldParzen(n_neighbors=11, n_directions=3, bandwidth=0.2).fit(X)
    means, covariances = mixture(model)
    new = X[:20] + 0.5
    new[:, list(gaps)] = np.nan
    z, left = (new - X.mean(axis=0)) / X.std(axis=0), [j for j in range(4) if j not in gaps]
    each = [
        multivariate_normal(mean[left], covariance[np.ix_(left, left)]).logpdf(z[:, left])
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    truth = logsumexp(each, axis=0) - np.log(len(X)) - np.log(X.std(axis=0)[left]).sum()
    np.testing.assert_allclose(model.score_samples(new), truth, atol=2e-4)


@pytest.mark.parametrize("member", [ParzenWindow, ManifoldParzen, NonlocalManifoldParzen])
def test_a_density_integrates_to_one_in_the_users_units(member):
    X = 30.0 * spiral(200, noise=0.1) + 500.0
    X[::9, 1] = np.nan
    options = {"max_steps": 200} if member is NonlocalManifoldParzen else {}
    model = member(n_components=1, random_state=0, **options).fit(X)
    side = [np.linspace(low, high, 181) for low, high in ((440, 560), (420, 580))]
    grid = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(model.score_samples(grid)).reshape(181, 181)
    assert abs(trapezoid(trapezoid(density, side[1]), side[0]) - 1.0) < 2e-3


def test_masses_on_a_grid_of_values_sum_to_one_beside_levels_counts_and_atoms():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 2, 120)
    table = pd.DataFrame(
        {
            "tenths": np.round(generator.normal(size=120) + 3 * group, 1),
            "size": pd.Categorical(generator.choice(["s", "m", "l"], 120), ["s", "m", "l"], ordered=True),
            "calls": generator.poisson(2 + 5 * group),
            "paid": np.where(generator.random(120) < 0.5, 0.0, np.round(5 + generator.normal(size=120) + group)),
        }
    )  # fmt: skip
    table.loc[::10, "tenths"] = np.nan
    kinds = {"calls": "count", "paid": diabolo.Real(atoms=(0.0,), resolution=1.0)}
    model = ParzenWindow(kinds=kinds, random_state=0).fit(table)
    row = table.iloc[:1]

    def total(column, values, width=1.0):
        tried = pd.concat([row] * len(values), ignore_index=True)
        tried[column] = pd.Categorical(values, ["s", "m", "l"], ordered=True) if column == "size" else values
        return np.exp(model.score_samples(tried)).sum() * width

    for column, values, width in (
        ("tenths", np.round(np.arange(-80, 120) / 10, 1), 0.1),
        ("size", ["s", "m", "l"], 1.0),
        ("calls", np.arange(400), 1.0),
        ("paid", np.arange(-30.0, 50.0), 1.0),
    ):
        without = row.copy()
        without[column] = (
            pd.Categorical([None], ["s", "m", "l"], ordered=True) if column == "size" else np.nan
        )
        marginal = np.exp(model.score_samples(without))[0]
        assert total(column, values, width) == pytest.approx(marginal, rel=1e-3), column


def test_levels_are_frequencies_smoothed_towards_the_columns_own():
    colour = np.array(["red"] * 6 + ["blue"] * 3 + ["green"], object)
    model = ParzenWindow(smoothing=0.4).fit(pd.DataFrame({"colour": colour}))
    reserved = model.schema_.columns[0].kind.reserved
    share = np.array([0.6, 0.3, 0.1])
    truth = np.log((1 - reserved) * (0.6 * share + 0.4 * share))  # both parts are the frequencies here
    got = model.score_samples(pd.DataFrame({"colour": ["red", "blue", "green"]}))
    np.testing.assert_allclose(got, truth, atol=1e-5)


def test_what_is_drawn_given_cells_has_the_conditional_moments():
    X = points()
    model = ManifoldParzen(n_neighbors=11, n_directions=2, bandwidth=0.3, random_state=0).fit(X)
    means, covariances = mixture(model)
    row = X[:1].copy()
    row[:, 1:3] = np.nan
    z = ((row - X.mean(axis=0)) / X.std(axis=0))[0]
    seen, hidden = [0, 3], [1, 2]
    weight = np.array(
        [
            multivariate_normal(m[seen], c[np.ix_(seen, seen)]).pdf(z[seen])
            for m, c in zip(means, covariances, strict=True)
        ]
    )
    weight /= weight.sum()
    centres, spreads = [], []
    for mean, covariance in zip(means, covariances, strict=True):
        slope = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        centres.append(mean[hidden] + slope @ (z[seen] - mean[seen]))
        spreads.append(covariance[np.ix_(hidden, hidden)] - slope @ covariance[np.ix_(seen, hidden)])
    centre = weight @ np.array(centres)
    second = np.einsum("n,nij->ij", weight, np.array(spreads)) + (np.array(centres).T * weight) @ centres
    draws = np.array(model.impute(row, n_draws=6000, random_state=0))[:, 0, hidden]
    drawn = (draws - X.mean(axis=0)[hidden]) / X.std(axis=0)[hidden]
    spread = second - np.outer(centre, centre)
    error = np.sqrt(np.diag(spread) / len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - centre) < 4 * error)
    np.testing.assert_allclose(np.cov(drawn.T), spread, atol=0.05 * spread.max())  # 4 standard errors


def test_codes_are_scikit_learns_kernel_components():
    X = points()
    model = ParzenWindow(n_components=3, random_state=0).fit(X)
    new = X + 0.3
    scaled, moved = ((rows - X.mean(axis=0)) / X.std(axis=0) for rows in (X, new))
    theirs = KernelPCA(3, kernel="rbf", gamma=float(model.model_.chart.narrow)).fit(scaled)
    codes = theirs.transform(moved) / theirs.transform(scaled).std(axis=0)
    codes *= np.sign(np.sum(codes * model.transform(new), axis=0))
    np.testing.assert_allclose(model.transform(new), codes, atol=2e-3)


def test_the_bandwidth_is_the_likeliest_for_rows_without_a_kernel():
    X = points()
    model = ParzenWindow(random_state=0).fit(X)
    rows = model.schema_.encode(X)
    tried = np.exp(np.linspace(np.log(0.1), np.log(0.8), 15))
    Z = rows.values.astype(float)

    def left_out(h):
        total = 0.0
        for kept, judged in bandwidth.folds(len(Z), 3):
            total += KernelDensity(bandwidth=h).fit(Z[kept]).score_samples(Z[judged]).sum()
        return total / len(Z)

    best = max(left_out(h) for h in tried)
    assert model.best_validation_score_ == pytest.approx(best, abs=0.03)  # other folds
    assert left_out(model.bandwidth_) > best - 0.003
    assert 0.1 < model.bandwidth_ < 0.8


def test_golden_section_finds_a_peak():
    place, height = bandwidth.golden(lambda x: 5.0 - (x - 0.3) ** 2, -2.0, 2.0, 30)
    assert place == pytest.approx(0.3, abs=1e-5) and height == pytest.approx(5.0)
    place, _ = bandwidth.settled(lambda p: -((p[0] - 1) ** 2) - (p[1] + 2) ** 2, [(0, 3), (-3, 3)], 20)
    assert np.allclose(place, (1, -2), atol=1e-2)


def test_bandwidth_stays_above_the_resolution_and_duplicates_do_no_harm():
    X = np.repeat(np.arange(20.0)[:, None], 10, axis=0)
    model = ParzenWindow(random_state=0).fit(X)
    assert model.model_.kernels.variance.min() >= (0.74 / X.std()) ** 2
    step = np.arange(-100.0, 120.0)[:, None]
    assert np.exp(model.score_samples(step)).sum() == pytest.approx(1.0, abs=1e-4)


def test_directions_are_worth_more_than_round_kernels_and_a_network_still_more():
    """Rows near a spiral: Vincent & Bengio 2003; Bengio, Larochelle & Vincent 2006."""
    train, test = spiral(150, noise=0.01), spiral(2000, seed=1, noise=0.01)
    options = {"random_state": 0, "n_components": 2}
    near = {"n_neighbors": 5, "n_directions": 1}
    round_ones = ParzenWindow(**options).fit(train).score(test)
    local = ManifoldParzen(**near, **options).fit(train).score(test)
    network = NonlocalManifoldParzen(**near, max_steps=2000, **options).fit(train).score(test)
    assert local > round_ones + 0.2 and network > local + 0.05


def test_pixels_are_a_bound_and_below_what_their_grid_sums_to():
    images = np.random.default_rng(0).integers(0, 4, (40, 2, 1)).astype(float)
    model = ParzenWindow(kinds=diabolo.Pixels(n_levels=4), random_state=0).fit(images.reshape(40, 2))
    every = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), -1).reshape(-1, 2)
    assert model.density_kind_ == "bound" and set(model.log_density(every).kind) == {"bound"}
    assert 0.5 < np.exp(model.score_samples(every)).sum() < 1.0


@pytest.mark.filterwarnings("ignore:columns? .* holds? one value")
def test_few_rows_have_kernels_too():
    for n in (1, 2, 3, 5):
        X = points()[:n]
        for member in (
            ParzenWindow(random_state=0),
            ManifoldParzen(n_neighbors=3, n_directions=1, random_state=0),
        ):
            assert np.isfinite(member.fit(X).score_samples(X)).all()


def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="bandwidth"):
        ParzenWindow(bandwidth=0.0).fit(points())
    with pytest.raises(InputError, match="scaling"):
        ParzenWindow(scaling="user").fit(points())
    assert not hasattr(ParzenWindow(), "partial_fit")
    assert [padded_size(n) for n in (1, 64, 65, 97, 129, 1032)] == [64, 64, 80, 112, 160, 1280]


def test_beyond_fifty_thousand_rows_the_search_is_approximate_where_it_is_installed(monkeypatch):
    narrow = points()
    x = np.tile(narrow, 3)
    exact = neighbours.nearest(x, 4, 0)
    asked = []

    class Index:  # what pynndescent's answers with, by an exact search
        def __init__(self, rows, n_neighbors, random_state):
            asked.append(rows.shape)
            self.neighbor_graph = NearestNeighbors(n_neighbors=n_neighbors).fit(rows).kneighbors(rows)[::-1]

    monkeypatch.setattr(neighbours, "MAX_EXACT", 100)
    monkeypatch.setitem(sys.modules, "pynndescent", None)  # as if it were not installed
    assert np.array_equal(neighbours.nearest(x, 4, 0), exact)
    monkeypatch.setitem(sys.modules, "pynndescent", types.SimpleNamespace(NNDescent=Index))
    assert np.array_equal(neighbours.nearest(x, 4, 0), exact)
    neighbours.nearest(narrow, 4, 0)  # by a tree, which is exact and faster
    assert asked == [x.shape]


def test_the_approximate_search_finds_almost_all(monkeypatch):
    pytest.importorskip("pynndescent", reason="an optional package, which searches beyond 50,000 rows")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2000, 12)) @ generator.normal(size=(12, 20))
    for queries in (None, x[:50] + 0.1):
        exact = neighbours.nearest(x, 10, 0, queries)
        with monkeypatch.context() as patched:
            patched.setattr(neighbours, "MAX_EXACT", 100)
            found = neighbours.nearest(x, 10, 0, queries)
        assert found.shape == exact.shape
        shared = [len(set(one) & set(other)) / 10 for one, other in zip(found, exact, strict=True)]
        assert np.mean(shared) > 0.98
        assert queries is not None or not (found == np.arange(len(x))[:, None]).any()


def test_a_gap_of_a_training_row_is_its_columns_own_law():
    table = mixed()
    model = ParzenWindow(random_state=0).fit(table)
    variance = np.asarray(model.model_.kernels.variance)[: len(table)]
    gone = table["mass"].isna().to_numpy()
    assert np.allclose(variance[gone, 1], 1.0) and np.allclose(variance[~gone, 1], model.bandwidth_**2)


def test_a_file_says_that_it_holds_the_rows():
    model = ParzenWindow(bandwidth=0.3, random_state=0).fit(points())
    assert "every training row" in held._held(model.schema_, model.model_)
