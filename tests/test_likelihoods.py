"""Laws of one cell against float64: scipy, quadrature, enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

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
from diabolo.likelihoods.masses import log_negative_binomial, log_normal_cdf, log_normal_interval


def nats(law, params, cells):
    """(n_laws, n_cells) float64: every row of parameters against every cell."""
    over_cells = jax.vmap(lambda p, c: law.log_prob(p, c), (None, 0))
    over_laws = jax.jit(jax.vmap(over_cells, (0, None)))
    return np.asarray(over_laws(np.asarray(params, np.float32), np.asarray(cells, np.float32)), np.float64)


def close(got, want, within):
    """Error relative to the larger of 1 and the size."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_array_less(np.abs(got - want) / np.maximum(1, np.abs(want)), within)


def spread(raw):
    """float64 twin of `scale`."""
    return 1e-3 + 0.999 * np.log1p(np.exp(np.asarray(raw) + np.log(np.e - 1)))


def test_scale_is_one_at_zero_and_has_a_floor():
    close(scale(np.array([0.0, -50.0, 4.0, 1e4], np.float32)), [1.0, 1e-3, spread(4.0), 9990.542], 1e-6)
    raw = np.array([-5.0, -0.3, 0.0, 2.0, 30.0])
    close(raw_scale(spread(raw)), raw, 1e-9)
    assert scale(np.float32(raw_scale(0.0))) < 1.1e-3


def test_interval_of_a_normal_law():
    """Values and slopes over every region, at its borders, and 1e4 spreads out."""
    u = np.concatenate([np.linspace(-12, 12, 241), [-1e4, -300, 40.5, 300, 1e4]]).astype(np.float32)
    w = np.array([1e-5, 1e-3, 0.03, 0.1, 0.199, 0.201, 0.5, 1.0, 3.0, 30.0], np.float32)[:, None]
    both = jax.value_and_grad(log_normal_interval, argnums=(0, 1))
    value, slopes = jax.jit(jax.vmap(jax.vmap(both, (0, None)), (None, 0)))(u, w[:, 0])
    u, w = u.astype(float), w.astype(float)

    near, far = np.abs(u) - w, np.abs(u) + w  # quadrature relative to the densest point of the interval
    top = np.maximum(near, 0)
    low = np.maximum(near, -12)
    high = np.minimum(far, np.where(near > 0, near + 40 / np.maximum(near, 1), 12))
    nodes, weights = np.polynomial.legendre.leggauss(300)
    x = ((low + high) / 2)[..., None] + ((high - low) / 2)[..., None] * nodes
    integral = (high - low) / 2 * (weights * np.exp((top**2)[..., None] / 2 - x**2 / 2)).sum(-1)
    want = np.log(integral) - top**2 / 2 - 0.5 * np.log(2 * np.pi) - np.log(2 * w)
    close(value, want, 1e-6)

    log_mass = want + np.log(2 * w)
    at_near, at_far = (np.exp(stats.norm.logpdf(edge) - log_mass) for edge in (near, far))
    close(slopes[0], -np.sign(u) * (at_near - at_far), 2e-6)
    # in small intervals this reference's terms cancel: they have one of their own, -w (1 - u^2) / 3
    large = np.broadcast_to(w >= 0.1, want.shape)
    close(slopes[1][large], (at_near + at_far - 1 / w)[large], 1e-5)
    small = w * np.maximum(1, np.abs(u)) < 1e-2
    close(slopes[1][small], (-w * (1 - u**2) / 3)[small], 1e-5)


def test_cumulative_normal_law():
    u = np.concatenate([np.linspace(-30, 8, 77), [-1e4, 1e4]]).astype(np.float32)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(log_normal_cdf)))(u)
    want = special.log_ndtr(u.astype(float))
    close(value, want, 1e-6)
    close(slope, np.exp(stats.norm.logpdf(u.astype(float)) - want), 1e-5)


def test_negative_binomial_of_any_size():
    count, mean, size = (
        grid.ravel().astype(np.float32)
        for grid in np.meshgrid(
            np.concatenate([np.arange(12), 10.0 ** np.arange(2, 7)]),
            10.0 ** np.arange(-4, 7),
            np.exp(np.linspace(-12, 12, 13)),
        )
    )
    both = jax.value_and_grad(log_negative_binomial, argnums=(1, 2))
    value, (to_mean, to_size) = jax.jit(jax.vmap(both))(count, mean, size)
    count, mean, size = (x.astype(float) for x in (count, mean, size))
    want = -np.log(count + size) - special.betaln(count + 1, size)
    want += -size * np.log1p(mean / size) - count * np.log1p(size / mean)
    close(value, want, 3e-6)
    close(to_mean, count / mean - (count + size) / (size + mean), 3e-6)
    digammas = special.digamma(count + size) - special.digamma(size)
    slope = digammas - np.log1p(mean / size) + (mean - count) / (size + mean)
    close(np.asarray(to_size) * size, slope * size, 1e-4)


