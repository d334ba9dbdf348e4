"""The Boltzmann machine against sums over all its states, all its rows, or a grid."""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.extend.random import threefry_2x32
from scipy.special import logsumexp
from scipy.stats import chi2

from diabolo import RBM, InputError, devices, engine
from diabolo.batches import Batch
from diabolo.boltzmann import annealed_log_z, bernoulli, exact_log_z
from diabolo.boltzmann.annealing import temperatures
from diabolo.boltzmann.bernoulli import _threefry
from diabolo.boltzmann.model import Running
from diabolo.columns import Real
from diabolo.density import reading_of
from diabolo.impute import conditional_draws
from diabolo.keys import key_of

N_COLUMNS = 10
EVERY = np.array(list(itertools.product([0.0, 1.0], repeat=N_COLUMNS)))


def binary() -> np.ndarray:
    """Ten columns by two hidden causes and a copy: (600, 10) zeros and ones."""
    generator = np.random.default_rng(0)
    cause = generator.random((600, 2)) < [0.4, 0.6]
    odds = generator.normal(0.0, 2.0, (2, N_COLUMNS))
    rows = generator.random((600, N_COLUMNS)) < 1.0 / (1.0 + np.exp(-(2.0 * cause - 1.0) @ odds))
    rows[:, 9] = rows[:, 0]
    return rows.astype(float)


@functools.cache
def machine(n_hidden: int) -> RBM:
    """Fitted to `binary`; by 5, 13 and 21 hidden units each way to sum and to draw is taken."""
    return RBM(n_hidden, max_steps=500, n_temperatures=500, random_state=0).fit(binary())


@functools.cache
def log_every(n_hidden: int) -> np.ndarray:
    """log p of all 1,024 rows by their free energies alone: (1024,) nats."""
    found = machine(n_hidden).model_.machine
    log_weights = np.asarray(found.log_unnormalised(jnp.asarray(EVERY, jnp.float32), jnp.ones(EVERY.shape)))
    return log_weights - logsumexp(log_weights.astype(np.float64))


def test_random_words_are_those_of_jax():
    pair = jax.random.bits(jax.random.key(3), (2,))
    words = jnp.concatenate(_threefry([*pair], 101))
    np.testing.assert_array_equal(words, threefry_2x32(pair, jnp.arange(202, dtype=jnp.uint32)))


def test_units_are_on_as_often_as_they_shall_and_none_heeds_another():
    """Two that share a random word, and any two of one call."""
    probability = np.tile(np.array([0.0, 1e-4, 0.3, 0.5, 0.9, 1.0], np.float32), (301, 1))
    draw = jax.jit(bernoulli)
    drawn = np.stack([draw(key, probability) for key in jax.random.split(jax.random.key(0), 400)])
    wanted, n = probability[0], drawn[..., 0].size
    error = np.sqrt(wanted * (1.0 - wanted) / n)
    assert np.all(np.abs(drawn.mean(axis=(0, 1)) - wanted) <= 4.0 * error)
    halves = drawn[:, :, 3] - 0.5
    together = halves.T @ halves / (0.25 * len(halves))  # of each two units, over the calls: (301, 301)
    apart = together[~np.eye(301, dtype=bool)]
    assert abs(apart.mean()) < 0.001 and abs(apart.std() * np.sqrt(len(halves)) - 1.0) < 0.05
    # a quarter of the rows has the low half of a word, the next the high
    of_word = halves[:, :76] * halves[:, 76:152]
    assert abs(of_word.mean()) < 4.0 * 0.25 / np.sqrt(of_word.size)


@pytest.mark.parametrize("shape", [(1,), (5,), (1, 3), (1, 9), (2, 3, 5), (0, 3), (7, 0)])
def test_units_are_drawn_in_any_shape(shape):
    assert np.array_equal(bernoulli(jax.random.key(0), jnp.ones(shape)), np.ones(shape))


def place(rows: np.ndarray) -> np.ndarray:
    return (rows @ 2.0 ** np.arange(N_COLUMNS - 1, -1, -1)).astype(int)


def too_far(rows: np.ndarray, log_p: np.ndarray) -> bool:
    """Chi-square at 0.001 of rows against probabilities; rare rows are one class together."""
    counts = np.bincount(place(rows), minlength=len(log_p))
    expected = len(rows) * np.exp(log_p)
    rare = expected < 5.0
    seen = np.append(counts[~rare], counts[rare].sum())
    told = np.append(expected[~rare], expected[rare].sum())
    return bool(np.sum((seen - told) ** 2 / told) > chi2.ppf(0.999, len(told) - 1))


