"""Stacked laws against the same laws one by one, and draws against the laws."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from diabolo import devices
from diabolo.joint import JointLikelihood
from diabolo.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    LogNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    raw_scale,
    scale,
)


def mixed(seed=0):
    """Nine columns whose six structures interleave, and their (n_params,) initial parameters."""
    rng = np.random.default_rng(seed)
    laws = [
        Normal(0.1 + 0.1 * seed, [], coarse=True),
        Categorical(-0.2, np.zeros(3)),
        Normal(0.2, [], coarse=True),
        Bernoulli(),
        Normal(0.05, [-0.3], coarse=True),
        Categorical(-0.1, np.zeros(3)),
        Ordinal(0.0, [-1.0, 0.5 + seed]),
        Bernoulli(),
        Categorical(-0.3, np.zeros(4)),
    ]
    return laws, [rng.normal(size=law.n_params) for law in laws]


def columns_first(joint, params):
    """Parameters by column, each column's in its own order (the layout, too, puts free before shared)."""
    return [np.asarray(params)[..., joint.column_of_param == i] for i in range(joint.n_columns)]


@jax.jit
def one_by_one(law, params, cells):
    """(n_cells,) nats of cells under one law."""
    return jax.vmap(lambda cell: law.log_prob(params, cell))(cells)


@pytest.fixture(scope="module")
def joint():
    return JointLikelihood.stack(*mixed())


def test_every_column_keeps_its_own_law(joint):
    laws, initial = mixed()
    rng = np.random.default_rng(1)
    params = rng.normal(size=(2, 1, joint.n_params)).astype(np.float32)
    values = rng.normal(size=(3, joint.width)).astype(np.float32)
    got = jax.jit(JointLikelihood.log_prob)(joint, params, values)
    assert got.shape == (2, 3, 9)
    for i, of_column in enumerate(columns_first(joint, params)):
        cells = values[:, joint.column_of_value == i]
        for d in range(2):
            want = one_by_one(laws[i], of_column[d, 0], cells)
            np.testing.assert_allclose(got[d, :, i], want, rtol=1e-5, atol=1e-5)
    for i, of_column in enumerate(columns_first(joint, joint.initial)):
        np.testing.assert_allclose(of_column, initial[i], rtol=1e-6)


def test_layout(joint):
    laws, _ = mixed()
    assert joint.n_params == sum(law.n_params for law in laws)
    assert joint.width == sum(law.width for law in laws)
    assert joint.column_of_value.tolist() == [0, 1, 1, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 7, 8, 8, 8, 8]
    shared, scales = [joint.column_of_param[mask] for mask in (joint.shared, joint.scale)]
    assert sorted(shared) == [0, 2, 4, 6, 6]
    assert sorted(scales) == [0, 2, 4]
    assert not (joint.scale & ~joint.shared).any()
    free, both = joint.initial[: joint.n_free], joint.initial[joint.n_free :]
    assembled = joint.assemble(jnp.stack([free, free]), both)
    np.testing.assert_array_equal(assembled, [joint.initial] * 2)


def test_a_refit_compiles_nothing(joint):
    traced = []

    @jax.jit
    def total(joint, params, values):
        traced.append(1)
        return joint.log_prob(params, values).sum()

    other = JointLikelihood.stack(*mixed(seed=1))
    values = np.zeros(joint.width, np.float32)
    assert total(joint, joint.initial, values) != total(other, joint.initial, values)
    assert len(traced) == 1
    assert jax.tree.structure(joint) == jax.tree.structure(other)


def test_learned_facts_get_no_gradient(joint):
    @jax.jit
    @jax.grad
    def slope_of(joint):
        return joint.log_prob(jnp.ones(joint.n_params), jnp.ones(joint.width)).sum()

    slope = slope_of(joint)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(slope))


def test_pickled_and_back(joint):
    back = pickle.loads(pickle.dumps(joint))
    assert jax.tree.structure(back) == jax.tree.structure(joint)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(joint), strict=True):
        np.testing.assert_array_equal(one, other)


def test_columns_of_one_structure_need_no_gather():
    joint = JointLikelihood.stack([Normal(0.0, [], coarse=False)] * 20, [np.zeros(2)] * 20)
    slope = jax.grad(lambda params, values: joint.log_prob(params, values).sum())
    program = str(jax.make_jaxpr(slope)(np.zeros((8, 40), np.float32), np.zeros((8, 20), np.float32)))
    assert "gather" not in program
    assert "scatter" not in program


def test_no_columns_at_all():
    nothing = JointLikelihood.stack([], [])
    assert nothing.log_prob(jnp.zeros((5, 0)), jnp.zeros((5, 0))).shape == (5, 0)
    assert nothing.mean(jnp.zeros((5, 0))).shape == (5, 0)
    assert nothing.draw(jnp.zeros((5, 0)), jax.random.key(0)).shape == (5, 0)


def test_a_rows_draw_does_not_depend_on_how_many_follow():
    joint = JointLikelihood.stack([Normal(0.0, [], coarse=False)] * 2, [np.zeros(2)] * 2)
    key, params = jax.random.key(5), np.ones((7, 4), np.float32)
    draw = jax.jit(JointLikelihood.draw)
    all_rows, first = draw(joint, params, key), draw(joint, params[:2], key)
    np.testing.assert_allclose(first, all_rows[:2], rtol=1e-6)
    assert len(np.unique(all_rows)) == 14