def test_normal_density_integrates_to_one():
    params = [[0.0, 0.0], [0.7, -2.0], [-1.5, 1.3], [0.2, -40.0]]
    z = np.linspace(-12, 12, 200_001)
    got = nats(Normal(0.0, [], coarse=False), params, z[:, None])
    loc, raw = np.array(params).T[:, :, None]
    close(got, stats.norm.logpdf(z, np.float32(loc), spread(raw)), 1e-3)  # float32 z against a spread of 1e-3
    close(np.trapezoid(np.exp(got), z), 1.0, 1e-4)


@pytest.mark.parametrize("step", [0.01, 0.4, 5.0])
def test_normal_masses_and_atoms_sum_to_one(step):
    atoms = np.array([0.0, -3.0]) * step  # on the grid, as an atom is
    law = Normal(0.5 * step, atoms, coarse=True)
    params = [[0.0, 0.0, 0.0, 0.0], [1.2, 2.0, -1.0, 0.5], [-0.7, -30.0, 30.0, -3.0], [0.04, 0.3, 0.1, -50.0]]
    grid = step * np.arange(-int(40 / step), int(40 / step) + 1)
    at_atom = np.isclose(grid[:, None], atoms, atol=step / 2)
    ordinary = ~at_atom.any(1)
    cells = np.column_stack([grid * ordinary, at_atom])
    got = nats(law, params, cells)
    mass = np.where(ordinary, step, 1.0) * np.exp(got)
    close(mass.sum(1), 1.0, 2e-5)

    loc, sigma = np.array(params)[:, :1], spread(np.array(params)[:, -1:])
    parts = special.softmax(np.column_stack([np.zeros(4), np.array(params)[:, 1:-1]]), axis=1)
    continuous = np.diff(
        stats.norm.cdf(np.append(grid - step / 2, grid[-1] + step / 2), np.float32(loc), sigma), axis=1
    )
    want = parts[:, :1] * continuous + parts[:, 1:] @ at_atom.T
    np.testing.assert_allclose(mass, want, atol=3e-5)


def test_a_density_with_an_atom():
    law, params = Normal(0.0, [-1.25], coarse=False), [[0.5, 1.5, 0.2]]
    got = nats(law, params, [[0.3, 0.0], [0.0, 1.0]])
    atom = special.expit(1.5)
    want = [np.log1p(-atom) + stats.norm.logpdf(0.3, 0.5, spread(0.2)), np.log(atom)]
    close(got, [want], 1e-6)


def test_log_normal_masses_sum_to_one():
    """In the user's units, through the offset -log s - log x, the lowest cell taking all below it."""
    m, s, step = 0.8, 1.3, 0.25
    x = step * np.arange(1, 100_001)
    z = (np.log(x) - m) / s
    params = np.array([[0.0, 0.0], [-2.5, 0.0], [-1.0, -1.5], [1.0, -60.0]])
    got = nats(LogNormal(step / 2, m, s, coarse=True), params, z[:, None])
    mass = step * np.exp(got - np.log(s) - np.log(x))
    edges = np.append(0.0, x + step / 2)
    with np.errstate(divide="ignore"):
        inner = (np.log(edges) - m) / s
    want = np.diff(stats.norm.cdf(inner, np.float32(params[:, :1]), spread(params[:, 1:])), axis=1)
    np.testing.assert_allclose(mass[:3], want[:3], atol=2e-6)
    np.testing.assert_allclose(mass[3], want[3], atol=2e-3)  # a spread of 1e-3 magnifies float32's z
    close(mass[1:].sum(1), 1.0, 2e-5)
    log_x = np.linspace(-9, 11, 20_001)
    got = nats(LogNormal(0.0, m, s, coarse=False), params[:3], (log_x[:, None] - m) / s)
    close(np.trapezoid(np.exp(got - np.log(s)), log_x), 1.0, 1e-5)


def test_log_normal_mass_tends_to_the_density():
    z = np.array([[-2.0], [0.1], [3.0]])
    fine = nats(LogNormal(1e-4, 1.0, 0.7, coarse=True), [[0.3, -0.5]], z)
    close(fine, nats(LogNormal(0.0, 1.0, 0.7, coarse=False), [[0.3, -0.5]], z), 1e-6)


def test_levels_against_enumeration():
    logit = np.array([[0.0], [3.0], [-40.0]])
    close(nats(Bernoulli(), logit, [[0.0], [1.0]]), -np.logaddexp(0, logit * [1, -1]), 1e-6)

    logits = np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 30.0]])
    got = nats(Categorical(np.log(0.9), np.zeros(3)), logits, np.eye(3))
    close(got, np.log(0.9) + special.log_softmax(logits, axis=1), 1e-6)

    cuts = np.array([-1.0, 0.2, 0.5, 2.0])
    params = np.array([[0.0, 0, 0, 0, 0], [1.5, 0.4, 1.0, -2.0, 0.3], [-6.0, 0, 0, -50.0, 0]])
    got = nats(Ordinal(np.log(0.8), cuts), params, np.eye(5))
    first = cuts[0] + params[:, 1:2]
    thresholds = np.column_stack([first, first + np.cumsum(np.diff(cuts) * spread(params[:, 2:]), axis=1)])
    below = special.expit(thresholds - params[:, :1])
    want = np.diff(np.column_stack([np.zeros(3), below, np.ones(3)]), axis=1)
    np.testing.assert_allclose(np.exp(got), 0.8 * want, rtol=3e-5)
    close(nats(Ordinal(0.0, [0.7]), [[0.2, 0.1]], np.eye(2)), [np.log(special.expit([0.6, -0.6]))], 1e-6)


