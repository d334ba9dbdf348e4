"""Odd rows and the cells to blame: surprise, blame, and scikit-learn's outlier detector on top of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted

from diabolo import density, devices, passes
from diabolo.batches import Batch, chunks, row_keys, rows_together
from diabolo.checks import InputTypeError, Range, check_params, refuse
from diabolo.density import weighted_codes
from diabolo.estimator import DiaboloEstimator
from diabolo.impute import conditional_draws
from diabolo.keys import key_of
from diabolo.model import CodeModel, DirectModel, Model, on_device
from diabolo.table import Rows, missing
from diabolo.table.layout import Place
from diabolo.table.schema import Schema

__all__ = ["Blame", "OutlierDetector", "blame", "cell_nats", "leave_one_out", "percentile", "surprise"]

_N_EXPECTED = 256  # rows drawn from the model for what it expects of a pattern of gaps
_N_CODES = 256  # codes per row behind a blame
_N_RANGE = 200  # draws per cell behind an expected value and its range


def surprise(
    estimator: Any, X: Any, *, values: np.ndarray | None = None, n_expected: int = _N_EXPECTED
) -> np.ndarray:
    """How much less likely a row is than the model's own rows with the same gaps.

    Parameters
    ----------
    estimator : fitted
    X : rows
    values : (n_rows,) their log-densities where these are known already
    n_expected : draws behind what is expected of each pattern of gaps

    Returns
    -------
    (n_rows,) : nats; -log p(observed cells) minus its mean over the model's own draws with the same cells missing,
        so that rows with different gaps compare; 0 is as expected
    """
    values = estimator.score_samples(X) if values is None else values  # first: it looks at X's columns
    schema = estimator.schema_
    modelled = np.isin(np.arange(len(schema.columns)), [place.column for place in schema.layout.places])
    holes = missing(schema, X) & modelled  # a gap in a name makes no pattern of its own
    patterns, which = np.unique(holes, axis=0, return_inverse=True)
    return -values - _expected(estimator, patterns, n_expected)[which.ravel()]


def percentile(surprises: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Where surprises stand among those of rows that the model never saw.

    Parameters
    ----------
    surprises : (n_rows,) nats
    held_out : (n_held_out,) nats, of rows used neither for training nor for stopping: training rows surprise less

    Returns
    -------
    (n_rows,) : per cent of the held-out rows that surprise less, 0 to 100
    """
    below = np.searchsorted(np.sort(held_out), surprises, side="left")
    return 100.0 * below / max(len(held_out), 1)


def _expected(estimator: Any, patterns: np.ndarray, n_rows: int) -> np.ndarray:
    """Mean of -log p over the model's draws, for each pattern of gaps (n_patterns, n_features): (n_patterns,)."""
    schema, seed = estimator.schema_, estimator._seed
    _must_stand_alone(schema, "surprise")
    drawn = estimator.sample(n_rows, random_state=seed)
    encoded = [
        schema.encode(drawn, hidden=np.broadcast_to(pattern, (n_rows, len(pattern)))) for pattern in patterns
    ]
    # one reading of all patterns, with no padding between them
    rows = Rows(*(np.concatenate(parts) for parts in zip(*encoded, strict=True)))
    values = density.reading_of(estimator.model_, rows, density.N_DRAWS, seed).values
    return -values.reshape(len(patterns), n_rows).mean(axis=1)


def _must_stand_alone(schema: Schema, what: str) -> None:
    """Refuse a conditional model."""
    if schema.given_width:
        want = "a model without given columns: what is expected would depend on the conditions"
        raise refuse(what, got="a model with given columns", want=want)


