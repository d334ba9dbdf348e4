"""Every trap that peers fell into, one test each; those that ask for a whole room are tested where they are named."""

import logging
import os
import pickle
import random
import subprocess
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
import pytest
from cases import CASES, N_ROWS, THOROUGH, fitted, mixed, nats, points
from scipy.stats import norm

from diabolo import GSN, density
from diabolo.batches import Batch, Batches
from diabolo.columns import Real
from diabolo.model import State
from diabolo.priors import Mixture
from diabolo.proposals import LocalStrata

# ---- odd tables ------------------------------------------------------------------------------------------------


def test_n_smaller_than_the_batch(case):
    X = points()[:12]
    few = case(max_steps=1000, learning_rate=0.01).fit(X)
    if "max_steps" in few.get_params():
        assert few.n_steps_ == 1000 and few.validation_scores_ == []  # below 20 rows none is held out
    assert case.no_bottleneck or np.mean((few.reconstruct(X) - X) ** 2) < 0.3 * np.mean(
        (X - X.mean(axis=0)) ** 2
    )
    assert nats(few, X) > nats(few, X + 10.0 * X.std(axis=0)) + 10.0


@pytest.mark.filterwarnings("ignore:columns? .* holds? one value")
@pytest.mark.parametrize("X", [points()[:1], np.full((30, 4), 7.0)], ids=["n = 1", "only constants"])
def test_n_is_one_and_nothing_varies(case, X):
    """One row teaches one value per column: it comes back, any other is impossible, and its log-density is 0."""
    one = case(max_steps=100).fit(X)
    assert np.array_equal(one.reconstruct(X), X)
    assert np.array_equal(one.sample(3), np.repeat(X[:1], 3, axis=0))
    assert one.transform(X).shape == (len(X), one.model_.n_components)
    reading = one.log_density(X)
    assert np.all(np.abs(reading.values) <= 4.0 * reading.standard_error)
    with pytest.warns(UserWarning, match="outside the support"):
        assert np.all(one.score_samples(X + 1.0) == -np.inf)


def test_one_feature(case):
    X = points()[:, :1]
    alone = case().fit(X)
    side = np.linspace(X.min() - 5.0, X.max() + 5.0, 301)
    density = np.exp(alone.score_samples(side[:, None]))
    assert abs(np.sum(density) * (side[1] - side[0]) - 1.0) < 0.02
    assert alone.sample(2).shape == (2, 1) and alone.transform(X).shape == (N_ROWS, alone.model_.n_components)
    assert abs(alone.sample(4000, random_state=0).std() / X.std() - 1.0) < 0.1


def test_a_constant_column(case, on_points):
    X = np.insert(points(), 2, 5.0, axis=1)
    with pytest.warns(UserWarning, match=r"column x2 holds one value or none: kept in outputs, not modelled"):
        constant = case().fit(X)
    assert np.array_equal(constant.score_samples(X), on_points.score_samples(points()))
    assert np.array_equal(constant.transform(X), on_points.transform(points()))
    assert np.all(constant.sample(9)[:, 2] == 5.0) and np.all(constant.reconstruct(X)[:, 2] == 5.0)
    X[3, 2] = 6.0
    with pytest.warns(UserWarning, match="outside the support"):
        assert np.flatnonzero(np.isneginf(constant.score_samples(X))).tolist() == [3]


def test_data_far_from_zero_and_one_and_negative_data(case, on_points):
    X = -1e4 * points() - 1e8
    far = case().fit(X)
    # another sign is another training: its mean moves by some hundredths
    assert abs(nats(far, X) - (nats(on_points, points()) - 4.0 * np.log(1e4))) < 0.2
    draws = far.sample(4000, random_state=0)
    assert np.all(np.abs(draws.mean(axis=0) - X.mean(axis=0)) < 0.2 * X.std(axis=0))
    assert np.all(np.abs(draws.std(axis=0) / X.std(axis=0) - 1.0) < 0.15)
    assert case.no_bottleneck or np.mean((far.reconstruct(X) - X) ** 2) < 0.15 * np.mean(
        (X - X.mean(axis=0)) ** 2
    )


def test_fortran_order_and_read_only_arrays(case, on_points):
    """Training on them; `test_laws.py` reads them."""
    X = np.asfortranarray(points())
    X.flags.writeable = False
    kept = X.copy()
    assert np.array_equal(case().fit(X).transform(X), on_points.transform(points()))
    assert np.array_equal(X, kept)


