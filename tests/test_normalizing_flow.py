"""The normalizing flow against integrals, Jacobians and laws that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, multivariate_t, norm

from diabolo import Categorical, Count, InputError, NormalizingFlow, Ordinal, Pixels, Positive, Real
from diabolo.dequantization import Intervals, cells_at, intervals
from diabolo.flows import Tail
from diabolo.gaussian import Gaussian
from diabolo.table import Schema

SMALL = {"hidden_layer_sizes": (16,), "n_layers": 2, "max_steps": 600, "random_state": 0}


def ring(n: int = 600, seed: int = 0) -> np.ndarray:
    """A noisy ring in the plane, of radius 300 around (1000, -5): (n, 2)."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, n)
    radius = 300.0 + 30.0 * generator.normal(size=n)
    return np.stack([1000.0 + radius * np.cos(angle), -5.0 + 0.01 * radius * np.sin(angle)], axis=1)


@pytest.fixture(scope="module", params=["autoregressive", "coupling"])
def on_ring(request):
    return NormalizingFlow(request.param, **SMALL | {"n_layers": 4, "max_steps": 1200}).fit(ring())


# ---- real columns ----------------------------------------------------------------------------------------------


def test_the_density_integrates_to_one_in_the_users_units(on_ring):
    x, dx = np.linspace(200, 1800, 201, retstep=True)
    y, dy = np.linspace(-13, 3, 201, retstep=True)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    reading = on_ring.log_density(grid, n_draws=2)
    assert set(reading.kind) == {"exact"} and np.all(reading.standard_error == 0)
    assert abs(np.exp(reading.values).sum() * dx * dy - 1.0) < 0.01


def test_it_beats_a_gaussian_on_a_ring(on_ring):
    unseen = ring(seed=1)
    law = multivariate_normal(ring().mean(axis=0), np.cov(ring().T))
    # the truth: a uniform angle, a normal radius, and r dr dangle = 100 dx dy
    radius = np.hypot(unseen[:, 0] - 1000.0, 100.0 * (unseen[:, 1] + 5.0))
    truth = norm.logpdf(radius, 300, 30) - np.log(2 * np.pi * radius / 100.0)
    nats = on_ring.score(unseen)
    assert np.mean(law.logpdf(unseen)) + 0.5 < nats < truth.mean() + 0.02


def test_codes_lead_back_to_their_rows(on_ring):
    rows = np.concatenate([ring(seed=1), [[4000.0, 3.0]]])  # and one far outside of all splines
    back = on_ring.inverse_transform(on_ring.transform(rows))
    apart = np.max(np.abs(back - rows) / ring().std(axis=0), axis=1)
    assert apart[:-1].max() < 1e-4 and apart[-1] < 2e-3  # float32 spacing, of a code 15 times as far out
    assert on_ring.transform(rows).shape == rows.shape


def test_the_density_is_that_of_the_code_times_the_jacobians_determinant(on_ring):
    rows = ring(20, seed=2)
    model, encoded = on_ring.model_, on_ring.schema_.encode(rows)

    def code(values):
        where = intervals(model.likelihood, values[None])
        bent, _ = model._bent(where, None, jnp.ones((1, 2), bool))
        return model._codes(bent, jnp.zeros((1, 0)))[0][0]

    jacobian = jax.vmap(jax.jacobian(code))(jnp.asarray(encoded.values))
    _, log_det = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    expected = norm.logpdf(on_ring.transform(rows)).sum(axis=1) + log_det + encoded.offset
    np.testing.assert_allclose(on_ring.score_samples(rows), expected, atol=1e-3)


def test_draws_lie_where_the_density_is(on_ring):
    drawn = on_ring.sample(2000, random_state=0)
    radius = np.hypot(drawn[:, 0] - 1000.0, 100.0 * (drawn[:, 1] + 5.0))
    assert abs(np.median(radius) - 300) < 10 and np.mean(np.abs(radius - 300) < 100) > 0.9
    # the mean of -log p over its own draws is its entropy, which held-out rows of the same law hardly exceed
    assert abs(on_ring.score(drawn) - on_ring.score(ring())) < 0.3


def test_repeated_rows_send_no_density_to_infinity():
    X = np.repeat(np.random.default_rng(0).normal(size=(8, 2)), 30, axis=0)
    flow = NormalizingFlow(kinds=Real(resolution=0.0, atoms=()), **SMALL).fit(X)
    # 240 rows on 8 points: a density without bounds would grow by 4.6 nats with every factor of ten in width
    assert flow.score(X) < 2 * np.log(1 / 1e-3)