@dataclass(frozen=True)
class Blame:
    """For each cell, how unlikely it is given the row's other cells, and what was expected in its place.

    Attributes
    ----------
    columns : the columns' names, in order
    nats : (n_rows, n_features), -log p(cell | other cells) in the user's units; nan at gaps and where there is no law
    excess : (n_rows, n_features), the same minus what is usual in the column: cells of different columns compare
    expected : per column (n_rows,), the middle of p(cell | other cells)
    low, high : (n_rows, n_features), its central 90 % in the column's units; nan where levels have no order
    values : (n_rows, n_features), the cells themselves in the same units; nan likewise, and at gaps
    """

    columns: tuple[str | int, ...]
    nats: np.ndarray
    excess: np.ndarray
    expected: list[np.ndarray]
    low: np.ndarray
    high: np.ndarray
    values: np.ndarray

    def part(self, rows: np.ndarray) -> Blame:
        """The same for some rows."""
        per_column = [column[rows] for column in self.expected]
        arrays = (self.nats[rows], self.excess[rows], per_column, self.low[rows], self.high[rows])
        return Blame(self.columns, *arrays, self.values[rows])

    def worst(self) -> np.ndarray:
        """(n_rows,) place of the column with the largest excess."""
        return np.argmax(np.where(np.isnan(self.excess), -np.inf, self.excess), axis=1)


def blame(estimator: Any, X: Any, usual: np.ndarray | None = None) -> Blame:
    """Blame every cell of every row: -log p(cell | the row's other cells).

    Each column is hidden in turn; codes are proposed from the cells left, weighed by them, and the cell's law
    averaged over those codes: p(x_j | x_rest) = E[p(x_j | z) | x_rest]. Never a reconstruction error.

    Parameters
    ----------
    estimator : fitted
    X : rows
    usual : (n_features,) nats to compare with; None takes the mean over the model's own draws

    Returns
    -------
    Blame
    """
    schema, model, seed = estimator.schema_, on_device(estimator.model_), estimator._seed
    if usual is None:
        _must_stand_alone(schema, "blame")
        usual = usual_blame(estimator)
    n_features = len(schema.columns)
    whole = schema.encode(X)
    n_rows = len(whole.values)
    nats, low, high, cells_seen = (np.full((n_rows, n_features), np.nan) for _ in range(4))
    expected: list[np.ndarray] = [np.full(n_rows, np.nan) for _ in range(n_features)]
    for i, place, left in _hidden_in_turn(schema, X, n_rows):
        nats[:, place.column] = _nats_of_cell(model, schema, whole, left, i, seed)
        draws = np.concatenate(list(conditional_draws(model, left, _N_RANGE, seed)))
        cells = draws[:, :, place.start : place.stop].astype(np.float64)
        expected[place.column] = place.kind.centre(cells)
        values = place.kind.decode(cells.reshape(-1, cells.shape[2]))
        if values.dtype != object and place.kind.ranked:
            ends = np.quantile(values.reshape(n_rows, -1), [0.05, 0.95], axis=1)
            low[:, place.column], high[:, place.column] = ends
            own = place.kind.decode(whole.values[:, place.start : place.stop].astype(np.float64))
            cells_seen[:, place.column] = np.where(whole.observed[:, i], own, np.nan)
    return Blame(schema.names, nats, nats - usual, expected, low, high, cells_seen)


