"""Readings of log p(x): what a model says itself, or bounds by importance sampling, with their error and their name."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax import Array
from scipy.special import logsumexp
from scipy.stats import norm

from diabolo import devices
from diabolo.batches import Batch, chunks, row_keys, rows_together
from diabolo.checks import Range, refuse
from diabolo.keys import key_of
from diabolo.model import CodeModel, DirectModel, Model, on_device
from diabolo.table import Rows

__all__ = ["Reading", "log_weights", "pareto_k", "reading_of", "weighted_codes"]

#: Above this the weights' variance may be infinite and an error bar means nothing (Vehtari et al. 2024, section 3).
MAX_PARETO_K = 0.7
#: Codes per row behind `score_samples`.
N_DRAWS = 128


@dataclass(frozen=True)
class Reading:
    """Log-densities of rows, with what is claimed of them.

    Attributes
    ----------
    values : (n_rows,) float64, in `unit`, of the observed cells, per the user's own units of each column
    kind : (n_rows,) "exact", "bound" or "estimate"; a bound lies below the true value in expectation
    standard_error : (n_rows,) Monte Carlo error of `values`; 0 where exact
    effective_sample_size : (n_rows,) draws that the weights are worth (Kong 1992); nan where nothing was drawn
    pareto_k : (n_rows,) shape of the weights' tail; above 0.7 the standard error cannot be trusted
    unit : "nats"
    common_error : share of `standard_error` that all rows have together, that of a partition function; 0 without one
    """

    values: np.ndarray
    kind: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    pareto_k: np.ndarray
    unit: str = "nats"
    common_error: float = 0.0

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        kinds = " and ".join(np.unique(self.kind).tolist())
        mean = f"mean {np.mean(self.values):.6g}" if len(self) else "empty"
        withheld = f", {np.sum(self.withheld):,} intervals withheld" if np.any(self.withheld) else ""
        return f"Reading({len(self):,} rows, {self.unit}, {kinds}: {mean}{withheld})"

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Centred interval of the true log-density: low and high, (n_rows,) each, nan where withheld.

        The log of a mean of weights lies se²/2 low on average (second-order delta method); the interval is centred
        by adding it back, so it is no bound. What is subtracted, the log of a mean of partition functions, lies high in
        the reading by as much. Withheld where `pareto_k` exceeds 0.7 or, below 25 draws, is unknown.
        """
        if level not in Range(0.0, 1.0, open_high=True):
            raise refuse(
                "parameter 'level'", got=repr(level), want="a share of at least 0 and below 1, such as 0.95"
            )
        common = np.minimum(self.common_error, self.standard_error)  # a row of no cell has none
        centre = self.values + 0.5 * self.standard_error**2 - common**2
        reach = norm.ppf(0.5 + 0.5 * level) * self.standard_error
        low, high = centre - reach, centre + reach
        return np.where(self.withheld, np.nan, low), np.where(self.withheld, np.nan, high)

    @property
    def withheld(self) -> np.ndarray:
        """(n_rows,) bool: the weights are too uneven, or too few, for an interval; more draws may help."""
        return ~(self.pareto_k <= MAX_PARETO_K)


def reading_of(model: Model, rows: Rows, n_draws: int, seed: int) -> Reading:
    """log p(x) of each row: the model's own, or a bound by importance sampling over its codes.

    Parameters
    ----------
    model : trained
    rows : encoded rows
    n_draws : codes, or what else is random, drawn per row
    seed : noise is keyed by it and by each row's own bits

    Returns
    -------
    Reading : `offset` of the rows (log-Jacobians, mass of the unseen) is included.

    Source: Burda, Grosse & Salakhutdinov 2016, eq. 8, arXiv:1509.00519; the standard error of the log by the delta
    method within the proposal's strata.
    """
    key, model = key_of(seed), on_device(model).prepared()
    size = rows_together(model.n_weights(n_draws))

    def summary(batch: Batch, n_true: int) -> tuple[np.ndarray, ...]:
        weights, counts = log_weights(model, batch, n_draws, key)
        # cut on the host: a slice on the device would compile one program per number of rows
        return _summary(np.asarray(weights, np.float64)[:n_true], counts)

    each = devices.ahead(summary, chunks(rows, size))
    values, error, effective, tail = (np.concatenate(part) for part in zip(*each, strict=True))
    kind = model.kinds(rows.observed)
    exact = kind == "exact"
    error[exact], effective[exact], tail[exact] = 0.0, np.nan, -np.inf
    common = model.common_error()
    error = np.hypot(error, common)
    nothing = ~rows.observed.any(axis=1)  # log p of no cell at all is 0, and no draw is needed to know it
    values[nothing], error[nothing], effective[nothing], tail[nothing] = 0.0, 0.0, np.nan, -np.inf
    kind[nothing] = "exact"
    return Reading(values + rows.offset, kind, error, effective, tail, common_error=common)


