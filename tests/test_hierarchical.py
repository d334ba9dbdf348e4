"""The ladder against closed forms, sums on a grid, and options that must do something."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, by_quadrature, fitted, points
from scipy.special import logsumexp

from diabolo import HierarchicalVAE, InputError
from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian
from diabolo.table import Schema

SMALL = {"hidden_layer_sizes": (16,), "level_layer_sizes": (8,), "max_steps": 300, "random_state": 0}


def _gaussian(mean, scale):
    return DiagonalGaussian(jnp.asarray([[mean]]), jnp.log(jnp.asarray([[scale]])))


def test_several_draws_have_no_divergence_to_weigh():
    for options in ({"beta": 0.5}, {"free_bits": 0.1}):
        with pytest.raises(
            InputError, match=r"parameter 'n_draws': got 4 beside .*Set beta=1 and free_bits=0"
        ):
            HierarchicalVAE(n_draws=4, **options).fit(points())


def test_divergences_and_products_are_those_of_a_grid():
    one, two = _gaussian(0.3, 0.7), _gaussian(-1.1, 1.6)
    x = np.linspace(-12.0, 12.0, 24_001)
    log_one, log_two = (np.asarray(g.log_prob(jnp.asarray(x)[:, None]), np.float64) for g in (one, two))
    step = x[1] - x[0]
    kl = np.sum(np.exp(log_one) * (log_one - log_two)) * step
    assert float(one.divergence_to(two)[0, 0]) == pytest.approx(kl, abs=1e-4)
    product = np.exp(log_one + log_two)
    product /= product.sum() * step
    found = one.times(two)
    mean = np.sum(x * product) * step
    assert float(found.mean[0, 0]) == pytest.approx(mean, abs=1e-4)
    variance = np.sum((x - mean) ** 2 * product) * step
    assert float(found.variance()[0, 0]) == pytest.approx(variance, abs=1e-4)


def _grid(model, n_side=401):
    drawn = np.asarray(model.join(model.draw_prior(jax.random.key(0), 20_000)))
    low, high = drawn.min(axis=0) - 3 * drawn.std(axis=0), drawn.max(axis=0) + 3 * drawn.std(axis=0)
    sides = np.linspace(low, high, n_side)
    codes = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, 2).astype(np.float32)
    return codes, np.prod(sides[1] - sides[0])


def test_prior_and_proposal_integrate_to_one_and_are_what_is_drawn():
    estimator = fitted("HierarchicalVAE")
    model = estimator.model_
    codes, cell = _grid(model)
    log_prior = np.asarray(model.log_prior(model.split(codes)), np.float64)
    assert np.exp(logsumexp(log_prior)) * cell == pytest.approx(1.0, abs=2e-3)
    batch = Batch.of(estimator.schema_.encode(points()[:3]))
    strata = model.proposal(batch)
    log_q = np.asarray(strata.log_prob(jnp.broadcast_to(codes, (3, *codes.shape)), 100), np.float64)
    np.testing.assert_allclose(np.exp(logsumexp(log_q, axis=1)) * cell, 1.0, atol=5e-3)
    drawn, said = strata.draw(jax.random.split(jax.random.key(1), 3), 100)
    np.testing.assert_allclose(said, strata.log_prob(drawn, 100), atol=1e-4)
    # means of many draws are those of the density on the grid
    many, _ = strata.draw(jax.random.split(jax.random.key(2), 3), 20_000)
    mean = np.einsum("nc,ck->nk", np.exp(log_q) * cell, codes)
    np.testing.assert_allclose(np.asarray(many).mean(axis=1), mean, atol=0.03)


def test_the_evidence_bound_is_below_the_quadrature_and_more_draws_rise_towards_it():
    """One model, read by its own training bound of 1, 8 and 64 draws."""
    estimator = fitted("HierarchicalVAE")
    rows = estimator.schema_.encode(points()[:100])
    truth = by_quadrature(estimator, rows).mean()
    batch = Batch.of(rows)

    def bound(n_draws):
        model = CASES["HierarchicalVAE"](n_draws=n_draws).build(estimator.schema_, jax.random.key(0))
        arrays = iter(jax.tree.leaves(estimator.model_))
        model = jax.tree.map(lambda leaf: next(arrays), model)
        several = eqx.filter_jit(lambda model, keys: jax.vmap(lambda key: model.held_out(batch, key))(keys))
        keys = jax.random.split(jax.random.key(3), 800 // n_draws)
        return float(np.mean(several(model, keys))) + rows.offset.mean()

    one, some, many = bound(1), bound(8), bound(64)
    # their errors are below 0.004
    assert one < some < many < truth + 0.01
    assert truth - many < 0.25 * (truth - one)


def test_levels_are_read_one_by_one_and_from_above():
    X = points()
    ladder = HierarchicalVAE(n_components=(2, 1), **SMALL).fit(X)
    low, high = ladder.transform_levels(X)
    assert low.shape == (len(X), 2) and high.shape == (len(X), 1)
    assert np.array_equal(np.hstack([low, high]), ladder.transform(X))
    assert np.allclose(ladder.reconstruct_from(X, 1), ladder.reconstruct(X), atol=1e-5)
    # from the upper level alone: the lower is the mean of its prior there
    prior = ladder.model_.prior_of(0, jnp.asarray(high, jnp.float32), len(X))
    by_hand = ladder.inverse_transform(np.hstack([np.asarray(prior.mean), high]))
    np.testing.assert_allclose(ladder.reconstruct_from(X, 2), by_hand, atol=1e-3)
    error = [np.mean((ladder.reconstruct_from(X, level) - X) ** 2) for level in (1, 2)]
    assert error[0] < 0.6 * error[1]
    with pytest.raises(InputError, match="parameter 'level': got 3; expected a whole number from 1 to 2"):
        ladder.reconstruct_from(X, 3)


def test_usage_is_told_per_component_of_every_level():
    ladder = fitted("HierarchicalVAE")
    assert ladder.divergence_.shape == ladder.active_components_.shape == (2,)
    assert np.all(ladder.divergence_ > 0.05)
    low, high = ladder.prior_gap_
    # the mean of log q(z) - log p(z) is below that of log q(z | x) - log p(z) by what the code tells of the row
    assert 0.0 <= low <= high < ladder.divergence_.sum()


def test_widths_halve_upwards_or_are_listed():
    schema = Schema.learn(points())

    def widths(n_components, **options):
        ladder = HierarchicalVAE(n_components=n_components, **(SMALL | options))
        model = ladder.build(schema, jax.random.key(0))
        assert [mlp.layers[0].weight.shape[1] for mlp in model.upward] == [8] * (len(model.code_widths) - 1)
        return tuple(width for _, width in model.code_widths)

    assert widths(5, n_levels=3) == (5, 3, 2)
    assert widths([3, 1]) == (3, 1)
    assert widths(2, n_levels=1) == (2,)
    assert widths("auto") == (2, 1)
    with pytest.raises(InputError, match="parameter 'n_components': got a level of 0"):
        widths((2, 0))
    with pytest.raises(InputError, match="parameter 'n_components': got no level"):
        widths(())


@pytest.mark.parametrize("options", [{"free_bits": 2.5}, {"beta": 2.0}])
def test_the_divergence_may_be_weighed_and_partly_free(options):
    X = points()
    plain = HierarchicalVAE(n_components=(1, 1), **SMALL).fit(X)
    other = HierarchicalVAE(n_components=(1, 1), **{**SMALL, **options}).fit(X)
    told, of_plain = other.divergence_.sum(), plain.divergence_.sum()
    if "free_bits" in options:
        assert told > of_plain + 0.5
    else:
        assert told < 0.7 * of_plain