def test_integers_are_the_floats_of_their_value(name, case):
    if name != "VAE" and not THOROUGH:
        pytest.skip("tables become numbers at one door, and VAE opens it")
    whole = np.rint(10.0 * points())
    as_kinds = {"kinds": "real"}
    integers, floats = (case(**as_kinds).fit(whole.astype(dtype)) for dtype in (np.int32, np.float64))
    assert np.array_equal(integers.score_samples(whole), floats.score_samples(whole))


def test_duplicated_rows_and_rounded_values_keep_densities_in_bounds(case):
    """A cell on a grid of step δ is a mass, at most 1, over δ; one without a grid a normal no narrower than 10⁻³."""
    rounded = np.round(points(), 1)
    duplicated = np.repeat(rounded[::80], 80, axis=0)
    for X in (rounded, duplicated):
        scores = case(kinds=Real(resolution=0.1)).fit(X).score_samples(X)
        assert np.all(np.isfinite(scores)) and np.all(scores <= -4.0 * np.log(0.1) + 1e-3)
    endless = case(kinds=Real(resolution=0)).fit(duplicated).score_samples(duplicated)
    highest = -np.sum(np.log(1e-3 * duplicated.std(axis=0) * np.sqrt(2.0 * np.pi)))
    assert np.all(np.isfinite(endless)) and np.all(endless < highest)


# ---- same question, same answer --------------------------------------------------------------------------------


def test_refit_after_fit(case, on_points):
    again = case().fit(points()[::-1])
    again.fit(points())
    assert np.array_equal(again.score_samples(points()), on_points.score_samples(points()))


def test_two_calls_equal(on_points):
    for verb in (on_points.transform, on_points.reconstruct, on_points.score_samples):
        assert np.array_equal(verb(points()), verb(points()))


def test_permuted_rows(on_points):
    order = np.random.default_rng(1).permutation(N_ROWS)
    assert np.array_equal(on_points.score_samples(points()[order]), on_points.score_samples(points())[order])


def test_row_by_row_against_all_at_once(on_points):
    alone = [
        on_points.score_samples(points()[i : i + 1])[0] for i in range(62, 66)
    ]  # over the edge of a chunk
    assert alone == on_points.score_samples(points()[:128])[62:66].tolist()


# ---- densities -------------------------------------------------------------------------------------------------


def test_the_sign_and_the_constants_of_a_log_density(case, on_points):
    """With a decoder that ignores its code, p(x) is the product of the columns' own normal laws, in user's units."""
    X = points()
    if case.no_decoder:
        pytest.skip(case.no_decoder)
    deaf = pickle.loads(pickle.dumps(on_points))
    silent = lambda model: (model.encoder.network, model.decoder.network, model.decoder.shared)  # noqa: E731
    zeros = jax.tree.map(
        lambda leaf: np.zeros_like(leaf) if eqx.is_array(leaf) else leaf, silent(deaf.model_)
    )
    deaf.model_ = eqx.tree_at(silent, deaf.model_, zeros)
    truth = norm.logpdf(X, X.mean(axis=0), X.std(axis=0)).sum(axis=1)
    reading = deaf.log_density(X)
    centred = reading.values + 0.5 * reading.standard_error**2
    # noise is keyed by row, so a few of 400 rows are four errors off
    assert np.all(np.abs(centred - truth) < 6.0 * reading.standard_error + 1e-3)
    assert abs(np.mean(centred - truth)) < 0.02


@pytest.mark.parametrize("n_draws", [100, 9000])  # 8,192 draws make a chunk
def test_a_number_of_draws_that_the_chunk_does_not_divide(n_draws, monkeypatch):
    model, X, weights_of = fitted("VAE"), points()[:10], {}
    log_weights = density.log_weights

    def recorded(model, batch, *asked):
        weights, counts = log_weights(model, batch, *asked)
        for row, each in zip(np.asarray(batch.values), np.asarray(weights, np.float64), strict=True):
            weights_of[row.tobytes()] = each  # chunks are read side by side, in any order
        return weights, counts

    monkeypatch.setattr(density, "log_weights", recorded)
    reading = model.log_density(X, n_draws)
    rows = model.schema_.encode(X)
    weights = np.array([weights_of[row.tobytes()] for row in rows.values])
    assert weights.shape == (10, n_draws)
    by_hand = np.log(np.mean(np.exp(weights), axis=1)) + rows.offset
    np.testing.assert_allclose(reading.values, by_hand, atol=1e-9)