def test_one_column_and_heavy_tails():
    X = np.random.default_rng(0).standard_t(2, size=(1000, 1))
    flow = NormalizingFlow(**SMALL).fit(X)
    unseen = np.random.default_rng(1).standard_t(2, size=(1000, 1))
    assert flow.score(unseen) > np.mean(norm.logpdf(unseen, X.mean(), X.std())) + 0.3


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("heaviness", [0.0, 1e-9, 0.05, 0.3])
def test_the_tail_is_a_radial_map_with_its_inverse_and_jacobian(width, heaviness):
    tail = Tail(np.float32(heaviness))
    lengths = np.array([0.0, 1e-4, 0.3, 1.0, 5.0, 40.0], np.float32)[:, None]
    codes = lengths * np.random.default_rng(0).normal(size=(6, width)).astype(np.float32)
    after, log_det = tail(codes)
    if heaviness < 1e-6:
        np.testing.assert_allclose(after, codes, rtol=1e-5)
    np.testing.assert_allclose(tail.inverse(after), codes, rtol=1e-3, atol=1e-6)
    square = np.sum(np.float64(codes) ** 2, axis=1)
    expected = square if heaviness == 0.0 else np.log1p(heaviness * square) / heaviness
    np.testing.assert_allclose(np.sum(np.float64(after) ** 2, axis=1), expected, rtol=1e-4, atol=1e-9)
    jacobian = jax.vmap(jax.jacobian(lambda code: tail(code[None])[0][0]))(codes[1:])
    np.testing.assert_allclose(np.linalg.slogdet(np.float64(jacobian))[1], log_det[1:], atol=1e-3)


def test_far_rows_in_no_columns_direction_cost_what_they_should():
    """Student's law of three columns that hang together: margins alone cannot say that rows are far in all at once."""
    law = multivariate_t(shape=0.1 * np.eye(3) + 0.9, df=4)
    X, unseen = law.rvs(3000, random_state=0), law.rvs(20_000, random_state=1)
    flow = NormalizingFlow(**SMALL).fit(X)
    assert 2.0 < 1.0 / flow.model_.tail.heaviness < 50.0
    normal = eqx.tree_at(lambda model: model.tail, flow.model_, Tail.normal())
    far = np.array([[30.0, -30.0, 30.0]])
    with_tail, unseen_with_tail = flow.score(far), flow.score(unseen)
    truth, unseen_truth = law.logpdf(far), law.logpdf(unseen).mean()
    flow.model_ = normal
    assert abs(with_tail - truth) < 0.5 * abs(flow.score(far) - truth)
    assert flow.score(unseen) < unseen_with_tail < unseen_truth + 0.02


def test_a_normal_law_keeps_a_normal_tail():
    X = np.random.default_rng(0).normal(size=(1000, 2))
    assert NormalizingFlow(**SMALL).fit(X).model_.tail.heaviness < 0.05


def test_given_columns_are_conditions():
    generator = np.random.default_rng(0)
    side = generator.choice([-1.0, 1.0], 800)
    X = np.stack([side, 3.0 * side + generator.normal(size=800)], axis=1)
    flow = NormalizingFlow(given=[0], **SMALL).fit(X)
    truth = norm.logpdf(X[:, 1], 3.0 * X[:, 0], 1.0).mean()
    assert abs(flow.score(X) - truth) < 0.1
    drawn = flow.sample(500, given=[[-1.0]], random_state=0)
    assert abs(np.asarray(drawn)[:, 1].mean() + 3.0) < 0.3


# ---- cells that are intervals ----------------------------------------------------------------------------------

KINDS = {
    "levels": (Categorical(), np.array(["a", "b", "c"], object)),
    "order": (Ordinal(levels=(1.0, 2.0, 3.0)), np.array([1.0, 2.0, 3.0])),
    "truth": (None, np.array([0.0, 1.0])),
    "count": (Count(), np.arange(40.0)),
    "grey": (Pixels(n_levels=8), np.arange(8.0)),
    "grid": (Real(resolution=0.5), np.arange(-8, 8.25, 0.5)),
    "atom": (Real(resolution=0.5, atoms=(0.0,)), np.arange(-8, 8.25, 0.5)),
    "positive": (Positive(resolution=0.5), np.arange(0.5, 40, 0.5)),
}


def column(name: str, n: int = 400) -> np.ndarray:
    generator = np.random.default_rng(0)
    wave = generator.normal(size=n)
    return {
        "levels": np.array(["a", "b", "c"], object)[generator.choice(3, n, p=[0.6, 0.3, 0.1])],
        "order": generator.choice([1.0, 2.0, 3.0], n, p=[0.2, 0.3, 0.5]),
        "truth": (wave > 0.7).astype(float),
        "count": np.floor(np.exp(1.0 + 0.7 * wave)),
        "grey": np.clip(np.round(3.5 + 3 * wave), 0, 7),
        "grid": np.round(wave * 2) / 2,
        "atom": np.where(wave > 0.3, np.round(wave * 4) / 2, 0.0),
        "positive": np.maximum(np.round(2 * np.exp(wave)) / 2, 0.5),
    }[name]