N_DRAWS = 20_000
DRAWN = {
    "real": (Normal(0.0, [], coarse=False), [0.5, -1.0]),
    "atom": (Normal(0.05, [-0.7], coarse=True), [0.5, 0.4, -1.0]),
    "positive": (LogNormal(0.0, 1.0, 2.0, coarse=False), [-0.3, 0.5]),
    "two": (Bernoulli(), [-0.8]),
    "categorical": (Categorical(-0.2, np.zeros(3)), [0.3, -1.0, 0.9]),
    "ordinal": (Ordinal(0.0, [-1.0, 0.0, 1.5]), [0.4, 0.1, 0.2, -0.3]),
    "count": (NegativeBinomial(m=1.0, s=0.5, mean=3.0), [0.2, 0.7]),
    "scarce": (NegativeBinomial(m=0.3, s=0.5, mean=0.5), [-0.2, -1.2]),
    "grey": (DiscretizedLogistic(8), [0.3, float(raw_scale(0.25))]),
}


@pytest.fixture(scope="module")
def drawn():
    """Name -> (N_DRAWS, width) draws at one vector of parameters; all laws in one program."""
    laws, initial = zip(*DRAWN.values(), strict=True)
    joint = JointLikelihood.stack(laws, initial)
    params = jnp.broadcast_to(joint.initial, (N_DRAWS, joint.n_params))
    rows = np.asarray(jax.jit(JointLikelihood.draw)(joint, params, jax.random.key(3)))
    correlation = np.corrcoef(rows[:, joint.column_of_value < 1 + list(DRAWN).index("two")].T)
    assert np.abs(np.triu(correlation, 1)[[0, 0, 0, 3], [1, 3, 4, 4]]).max() < 0.03  # of different columns
    return {name: rows[:, joint.column_of_value == i] for i, name in enumerate(DRAWN)}


@pytest.mark.parametrize("name", ["real", "atom", "positive"])
def test_draws_of_a_continuous_law(drawn, name):
    cells, params = drawn[name], DRAWN[name][1]
    z = cells[:, 0]
    if name == "atom":
        share = special.expit(params[1])
        assert cells[:, 1].mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / N_DRAWS))
        assert (z[cells[:, 1] == 1] == 0).all()
        z = z[cells[:, 1] == 0]
    spread = float(scale(np.float32(params[-1])))
    assert stats.kstest(z, stats.norm(params[0], spread).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["two", "categorical", "ordinal", "grey", "count", "scarce"])
def test_draws_of_a_discrete_law(drawn, name):
    (law, params), cells = DRAWN[name], drawn[name]
    if name in ("count", "scarce"):
        support = (np.log1p(np.arange(30))[:, None] - law.m) / law.s
    elif name == "grey":
        support = np.linspace(-1, 1, 8)[:, None]
    else:
        support = np.eye(law.width) if law.width > 1 else np.array([[0.0], [1.0]])
    support = jnp.asarray(support, jnp.float32)
    pmf = np.exp(one_by_one(law, np.float32(params), support)).astype(float)
    if name == "categorical":
        pmf /= np.exp(law.log_seen)  # draws are of seen levels
    at = np.abs(cells[:, None] - np.asarray(support)).sum(-1)
    observed = np.bincount(at.argmin(1)[at.min(1) < 1e-4], minlength=len(support))
    common = pmf * N_DRAWS > 10
    observed = np.append(observed[common], N_DRAWS - observed[common].sum())
    expected = np.append(pmf[common], max(1 - pmf[common].sum(), 1e-4)) * N_DRAWS
    assert stats.chisquare(observed, expected * N_DRAWS / expected.sum()).pvalue > 1e-3


def test_a_compiled_law_of_many_draws_is_that_of_each():
    """XLA's reductions on a CPU have been wrong beyond 32,768 results of a transposed operand."""
    n_rows, n_draws, n_columns, n_levels = 64, 128, 8, 3
    joint = JointLikelihood.stack(
        [Categorical(0.0, np.zeros(n_levels))] * n_columns, [np.zeros(n_levels)] * n_columns
    )
    rng = np.random.default_rng(0)
    params = rng.normal(size=(n_rows, n_draws, n_columns * n_levels)).astype(np.float32)
    levels = rng.integers(0, n_levels, (n_rows, n_columns))
    rows = np.eye(n_levels, dtype=np.float32)[levels].reshape(n_rows, -1)

    @devices.compiled
    def over_draws(joint, params, rows):
        return jax.vmap(lambda drawn: joint.log_prob(drawn, rows), in_axes=1, out_axes=1)(params)

    logits = params.reshape(n_rows, n_draws, n_columns, n_levels).astype(float)
    expected = np.take_along_axis(special.log_softmax(logits, axis=-1), levels[:, None, :, None], axis=-1)[
        ..., 0
    ]
    np.testing.assert_allclose(over_draws(joint, jnp.asarray(params), jnp.asarray(rows)), expected, atol=1e-5)