@pytest.mark.parametrize("n_hidden", [5, 13])
def test_the_density_of_all_rows_sums_to_one(n_hidden):
    nats = machine(n_hidden).score_samples(EVERY)
    assert abs(logsumexp(nats)) < 1e-5
    np.testing.assert_allclose(nats, log_every(n_hidden), atol=2e-5)
    assert machine(n_hidden).density_kind_ == "exact" and machine(n_hidden).log_z_error_ == 0.0


@pytest.mark.parametrize("n_hidden", [5, 21])
def test_free_energy_is_what_rows_have_before_they_are_shared_out(n_hidden):
    """Against the sum over five units' states of the energy as the page writes it; beyond, against log p."""
    rbm = machine(n_hidden)
    free = rbm.free_energy(EVERY)
    np.testing.assert_allclose(-free - rbm.log_z_, rbm.score_samples(EVERY), atol=1e-9)
    if n_hidden == 5:
        b, c, W, m, n = (
            np.asarray(getattr(rbm.model_.machine, name), np.float64)
            for name in ("bias", "hidden_bias", "weights", "middle", "hidden_middle")
        )
        hidden = np.array(list(itertools.product([0.0, 1.0], repeat=n_hidden)))
        energies = (EVERY @ b)[:, None] + hidden @ c + (EVERY - m) @ W @ (hidden - n).T
        np.testing.assert_allclose(free, -logsumexp(energies, axis=1), atol=1e-4)


def test_gaps_may_come_after_the_first_call():
    """Half of a column missing later on: read as zeros, they taught that the columns do not hang together."""
    generator = np.random.default_rng(0)
    first = generator.random((800, 1)) < 0.5
    rows = np.where(generator.random((800, 3)) < 0.05, ~first, first).astype(float)
    gappy = np.where((generator.random(800) < 0.5)[:, None] & np.array([True, False, False]), np.nan, rows)
    rbm = RBM(4, batch_size=40, random_state=0).partial_fit(rows[:400])
    for _ in range(20):
        rbm.partial_fit(gappy)
    drawn = rbm.sample(2000, random_state=0)
    assert np.mean(drawn[:, 0] == drawn[:, 1]) > 0.85 and abs(drawn[:, 0].mean() - 0.5) < 0.08


def test_chains_may_be_asked_for_anew_between_two_calls():
    rbm = RBM(3, random_state=0).partial_fit(binary())
    assert np.isfinite(rbm.set_params(n_chains=20).partial_fit(binary()).score(binary()))
    other = RBM(3, persistent=False, random_state=0).partial_fit(binary())
    assert np.isfinite(other.set_params(persistent=True).partial_fit(binary()).score(binary()))


def test_a_row_of_nothing_but_gaps_has_the_same_code_in_any_company():
    empty, gappy = np.full((1, N_COLUMNS), np.nan), np.append(EVERY[:1, 1:], np.nan)[None]
    alone, beside = machine(5).transform(empty), machine(5).transform(np.concatenate([empty, gappy]))
    np.testing.assert_array_equal(alone, beside[:1])


def test_a_row_of_nothing_but_gaps_is_held_out_at_no_nats():
    X = np.where(np.arange(200)[:, None] % 2, 1.0, np.random.default_rng(0).integers(0, 2, (200, 4)))
    machine = RBM(4, max_steps=20, random_state=0).fit(X)
    rows = Batch.of(machine.schema_.encode(np.vstack([X[:3], np.full(4, np.nan)])))
    held = np.asarray(machine.model_.held_out(rows, key_of(0)))
    np.testing.assert_allclose(held[:3], machine.score_samples(X[:3]), atol=1e-4)
    assert held[3] == 0.0


def test_temperatures_are_as_many_as_asked_for():
    for n_steps in range(10, 60):
        betas = temperatures(n_steps)
        assert (
            len(betas) == n_steps + 1 and (np.diff(betas) > 0).all() and betas[[0, -1]].tolist() == [0.0, 1.0]
        )


def test_training_finds_the_structure():
    """The best product of marginals against a machine that knows of causes and of the copy."""
    rows = binary()
    share = rows.mean(axis=0)
    apart = np.sum(rows * np.log(share) + (1 - rows) * np.log1p(-share), axis=1).mean()
    assert machine(5).score(rows) > apart + 1.2
    same = np.exp(log_every(5))[EVERY[:, 0] == EVERY[:, 9]].sum()
    assert same > 0.8