@pytest.mark.parametrize("name", KINDS)
def test_intervals_tile_the_line_and_lead_back(name):
    """Every coordinate belongs to one value, whose interval holds it; noise has the density that it says."""
    kind, _ = KINDS[name]
    frame = pd.DataFrame({"x": column(name)})
    schema = Schema.learn(frame, kinds=None if kind is None else {"x": kind})
    likelihood = schema.likelihood()
    places = jnp.linspace(-2.5, 2.5, 1001)[:, None]
    decoded = schema.decode(np.asarray(cells_at(likelihood, places)), snap=True)
    again = schema.encode(decoded)
    where = intervals(likelihood, jnp.asarray(again.values))
    low, high = (np.asarray(where.at(jnp.full((1001, 1), u))[0])[:, 0] for u in (1e-6, 1 - 1e-6))
    inside = (low - 2e-3 <= places[:, 0]) & (places[:, 0] <= high + 2e-3)
    assert inside.all(), np.asarray(places[~inside, 0])[:5]
    back = cells_at(likelihood, where.at(jnp.full((1001, 1), 0.5))[0])
    np.testing.assert_array_equal(schema.decode(np.asarray(back), snap=True)["x"], decoded["x"])
    # the noise's density: exp(-log_width...) integrates to one over its interval
    uniform = jnp.linspace(1e-4, 1 - 1e-4, 2001)[:, None]
    one = Intervals(*(jnp.broadcast_to(part[:1], uniform.shape) for part in where))
    place, moved = one.at(uniform)
    q = np.exp(-np.asarray(moved + one.log_unit)[:, 0])
    assert abs(np.trapezoid(q, np.asarray(place)[:, 0]) - 1.0) < 2e-2


@pytest.mark.parametrize(
    "name", ["levels", "count", "atom"]
)  # one of each way; every fit is seconds of compiling
def test_masses_of_a_column_sum_to_one_and_match_its_rows(name):
    kind, values = KINDS[name]
    frame = pd.DataFrame({"x": column(name)})
    flow = NormalizingFlow(kinds=None if kind is None else {"x": kind}, **SMALL | {"max_steps": 200}).fit(
        frame
    )
    reading = flow.log_density(pd.DataFrame({"x": values}), n_draws=2000)
    assert set(reading.kind) == {"bound"}
    step = getattr(flow.schema_.columns[0].kind, "resolution", None) or 1.0
    seen = getattr(flow.schema_.columns[0].kind, "reserved", None) or 0.0
    mass = np.exp(reading.values) * step
    assert abs(mass.sum() + seen - 1.0) < 0.02
    shares = np.array([np.mean(frame["x"] == value) for value in values])
    assert np.abs(mass - shares).max() < 0.06


