"""What a row's missing cells may have been: draws from p(missing | observed), by importance resampling."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, chunks, row_keys, rows_together
from diabolo.density import weighted_codes
from diabolo.keys import key_of
from diabolo.model import CodeModel, DirectModel, Model, on_device
from diabolo.table import Rows

__all__ = ["conditional_draws", "resample"]

_N_CODES = 512  # proposed per row, of which the draws' codes are chosen


def conditional_draws(model: Model, rows: Rows, n_draws: int, seed: int) -> Iterator[np.ndarray]:
    """Draw whole rows given each row's observed cells.

    A model that says its density itself draws as it knows how. Of others, codes are proposed as for the density,
    weighed by p(x_observed, z) / q(z), resampled in proportion to their weights (systematically), and a row is drawn
    from p(x | z) at each.

    Parameters
    ----------
    model : trained
    rows : encoded rows with gaps
    n_draws : rows drawn for each
    seed : noise is keyed by it and by each row's own bits

    Yields
    ------
    (n, n_draws, width) : encoded draws of the next n rows. Draws of observed cells are of no use: keep what was seen.

    Source: sampling importance resampling, Rubin 1988; systematic resampling, Kitagawa 1996, section 2.2; for gaps
    of a deep generative model, Mattei & Frellsen 2019, eq. 12, arXiv:1812.02633.
    """
    n_codes = max(_N_CODES, n_draws)
    key, model = key_of(seed, 1), on_device(model)
    for batch, n_true in chunks(rows, rows_together(n_codes)):
        yield np.asarray(_draw(model, batch, n_codes, n_draws, key))[:n_true]


@devices.compiled
def _draw(model: Model, batch: Batch, n_codes: int, n_draws: int, key: Array) -> Array:
    if isinstance(model, DirectModel):
        return model.draw_given(batch, n_draws, row_keys(batch, key))
    assert isinstance(model, CodeModel), "a model says its density itself or has a code"
    codes, log_weights, _ = weighted_codes(model, batch, n_codes, key)

    def one_row(row_key: Array, codes: Array, log_weights: Array, given: Array) -> Array:
        key_place, key_cells = jax.random.split(row_key)
        chosen = codes[resample(key_place, log_weights, n_draws)]
        params = model.decode(model.split(chosen), jnp.broadcast_to(given, (n_draws, *given.shape)))
        return model.likelihood.draw(params, key_cells)

    return jax.vmap(one_row)(row_keys(batch, key), codes, log_weights, batch.given)


def resample(key: Array, log_weights: Array, n: int) -> Array:
    """n places of (n_codes,) weights, each chosen as often as its share says, up to one time."""
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(n) + jax.random.uniform(key)) / n
    return jnp.minimum(jnp.searchsorted(cumulative, points * cumulative[-1]), len(log_weights) - 1)