def test_counts_sum_to_one():
    count = np.arange(20_000)
    m, s, mean = 1.1, 0.9, 4.0
    params = np.array([[0.0, 0.0], [1.0, 2.0], [-2.0, -1.5], [0.5, 12.0]])
    got = nats(NegativeBinomial(m=m, s=s, mean=mean), params, (np.log1p(count)[:, None] - m) / s)
    size, centre = np.exp(params[:, 1:]), mean * np.exp(params[:, :1])
    want = stats.nbinom.pmf(count, size, size / (size + centre))
    np.testing.assert_allclose(np.exp(got), want, atol=1e-6)
    close(np.exp(got).sum(1), 1.0, 3e-5)


@pytest.mark.parametrize("n_levels", [2, 16, 256])
def test_grey_levels_sum_to_one(n_levels):
    level = np.arange(n_levels)
    step = 2 / (n_levels - 1)
    params = np.array([[0.0, 0.0], [0.4, -3.0], [-1.7, -2.0], [5.0, 1.0], [0.1, -50.0]])
    got = nats(DiscretizedLogistic(n_levels), params, (step * level - 1)[:, None])
    edges = step * (level[:-1] + 0.5) - 1
    below = special.expit((edges - np.float32(params[:, :1])) / spread(params[:, 1:]))
    want = np.diff(np.column_stack([np.zeros(5), below, np.ones(5)]), axis=1)
    np.testing.assert_allclose(np.exp(got), want, atol=1e-4)
    close(np.exp(got).sum(1), 1.0, 1e-4)


LAWS = {
    "normal": (Normal(0.0, [], coarse=False), 1),
    "coarse normal": (Normal(0.01, [], coarse=True), 1),
    "atoms": (Normal(0.3, [0.0, 2.0], coarse=True), 1),
    "log-normal": (LogNormal(0.2, 0.5, 1.4, coarse=True), 1),
    "count": (NegativeBinomial(m=1.0, s=0.8, mean=3.0), 0),
    "grey": (DiscretizedLogistic(256), 1),
    "ordinal": (Ordinal(0.0, [-1.0, 0.0, 2.0]), 0),
    "two": (Bernoulli(), 0),
    "categorical": (Categorical(-0.1, np.zeros(3)), 0),
}


@pytest.mark.parametrize("name", LAWS)
def test_far_out_values_and_gradients_stay_finite(name):
    """Deviations up to 1e4 spreads, at the smallest and large spreads; no slope is lost to rounding."""
    law, n_scale = LAWS[name]
    assert law.n_scale == n_scale
    far = np.array([-1e4, -300.0, -10.0, 0.0, 1.0, 10.0, 300.0, 1e4])
    params = np.zeros((len(far) * 3, law.n_params))
    params[:, 0] = np.tile(far, 3)
    if law.n_shared:
        params[:, law.n_params - law.n_shared :] = np.repeat([-100.0, 0.0, 8.0], len(far))[:, None]
    cells = np.zeros((4, law.width))
    cells[1] = np.eye(law.width)[-1] if law.width > 1 else 1.0
    cells[2] = np.eye(law.width)[0] if law.width > 1 else -1.0
    one = jax.value_and_grad(lambda p, c: law.log_prob(p, c))
    every = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    value, slope = every(params.astype(np.float32), cells.astype(np.float32))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    if (
        n_scale
    ):  # 1e4 spreads out, location still pulls with its full force: u for a normal law, 1 for a logistic
        at = len(far)  # location -1e4, spread 1
        pull = 1.0 if name == "grey" else 1e4
        assert abs(slope[at, 0, 0]) == pytest.approx(pull, rel=0.02)


def test_the_cell_that_stands_for_a_law():
    stands = {
        "atoms": ([0.4, 0.1, 3.0, 0.0], [0.0, 0.0, 1.0]),
        "log-normal": ([0.4, 1.0], [0.4]),
        "count": ([np.log(2.0), 0.0], [(np.log1p(6.0) - 1.0) / 0.8]),
        "grey": ([1.7, 0.0], [1.0]),
        "ordinal": ([0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]),
        "two": ([0.1], [1.0]),
        "categorical": ([0.1, 0.3, -5.0], [0.0, 1.0, 0.0]),
    }
    mean = jax.jit(lambda law, params: law.mean(params))
    for name, (params, want) in stands.items():
        close(mean(LAWS[name][0], jnp.asarray(params)), want, 1e-6)
    close(mean(LAWS["atoms"][0], jnp.asarray([0.4, -0.1, -3.0, 0.0])), [0.4, 0.0, 0.0], 1e-6)