def test_a_bound_lies_under_the_integral_over_its_cells_by_no_more_than_stated():
    """Two columns on coarse grids that hang together: the sum over a fine grid of each cell's box says the truth."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=800)
    X = np.round(2 * np.stack([first, first**2 + 0.5 * generator.normal(size=800)], axis=1)) / 2
    flow = NormalizingFlow(kinds=Real(resolution=0.5, atoms=()), **SMALL).fit(X)
    rows = X[:60]
    side = (np.arange(24) + 0.5) / 24
    u, v = (part.ravel() for part in np.meshgrid(side, side))
    model, encoded = flow.model_, flow.schema_.encode(rows)
    where = intervals(model.likelihood, jnp.asarray(encoded.values))
    uniform = jnp.asarray(np.stack([u, v], axis=1))

    @jax.jit
    def over_the_box(where):
        bent, moved = model._bent(where, uniform, jnp.ones(uniform.shape, bool))
        codes, log_det = model._codes(bent, jnp.zeros((len(uniform), 0)))
        return jnp.sum(jax.scipy.stats.norm.logpdf(codes) + moved, axis=1) + log_det

    nats = np.asarray(jax.lax.map(over_the_box, where), np.float64)
    truth = logsumexp(nats, axis=1) - np.log(len(u)) + encoded.offset
    reading = flow.log_density(rows, n_draws=200)
    apart = (reading.values + 0.5 * reading.standard_error**2 - truth) / reading.standard_error
    assert np.all(np.abs(apart) < 5) and abs(apart.mean()) < 0.5
    assert np.all(reading.values < truth + 4 * reading.standard_error)
    single = flow.log_density(rows, n_draws=1).values
    assert single.mean() < truth.mean()  # the bound of one draw, in expectation


# ---- gaps ------------------------------------------------------------------------------------------------------


def test_the_gaussian_with_gaps_draws_what_it_says():
    generator = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.5, 0.3, 0.7]])
    rows = generator.normal(size=(4000, 3)) @ mixing.T + [1.0, 0.0, -2.0]
    holes = generator.random(rows.shape) < 0.2
    gaussian = Gaussian.fitted(np.where(holes, np.nan, rows))
    covariance = mixing @ mixing.T
    assert np.abs(gaussian.factor @ gaussian.factor.T - covariance).max() < 0.08
    assert np.abs(gaussian.mean - [1.0, 0.0, -2.0]).max() < 0.08
    observed = jnp.array([True, False, False])
    row = jnp.broadcast_to(jnp.array([2.0, 99.0, 99.0]), (20_000, 3))
    noise = jax.random.normal(jax.random.key(0), row.shape)
    filled, _ = gaussian.fill(row, observed, noise, jnp.zeros(len(row)))
    whole = gaussian.factor @ gaussian.factor.T
    slope = whole[1:, 0] / whole[0, 0]
    left = whole[1:, 1:] - np.outer(slope, whole[0, 1:])
    assert (
        np.abs(filled[:, 1:].mean(axis=0) - (gaussian.mean[1:] + slope * (2.0 - gaussian.mean[0]))).max()
        < 0.03
    )
    assert np.abs(np.cov(np.asarray(filled[:, 1:]).T) - 1.1**2 * left).max() < 0.03
    # E[p / q] = 1 for any p: here for the conditional normal law itself
    mixed, log_q = gaussian.fill(row, observed, noise, jax.random.uniform(jax.random.key(1), (len(row),)))
    log_p = multivariate_normal(gaussian.mean[1:] + slope * (2.0 - gaussian.mean[0]), left).logpdf(
        mixed[:, 1:]
    )
    assert abs(np.exp(log_p - np.asarray(log_q)).mean() - 1.0) < 0.02


def test_gaps_in_training_are_integrated_over():
    """A third of the cells is lost: the law of whole rows is learned still, the correlation with it."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=1500)
    X = np.stack([first, 0.9 * first + np.sqrt(0.19) * generator.normal(size=1500)], axis=1)
    holes = generator.random(X.shape) < 0.33
    holes[holes.all(axis=1), 0] = False
    flow = NormalizingFlow(**SMALL | {"max_steps": 300}).fit(np.where(holes, np.nan, X))
    unseen = generator.normal(size=1000)
    unseen = np.stack([unseen, 0.9 * unseen + np.sqrt(0.19) * generator.normal(size=1000)], axis=1)
    truth = multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]]).logpdf(unseen).mean()
    assert abs(flow.score(unseen) - truth) < 0.06
    half = unseen.copy()
    half[:, 1] = np.nan
    reading = flow.log_density(half)
    assert set(reading.kind) == {"bound"} and reading.withheld.mean() < 0.02
    assert abs(reading.values.mean() - norm.logpdf(unseen[:, 0]).mean()) < 0.06
    filled = flow.impute(half)
    assert abs(np.mean((filled[:, 1] - unseen[:, 1]) ** 2) - 0.19) < 0.03
    assert np.corrcoef(flow.sample(2000, random_state=0).T)[0, 1] == pytest.approx(0.9, abs=0.03)


# ---- the face --------------------------------------------------------------------------------------------------


def test_a_table_of_constants_has_no_code_and_costs_nothing():
    X = np.ones((30, 2))
    with pytest.warns(UserWarning, match="hold one value"):
        flow = NormalizingFlow(**SMALL).fit(X)
    assert flow.score(X) == 0.0 and flow.transform(X).shape == (30, 0) and np.all(flow.sample(3) == 1.0)


def test_networks_of_several_widths_are_refused():
    with pytest.raises(InputError, match="all of one width"):
        NormalizingFlow(hidden_layer_sizes=(8, 16)).fit(ring(50))
    with pytest.raises(InputError, match="'autoregressive' or 'coupling'"):
        NormalizingFlow("couplings").fit(ring(50))


@pytest.mark.parametrize("most", [1000, 20])
def test_the_gaussian_of_rows_with_gaps_is_that_of_the_whole_rows(monkeypatch, most):
    """Also by the twenty patterns of gaps that most rows have, of more than a hundred."""
    monkeypatch.setattr("diabolo.gaussian._MAX_PATTERNS", most)
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(4000, 8)) @ rng.normal(size=(8, 8)) + np.arange(8)
    gappy = np.where(rng.random(whole.shape) < 0.15, np.nan, whole)
    found = Gaussian.fitted(gappy)
    spread = whole.std(axis=0)
    assert np.max(np.abs(np.asarray(found.mean) - whole.mean(axis=0)) / spread) < 0.06
    covariance = np.asarray(found.factor) @ np.asarray(found.factor).T
    assert np.max(np.abs(covariance - np.cov(whole.T)) / np.outer(spread, spread)) < 0.06
