"""The three members against closed forms and numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo import VAE, Autoencoder, DenoisingAutoencoder
from diabolo.columns import Real
from diabolo.density import reading_of
from diabolo.likelihoods import Bernoulli, Normal, scale

MEMBERS = [VAE, Autoencoder, DenoisingAutoencoder]
SMALL = {"n_components": 2, "hidden_layer_sizes": (8,), "max_steps": 300, "random_state": 0}


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.__name__)
def fitted(request, iris):
    return request.param(**SMALL, kinds=Real(resolution=0)).fit(iris)


def by_quadrature(estimator, X, n_side=401, reach=None):
    """log p(x) by the rectangle rule over a two-dimensional code, user's units: (n_rows,)."""
    model, rows = estimator.model_, estimator.schema_.encode(X)
    codes = estimator.transform(X)
    reach = np.abs(codes).max() * 1.6 + 4.0 if reach is None else reach
    side = np.linspace(-reach, reach, n_side)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    groups = model.split(grid)
    log_prior = np.asarray(model.log_prior(groups), float)
    params = model.decode(groups, np.zeros((len(grid), 0), np.float32))
    nats = jax.jit(lambda params, values: model.likelihood.log_prob(params, values).sum(-1))
    out = [logsumexp(np.asarray(nats(params, values), float) + log_prior) for values in rows.values]
    return np.array(out) + 2 * np.log(side[1] - side[0]) + rows.offset


def test_importance_sampling_agrees_with_quadrature(fitted, iris):
    X = iris[::10]
    rows, truth = fitted.schema_.encode(X), by_quadrature(fitted, X)
    readings = [reading_of(fitted.model_, rows, 20_000, seed) for seed in range(4)]
    for reading in readings:
        assert abs(np.mean(reading.values) - np.mean(truth)) < 0.01
        assert set(reading.kind) == {"bound"}
    errors = np.array([reading.standard_error for reading in readings])
    away = np.abs([reading.values - truth for reading in readings])
    # three standard errors, and float32: of sixty readings, chance puts one beyond in one test of seven
    assert np.sum(away > 3 * errors + 2e-3) <= 1
    assert np.all(away < 4.5 * errors + 2e-3)


def test_linear_autoencoder_spans_the_principal_subspace():
    X = StandardScaler().fit_transform(load_wine().data)
    options = {"hidden_layer_sizes": (), "n_components": 2, "kinds": Real(resolution=0), "random_state": 0}
    linear = Autoencoder(
        **options, max_steps=4000, learning_rate=0.01, early_stopping=False, batch_size=178
    ).fit(X)
    spanned = np.linalg.qr(np.asarray(linear.model_.decoder.network.layers[0].weight)[:, : X.shape[1]].T)[0]
    cosines = np.linalg.svd(spanned.T @ PCA(2).fit(X).components_.T, compute_uv=False)
    assert np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))) < 1.0


def test_linear_vae_is_factor_analysis():
    X = StandardScaler().fit_transform(load_wine().data)
    options = {"hidden_layer_sizes": (), "n_components": 2, "kinds": Real(resolution=0), "random_state": 0}
    linear = VAE(**options, max_steps=8000, early_stopping=False, batch_size=178).fit(X)
    model, n_columns = linear.model_, X.shape[1]
    params = np.asarray(
        model.decode(model.split(np.vstack([np.zeros((1, 2)), np.eye(2)])), np.zeros((3, 0))), float
    )
    shared = np.asarray(model.likelihood.shared)
    mean, loadings = params[0, ~shared], (params[1:] - params[0])[:, ~shared]
    noise = np.asarray(scale(params[0, shared]), float) ** 2
    law = multivariate_normal(mean, loadings.T @ loadings + np.diag(noise))
    rows = linear.schema_.encode(X)
    closed = law.logpdf(rows.values) + rows.offset
    assert closed.shape == (len(X),) and n_columns == len(mean)
    reading = linear.log_density(X, n_draws=2000)
    slack = 3 * np.sqrt(np.mean(reading.standard_error**2) / len(X))
    assert np.mean(closed) - 0.05 < np.mean(reading.values) < np.mean(closed) + slack
    assert abs(np.mean(closed) - FactorAnalysis(2, tol=1e-8, max_iter=20_000).fit(X).score(X)) < 0.1