def test_wide_products_by_another_library_teach_the_same(monkeypatch):
    settings = {"max_steps": 100, "n_temperatures": 500, "random_state": 0}
    expected = RBM(5, **settings).fit(binary()).model_.machine
    asked, options = [], devices.compiler_options

    def spied(backend, **more):
        asked.append(more.get("mostly_products", False))
        return options(backend, **more)

    monkeypatch.setattr("diabolo.boltzmann.model._WIDE", 1)
    monkeypatch.setattr(devices, "compiler_options", spied)
    engine._compiled_round.cache_clear()
    found = RBM(5, **settings).fit(binary()).model_.machine
    assert any(asked)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_beyond_twenty_units_the_density_is_an_estimate_within_its_error():
    nats = machine(21).log_density(EVERY)
    apart = nats.values - log_every(21)
    assert (
        set(nats.kind) == {"estimate"} and np.ptp(apart) < 1e-4
    )  # one constant, log Z, is all that is not known
    np.testing.assert_allclose(nats.standard_error, machine(21).log_z_error_)
    assert 0.0 < machine(21).log_z_error_ < 0.1 and abs(apart[0]) < 4.0 * machine(21).log_z_error_


@pytest.mark.parametrize("n_hidden", [5, 13, 21])
def test_a_gap_is_the_sum_over_its_values(n_hidden):
    holes = [1, 4, 9]
    rows = EVERY[::97].copy()
    rows[:, holes] = np.nan
    truth = []
    for row in rows:
        fits = (row == EVERY)[:, [j for j in range(N_COLUMNS) if j not in holes]].all(axis=1)
        truth.append(logsumexp(log_every(n_hidden)[fits]))
    reading = machine(n_hidden).log_density(rows, n_draws=2000)
    if n_hidden <= 20:
        np.testing.assert_allclose(reading.values, truth, atol=2e-5)
    else:
        given = ~reading.withheld  # rows unlike any of the model's own may be denied an interval
        assert given.sum() >= 8 and np.mean(reading.standard_error[given]) < 0.1
        assert np.all(np.abs(reading.values - truth)[given] < 4.0 * reading.standard_error[given])
        assert np.max(np.abs(reading.values - truth)) < 0.3


def test_annealing_agrees_with_enumeration_within_its_error():
    """Twenty seeds of two machines, one with numbers, atoms and levels: z scores of spread 1."""
    for model in (machine(13).model_, fitted_to_mixed().model_):
        bolder = eqx.tree_at(lambda one: one.weights, model.machine, 1.5 * model.machine.weights)
        truth = float(exact_log_z(bolder))
        found = [annealed_log_z(bolder, model.marginal, 100, 128, jax.random.key(seed)) for seed in range(20)]
        z = np.array([(one.log_z + 0.5 * one.error**2 - truth) / one.error for one in found])
        assert np.mean([one.error for one in found]) > 1e-3  # there is something to be wrong about
        assert chi2.ppf(0.001, 20) < np.sum(z**2) < chi2.ppf(0.999, 20)
        assert abs(z.mean()) < 4.0 / np.sqrt(20)


@pytest.mark.parametrize("n_hidden", [5, 13, 21])
def test_draws_have_the_frequencies_of_the_density(n_hidden):
    """By all states, and by chains from states of the trained machine."""
    assert not too_far(machine(n_hidden).sample(4000, random_state=0), log_every(n_hidden))


def test_one_long_chain_visits_rows_as_often_as_they_are_likely():
    found = machine(5).model_.machine

    @jax.jit
    def visited(key):
        def step(hidden, key):
            key_walk, key_cells = jax.random.split(key)
            hidden = found.walk(
                hidden, key_walk, 20
            )  # steps apart, so that visits hardly depend on one another
            return hidden, found.draw_cells(hidden, key_cells)

        return jax.lax.scan(step, jnp.zeros((100, 5)), jax.random.split(key, 60))[1]

    rows = np.asarray(visited(jax.random.key(2)))[20:]
    assert not too_far(rows.reshape(-1, N_COLUMNS), log_every(5))


@pytest.mark.parametrize("n_hidden", [5, 13])
def test_missing_cells_are_drawn_from_their_law_given_the_others(n_hidden):
    row = EVERY[[300]].copy()
    row[:, [0, 3]] = np.nan
    model = machine(n_hidden)
    drawn = next(conditional_draws(model.model_, model.schema_.encode(row), 4000, 0))[0]
    fits = (row == EVERY)[:, [1, 2, *range(4, 10)]].all(axis=1)
    told = np.exp(log_every(n_hidden)[fits] - logsumexp(log_every(n_hidden)[fits]))
    seen = np.bincount((2 * drawn[:, 0] + drawn[:, 3]).astype(int), minlength=4)
    assert np.sum((seen - 4000 * told) ** 2 / (4000 * told)) < chi2.ppf(0.999, 3)


