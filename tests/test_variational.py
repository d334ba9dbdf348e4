"""Posteriors, priors and bounds of the variational members, by value; and that every option does something."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, N_ROWS, SMALL, by_quadrature, fitted, nats, points
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import diabolo
from diabolo import VAE
from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian, FullGaussian
from diabolo.families.iwae import ImportanceModel
from diabolo.priors import FlowPrior, Mixture, PseudoInputs
from diabolo.variational import CollapseWarning

SIDE = np.linspace(-9.0, 9.0, 361)
GRID = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2).astype(np.float32)
LOG_CELL = 2 * np.log(SIDE[1] - SIDE[0])


def gaussians(k: int, n: int = 3):
    """One diagonal and one full posterior of n rows, and the full one's covariances."""
    rng = np.random.default_rng(k)
    mean, log_scale = (rng.normal(size=(n, k)).astype(np.float32) for _ in range(2))
    log_scale *= 0.4
    tilts = rng.normal(size=(n, FullGaussian.n_tilts(k))).astype(np.float32)
    full = FullGaussian.of(jnp.asarray(mean), jnp.asarray(log_scale), jnp.asarray(tilts))
    unit = np.eye(k) + np.asarray(full.tilt, np.float64)
    covariances = unit @ (np.exp(2.0 * log_scale)[:, :, None] * np.swapaxes(unit, 1, 2))
    return DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_scale)), full, covariances


# ---- posteriors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 16])
def test_a_full_gaussian_is_scipys(k):
    _, full, covariances = gaussians(k)
    codes = np.random.default_rng(9).normal(size=(3, k)).astype(np.float32)
    for i, covariance in enumerate(covariances):
        law = multivariate_normal(np.asarray(full.mean[i]), covariance)
        np.testing.assert_allclose(full.log_prob(jnp.asarray(codes))[i], law.logpdf(codes[i]), rtol=1e-4)
        np.testing.assert_allclose(full.variance()[i], np.diag(covariance), rtol=1e-5)
    axes, inverse, _ = full.frame()
    np.testing.assert_allclose(axes @ inverse, np.broadcast_to(np.eye(k), (3, k, k)), atol=1e-4)
    drawn = np.asarray(jax.vmap(full.draw_one)(jax.random.split(jax.random.key(0), 40_000)), np.float64)
    for i, covariance in enumerate(covariances):
        found = np.cov(drawn[:, i].T).reshape(k, k)
        assert np.abs(found - covariance).max() < 0.05 * np.abs(covariance).max()


def test_every_code_under_every_gaussian_is_scipys_and_so_is_its_gradient():
    codes = np.random.default_rng(9).normal(size=(5, 3)).astype(np.float32)
    for posterior, covariances in zip(gaussians(3)[:2], (None, gaussians(3)[2]), strict=True):
        if covariances is None:
            covariances = [np.diag(variance) for variance in np.asarray(posterior.variance())]
        laws = [
            multivariate_normal(m, c) for m, c in zip(np.asarray(posterior.mean), covariances, strict=True)
        ]
        want = np.stack([law.logpdf(codes) for law in laws], axis=1)
        np.testing.assert_allclose(posterior.log_prob_of_all(jnp.asarray(codes)), want, rtol=1e-4)
        slope = jax.grad(lambda z, posterior=posterior: posterior.log_prob_of_all(z).sum())(
            jnp.asarray(codes)
        )
        pulls = [np.linalg.solve(c, (law.mean - codes).T).T for law, c in zip(laws, covariances, strict=True)]
        np.testing.assert_allclose(slope, np.sum(pulls, axis=0), rtol=1e-3, atol=1e-3)


