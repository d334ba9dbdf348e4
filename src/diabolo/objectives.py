"""What training maximises and what readings average, as plain formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["evidence_bound", "importance_bound", "warm_up", "weighted_mean"]


def evidence_bound(log_likelihood: Array, divergence: Array) -> Array:
    """Bound log p(x) from below.

    Parameters
    ----------
    log_likelihood : (n_rows,)   log p(x | z) at one draw of the code, nats
    divergence : (n_rows,)       KL(q(z | x) || p(z)), nats

    Returns
    -------
    (n_rows,) : nats; a lower bound in expectation, one Monte Carlo draw.

    Source: Kingma & Welling 2014, eq. 3, arXiv:1312.6114.
    """
    return log_likelihood - divergence


def importance_bound(log_weights: Array) -> Array:
    """Bound log p(x) from below by the log of the mean importance weight.

    Parameters
    ----------
    log_weights : (n_rows, n_draws)   log p(x, z) - log q(z), nats

    Returns
    -------
    (n_rows,) : nats; a lower bound in expectation that rises with the number of draws.

    Source: Burda, Grosse & Salakhutdinov 2016, eq. 8, arXiv:1509.00519.
    """
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(log_weights.shape[1])


def warm_up(step: Array, n_steps: Array) -> Array:
    """Weight of the divergence that grows linearly from 0 to 1 over `n_steps` (Bowman et al. 2016, section 3.1)."""
    return jnp.minimum(1.0, (step + 1.0) / jnp.maximum(n_steps, 1.0))


def weighted_mean(values: Array, weight: Array | None) -> Array:
    """Mean over rows, each counted by its weight; a plain mean without weights."""
    if weight is None:
        return jnp.mean(values)
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-12)
