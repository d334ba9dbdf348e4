"""The generative stochastic network against the enumeration of all its rows: its chain is a matrix of 64 x 64."""

import dataclasses
import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2, kstest, norm

import diabolo
from diabolo import GSN, InputError
from diabolo.batches import Batch, Batches
from diabolo.columns import Real
from diabolo.density import reading_of
from diabolo.impute import conditional_draws
from diabolo.likelihoods import scale
from diabolo.table import Rows

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
        model = dataclasses.replace(fitted().model_, n_walkback=n_steps)
        nats = np.asarray(model.held_out(batch, jax.random.key(0)), np.float64)
        error = nats.std(ddof=1) / np.sqrt(len(nats))
        assert abs(nats.mean() - np.mean(expected[:n_steps])) < 4.0 * error
        loss = model.loss(batch, jax.random.key(0), model.initial_state())
        assert float(loss.value) == pytest.approx(-nats.mean(), abs=1e-5)
    assert abs(expected[0] - np.mean(expected)) > 8.0 * error  # the steps are told apart


def moved(model: GSN, rows: Rows, resampling: float, seed: int) -> np.ndarray:
    """x̃ as the encoder would take it, of rows that all stay: (n_rows, width)."""
    other = eqx.tree_at(lambda one: one.encoder, model.model_, Plain())
    other = eqx.tree_at(lambda one: one.resampling, other, jnp.float32(resampling))
    params = jnp.broadcast_to(other.likelihood.initial, (len(rows.values), other.likelihood.n_params))
    return np.asarray(other.step(params, jax.random.key(seed), rows.values, True, jnp.asarray(rows.observed)))


class Plain(eqx.Module):
    """Its code is what it is given."""

    def embed(self, batch):
        return batch.values

    def __call__(self, inputs):
        return inputs


def test_noise_moves_quantities_by_its_spread_and_leaves_atoms_alone():
    generator = np.random.default_rng(1)
    waits = np.where(generator.random(400) < 0.4, 0.0, 20.0 + generator.normal(size=400))
    table = pd.DataFrame(
        {
            "size": 5.0 * generator.normal(size=400),
            "waits": waits,
            "visits": generator.poisson(4.0, 400),
            "price": np.exp(3.0 + 2.0 * generator.normal(size=400)),
            "grey": generator.binomial(255, 0.5, 400),
            "grade": generator.choice(["a", "b"], 400),
        }
    )
    kinds = {"visits": "count", "price": "positive", "grey": "pixels"}
    model = GSN(2, **SMALL | {"max_steps": 1}, kinds=kinds, noise=0.3, n_states=8, n_burn=2).fit(table)
    rows, places = model.schema_.encode(table), model.schema_.layout.places
    step = moved(model, rows, 0.0, 0) - rows.values
    at_atom = rows.values[:, places[1].start + 1] == 1.0
    assert at_atom.mean() == pytest.approx(0.4, abs=0.1)
    np.testing.assert_array_equal(step[at_atom, places[1].start : places[1].stop], 0.0)
    assert step[~at_atom, places[1].start].std() == pytest.approx(0.3, rel=0.15)
    for place in (places[0], *places[2:5]):  # grey levels in halves of their range, which is -1 to 1
        assert step[:, place.start].std() == pytest.approx(0.3, rel=0.12)
    np.testing.assert_array_equal(step[:, places[5].start : places[5].stop], 0.0)
    # levels and columns with an atom are drawn anew now and then, a column without never is
    anew = moved(model, rows, 0.5, 1)
    flag = places[1].start + 1
    assert np.mean(anew[:, flag] != rows.values[:, flag]) == pytest.approx(0.5 * 2 * 0.4 * 0.6, abs=0.08)
    grade = slice(places[5].start, places[5].stop)
    assert np.mean(np.any(anew[:, grade] != rows.values[:, grade], axis=1)) == pytest.approx(0.25, abs=0.08)
    assert np.corrcoef(anew[:, places[0].start], rows.values[:, places[0].start])[0, 1] > 0.9