def test_divergences_are_what_quadrature_gives():
    diagonal, full, _ = gaussians(2)
    log_normal = multivariate_normal(np.zeros(2)).logpdf(GRID)
    for posterior in (diagonal, full):
        for i in range(3):
            row = jax.tree.map(lambda leaf, i=i: jnp.repeat(leaf[i : i + 1], len(GRID), axis=0), posterior)
            log_q = np.asarray(row.log_prob(jnp.asarray(GRID)), np.float64)
            assert np.exp(logsumexp(log_q) + LOG_CELL) == pytest.approx(1.0, abs=1e-3)
            divergence = np.sum(np.exp(log_q + LOG_CELL) * (log_q - log_normal))
            assert posterior.to_normal()[i] == pytest.approx(divergence, abs=2e-3)
    np.testing.assert_allclose(diagonal.divergence().sum(axis=1), diagonal.to_normal(), rtol=1e-5)
    # a component by itself: the same with the other integrated out
    alone = DiagonalGaussian(full.mean, 0.5 * jnp.log(full.variance()))
    np.testing.assert_allclose(full.divergence(), alone.divergence(), rtol=1e-4, atol=1e-5)


# ---- priors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_a_prior_integrates_to_one_and_draws_what_it_says(name):
    diagonal, full, _ = gaussians(2, 6)
    prior = {
        "mixture": lambda: Mixture(diagonal, jnp.linspace(-1.0, 1.0, 6)),
        "vamp": lambda: PseudoInputs(jnp.zeros((6, 4))).mixture(full),
        "flow": lambda: FlowPrior.starting(2, jax.random.key(3)),
    }[name]()
    log_prob = np.asarray(prior.log_prob(jnp.asarray(GRID)), np.float64)
    mass = np.exp(log_prob + LOG_CELL)
    assert mass.sum() == pytest.approx(1.0, abs=2e-3)
    mean, variance = prior.moments()
    expected = mass @ GRID, mass @ GRID**2 - (mass @ GRID) ** 2
    drawn = np.asarray(prior.draw(jax.random.key(0), 20_000))
    atol = 0.1 if name == "flow" else 1e-2  # the flow's moments are those of 4,096 draws
    np.testing.assert_allclose(mean, expected[0], atol=atol)
    np.testing.assert_allclose(variance, expected[1], rtol=0.1, atol=atol)
    np.testing.assert_allclose(drawn.mean(axis=0), expected[0], atol=0.06)
    np.testing.assert_allclose(drawn.var(axis=0), expected[1], rtol=0.08)


def test_with_every_row_as_pseudo_input_the_vamp_prior_is_the_aggregate_posterior():
    X = points()[:40]
    vae = VAE(**{**SMALL, "max_steps": 100}, prior="vamp", n_prior=40).fit(points())
    rows = Batch.of(vae.schema_.encode(X))
    model = vae.model_
    inputs = PseudoInputs(model.encoder.embed(jax.tree.map(jnp.asarray, rows)))
    posterior = model.posterior(jax.tree.map(jnp.asarray, rows))
    codes = model.join(model.draw_prior(jax.random.key(0), 30))
    prior = inputs.mixture(model.answer(inputs.inputs))
    for z, found in zip(codes, prior.log_prob(codes), strict=True):
        each = posterior.log_prob(jnp.broadcast_to(z, (40, 2)))
        assert found == pytest.approx(logsumexp(each) - np.log(40), abs=1e-4)