def test_a_row_reads_the_same_in_any_company(fitted, iris):
    order = np.random.default_rng(0).permutation(len(iris))
    for read in (fitted.transform, fitted.score_samples):
        whole = read(iris)
        assert np.array_equal(whole[order], read(iris[order]))
        assert np.array_equal(whole[:5], np.concatenate([read(iris[i : i + 1]) for i in range(5)]))


def test_saving_and_loading_keeps_every_reading(fitted, iris, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    again = diabolo.load(tmp_path / "model.safetensors")
    assert np.array_equal(fitted.transform(iris), again.transform(iris))
    assert np.array_equal(fitted.score_samples(iris), again.score_samples(iris))
    assert np.array_equal(fitted.sample(7, random_state=1), again.sample(7, random_state=1))


def test_a_damaged_file_is_refused(fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(diabolo.InputError, match="damaged or foreign file"):
        diabolo.load(path)
    with pytest.raises(diabolo.InputError, match="no such file"):
        diabolo.load(tmp_path / "nothing.safetensors")


def test_seeds(iris):
    one, same = (VAE(**SMALL).fit(iris) for _ in range(2))
    assert np.array_equal(one.score_samples(iris), same.score_samples(iris))
    assert np.array_equal(one.sample(4, random_state=3), same.sample(4, random_state=3))
    assert not np.array_equal(one.sample(4), one.sample(4))


def test_training_beats_an_untrained_net(iris):
    trained = VAE(**{**SMALL, "max_steps": 1000}).fit(iris[::2])
    untrained = VAE(**{**SMALL, "max_steps": 1}).fit(iris[::2])
    assert trained.score(iris[1::2]) > untrained.score(iris[1::2]) + 0.5


def test_an_unknown_parameter_offers_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'n_components'"):
        VAE().set_params(n_component=3)
    with pytest.raises(diabolo.InputError, match="parameter 'n_components': got 0; expected"):
        VAE(n_components=0).fit(np.eye(5))


def test_a_diverging_loss_names_the_remedy(iris):
    with pytest.warns(RuntimeWarning, match="Set learning_rate below"):
        wild = VAE(**{**SMALL, "learning_rate": 1e20}).fit(iris)
    assert np.all(np.isfinite(wild.transform(iris)))


# ---- the lecture's neuron --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "squared", "crossed"), [((0.6, 0.9), 0.09, 0.01), ((2.0, 2.0), 0.20, 0.01)]
)
def test_a_saturated_neuron_learns_under_cross_entropy_and_hardly_under_squared_error(
    start, squared, crossed
):
    """One sigmoid unit that is to give 0 for 1: 300 steps of rate 0.15 under two laws of its answer.

    After Nielsen 2015, Neural networks and deep learning, chapter 3.
    """
    normal, bernoulli = Normal(0.0, np.zeros(0), coarse=False), Bernoulli()

    def error(weights):  # 1/2 (a - y)² and a constant: the normal law of unit spread around the answer
        return -normal.log_prob(jnp.stack([jax.nn.sigmoid(weights.sum()), 0.0]), jnp.zeros(1))

    def entropy(weights):
        return -bernoulli.log_prob(weights.sum()[None], jnp.zeros(1))

    for loss, answer in ((error, squared), (entropy, crossed)):
        slope = jax.grad(loss)
        weights = jax.lax.fori_loop(0, 300, lambda _, w, slope=slope: w - 0.15 * slope(w), jnp.array(start))
        assert float(jax.nn.sigmoid(weights.sum())) == pytest.approx(answer, abs=0.005)