def weighted_codes(
    model: CodeModel, batch: Batch, n_draws: int, key: Array
) -> tuple[Array, Array, tuple[int, ...]]:
    """Codes proposed for each row, (n_rows, n_draws, n_components), their log weights, and the draws of each stratum.

    The weights, (n_rows, n_draws), are log p(x, z) - log q(z | x), nats of the encoded cells.
    """
    proposal = model.proposal(batch)
    codes, log_q = proposal.draw(row_keys(batch, key), n_draws)

    def log_joint(drawn: Array) -> Array:
        groups = model.split(drawn)
        return model.log_likelihood(batch, groups) + model.log_prior(groups)

    return codes, jax.vmap(log_joint, in_axes=1, out_axes=1)(codes) - log_q, proposal.counts(n_draws)


@devices.compiled
def log_weights(model: Model, batch: Batch, n_draws: int, key: Array) -> tuple[Array, tuple[int, ...]]:
    """Log weights, (n_rows, n_draws) nats of the encoded cells, and the draws of each stratum."""
    if isinstance(model, DirectModel):
        weights = model.log_weights(batch, n_draws, row_keys(batch, key))
        return weights, (weights.shape[1],)
    assert isinstance(model, CodeModel), "a model says its density itself or has a code"
    return weighted_codes(model, batch, n_draws, key)[1:]


def _summary(log_weight: np.ndarray, counts: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Value, standard error, effective sample size and tail shape per row of (n_rows, n_draws) log-weights."""
    n_draws = log_weight.shape[1]
    log_total = logsumexp(log_weight, axis=1)
    share = np.exp(log_weight - log_total[:, None])  # sums to one
    strata = np.split(share, np.cumsum(counts)[:-1], axis=1)
    several = [stratum for stratum in strata if stratum.shape[1] > 1]
    variance = np.full(len(share), np.nan if not several else 0.0)  # one draw says nothing of its error
    for stratum in several:
        variance += stratum.shape[1] * stratum.var(axis=1, ddof=1)
    effective = 1.0 / np.sum(share**2, axis=1)
    return log_total - np.log(n_draws), np.sqrt(variance), effective, pareto_k(log_weight)


def pareto_k(log_weight: np.ndarray) -> np.ndarray:
    """Shape of a generalised Pareto distribution fitted to each row's largest weights.

    Parameters
    ----------
    log_weight : (n_rows, n_draws)

    Returns
    -------
    (n_rows,) : the estimate k̂, drawn towards 0.5 by a prior worth ten draws; nan below 25 draws

    Source: Zhang & Stephens 2009 (quick Bayesian fit), as used by Vehtari et al. 2024, arXiv:1507.02646, section 2.
    """
    n_rows, n_draws = log_weight.shape
    if n_draws < 25:
        return np.full(n_rows, np.nan)
    n_tail = int(np.ceil(min(0.2 * n_draws, 3.0 * np.sqrt(n_draws))))
    cut = np.partition(log_weight, n_draws - n_tail - 1, axis=1)[:, n_draws - n_tail - 1 :]
    cut = np.sort(cut, axis=1)
    top = cut[:, -1:]
    excess = np.exp(cut[:, 1:] - top) - np.exp(cut[:, :1] - top)  # (n_rows, n_tail), ascending
    excess = np.maximum(excess, 1e-300)
    quarter = excess[:, int(n_tail / 4 + 0.5) - 1]
    n_grid = 30 + int(np.sqrt(n_tail))
    grid = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))  # (n_grid,)
    theta = grid / (3.0 * quarter[:, None]) + 1.0 / excess[:, -1:]  # (n_rows, n_grid)
    shape = np.mean(np.log1p(-theta[:, :, None] * excess[:, None, :]), axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = n_tail * (np.log(-theta / shape) - shape - 1.0)
    profile = np.where(np.isfinite(profile), profile, -np.inf)
    weight = np.exp(profile - logsumexp(profile, axis=1, keepdims=True))
    chosen = np.sum(theta * weight, axis=1)
    k = np.mean(np.log1p(-chosen[:, None] * excess), axis=1)
    flat = cut[:, -1] - cut[:, 0] < 1e-6  # equal weights have no tail at all
    return np.where(flat, -np.inf, (k * n_tail + 5.0) / (n_tail + 10.0))