@pytest.mark.parametrize("n_draws", [1, 2, 3, 7, 100, 257])
def test_strata_share_out_every_draw(n_draws):
    point, unit = jnp.zeros((1, 2)), jnp.eye(2)[None]
    prior = jax.tree.map(jnp.asarray, Mixture.standard(2))
    strata = LocalStrata(point, unit, unit, point + 1, prior, (1.0, 1.5, 3.0), (0.45, 0.25, 0.1))
    assert sum(strata.counts(n_draws)) == n_draws
    codes, log_q = strata.draw(jax.random.split(jax.random.key(0), 1), n_draws)
    assert codes.shape == (1, n_draws, 2) and log_q.shape == (1, n_draws)


def test_one_draw_has_no_standard_error(on_points):
    reading = on_points.log_density(points()[:10], n_draws=1)
    low, high = reading.interval()
    assert repr(reading).startswith("Reading(10 rows, nats, ") and "\n" not in repr(reading)
    if on_points.density_kind_ == "exact":
        return  # nothing is drawn, and the width is nothing
    assert not np.any(high - low < 1e-3)  # nan is honest, a width of nothing is not


def test_an_unseen_level_or_a_gap_never_makes_a_row_likelier(name):
    model, table = fitted(name, "mixed"), mixed().dropna()
    unseen = table.assign(colour=pd.Series(["puce"] * len(table), index=table.index, dtype=object))
    gap = table.assign(colour=pd.Series([None] * len(table), index=table.index, dtype=object))
    reserved = model.schema_.columns[2].kind.reserved
    np.testing.assert_allclose(
        model.score_samples(unseen), model.score_samples(gap) + np.log(reserved), atol=1e-9
    )
    assert nats(model, unseen) < nats(model, table) - 1.0
    # a gap drops the cell's own nats and no more: what is left is a probability summed over the levels
    with_cell = CASES[name].with_cell
    whole = with_cell(model, model.schema_.encode(table), 2) if with_cell else model.score_samples(table)
    lost = model.score_samples(gap) - whole
    assert 0.0 < np.mean(lost) < np.log(3.0)


# ---- training --------------------------------------------------------------------------------------------------


def test_the_last_smaller_batch_in_any_mean():
    """There is none in training: each pass runs on into the next, so every row counts the same."""
    rows = np.zeros((N_ROWS, 1), np.float32)
    batches = Batches.split(Batch(rows, rows > 1, rows[:, :0]), 128, 0.0, seed=0)
    orders = batches.orders(25, seed=3)  # 25 steps of 128 rows are 8 passes over 400
    for order in (next(orders), next(orders)):
        assert np.all(np.bincount(order.ravel(), minlength=N_ROWS) == 8)
        assert np.all(np.bincount(order[:3].ravel()) <= 1)  # the first 384 are all different


def test_padding_counts_in_no_mean(on_points):
    X = points()[:65]  # a chunk of 64 rows and one more
    whole = on_points.score_samples(X)
    assert nats(on_points, X) == np.mean(whole)
    alone = [on_points.score_samples(X[i : i + 1])[0] for i in (0, 31, 63, 64)]
    assert alone == whole[[0, 31, 63, 64]].tolist()


def test_the_divergence_is_in_the_loss():
    model, rows = fitted("VAE").model_, fitted("VAE").schema_.encode(points()[:50])
    batch, key = Batch.of(rows), jax.random.key(3)
    posterior = model.posterior(batch)
    mean, scale = (np.asarray(part, np.float64) for part in (posterior.mean, np.exp(posterior.log_scale)))
    noise = np.asarray(jax.random.normal(key, mean.shape), np.float64)
    codes = (mean + scale * noise).astype(np.float32)
    log_likelihood = np.asarray(model.log_likelihood(batch, {"code": codes}), np.float64)
    # KL between normals: log(1/σ) + (σ² + μ²)/2 - 1/2
    divergence = np.sum(-np.log(scale) + 0.5 * (scale**2 + mean**2) - 0.5, axis=1)
    assert np.mean(divergence) > 1.0
    for step, weight in ((10_000, 1.0), (9, 0.2)):  # 1,000 steps, warmed up over the first 50
        state = State(np.int32(step), np.int32(1000))
        expected = -np.mean(log_likelihood - weight * divergence)
        np.testing.assert_allclose(model.loss(batch, key, state).value, expected, rtol=1e-5)


def test_best_weights_are_chosen_at_the_full_weight_of_the_divergence():
    vae, X = CASES["VAE"](max_steps=1000, learning_rate=0.02), points()
    vae.fit(X)
    batches = Batches.split(Batch.of(vae.schema_.encode(X)), 128, 0.1, seed=0)
    model, keys = vae.model_, jax.random.split(jax.random.key(8), 200)
    held_out = eqx.filter_jit(lambda m, b, k: m.held_out(b, k).mean())
    scores = [held_out(model, batches.held_out, k) for k in keys]
    # the score of a round is one draw per row; its mean over draws is the bound at weight one
    assert abs(vae.best_validation_score_ - np.mean(scores)) < 4.0 * np.std(scores)
    assert vae.best_validation_score_ == max(vae.validation_scores_)
    # while the divergence is warmed up its weight is below one in the loss; in the held-out score it never is
    state = State(np.int32(0), np.int32(1000))
    warm = -model.loss(batches.held_out, keys[0], state).value
    assert warm > model.held_out(batches.held_out, keys[0]).mean() + 0.5


