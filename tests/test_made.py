"""MADE against enumeration: every order sums to one, draws follow it, and gaps read as they say."""

import dataclasses
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
from diabolo.batches import Batch, Batches
from diabolo.density import log_weights
from diabolo.impute import conditional_draws
from diabolo.keys import key_of
from diabolo.likelihoods import Bernoulli, Mixture, Normal, mixed
from diabolo.masked import MaskedMLP
from diabolo.orders import ranks_after, scans

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
def of_bits(hidden=(16, 16), n_orders=3, n_networks=1):
    options = {"n_orders": n_orders, "n_networks": n_networks, "max_steps": 300, "random_state": 0}
    return MADE(hidden, **options).fit(bits())


#: One network in several orders, of one to three hidden layers, and several networks.
NETS = [((24,), 3, 1), ((16, 16), 3, 1), ((12, 12, 12), 3, 1), ((16,), 2, 2)]


def by_order(made, X):
    """(n_rows, n_networks * n_orders) nats."""
    rows = made.schema_.encode(X)
    weights = np.asarray(log_weights(made.model_, Batch.of(rows), 1, key_of(0))[0], np.float64)
    return weights + rows.offset[:, None]


def laws_and_orders(model):
    """Each network's laws with each of its orders, in the order of the model's weights."""
    for k, orders in enumerate(model.orders):
        weights = jax.tree.map(lambda leaf, k=k: leaf[k], model._weights)
        yield from ((model._laws(weights), jnp.asarray(ranks)) for ranks in orders)


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


def test_orders_may_be_named_and_others_are_drawn():
    table = pd.DataFrame(bits(50)[:, :4], columns=list("abcd"))
    made = MADE((8,), n_orders=2, n_networks=2, orders=[list("dcab"), [1, 0, 3, 2]], given=["c"], max_steps=1)
    places = made.fit(table).model_.orders
    assert places[0].tolist() == [[2, 3, 1], [2, 1, 3]]  # of a, b and d
    assert np.array_equal(np.sort(places[1], axis=-1), np.tile([1, 2, 3], (2, 1)))
    assert MADE((8,), max_steps=1).fit(table).model_.orders[0, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "orders, said",
    [
        (
            [["a", "b"]],
            "an order that misses a column or has one twice; expected every modelled column once in each",
        ),
        ([["a", "b", "b", "c"]], "an order that misses a column or has one twice"),
        ([["a", "b", "e"]], "got 'e'; expected the name or position of a column of X. Known: a, b, c."),
        ([0, 1, 2], "got 0; expected lists of columns, one for each order"),
        ([["a", "b", "c"]] * 3, "got 3 orders; expected at most n_networks * n_orders = 2"),
    ],
)
def test_what_is_no_order_is_refused(orders, said):
    table = pd.DataFrame(bits(50)[:, :3], columns=list("abc"))
    with pytest.raises(InputError) as refusal:
        MADE((8,), n_orders=2, orders=orders, max_steps=1).fit(table)
    assert str(refusal.value).startswith("parameter 'orders': ") and said in str(refusal.value)


def test_pictures_are_read_along_rows_and_columns_from_each_corner():
    across, down, back, up, *mirrored = scans((2, 3))
    assert (across, down) == ([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5])
    assert (back, up) == ([5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0])
    assert mirrored == [[2, 1, 0, 5, 4, 3], [3, 0, 4, 1, 5, 2], [3, 4, 5, 0, 1, 2], [2, 5, 1, 4, 0, 3]]
    assert scans((1, 4)) == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert scans((2, 2, 2))[1] == [0, 1, 4, 5, 2, 3, 6, 7]  # a pixel's channels stay together


# ---- density ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_each_order_and_their_mean_sum_to_one(net):
    made = of_bits(*net)
    nats = by_order(made, EVERY)
    n_each = net[1] * net[2]
    assert nats.shape == (len(EVERY), n_each)
    np.testing.assert_allclose(logsumexp(nats, axis=0), 0.0, atol=2e-6)
    np.testing.assert_allclose(made.score_samples(EVERY), logsumexp(nats, axis=1) - np.log(n_each), atol=1e-5)
    for one, other in itertools.combinations(nats.T, 2):
        assert np.max(np.abs(one - other)) > 0.1  # they are different densities
    assert set(made.log_density(EVERY[:4]).kind) == {"exact"}


@pytest.mark.parametrize("net", [NETS[1], NETS[3]])
def test_a_gap_is_the_sum_over_it_in_orders_that_end_with_it(net):
    made, X = of_bits(*net), bits()[:20]
    gaps = X.copy()
    gaps[:, [2, 7]] = np.nan
    gaps[10:, 4] = np.nan
    seen = made.schema_.encode(gaps)
    told = by_order(made, gaps)
    for i in range(20):
        filled = EVERY[(np.isnan(gaps[i]) | (gaps[i] == EVERY)).all(axis=1)]
        batch = Batch.of(made.schema_.encode(filled))
        for o, (laws, ranks) in enumerate(laws_and_orders(made.model_)):
            whole = laws.log_prob(batch, ranks_after(ranks, seen.observed[i]))
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