def test_contrastive_gradients_point_where_the_likelihood_rises():
    """More steps of the chain, a better direction; chains that go on are as good as exact."""
    trained = RBM(4, max_steps=100, random_state=0).fit(binary()).model_
    rows = Batch.of(RBM(4, max_steps=1).fit(binary()).schema_.encode(binary()))

    def along(model, truth, state, key, n=100):
        """Cosine of the mean of n estimates with the exact gradient."""

        def estimate(carry, key):
            def loss(one):
                found = eqx.tree_at(lambda m: m.machine, model, one).loss(rows, key, carry)
                return found.value, found.state

            (_, after), slope = eqx.filter_value_and_grad(loss, has_aux=True)(model.machine)
            return after._replace(step=after.step + 1), slope.weights

        _, slopes = jax.lax.scan(estimate, state, jax.random.split(key, n))
        mean = jnp.mean(slopes, axis=0).ravel()
        return float(mean @ truth / jnp.linalg.norm(mean) / jnp.linalg.norm(truth))

    def exact(one):
        cells, seen = trained._inward(rows)
        return exact_log_z(one) - jnp.mean(one.log_unnormalised(cells, seen))

    truth = jax.grad(exact)(trained.machine).weights.ravel()
    found = {}
    for n_gibbs, persistent in ((1, False), (20, False), (1, True)):
        model = eqx.tree_at(lambda m: m.machine, trained, trained.machine)
        model = type(trained)(
            **{**vars(trained), "n_gibbs": n_gibbs, "persistent": persistent, "n_chains": 600}
        )
        state = jax.tree.map(jnp.asarray, model.initial_state())
        found[n_gibbs, persistent] = along(model, truth, state, jax.random.key(0))
    assert found[1, False] > 0.8
    assert found[20, False] > 0.99 and found[20, False] > found[1, False]
    assert found[1, True] > 0.99


def test_weights_decay_by_a_share_of_the_rate_and_biases_do_not():
    model = machine(5).model_
    state = model.initial_state()
    still = model.settled(state, jnp.asarray(0.1)).machine
    decayed = dataclasses.replace(model, decay=jnp.asarray(0.5)).settled(state, jnp.asarray(0.1)).machine
    np.testing.assert_allclose(decayed.weights, 0.95 * still.weights, rtol=1e-6)
    assert np.array_equal(decayed.bias, still.bias)
    assert np.array_equal(decayed.hidden_bias, still.hidden_bias)


def test_the_centre_of_the_hidden_units_follows_their_mean_and_the_machine_stays_what_it_is():
    """Another centre is another way to write the same machine; in training it goes where the units are."""
    model = machine(5).model_
    one, cells = model.machine, jnp.asarray(EVERY)
    other = one.recentred(jnp.linspace(0.0, 1.0, 5))

    def log_prob(machine):
        return machine.log_unnormalised(cells, jnp.ones_like(cells)) - exact_log_z(machine)

    np.testing.assert_allclose(log_prob(other), log_prob(one), atol=1e-4)
    state = model.initial_state()._replace(running=Running(None, other.hidden_middle))
    for step, there in ((9, one), (10, other)):  # every tenth step
        moved = model.settled(state._replace(step=jnp.asarray(step)), jnp.asarray(0.1)).machine
        np.testing.assert_allclose(moved.bias, there.bias, atol=1e-6)
        np.testing.assert_allclose(moved.hidden_middle, there.hidden_middle)
    mean = model.encode(Batch.of(machine(5).schema_.encode(binary())))["hidden"].mean(axis=0)
    np.testing.assert_allclose(one.hidden_middle, mean, atol=0.05)


# ---- other kinds of columns --------------------------------------------------------------------------------------


def mixed() -> pd.DataFrame:
    generator = np.random.default_rng(1)
    group = generator.integers(0, 3, 500)
    waits = np.where(
        generator.random(500) < 0.4, 0.0, np.rint(20.0 + 4.0 * group + 3.0 * generator.normal(size=500))
    )
    return pd.DataFrame(
        {
            "size": 3.0 * group + generator.normal(size=500),
            "waits": waits,
            "colour": np.array(["red", "green", "blue"])[group],
            "grade": pd.Categorical.from_codes(group, ["low", "mid", "high"], ordered=True),
            "male": generator.random(500) < np.array([0.2, 0.5, 0.9])[group],
        }
    )