def test_a_chain_of_numbers_rests_where_its_transitions_say():
    """One column of two clusters: noise, then a normal law about what the network says, as a matrix on a grid."""
    generator = np.random.default_rng(0)
    X = np.where(generator.random(600) < 0.3, -1.0, 1.0)[:, None] + 0.3 * generator.normal(size=(600, 1))
    model = GSN(2, **SMALL, kinds=Real(resolution=0), noise=0.5, n_states=1024, n_burn=60).fit(X)
    side = np.linspace(-3.5, 3.5, 701)
    grid = model.schema_.encode(side[:, None])
    z, width = grid.values[:, 0].astype(float), float(np.diff(grid.values[:2, 0])[0])
    noisy = norm.pdf(z[None], z[:, None], 0.5) * width  # rows x
    params = np.asarray(
        model.model_.said(model.model_.code_of(grid.values, jnp.asarray(grid.observed))), float
    )
    drawn = norm.pdf(z[None], params[:, :1], np.asarray(scale(params[:, 1:]))) * width  # rows x̃
    told = stationary(noisy @ drawn)
    told /= told.sum()
    assert np.std(told / np.gradient(side)) > 0.1  # two clusters still
    found = kstest(model.sample(3000, random_state=0)[:, 0], lambda x: np.interp(x, side, np.cumsum(told)))
    assert found.pvalue > 0.001
    reading = model.log_density(side[100:-100:25, None])
    truth = np.log(told / (side[1] - side[0]))[100:-100:25]
    assert np.all(np.abs(reading.values - truth) < 4.5 * reading.standard_error)


# ---- readings ----------------------------------------------------------------------------------------------------


def other_states(model: GSN, n_states: int, seed: int) -> Any:
    """The model after other chains."""
    batches = Batches.split(Batch.of(model.schema_.encode(binary())), 128, 0.0, 0)
    return dataclasses.replace(model.model_, n_states=n_states).finish(batches, jax.random.key(seed))


def test_the_estimate_is_the_chains_density_within_its_error():
    """The error of many states is of the size that is stated; few states are low, by half of its square."""
    rows = fitted().schema_.encode(EVERY)
    readings = [reading_of(other_states(fitted(), 512, seed), rows, 1, 0) for seed in range(12)]
    assert {kind for reading in readings for kind in reading.kind} == {"estimate"}
    each = np.array([(one.values - np.log(told())) / one.standard_error for one in readings])
    assert np.all(np.abs(each) < 5.5) and 0.8 < np.sqrt(np.mean(each**2)) < 1.2
    mean = logsumexp([reading.values for reading in readings], axis=0) - np.log(12)
    error = np.sqrt(np.mean([one.standard_error**2 for one in readings], axis=0) / 12)
    assert np.all(np.abs((mean - np.log(told())) / error) < 4.0)
    few = [reading_of(other_states(fitted(), 64, seed), rows, 1, 0) for seed in range(100, 140)]
    low = told() @ np.mean([one.values - np.log(told()) for one in few], axis=0)
    half = -0.5 * told() @ np.mean([one.standard_error**2 for one in few], axis=0)
    assert low == pytest.approx(half, rel=0.4) and half < -0.002


def test_missing_cells_are_drawn_by_the_clamped_chain():
    """Against the transitions with two cells clamped; the reading of a row with gaps sums over them."""
    row = EVERY[[36]].copy()
    row[:, [1, 2, 4]] = np.nan
    model = fitted()
    drawn = next(conditional_draws(model.model_, model.schema_.encode(row), 8000, 0))[0]
    fits = np.flatnonzero((EVERY[:, [0, 3, 5]] == EVERY[36][[0, 3, 5]]).all(axis=1))
    steps = corrupted()[fits] @ np.exp(log_drawn())[:, _every_with(fits)].reshape(64, 8, -1).sum(axis=2)
    assert not too_far(drawn[:, [1, 2, 4]], stationary(steps))
    free = told()[fits] / told()[fits].sum()  # what the states alone would say, which is another law
    assert too_far(drawn[:, [1, 2, 4]], free)
    np.testing.assert_allclose(
        model.score_samples(row), logsumexp(model.score_samples(EVERY[fits])), atol=1e-5
    )


def _every_with(fits: np.ndarray) -> np.ndarray:
    """For each of eight rows, all rows that have its cells 1, 2 and 4: a clamped cell is drawn and put back: (64,)."""
    return np.concatenate(
        [np.flatnonzero((EVERY[:, [1, 2, 4]] == EVERY[fit][[1, 2, 4]]).all(axis=1)) for fit in fits]
    )


