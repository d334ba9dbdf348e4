"""Log-masses of the normal and the negative binomial law that lose no digits in float32."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["log_negative_binomial", "log_normal_cdf", "log_normal_density", "log_normal_interval"]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def log_normal_density(standard: Array) -> Array:
    """Log of the standard normal density, nats."""
    return -0.5 * standard**2 - _HALF_LOG_TAU


@jax.custom_jvp
def log_normal_interval(standard: Array, half: Array) -> Array:
    """Log of the standard normal density's mean over `standard` -/+ `half`, nats.

    Three regions, none with cancellation: a Taylor series in `half` where the interval is small, a difference
    of two scaled tails where it lies to one side of zero, one minus two tails where it holds zero.
    """
    return _interval(standard, half)[0]


@log_normal_interval.defjvp
def _interval_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Slopes reuse the value's parts: three times fewer operations than differentiating every branch."""
    value, slope, slope_half = _interval(*primals)
    return value, slope * tangents[0] + slope_half * tangents[1]


def _interval(standard: Array, half: Array) -> tuple[Array, Array, Array]:
    """Value, derivative in `standard`, derivative in `half`."""
    distance = jnp.abs(standard)
    small = jnp.maximum(half, distance * half) < 0.2
    # log of the mean of exp(-x tilt - x^2 half^2 / 2) over x in (-1, 1), to fourth order (own derivation)
    w, u = jnp.where(small, half, 0.0), jnp.where(small, distance, 0.0)
    w2, t2 = w**2, (u * w) ** 2
    series = (t2 - w2) / 6 - t2**2 / 180 - w2 * t2 / 45 + w2**2 / 90
    bend = 1 / 3 - (t2 + 2 * w2) / 45
    series_slopes = u * w2 * bend, u * u * w * bend - w * (1 / 3 + 2 * t2 / 45 - 2 * w2 / 45)

    w, u = jnp.where(small, 1.0, half), jnp.where(small, 1.0, distance)
    near = u - w
    outside = near > 0
    decay = jnp.exp(-2 * u * w)  # density at the far edge over that at the near edge
    edge = jnp.exp(-0.5 * near**2)
    tail_near, tail_far = _scaled_tail(jnp.where(outside, near, -near)), decay * _scaled_tail(u + w)
    mass = jnp.where(outside, tail_near - tail_far, 1 - edge * (tail_near + tail_far))
    exact = jnp.log(mass / (2 * w)) - jnp.where(outside, 0.5 * near**2, 0.0)
    ratio = jnp.where(outside, 1.0, edge) / (mass * math.sqrt(2 * math.pi))  # near edge's density to the mass
    exact_slopes = ratio * (decay - 1), ratio * (1 + decay) - 1 / w

    slope = jnp.where(small, series_slopes[0] - distance, exact_slopes[0])
    return (
        jnp.where(small, log_normal_density(standard) + series, exact),
        jnp.where(standard < 0, -slope, slope),
        jnp.where(small, series_slopes[1], exact_slopes[1]),
    )


def log_normal_cdf(standard: Array) -> Array:
    """Log of the standard normal distribution function, nats; jax's has no usable gradient far below zero."""
    below = standard < 0
    tail = _scaled_tail(jnp.where(below, -standard, standard))
    upper_half = 1 - jnp.exp(-0.5 * standard**2) * tail
    return jnp.log(jnp.where(below, tail, upper_half)) - jnp.where(below, 0.5 * standard**2, 0.0)


# Chebyshev fit in t of erfcx(x / sqrt 2) / (2 t): relative error below 6e-8, in float32 arithmetic 4e-7
_TAIL = (
    0.129656235,
    0.129656926,
    0.115954217,
    0.088450985,
    0.0542221339,
    -0.00181845183,
    0.0433809056,
    -0.129673028,
    0.0913092948,
    -0.0211392422,
)


def _scaled_tail(x: Array) -> Array:
    """The normal tail P(X > x) times exp(x^2 / 2), for x >= 0."""
    t = 1 / (1 + 0.325 * x)
    total = jnp.full_like(t, _TAIL[-1])
    for coefficient in _TAIL[-2::-1]:
        total = total * t + coefficient
    return total * t


def log_negative_binomial(count: Array, mean: Array, size: Array) -> Array:
    """Log-pmf in nats: the saddle-point form, because differences of log-gammas lose all digits in float32.

    Source: Loader 2000, "Fast and accurate computation of binomial probabilities", through
    NB(count; size) = size / (size + count) Binomial(size; size + count).
    """
    some = count > 0
    k = jnp.where(some, count, 1.0)
    n = size + k
    excess = (k - mean) / (1 + mean / size)  # k - n mean / (size + mean), and minus the same for size
    grown = (1 + k / size) / (1 + mean / size)
    log_pmf = (
        _stirling_error(n)
        - _stirling_error(size)
        - _stirling_error(k)
        - _deviance(k, mean * grown, excess)
        - _deviance(size, size * grown, -excess)
        + 0.5 * (jnp.log(size / n) - jnp.log(k))
        - _HALF_LOG_TAU
    )
    return jnp.where(some, log_pmf, -size * jnp.log1p(mean / size))


def _stirling_error(x: Array) -> Array:
    """log Gamma(x + 1) - Stirling's formula, for x > 0 (Loader's delta)."""
    large = x >= 8
    low = jnp.where(large, 1.0, x)
    y = jnp.where(large, x, low + 5)  # the series needs y >= 5: small x climb there by Gamma's recurrence
    series = (1 / 12 - (1 / 360 - 1 / (1260 * y**2)) / y**2) / y
    climb = (low + 5.5) * jnp.log(low + 5) - (low + 0.5) * jnp.log(low) - 5
    product = (low + 1) * (low + 2) * (low + 3) * (low + 4) * (low + 5)
    return series + jnp.where(large, 0.0, climb - jnp.log(product))


def _deviance(x: Array, expected: Array, excess: Array) -> Array:
    """x log(x / expected) - excess, with excess = x - expected given free of cancellation (Loader's bd0)."""
    v = excess / (x + expected)
    near = jnp.abs(v) < 0.1
    v2 = jnp.where(near, v, 0.0) ** 2
    series = excess * v + 2 * x * v * v2 * (1 / 3 + v2 * (1 / 5 + v2 * (1 / 7 + v2 / 9)))
    return jnp.where(near, series, x * (jnp.log(x) - jnp.log(expected)) - excess)