@functools.cache
def fitted_to_mixed() -> RBM:
    return RBM(4, max_steps=500, random_state=0).fit(mixed())


def test_a_mixed_table_integrates_to_one():
    """Over a fine grid of `size`, the whole numbers of `waits` with its atom, all levels and the unseen."""
    model = fitted_to_mixed()
    kinds = {column.name: column.kind for column in model.schema_.columns}
    assert kinds["waits"].atoms == (0.0,) and kinds["waits"].resolution == 1.0
    assert isinstance(kinds["size"], Real) and not kinds["size"].coarse
    sizes, waits = np.linspace(-14.0, 20.0, 103), np.arange(-5.0, 55.0)
    every = list(
        itertools.product(sizes, waits, ["red", "green", "blue"], ["low", "mid", "high"], [False, True])
    )
    table = pd.DataFrame(every, columns=list(mixed().columns))
    table["grade"] = pd.Categorical(table["grade"], ["low", "mid", "high"], ordered=True)
    total = np.exp(logsumexp(model.score_samples(table)) + np.log(sizes[1] - sizes[0]))
    assert abs(total - (1.0 - kinds["colour"].reserved)) < 1e-4


def test_numbers_on_a_grid_cannot_send_the_density_to_infinity():
    """Whole numbers that are all 3 or 30: the mass of a value is at most one."""
    rows = np.random.default_rng(0).choice([3.0, 30.0], (400, 2)) + np.repeat([[0.0, 1.0]], 400, axis=0)
    rows[0] = 7.0
    model = RBM(4, kinds={"x0": Real(atoms=()), "x1": Real(atoms=())}, max_steps=1000, random_state=0).fit(
        rows
    )
    assert model.score_samples(rows).max() < 0.0
    values = np.arange(-40.0, 80.0)
    side = np.stack([values, np.full(len(values), np.nan)], axis=1)
    assert abs(logsumexp(model.score_samples(side))) < 1e-4


def test_draws_of_numbers_have_the_frequencies_of_the_density():
    model = fitted_to_mixed()
    drawn = model.sample(6000, random_state=0)["waits"].to_numpy()
    values = np.arange(0.0, 45.0)
    table = pd.concat([mixed().iloc[:1]] * len(values), ignore_index=True).assign(waits=values)
    for name in ("size", "colour", "grade", "male"):
        table[name] = np.nan if name == "size" else None
    told = np.exp(model.score_samples(table))
    seen = np.array([np.sum(drawn == value) for value in values])
    common = 6000 * told > 5.0
    distance = np.sum((seen - 6000 * told)[common] ** 2 / (6000 * told)[common])
    assert distance < chi2.ppf(0.999, common.sum())


def test_a_training_table_with_gaps_teaches_the_same():
    rows = binary()
    holed = np.where(np.random.default_rng(5).random(rows.shape) < 0.15, np.nan, rows)
    model = RBM(5, max_steps=500, random_state=0).fit(holed)
    assert model.score(rows) > machine(5).score(rows) - 0.25
    filled = model.impute(holed)
    at_copy = np.isnan(holed[:, 9]) & ~np.isnan(holed[:, 0])
    assert np.mean(filled[at_copy, 9] == rows[at_copy, 0]) > 0.95


def test_an_estimate_says_its_error_on_every_row():
    model = machine(21).model_
    reading = reading_of(model, machine(21).schema_.encode(EVERY[:3]), 50, 0)
    low, high = reading.interval(0.95)
    assert np.all(high - low > 3.0 * machine(21).log_z_error_)
    # log Z, which is subtracted, errs low: the truth lies below the value by half of the square of its error
    below = 0.5 * machine(21).log_z_error_ ** 2
    np.testing.assert_allclose(0.5 * (low + high), reading.values - below, rtol=1e-12)


def test_what_it_cannot_model_is_refused():
    table = mixed()
    with pytest.raises(InputError, match="partition function of its own"):
        RBM(given=["colour"], max_steps=1).fit(table)
    with pytest.raises(InputError, match=r"'waits'.*kind 'count'.*kinds={'waits': 'real'}"):
        RBM(kinds={"waits": "count"}, max_steps=1).fit(table)
    with pytest.raises(InputError, match=r"'pixel_0_0'.*kind 'pixels'.*Say kinds='real'\."):
        RBM(max_steps=1).fit(np.arange(60, dtype=np.uint8).reshape(10, 2, 3))
    with pytest.raises(InputError, match=r"n_gibbs.*at least 1"):
        RBM(n_gibbs=0).fit(table)