def test_training_raises_the_held_out_score_above_an_untrained_net(case, on_points):
    if case.untrained:
        pytest.skip(case.untrained)
    schema = on_points.schema_
    held_out = Batches.split(Batch.of(schema.encode(points())), 128, 0.1, seed=0).held_out
    untrained = case().build(schema, jax.random.key(1)).held_out(held_out, jax.random.key(2))
    trained = on_points.model_.held_out(held_out, jax.random.key(2))
    assert np.mean(trained) > np.mean(untrained) + 0.5
    assert on_points.validation_scores_[-1] > np.mean(untrained) + 0.5


def test_the_encoder_is_kept_after_fit(case, on_points):
    X = points()
    if case.no_decoder:
        pytest.skip(case.no_decoder)
    fresh = case().build(on_points.schema_, jax.random.key(0)).encoder
    old, new = (jax.tree.leaves(encoder) for encoder in (fresh, on_points.model_.encoder))
    assert all(not np.allclose(a, b) for a, b in zip(old, new, strict=True))
    batch = Batch.of(on_points.schema_.encode(X))
    np.testing.assert_allclose(
        on_points.transform(X), on_points.model_.join(on_points.model_.encode(batch)), atol=1e-5
    )


def test_samples_are_drawn_not_argmaxed(case, on_points):
    """Noise is in the draws of numbers; frequencies of levels are in `test_laws.py`."""
    draws = on_points.sample(20_000, random_state=0)
    # off the plane through the data lies nothing but noise, of spread 0.5
    normal = np.linalg.svd(points() - points().mean(axis=0))[2][-1]
    spread = np.std(draws @ normal) / np.std(points() @ normal)
    # a kernel's width, or a chain's noise, comes on top of its row's own; an RBM has one width for each column
    assert 0.8 < spread < (2.2 if case.no_decoder else 1.7 if case.member is GSN else 1.2)


# ---- the world around ------------------------------------------------------------------------------------------


def test_saved_on_one_device_loaded_on_another(tmp_path):
    """Here on the second of two; and no array in a fitted estimator belongs to a device."""
    model = fitted("VAE")
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(model.model_) if eqx.is_array_like(leaf))
    model.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "rows.npy", points()[:10])
    code = (
        "import jax, numpy as np, diabolo\n"
        "with jax.default_device(jax.devices()[1]):\n"
        "    codes = diabolo.load('model.safetensors').transform(np.load('rows.npy'))\n"
        "np.save('codes.npy', codes)\n"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    two = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=two, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), model.transform(points()[:10]), atol=1e-6)


# Loaded in a fresh process: `test_laws.py::test_a_file_answers_the_same_in_a_fresh_process`, every case.


def _global_state():
    return {
        "numpy draws": pickle.dumps(np.random.get_state()),  # noqa: NPY002  (the state that is not to be touched)
        "draws": repr(random.getstate()),
        "warnings": repr(warnings.filters),
        "numpy errors": np.geterr(),
        "jax": {name: repr(value) for name, value in jax.config.values.items()},
        "logging": (logging.root.level, list(logging.root.handlers)),
        "matplotlib": (matplotlib.get_backend(), repr(matplotlib.rcParams)),
        "environment": dict(os.environ),
    }


def test_no_global_random_state_and_no_setting_is_written(case):
    before = _global_state()
    model = case().fit(points())
    if hasattr(model, "partial_fit"):
        model.partial_fit(points())
    model.score_samples(points())
    model.reconstruct(points())
    model.sample(5)
    model.sample(5, random_state=0)
    after = _global_state()
    assert [name for name in before if before[name] != after[name]] == []


def test_no_global_random_state_is_read(case):
    """Both fits see the same one, for the first has not written it; their seeds come from the system."""
    if case.untrained:
        pytest.skip("nothing in it is random but which rows its widths are judged by")
    one = case(random_state=None, max_steps=100).fit(points())
    other = case(random_state=None, max_steps=100).fit(points())
    assert not np.any(one.transform(points()) == other.transform(points()))


# Importing the package changes no setting: `test_floors.py::test_importing_every_room_changes_no_setting`.
