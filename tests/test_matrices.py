"""Small matrices against LAPACK's answers on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diabolo import devices, matrices


def positive(k):
    parts = np.random.default_rng(k).normal(size=(20, k, 2 * k))
    return (parts @ parts.swapaxes(1, 2) / k + np.eye(k)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_factors_and_substitutions_are_lapacks(k):
    some, right = positive(k), np.random.default_rng(0).normal(size=(20, k, 3))
    lower = np.linalg.cholesky(some.astype(float))
    np.testing.assert_allclose(matrices.cholesky(jnp.asarray(some)), lower, atol=1e-5)
    for solve, turned in ((matrices.forward, lower), (matrices.backward, lower.swapaxes(1, 2))):
        np.testing.assert_allclose(
            solve(jnp.asarray(lower), jnp.asarray(right)), np.linalg.solve(turned, right), atol=1e-5
        )
    values, vectors = matrices.eigh(jnp.asarray(some))
    np.testing.assert_allclose(vectors * values[:, None] @ vectors.swapaxes(1, 2), some, atol=1e-4)


def test_slopes_go_through_them():
    some, right = jnp.asarray(positive(4)), jnp.ones((20, 4, 1))

    def square(some):  # rightᵀ some⁻¹ right, and log det some
        lower = matrices.cholesky(some)
        heights = matrices.forward(lower, right)
        return jnp.sum(heights**2) + 2.0 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)))

    slope = jax.grad(square)(some)
    inverse = np.linalg.inv(np.float64(some))
    expected = inverse - inverse @ np.ones((20, 4, 4)) @ inverse
    np.testing.assert_allclose(0.5 * (slope + slope.swapaxes(1, 2)), expected, atol=1e-4)


def test_two_products_have_the_values_and_slopes_of_each():
    generator = np.random.default_rng(0)
    parts = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((3, 4), (5, 4), (4, 2))]

    def apart(one, two, right):
        return one @ right, two @ right

    def weighed(products):
        return jnp.sum(jnp.sin(products[0])) + jnp.sum(products[1] ** 2)

    for found, expected in zip(matrices.times_each(*parts), apart(*parts), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    slopes, wanted = (
        jax.grad(lambda *p, f=f: weighed(f(*p)), (0, 1, 2))(*parts) for f in (matrices.times_each, apart)
    )
    for found, expected in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("equation", ["akm,nak->mna", "akm,kna->amn", "kam,ank->nma"])
def test_products_do_not_ask_how_their_factors_lie_in_memory(equation):
    """XLA's own choice on a CPU sums the first of these wrongly, by up to 1e34."""
    shapes = {"a": 40, "k": 100, "m": 31, "n": 33}  # 40,920 products: those beyond 32,768 were wrong
    rng, names = np.random.default_rng(0), equation.split("->")[0].split(",")
    one, two = (rng.normal(size=[shapes[name] for name in of]).astype(np.float32) for of in names)

    def products(one, two):
        every = jnp.einsum(equation, 2.0 * one + 1.0, two, precision="highest")
        narrow = jnp.einsum(
            equation,
            jnp.broadcast_to(one[..., :1], one.shape),
            jnp.broadcast_to(two[:, :1], two.shape),
            precision="highest",
        )
        return every, jnp.sum(every, axis=1), jnp.sum(narrow, axis=1)

    every = np.einsum(equation, 2.0 * one.astype(float) + 1.0, two)
    narrow = np.einsum(
        equation,
        np.broadcast_to(one[..., :1], one.shape).astype(float),
        np.broadcast_to(two[:, :1], two.shape),
    )
    for mostly_products in (False, True):
        options = devices.compiler_options(jax.default_backend(), mostly_products=mostly_products)
        found = jax.jit(products, compiler_options=options)(one, two)
        for got, want in zip(found, (every, every.sum(axis=1), narrow.sum(axis=1)), strict=True):
            np.testing.assert_allclose(got, want, atol=0.02)


@pytest.mark.parametrize(("values", "chosen"), [(("NO_SUCH", ""), ""), (("NO_SUCH",), None)])
def test_a_jaxlib_that_knows_no_such_option_still_compiles(values, chosen):
    assert devices._known_option(values).get("xla_cpu_experimental_ynn_fusion_type") == chosen
