"""The generative stochastic network against the enumeration of all its rows: its chain is a matrix of 64 x 64."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2

from diabolo import GSN, InputError
from diabolo.batches import Batch, Batches
from diabolo.columns import Real
from diabolo.density import reading_of
from diabolo.impute import conditional_draws

N_COLUMNS = 6
EVERY = np.array(list(itertools.product([0.0, 1.0], repeat=N_COLUMNS)))
SMALL = {"hidden_layer_sizes": (8,), "max_steps": 1000, "random_state": 0}


def binary() -> np.ndarray:
    """Six columns: two free ones, each with a copy that errs, and two that tell whether they agree: (600, 6)."""
    generator = np.random.default_rng(0)
    rows = np.zeros((600, N_COLUMNS))
    rows[:, :2] = generator.random((600, 2)) < [0.3, 0.6]
    rows[:, 2:4] = rows[:, :2] != (generator.random((600, 2)) < 0.1)
    rows[:, 4] = rows[:, 0] == rows[:, 1]
    rows[:, 5] = generator.random(600) < np.where(rows[:, 4], 0.9, 0.3)
    return rows


@functools.cache
def fitted(rate: float = 0.3) -> GSN:
    """Fitted to `binary`, with cells drawn anew at some rate."""
    return GSN(3, **SMALL, resampling=rate, n_states=512, n_burn=40).fit(binary())


def corrupted(rate: float = 0.3) -> np.ndarray:
    """C(x̃ | x) of all rows, by hand: each cell is drawn anew at a rate. (64, 64), rows x."""
    shares = binary().mean(axis=0)
    anew = np.where(EVERY == 1.0, shares, 1.0 - shares)
    stays = EVERY[:, None] == EVERY[None]
    return np.prod((1.0 - rate) * stays + rate * anew[None], axis=2)


def log_drawn(rate: float = 0.3) -> np.ndarray:
    """log P(x | x̃) of all rows: (64, 64) nats, rows x̃."""
    model = fitted(rate).model_
    codes = model.code_of(jnp.asarray(EVERY, jnp.float32), jnp.ones(EVERY.shape, bool))
    logits = np.asarray(model.said(codes), np.float64)
    sign = 2.0 * EVERY - 1.0
    return -np.sum(np.logaddexp(0.0, -sign[None] * logits[:, None]), axis=2)


def stationary(steps: np.ndarray) -> np.ndarray:
    """The distribution that a matrix of transitions leaves as it is."""
    return np.linalg.matrix_power(steps, 4096)[0]


@functools.cache
def told(rate: float = 0.3) -> np.ndarray:
    """How often the chain visits each row in the end: (64,)."""
    return stationary(corrupted(rate) @ np.exp(log_drawn(rate)))


def too_far(rows: np.ndarray, shares: np.ndarray) -> bool:
    """Whether frequencies of rows differ from these shares by more than one time in a thousand."""
    seen = np.bincount((rows @ 2 ** np.arange(rows.shape[1])[::-1]).astype(int), minlength=len(shares))
    common = len(rows) * shares > 5.0
    pooled = [np.append(part[common], part[~common].sum()) for part in (seen, len(rows) * shares)]
    distance = np.sum((pooled[0] - pooled[1]) ** 2 / np.maximum(pooled[1], 1e-9))
    return bool(distance > chi2.ppf(0.999, common.sum()))


# ---- the chain ---------------------------------------------------------------------------------------------------


def test_draws_have_the_frequencies_of_the_enumerated_chain():
    assert not too_far(fitted().sample(4000, random_state=0), told())
    assert too_far(fitted().sample(4000, random_state=0), apart())


def test_the_less_noise_the_nearer_the_chain_is_to_the_data():
    """P(x | x̃) takes columns as independent given x̃, which is less of an error the more x̃ says of x."""
    rows = np.bincount((binary() @ 2 ** np.arange(N_COLUMNS)[::-1]).astype(int), minlength=64) / 600
    far = [np.sum(rows * np.log(np.maximum(rows, 1e-12) / shares)) for shares in (told(0.1), told(), apart())]
    assert far[0] < 0.25 * far[2] and far[0] < 0.5 * far[1]


def apart() -> np.ndarray:
    """How often each row would come were its columns independent: (64,)."""
    shares = binary().mean(axis=0)
    return np.prod(np.where(EVERY == 1.0, shares, 1.0 - shares), axis=1)


def test_the_loss_is_the_mean_over_the_steps_away_from_the_row():
    """Against sums over all rows that the chain may visit; one step is the plain denoising criterion."""
    row = EVERY[[22]].astype(np.float32)
    batch = Batch(np.repeat(row, 4000, axis=0), np.ones((4000, N_COLUMNS), bool), np.zeros((4000, 0)))
    after = corrupted()[22]  # of x̃
    expected = []
    for _ in range(3):
        expected.append(after @ log_drawn()[:, 22])
        after = after @ np.exp(log_drawn()) @ corrupted()
    for n_steps in (1, 3):
        model = eqx.tree_at(lambda one: one.noise, fitted().model_, 0.0)
        model = type(model)(**{**vars(model), "n_walkback": n_steps})
        nats = np.asarray(model.held_out(batch, jax.random.key(0)), np.float64)
        error = nats.std(ddof=1) / np.sqrt(len(nats))
        assert abs(nats.mean() - np.mean(expected[:n_steps])) < 4.0 * error
        loss = model.loss(batch, jax.random.key(0), model.initial_state())
        assert float(loss.value) == pytest.approx(-nats.mean(), abs=1e-5)
    assert abs(expected[0] - np.mean(expected)) > 8.0 * error  # the steps are told apart


def test_noise_moves_quantities_by_its_spread_and_leaves_atoms_alone():
    generator = np.random.default_rng(1)
    waits = np.where(generator.random(400) < 0.4, 0.0, 20.0 + generator.normal(size=400))
    table = pd.DataFrame({"size": 5.0 * generator.normal(size=400), "waits": waits})
    model = GSN(2, **SMALL | {"max_steps": 1}, noise=0.3, resampling=0.0, n_states=8).fit(table)
    rows = model.schema_.encode(table)
    seen = {}

    class Encoder(eqx.Module):
        def embed(self, batch):
            return batch.values

        def __call__(self, inputs):
            return inputs

    def moved(resampling, key):
        other = eqx.tree_at(lambda one: one.encoder, model.model_, Encoder())
        other = eqx.tree_at(lambda one: one.resampling, other, jnp.float32(resampling))
        params = jnp.broadcast_to(other.likelihood.initial, (400, other.likelihood.n_params))
        return np.asarray(other.step(params, jax.random.key(key), lambda _: (rows.values, rows.observed)))

    seen = moved(0.0, 0) - rows.values
    at_atom = rows.values[:, 2] == 1.0
    assert at_atom.mean() == pytest.approx(0.4, abs=0.1)
    np.testing.assert_array_equal(seen[at_atom, 1:], 0.0)
    np.testing.assert_array_equal(seen[:, 2], 0.0)
    assert seen[:, 0].std() == pytest.approx(0.3, rel=0.12)
    assert seen[~at_atom, 1].std() == pytest.approx(0.3, rel=0.15)
    # a column with an atom is drawn anew now and then, one without never is
    anew = moved(0.5, 1)
    assert np.mean(anew[:, 2] != rows.values[:, 2]) == pytest.approx(0.5 * 2 * 0.4 * 0.6, abs=0.08)
    assert np.corrcoef(anew[:, 0], rows.values[:, 0])[0, 1] > 0.9


# ---- readings ----------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_chains_density_within_its_error():
    """Of twelve times as many states; an estimate is low, never high, on the average."""
    model, rows = fitted().model_, fitted().schema_.encode(EVERY)
    batches = Batches.split(Batch.of(fitted().schema_.encode(binary())), 128, 0.0, 0)
    readings = [reading_of(model.finish(batches, jax.random.key(seed)), rows, 1, 0) for seed in range(12)]
    assert all(np.exp(reading.values).sum() == pytest.approx(1.0, abs=1e-4) for reading in readings)
    assert {kind for reading in readings for kind in reading.kind} == {"estimate"}
    mean = logsumexp([reading.values for reading in readings], axis=0) - np.log(12)
    error = np.mean([reading.standard_error for reading in readings], axis=0) / np.sqrt(12)
    z = (mean - np.log(told())) / error
    assert np.all(np.abs(z) < 4.0) and 0.6 < np.sqrt(np.mean(z**2)) < 1.4
    each = np.array([(one.values - np.log(told())) / one.standard_error for one in readings])
    assert 0.8 < np.sqrt(np.mean(each**2)) < 1.2


def test_missing_cells_are_drawn_by_the_clamped_chain():
    """Against the transitions with two cells clamped; the reading of a row with gaps sums over them."""
    row = EVERY[[22]].copy()
    row[:, [1, 2, 4]] = np.nan
    model = fitted()
    drawn = next(conditional_draws(model.model_, model.schema_.encode(row), 4000, 0))[0]
    fits = np.flatnonzero((EVERY[:, [0, 3, 5]] == EVERY[22][[0, 3, 5]]).all(axis=1))
    steps = corrupted()[fits] @ np.exp(log_drawn())[:, _every_with(fits)].reshape(64, 8, -1).sum(axis=2)
    assert not too_far(drawn[:, [1, 2, 4]], stationary(steps))
    np.testing.assert_allclose(
        model.score_samples(row), logsumexp(model.score_samples(EVERY[fits])), atol=1e-5
    )


def _every_with(fits: np.ndarray) -> np.ndarray:
    """For each of eight rows, all rows that have its cells 1, 2 and 4: a clamped cell is drawn and put back: (64,)."""
    return np.concatenate(
        [np.flatnonzero((EVERY[:, [1, 2, 4]] == EVERY[fit][[1, 2, 4]]).all(axis=1)) for fit in fits]
    )


def test_more_steps_lead_further_from_the_training_rows():
    """After one step of little noise a state still lies by its row; after many it does not."""
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], [300, 20], axis=0) + 0.3 * np.random.default_rng(0).normal(
        size=(320, 2)
    )
    shares = []
    for n_burn in (1, 200):
        model = GSN(2, **SMALL, noise=0.3, n_states=2000, n_burn=n_burn).fit(X)
        only = Batches.split(Batch.of(model.schema_.encode(X[300:])), 20, 0.0, 0)
        ended = model.model_.finish(only, jax.random.key(0))
        rows = model.schema_.decode(np.asarray(ended.typical({"code": ended.kept}, jnp.zeros((2000, 0)))))
        shares.append(np.mean(rows.sum(axis=1) > 1.0))
    assert shares[0] > 0.7 and shares[1] < 0.4


def test_a_mixed_table_integrates_to_one():
    generator = np.random.default_rng(1)
    group = generator.integers(0, 3, 400)
    table = pd.DataFrame(
        {
            "size": 3.0 * group + generator.normal(size=400),
            "colour": np.array(["red", "green", "blue"])[group],
            "male": generator.random(400) < np.array([0.2, 0.5, 0.9])[group],
        }
    )
    model = GSN(2, **SMALL, n_states=128, kinds={"size": Real(resolution=0)}).fit(table)
    sizes = np.linspace(-14.0, 20.0, 400)
    every = pd.DataFrame(
        list(itertools.product(sizes, ["red", "green", "blue"], [False, True])), columns=table.columns
    )
    total = np.exp(logsumexp(model.score_samples(every)) + np.log(sizes[1] - sizes[0]))
    assert abs(total - (1.0 - model.schema_.columns[1].kind.reserved)) < 1e-4


def test_a_training_table_with_gaps_teaches_the_same():
    rows = binary()
    holed = np.where(np.random.default_rng(5).random(rows.shape) < 0.15, np.nan, rows)
    model = GSN(3, **SMALL, resampling=0.1, n_states=512, n_burn=40).fit(holed)
    assert model.score(rows) > fitted(0.1).score(rows) - 0.15
    filled = model.impute(holed)
    at_copy = np.isnan(holed[:, 2]) & ~np.isnan(holed[:, 0])
    assert np.mean(filled[at_copy, 2] == rows[at_copy, 2]) > 0.85


def test_what_it_cannot_model_is_refused():
    table = pd.DataFrame(binary(), columns=list("abcdef"))
    with pytest.raises(InputError, match="a chain of its own"):
        GSN(given=["a"], max_steps=1).fit(table)
    with pytest.raises(InputError, match=r"resampling.*at least 0 and at most 1"):
        GSN(resampling=1.5).fit(table)