def two_groups() -> np.ndarray:
    """Three hundred points about (0, 0), and twenty about (1, 1)."""
    noise = 0.3 * np.random.default_rng(0).normal(size=(320, 2))
    return np.repeat([[0.0, 0.0], [1.0, 1.0]], [300, 20], axis=0) + noise


def share_above(model: GSN, states: np.ndarray) -> float:
    """Of the states that lie with the second group."""
    typical = model.model_.typical({"code": states}, jnp.zeros((len(states), 0)))
    return float(np.mean(model.schema_.decode(np.asarray(typical)).sum(axis=1) > 1.0))


def test_more_steps_lead_further_from_the_training_rows():
    """After two steps of little noise a state still lies by its row; after many it does not."""
    X, shares, drifts = two_groups(), [], []
    for n_burn in (2, 200):
        model = GSN(2, **SMALL, noise=0.3, n_states=2000, n_burn=n_burn).fit(X)
        only = Batches.split(Batch.of(model.schema_.encode(X[300:])), 20, 0.0, 0)
        ended = model.model_.finish(only, jax.random.key(0))
        shares.append(share_above(model, ended.kept))
        drifts.append([abs(float(model.drift_)), abs(float(ended.drift))])
    assert shares[0] > 0.5 and shares[1] < 0.2
    assert (
        max(drifts)[0] < 0.06 < 0.1 < min(np.array(drifts)[:, 1])
    )  # all rows are at rest at once, one group is not


def test_partial_fit_keeps_the_density_of_earlier_rows(tmp_path):
    X = np.random.default_rng(0).normal(size=(600, 2)) * 0.3
    far = X[:300] + 6.0
    options = {**SMALL, "n_states": 512, "n_burn": 10, "batch_size": 30, "noise": 0.1}
    model = GSN(2, **options, kinds=Real(resolution=0)).partial_fit(np.concatenate([X, far]))
    for _ in range(40):
        model.partial_fit(np.concatenate([X, far]))
    model.partial_fit(far)
    assert 0.1 < share_below(model) < 0.9
    model.save(tmp_path / "model.safetensors")
    again = diabolo.load(tmp_path / "model.safetensors").partial_fit(far)
    assert not np.array_equal(again.model_.kept, model.model_.kept)
    assert 0.1 < share_below(again) < 0.9


def share_below(model: GSN) -> float:
    """Of the states that lie about (0, 0), the other group about (6, 6)."""
    typical = model.model_.typical({"code": model.model_.kept}, jnp.zeros((len(model.model_.kept), 0)))
    return float(np.mean(model.schema_.decode(np.asarray(typical)).sum(axis=1) < 6.0))


def test_draws_share_no_noise_with_the_states():
    """Chains under common noise would end alike."""
    codes = fitted().transform(fitted().sample(1024, random_state=0))
    for block in (codes[:512], codes[512:]):
        together = np.corrcoef(np.hstack([block, fitted().model_.kept[:512]]), rowvar=False)[:3, 3:]
        assert np.max(np.abs(np.diag(together))) < 0.15


def test_more_states_come_with_a_warm_start():
    model = GSN(3, **SMALL | {"max_steps": 10}, n_states=64, n_burn=2, warm_start=True).fit(binary())
    assert model.set_params(n_states=200).fit(binary()).model_.kept.shape == (200, 3)
    assert model.log_density(EVERY[:2]).effective_sample_size.max() > 64


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
    assert model.score(rows) > fitted(0.1).score(rows) - 0.3
    filled = model.impute(holed)
    at_copy = np.isnan(holed[:, 2]) & ~np.isnan(holed[:, 0])
    assert np.mean(filled[at_copy, 2] == rows[at_copy, 2]) > 0.85


def test_what_it_cannot_model_is_refused():
    table = pd.DataFrame(binary(), columns=list("abcdef"))
    with pytest.raises(InputError, match="a chain of its own"):
        GSN(given=["a"], max_steps=1).fit(table)
    with pytest.raises(InputError, match=r"resampling.*above 0 and at most 1"):
        GSN(resampling=1.5).fit(table)
    with pytest.raises(InputError, match=r"noise.*above 0"):
        GSN(noise=0).fit(table)