OPTIONS = {
    "full": {"posterior": "full"},
    "mixture": {"prior": "mixture", "n_prior": 8},
    "vamp": {"prior": "vamp", "n_prior": 20},
    "flow": {"prior": "flow"},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_prior_and_posterior_reads_the_density_that_quadrature_gives(option, tmp_path):
    X = points()
    vae = CASES["VAE"](**OPTIONS[option]).fit(X)
    rows = vae.schema_.encode(X[:100])
    reading = vae.log_density(X[:100], n_draws=1000)
    truth = by_quadrature(vae, rows)
    assert abs(np.mean(reading.values - truth)) < 0.02
    held = (
        np.abs(reading.values + 0.5 * reading.standard_error**2 - truth) < 4 * reading.standard_error + 1e-3
    )
    assert held.mean() > 0.97
    plain = fitted("VAE")
    if option != "full":  # a learned prior has no empty space between three clusters to pay for
        assert vae.score(X) > plain.score(X) + 0.1
        assert vae.prior_gap_[1] < plain.prior_gap_[1] + 0.15  # of 40 rows
    else:
        assert np.abs(np.asarray(vae.model_.posterior(Batch.of(rows)).tilt)).max() > 0.1
    if "n_prior" in OPTIONS[option]:
        n_parts = {len(leaf) for leaf in jax.tree.leaves(vae.model_.code_prior)}
        assert OPTIONS[option]["n_prior"] in n_parts
    vae.save(tmp_path / "m.safetensors")
    again = diabolo.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.score_samples(X[:9]), vae.score_samples(X[:9]))
    assert np.array_equal(again.sample(9, random_state=1), vae.sample(9, random_state=1))
    assert np.array_equal(again.divergence_, vae.divergence_)


# ---- what is told of the code, and the options of the divergence ------------------------------------------------


def test_what_is_told_of_the_code():
    vae = fitted("VAE")
    assert vae.active_components_.tolist() == [True, True] and np.all(vae.divergence_ > 0.5)
    low, high = vae.prior_gap_
    assert 0.0 <= low <= high < vae.divergence_.sum()
    unused = VAE(**{**SMALL, "n_components": 6}).fit(points())  # three clusters on a plane: two are enough
    assert 2 <= unused.active_components_.sum() < 6
    assert np.all(unused.divergence_[~unused.active_components_] < 0.1)


def test_a_heavy_divergence_collapses_the_code_and_it_is_said():
    with pytest.warns(CollapseWarning, match="free_bits=0.1 or beta below 1"):
        vae = CASES["VAE"](beta=20.0, max_steps=500).fit(points())
    assert not vae.active_components_.any() and vae.divergence_.sum() < 0.05


def test_a_light_one_says_more_of_a_row_and_less_of_the_density():
    vae = CASES["VAE"](beta=0.2).fit(points())
    plain = fitted("VAE")
    assert vae.divergence_.sum() > plain.divergence_.sum() + 2.0
    assert vae.score(points()) < plain.score(points()) - 0.1


def test_free_bits_are_used():
    vae = CASES["VAE"](free_bits=3.0).fit(points())
    assert np.all(fitted("VAE").divergence_ < 2.5) and np.all(vae.divergence_ > 2.5)


def test_a_warm_up_moves_training():
    one, other = (CASES["VAE"](warm_up=share, max_steps=300).fit(points()) for share in (0.0, 1.0))
    # with no weight at first, the reconstruction is what falls first
    assert other.loss_curve_[0] < one.loss_curve_[0]


# ---- the importance-weighted bound -----------------------------------------------------------------------------


def reweighed(**changed) -> tuple[ImportanceModel, Batch]:
    """A trained model with another number of draws or another gradient, and 16 rows."""
    iwae = fitted("IWAE")
    rows = iwae.schema_.encode(points()[:16])
    return ImportanceModel(**{**vars(iwae.model_), **changed}), jax.tree.map(jnp.asarray, Batch.of(rows))


def test_a_scale_for_each_row_is_what_the_rows_have():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N_ROWS, 2))
    X[:, 1] *= np.exp(1.5 * X[:, 0])
    column, row = (CASES["VAE"](dispersion=name, max_steps=600).fit(X[::2]) for name in ("column", "row"))
    assert nats(row, X[1::2]) > nats(column, X[1::2]) + 0.2


