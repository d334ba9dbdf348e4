"""MADE against enumeration: every order sums to one, draws follow it, and gaps read as they say."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from cases import fitted, points
from scipy.special import logsumexp
from scipy.stats import chi2, norm

from diabolo import MADE, InputError
from diabolo.batches import Batch
from diabolo.density import log_weights
from diabolo.impute import conditional_draws
from diabolo.keys import key_of
from diabolo.likelihoods import Bernoulli, Mixture, Normal, mixed
from diabolo.masked import MaskedMLP, ranks_after

N_BITS, N_DRAWS = 10, 20_000
EVERY = np.array(list(itertools.product([0.0, 1.0], repeat=N_BITS)))


def bits(n_rows=600):
    """Two hidden causes with three states each, ten bits told by them: (n_rows, 10)."""
    generator = np.random.default_rng(0)
    state = generator.integers(0, 3, (n_rows, 2))
    shares = generator.random((2, 3, N_BITS))
    share = np.where(np.arange(N_BITS) % 2, shares[0][state[:, 0]], shares[1][state[:, 1]])
    return (generator.random((n_rows, N_BITS)) < share).astype(float)


@functools.cache
def of_bits(hidden=(16, 16)):
    return MADE(hidden, n_orders=3, max_steps=300, random_state=0).fit(bits())


def by_order(made, X):
    """(n_rows, n_orders) nats."""
    rows = made.schema_.encode(X)
    weights = np.asarray(log_weights(made.model_, Batch.of(rows), 1, key_of(0))[0], np.float64)
    return weights + rows.offset[:, None]


def chi_square_holds(counts, shares, level=0.001):
    expected = counts.sum() * shares
    return np.sum((counts - expected) ** 2 / expected) < chi2.isf(level, np.sum(shares > 0) - 1)


# ---- the masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(7,), (12, 5), (9, 9, 9)])
def test_an_answer_depends_on_what_comes_before_it_and_on_all_of_that(hidden):
    places = np.array([3, 1, 5, 2, 4, 0])  # the last input is a condition
    net = MaskedMLP(6, 5, 5, hidden, "tanh", jax.random.key(0), conditions=True)

    def said(inputs):
        return net.say(net.hidden(inputs, places)[-1], inputs, places, places[:5])

    rng = np.random.default_rng(0)
    slopes = np.asarray(jax.jacobian(said)(jnp.asarray(rng.normal(size=6), jnp.float32)))  # (5, 6)
    assert np.array_equal(slopes != 0.0, places[None, :] < places[:5, None])


def test_direct_weights_look_back_only():
    net = MaskedMLP(4, 4, 4, (3,), "tanh", jax.random.key(0), direct=True)
    net = jax.tree.map(lambda leaf: np.ones_like(leaf) if leaf.shape == (4, 4) else np.zeros_like(leaf), net)
    places = np.array([2, 4, 1, 3])
    slopes = jax.jacobian(lambda x: net.say(net.hidden(x, places)[-1], x, places, places))(jnp.ones(4))
    assert np.array_equal(np.asarray(slopes), (places[None, :] < places[:, None]).astype(float))


def test_an_order_ends_with_the_gaps_and_keeps_the_rest():
    ranks, observed = np.array([4, 2, 5, 1, 3]), np.array([True, False, True, False, True])
    assert ranks_after(jnp.asarray(ranks), observed).tolist() == [2, 5, 3, 4, 1]


# ---- density ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(24,), (16, 16), (12, 12, 12)])
def test_each_order_and_their_mean_sum_to_one(hidden):
    made = of_bits(hidden)
    nats = by_order(made, EVERY)
    np.testing.assert_allclose(logsumexp(nats, axis=0), 0.0, atol=2e-6)
    np.testing.assert_allclose(made.score_samples(EVERY), logsumexp(nats, axis=1) - np.log(3), atol=1e-5)
    assert np.max(np.abs(nats[:, 0] - nats[:, 1])) > 0.1  # they are different densities
    assert set(made.log_density(EVERY[:4]).kind) == {"exact"}


def test_a_gap_is_the_sum_over_it_in_orders_that_end_with_it():
    made, X = of_bits(), bits()[:20]
    gaps = X.copy()
    gaps[:, [2, 7]] = np.nan
    gaps[10:, 4] = np.nan
    seen = made.schema_.encode(gaps)
    told = by_order(made, gaps)
    for i in range(20):
        filled = EVERY[(np.isnan(gaps[i]) | (gaps[i] == EVERY)).all(axis=1)]
        batch = Batch.of(made.schema_.encode(filled))
        for o, ranks in enumerate(made.model_.orders):
            own = ranks_after(jnp.asarray(ranks), seen.observed[i])
            whole = jax.vmap(made.model_.log_prob_in, in_axes=(0, None))(batch, own)
            assert told[i, o] == pytest.approx(logsumexp(np.asarray(whole, np.float64)), abs=1e-5)


def test_a_mixed_table_integrates_to_one_in_the_users_units():
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 400)
    table = pd.DataFrame(
        {
            "length": np.where(side, 3.0, -2.0) + rng.normal(size=400),
            "kind": np.array(["a", "b", "c"])[rng.integers(0, 2, 400) + side],
            "grams": np.round(np.exp(rng.normal(size=400)) * 20, 0),  # on a grid
        }
    )
    made = MADE((16,), n_orders=2, n_parts=3, kinds={"grams": "real"}, max_steps=300, random_state=0).fit(
        table
    )
    x, grams = np.linspace(-12.0, 12.0, 81), np.arange(-150.0, 400.0)
    grid = itertools.product(x, ["a", "b", "c"], grams)
    nats = made.score_samples(pd.DataFrame(grid, columns=list(table)))
    reserved = made.schema_.columns[1].kind.reserved
    assert logsumexp(nats) + np.log(x[1] - x[0]) == pytest.approx(np.log1p(-reserved), abs=0.01)


def test_two_modes_are_seen_and_a_single_normal_law_cannot():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((800, 1)) < 0.5, -4.0, 4.0) + rng.normal(size=(800, 1))
    truth = np.mean(np.logaddexp(norm.logpdf(X, -4.0), norm.logpdf(X, 4.0)) - np.log(2.0))
    many, one = (MADE((8,), n_parts=n, max_steps=800, random_state=0).fit(X) for n in (4, 1))
    assert abs(many.score(X) - truth) < 0.05
    assert one.score(X) < truth - 0.4  # log of the spread is 1.42, that of one hill 0


# ---- draws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(24,), (16, 16), (12, 12, 12)])
def test_draws_have_the_frequencies_of_the_density(hidden):
    made = of_bits(hidden)
    drawn = made.sample(N_DRAWS, random_state=0) @ 2.0 ** np.arange(N_BITS)[::-1]
    counts = np.bincount(drawn.astype(int), minlength=len(EVERY))
    assert chi_square_holds(counts, np.exp(made.score_samples(EVERY)))


def test_draws_given_cells_have_the_frequencies_of_the_conditional():
    made, X = of_bits(), bits()[:3]
    X[:, [1, 2, 8]] = np.nan
    rows = made.schema_.encode(X)
    drawn = np.concatenate(list(conditional_draws(made.model_, rows, N_DRAWS, seed=0)))
    assert drawn.shape == (3, N_DRAWS, N_BITS)
    for i in range(3):
        kept = ~np.isnan(X[i])
        assert np.all(drawn[i][:, kept] == X[i][kept])
        filled = EVERY[(np.isnan(X[i]) | (X[i] == EVERY)).all(axis=1)]  # (8, 10), in counting order
        batch, nats = Batch.of(made.schema_.encode(filled)), []
        for ranks in made.model_.orders:
            own = ranks_after(jnp.asarray(ranks), rows.observed[i])
            nats.append(jax.vmap(made.model_.log_prob_in, in_axes=(0, None))(batch, own))
        joint = logsumexp(np.array(nats, np.float64), axis=0)
        counts = np.bincount((drawn[i][:, ~kept] @ [4, 2, 1]).astype(int), minlength=8)
        assert chi_square_holds(counts, np.exp(joint - logsumexp(joint)))


def test_conditions_come_before_all_columns():
    X = bits()
    table = pd.DataFrame(X, columns=[f"b{i}" for i in range(N_BITS)])
    made = MADE((16,), n_orders=2, given=["b0"], max_steps=300, random_state=0).fit(table)
    for value in (0.0, 1.0):
        rows = pd.DataFrame(EVERY, columns=table.columns)
        rows = rows[rows["b0"] == value]
        nats = made.score_samples(rows)
        assert logsumexp(nats) == pytest.approx(0.0, abs=2e-6)
        drawn = made.sample(N_DRAWS, given={"b0": value}, random_state=0).to_numpy(float)
        counts = np.bincount((drawn[:, 1:] @ 2.0 ** np.arange(N_BITS - 1)[::-1]).astype(int), minlength=512)
        assert chi_square_holds(counts, np.exp(nats))


def test_draws_of_a_mixed_table_are_those_of_the_density():
    """Mean surprise of drawn rows is the entropy, whichever way: by draws of one seed or of another."""
    made = fitted("MADE", "mixed")
    one, other = (made.score_samples(made.sample(4000, random_state=seed)) for seed in (0, 1))
    assert abs(one.mean() - other.mean()) < 4.0 * np.hypot(one.std(), other.std()) / 4000**0.5


# ---- parts -----------------------------------------------------------------------------------------------------


def test_a_mixture_is_the_sum_of_its_parts_and_begins_at_the_marginal_law():
    law, start = mixed(Normal(0.01, [], coarse=True), np.zeros(2), 8)
    assert isinstance(law, Mixture) and start.shape == (law.n_params,) == (24,)
    x = np.linspace(-4.0, 4.0, 41, dtype=np.float32)
    told = jax.vmap(lambda value: law.log_prob(jnp.asarray(start, jnp.float32), value[None]))(x)
    assert np.max(np.abs(np.exp(np.asarray(told)) - norm.pdf(x))) < 0.02
    draws = jax.vmap(lambda key: law.draw(jnp.asarray(start, jnp.float32), key))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    assert abs(float(draws.mean())) < 0.03 and abs(float(draws.std()) - 1.0) < 0.03
    assert mixed(Bernoulli(), np.zeros(1), 8)[0] == Bernoulli()


def test_an_untrained_net_without_last_weights_is_the_product_of_the_marginal_laws():
    X = points()
    made = MADE((8,), n_parts=1, max_steps=1, random_state=0).fit(X)
    last = lambda model: (model.network.last, model.network.direct, model.shared)  # noqa: E731
    made.model_ = eqx.tree_at(last, made.model_, jax.tree.map(np.zeros_like, last(made.model_)))
    truth = norm.logpdf(X, X.mean(axis=0), X.std(axis=0)).sum(axis=1)
    np.testing.assert_allclose(made.score_samples(X), truth, atol=1e-3)


def test_what_is_dropped_in_training_is_whole_in_readings():
    made = MADE((16,), dropout=0.5, max_steps=100, random_state=0).fit(bits())
    assert np.array_equal(made.score_samples(bits()), made.score_samples(bits()))
    model, batch = made.model_, Batch.of(made.schema_.encode(bits()[:64]))
    keys = jax.random.split(jax.random.key(0), 64)
    dropped, whole = (model._log_prob(batch, model.orders[0], k) for k in (keys, None))
    assert not np.allclose(dropped, whole)


def test_a_net_without_hidden_layers_is_refused():
    with pytest.raises(InputError, match="hidden_layer_sizes"):
        MADE(()).fit(bits())