@pytest.mark.parametrize("net", NETS)
def test_draws_have_the_frequencies_of_the_density(net):
    made = of_bits(*net)
    drawn = made.sample(N_DRAWS, random_state=0) @ 2.0 ** np.arange(N_BITS)[::-1]
    counts = np.bincount(drawn.astype(int), minlength=len(EVERY))
    assert chi_square_holds(counts, np.exp(made.score_samples(EVERY)))


@pytest.mark.parametrize("net", [NETS[1], NETS[3]])
def test_draws_given_cells_have_the_frequencies_of_the_conditional(net):
    made, X = of_bits(*net), bits()[:3]
    X[:, [1, 2, 8]] = np.nan
    rows = made.schema_.encode(X)
    drawn = np.concatenate(list(conditional_draws(made.model_, rows, N_DRAWS, seed=0)))
    assert drawn.shape == (3, N_DRAWS, N_BITS)
    for i in range(3):
        kept = ~np.isnan(X[i])
        assert np.all(drawn[i][:, kept] == X[i][kept])
        filled = EVERY[(np.isnan(X[i]) | (X[i] == EVERY)).all(axis=1)]  # (8, 10), in counting order
        batch, nats = Batch.of(made.schema_.encode(filled)), []
        for laws, ranks in laws_and_orders(made.model_):
            nats.append(laws.log_prob(batch, ranks_after(ranks, rows.observed[i])))
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
    laws, ranks = next(laws_and_orders(model))
    dropped, whole = (laws.log_prob(batch, ranks, k) for k in (keys, None))
    assert not np.allclose(dropped, whole)


def test_a_net_without_hidden_layers_is_refused():
    with pytest.raises(InputError, match="hidden_layer_sizes"):
        MADE(()).fit(bits())


# ---- options ---------------------------------------------------------------------------------------------------


def test_every_network_is_trained():
    made = of_bits(*NETS[3])
    raw = made.build(made.schema_, key_of(0, 0, 0)).begin(
        Batches.split(Batch.of(encoded(made)), 64, 0.0, 0), None
    )
    for (laws, ranks), (before, same) in zip(*map(laws_and_orders, (made.model_, raw)), strict=True):
        assert np.array_equal(ranks, same)
        nats = [float(one.log_prob(Batch.of(encoded(made)), ranks).mean()) for one in (before, laws)]
        assert nats[1] > nats[0] + 0.1


def encoded(made):
    return made.schema_.encode(bits())


def test_the_weights_that_are_kept_are_a_mean_along_training():
    options = {"early_stopping": False, "max_steps": 100, "learning_rate": 0.05, "random_state": 0}
    mean = MADE((16,), **options).fit(bits())
    last = LastWeights((16,), **options).fit(bits())
    assert last.loss_curve_ == mean.loss_curve_  # the way is the same
    assert np.max(np.abs(last.score_samples(bits()) - mean.score_samples(bits()))) > 0.01


class LastWeights(MADE):
    def _n_averaged(self):
        return 1


def test_weight_decay_is_a_normal_prior_weighed_against_the_whole_table():
    made = MADE((16,), weight_decay=5.0, dropout=0.0, agnostic=0.0, n_orders=1, max_steps=1, random_state=0)
    model = made.fit(bits()).model_
    assert model.n_rows == 540  # without the held-out ones
    batch, key = Batch.of(encoded(made)), jax.random.key(0)
    free = dataclasses.replace(model, decay=jnp.zeros(()))
    price = float(model.loss(batch, key, model.initial_state()).value) - float(
        free.loss(batch, key, model.initial_state()).value
    )
    net = model.network
    weights = [net.layers[0].weight, net.last.weight, net.direct]
    truth = sum(
        norm.logpdf(w, 0.0, 5.0**-0.5).sum() - norm.logpdf(0 * w, 0.0, 5.0**-0.5).sum() for w in weights
    )
    assert price == pytest.approx(-truth / 540, rel=1e-4)


def test_what_is_not_seen_looks_like_the_mean():
    X = bits()
    X[::7, 3] = np.nan
    made = MADE((16,), max_steps=100, early_stopping=False, random_state=0).fit(X)
    np.testing.assert_allclose(made.model_.centre, np.nanmean(X, axis=0), rtol=1e-5)
    nothing = made.transform(np.full((1, N_BITS), np.nan))
    net, degrees = made.model_.network, made.model_._first().network.degrees
    assert len(degrees) == 1
    np.testing.assert_allclose(nothing[0], jax.nn.silu(net.layers[0].bias[0]), atol=1e-6)