def cell_nats(estimator: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """How unlikely each cell is given the row's other cells, and by its column's own marginal law.

    Returns
    -------
    given_others, alone : (n_rows, n_features) nats each, user's units; the first is `Blame.nats`. The mean of their
        difference is how much the other columns tell of one.
    """
    schema, model, seed = estimator.schema_, on_device(estimator.model_), estimator._seed
    whole, n_features = schema.encode(X), len(schema.columns)
    n_rows = len(whole.values)
    given_others, alone = (np.full((n_rows, n_features), np.nan) for _ in range(2))
    marginal = passes.marginals(model.likelihood, whole)
    for i, place, left in _hidden_in_turn(schema, X, n_rows):
        given_others[:, place.column] = _nats_of_cell(model, schema, whole, left, i, seed)
        with np.errstate(invalid="ignore"):  # both are infinite where another column cannot hold its cell
            nats = -(marginal[:, i] + whole.offset - left.offset)
        alone[:, place.column] = np.where(whole.observed[:, i], nats, np.nan)
    return given_others, alone


def leave_one_out(estimator: Any, X: Any, n_draws: int = density.N_DRAWS) -> np.ndarray:
    """A cheap look at every cell's blame: one set of codes per row serves all its cells.

    Codes are proposed from the whole row; leaving a cell out divides their weights by its law:
    p(x_j | rest) = E[w] / E[w / p(x_j | z)]. Where the cell itself misled the proposal this is uneven, so it is good
    for choosing rows to look at, and for pictures, whose single pixels mislead little; `blame` hides the cell instead.

    Returns
    -------
    (n_rows, n_modelled columns) nats of the encoded cells; nan at gaps; an estimate

    Source: Gelfand, Dey & Chang 1992, importance-weighted leave-one-out; Vehtari, Gelman & Gabry 2017, eq. 10,
    arXiv:1507.04544, without the smoothing of the weights.
    """
    rows, key = estimator.schema_.encode(X), key_of(estimator._seed, 3)
    model, size = on_device(estimator.model_), rows_together(n_draws)
    found = [
        -np.asarray(_log_left_out(model, batch, n_draws, key), np.float64)[:n]
        for batch, n in chunks(rows, size)
    ]
    return np.where(rows.observed, np.concatenate(found), np.nan)


def usual_blame(estimator: Any, n_rows: int = 128) -> np.ndarray:
    """Mean blame of each column over the model's own draws: (n_features,) nats."""
    drawn = estimator.sample(n_rows, random_state=estimator._seed)
    return np.nan_to_num(cell_nats(estimator, drawn)[0].mean(axis=0))


def _hidden_in_turn(schema: Schema, X: Any, n_rows: int) -> Iterator[tuple[int, Place, Rows]]:
    """Each modelled column: its number, its place, and the rows encoded without it."""
    for i, place in enumerate(schema.layout.places):
        hidden = np.zeros((n_rows, len(schema.columns)), bool)
        hidden[:, place.column] = True
        yield i, place, schema.encode(X, hidden=hidden)


def _nats_of_cell(
    model: Model, schema: Schema, whole: Rows, left: Rows, column: int, seed: int
) -> np.ndarray:
    """(n_rows,) nats: -log p(cell | the others) of one modelled column; nan where the cell is a gap."""
    size = rows_together(_N_CODES)
    key = key_of(seed, 2)
    pairs = zip(chunks(left, size), chunks(whole, size), strict=True)
    found = [
        np.asarray(_log_predictive(model, hidden, full, jnp.int32(column), key), np.float64)[:n]
        for (hidden, n), (full, _) in pairs
    ]
    with np.errstate(invalid="ignore"):
        nats = -(np.concatenate(found) + whole.offset - left.offset)
        price = left.offset - whole.offset  # of a level never seen, or a value that the column cannot hold
    return np.where(whole.observed[:, column], nats, np.where(price > 0, price, np.nan))


@devices.compiled
def _log_predictive(model: Model, left: Batch, whole: Batch, column: Array, key: Array) -> Array:
    """log p(cell | the others), (n_rows,) nats of the encoded cell; `column` is an operand: one program for all.

    Half of the codes are proposed from the row without the cell, half from the whole row, weighed by both proposals
    together (the balance heuristic, Veach & Guibas 1995): where one column nearly determines another, an encoder that
    never saw that gap proposes codes far from the narrow posterior.
    """
    if isinstance(model, DirectModel):
        return _log_mean(model, whole, _N_CODES, key) - _log_mean(model, left, _N_CODES, key)
    assert isinstance(model, CodeModel), "a model says its density itself or has a code"
    half = _N_CODES // 2
    proposals = [model.proposal(left), model.proposal(whole)]
    keys = [row_keys(batch, key) for batch in (left, whole)]
    codes = jnp.concatenate([q.draw(k, half)[0] for q, k in zip(proposals, keys, strict=True)], axis=1)
    log_q = jnp.logaddexp(*(q.log_prob(codes, half) for q in proposals)) - jnp.log(2.0)

    def at(drawn: Array) -> tuple[Array, Array]:
        groups = model.split(drawn)
        cells = model.likelihood.log_prob(model.decode(groups, left.given), whole.values)
        seen = jnp.sum(jnp.where(left.observed, cells, 0.0), axis=1)
        return seen + model.log_prior(groups), cells[:, column]

    log_joint, cell = jax.vmap(at, in_axes=1, out_axes=1)(codes)
    log_weights = log_joint - log_q
    return jax.nn.logsumexp(log_weights + cell, axis=1) - jax.nn.logsumexp(log_weights, axis=1)


@devices.compiled
def _log_left_out(model: Model, batch: Batch, n_draws: int, key: Array) -> Array:
    """log p(cell | the others) of every cell of the rows at once: (n_rows, n_columns) nats."""
    if isinstance(model, DirectModel):

        def without(column: Array) -> Array:
            kept = jnp.arange(batch.observed.shape[1]) != column
            left = dataclasses.replace(batch, observed=batch.observed & kept)
            return _log_mean(model, left, n_draws, key)

        rest = jax.lax.map(without, jnp.arange(batch.observed.shape[1]))
        return _log_mean(model, batch, n_draws, key)[:, None] - rest.T
    assert isinstance(model, CodeModel), "a model says its density itself or has a code"
    codes, log_weights, _ = weighted_codes(model, batch, n_draws, key)

    def of_rows(drawn: Array) -> Array:
        return model.likelihood.log_prob(model.decode(model.split(drawn), batch.given), batch.values)

    cells = jax.vmap(of_rows, in_axes=1, out_axes=1)(codes)  # (n_rows, n_draws, n_columns)
    rest = jax.nn.logsumexp(log_weights[:, :, None] - cells, axis=1)
    return jax.nn.logsumexp(log_weights, axis=1)[:, None] - rest


def _log_mean(model: DirectModel, batch: Batch, n_draws: int, key: Array) -> Array:
    """log p(observed cells), (n_rows,) nats of the encoded cells."""
    weights = model.log_weights(batch, n_draws, row_keys(batch, key))
    return jax.nn.logsumexp(weights, axis=1) - jnp.log(weights.shape[1])


class OutlierDetector(OutlierMixin, BaseEstimator):
    """scikit-learn's outlier detector over any member that has a density.

    Parameters
    ----------
    estimator : the density; None is `VAE()`
    contamination : share of the training rows to call odd, between 0 and 0.5

    Attributes
    ----------
    estimator_ : fitted
    offset_ : the score below which a row is odd
    n_features_in_, feature_names_in_ : of the training data

    Notes
    -----
    Scores are minus the surprise: larger is more ordinary, as everywhere in scikit-learn; PyOD's are the other way
    round, its `decision_function` is large for odd rows and its labels are 1 for odd, 0 for ordinary ones.

    Examples
    --------
    >>> import numpy as np
    >>> from diabolo import VAE, OutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = OutlierDetector(VAE(max_steps=200, random_state=0)).fit(X)
    >>> detector.predict(np.array([[0.0, 0.0, 0.0], [9.0, -9.0, 9.0]])).tolist()
    [1, -1]
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {"contamination": [Range(0.0, 0.5, open_low=True)]}

    def __init__(self, estimator=None, *, contamination=0.05):
        self.estimator = estimator
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the density and set the threshold at the `contamination` quantile of the training scores."""
        check_params({"contamination": self.contamination}, self._constraints)
        estimator = _default() if self.estimator is None else self.estimator
        if not isinstance(estimator, DiaboloEstimator):
            raise refuse(
                "parameter 'estimator'",
                got=f"{type(estimator).__name__}, which is none of this library's",
                want="a member with a density, such as VAE()",
                error=InputTypeError,
            )
        self.estimator_ = clone(estimator).fit(X)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        self.offset_ = float(np.quantile(self.score_samples(X), self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Minus the surprise of each row: (n_rows,) nats, larger is more ordinary."""
        check_is_fitted(self)
        return -surprise(self.estimator_, X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores minus `offset_`: negative for odd rows."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """(n_rows,) int: -1 for odd rows, +1 for ordinary ones."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def explain(self, X: Any) -> Blame:
        """The blame of every cell; see `Blame`."""
        check_is_fitted(self)
        return blame(self.estimator_, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _default() -> Any:
    from diabolo.families.vae import VAE

    return VAE()