def test_bounds_rise_with_the_draws_and_stay_below_the_integral():
    iwae = fitted("IWAE")
    rows = iwae.schema_.encode(points()[:100])
    batch, truth = jax.tree.map(jnp.asarray, Batch.of(rows)), by_quadrature(iwae, rows) - rows.offset
    means = []
    for n_draws in (1, 4, 16, 64):
        model = ImportanceModel(**{**vars(iwae.model_), "n_draws": n_draws})
        held_out = eqx.filter_jit(model.held_out)
        bounds = [np.asarray(held_out(batch, jax.random.key(i))) for i in range(20)]
        means.append(np.mean(bounds))
    assert np.all(np.diff(means) > 0.0) and means[-1] < truth.mean() + 0.01
    assert truth.mean() - means[-1] < 0.1 < truth.mean() - means[0]


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_both_gradients_agree_in_the_mean_and_one_varies_less(weight):
    last = lambda one: one.encoder.network.layers[-1].bias  # noqa: E731
    gradients = []
    for name in ("plain", "doubly_reparameterized"):
        model, batch = reweighed(n_draws=2, gradient=name)

        def slope(key, model=model, batch=batch):
            def mean_bound(bias):
                return jnp.mean(eqx.tree_at(last, model, bias).bound(batch, key, jnp.float32(weight)))

            return jax.grad(mean_bound)(jnp.asarray(last(model)))

        drawn = jax.lax.map(slope, jax.random.split(jax.random.key(0), 5000))
        gradients.append(np.asarray(drawn, np.float64))
    plain, double = gradients
    apart = plain - double  # of the same draws
    error = apart.std(axis=0) / np.sqrt(len(apart))
    assert np.all(np.abs(apart.mean(axis=0)) < 3.5 * error)
    assert np.abs(plain.mean(axis=0) / error).max() > 6.0  # there is something to agree on
    assert np.all(double.var(axis=0) < (0.5 if weight == 1.0 else 0.9) * plain.var(axis=0))


def test_of_one_draw_it_is_the_evidence_bound():
    model, batch = reweighed(n_draws=1)
    posterior = model.posterior(batch)
    keys = jax.random.split(jax.random.key(0), 2000)
    bounds = np.asarray(jax.lax.map(lambda key: model.held_out(batch, key), keys), np.float64)
    likelihoods = jax.lax.map(
        lambda key: model.log_likelihood(batch, model.split(posterior.draw_one(key))), keys
    )
    evidence = np.asarray(likelihoods, np.float64) - np.asarray(posterior.to_normal(), np.float64)
    error = np.sqrt((bounds.var(axis=0) + evidence.var(axis=0)) / 2000)
    assert np.all(np.abs(bounds.mean(axis=0) - evidence.mean(axis=0)) < 4.0 * error)


@pytest.mark.parametrize("name", ["VAE", "IWAE"])
def test_bounds_of_binary_rows_lie_below_their_own_value_by_no_more_than_stated(name):
    """Of every row that there can be, against the quadrature over the code."""
    generator = np.random.default_rng(0)
    odds = generator.normal(size=(400, 2)) @ generator.normal(0.0, 2.0, (2, 8))
    rows = (generator.random((400, 8)) < 1.0 / (1.0 + np.exp(-odds))).astype(float)
    every = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(float)
    member = getattr(diabolo, name)(**SMALL | {"n_components": 2, "kinds": "binary"}).fit(rows)
    truth = by_quadrature(member, member.schema_.encode(every), 201)
    assert logsumexp(truth) == pytest.approx(0.0, abs=1e-3)
    gaps = []
    for n_draws in (8, 64, 512):
        reading = member.log_density(every, n_draws=n_draws)
        apart, error = reading.values - truth, reading.standard_error
        chance = np.sqrt(np.sum(error**2)) / len(every)  # of the mean over rows, whose draws are their own
        assert set(reading.kind) == {"bound"} and apart.mean() < 3.0 * chance
        assert abs(np.mean(apart + 0.5 * error**2)) < 3.0 * chance + 0.1 * np.mean(error**2)
        gaps.append(abs(apart.mean()))
    assert gaps[2] < gaps[0] and gaps[2] < 0.01
