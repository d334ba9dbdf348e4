"""One line per member, the small tables that its laws are tested with, and what integration says of them.

A new family adds its line to `CASES`; every law of `test_laws.py` then runs on it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import logsumexp

from diabolo.families.autoencoder import Autoencoder
from diabolo.families.conditional import ConditionalVAE
from diabolo.families.denoising import DenoisingAutoencoder
from diabolo.families.hierarchical import HierarchicalVAE
from diabolo.families.iwae import IWAE
from diabolo.families.semi_supervised import SemiSupervisedVAE
from diabolo.families.vae import VAE
from diabolo.table import Rows

N_ROWS = 400
SMALL: dict[str, Any] = {
    "n_components": 2,
    "hidden_layer_sizes": (16,),
    "max_steps": 1500,
    "random_state": 0,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A member at a size that trains in a second; called, it makes an unfitted one.

    condition : what `fit` is also given, made of X. The laws say no y: theirs are the readings without a condition.
    """

    member: type[Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    condition: Callable[[Any], np.ndarray] | None = None

    def __call__(self, **options: Any) -> Any:
        estimator = self.member(**{**SMALL, **self.options, **options})
        if self.condition is not None:
            estimator.fit = lambda X: self.member.fit(estimator, X, self.condition(X))
        return estimator


def halves(X: Any) -> np.ndarray:
    """Which half of the rows each belongs to by its first column: text, (n,)."""
    column = np.asarray(X)[:, 0].astype(float)
    return np.where(column > np.median(column), "upper", "lower")


def some_halves(X: Any) -> np.ndarray:
    """The halves of every third row, as labels; -1 for the others."""
    return np.where(np.arange(len(X)) % 3 == 0, np.asarray(halves(X) == "upper", int), -1)


CASES = {
    "VAE": Case(VAE),
    "IWAE": Case(IWAE, {"n_draws": 4}),
    "HierarchicalVAE": Case(HierarchicalVAE, {"n_components": (1, 1), "level_layer_sizes": (8,)}),
    "ConditionalVAE": Case(ConditionalVAE, {"given_dropout": 0.5}, halves),
    "SemiSupervisedVAE": Case(SemiSupervisedVAE, {}, some_halves),
    "Autoencoder": Case(Autoencoder),
    "DenoisingAutoencoder": Case(DenoisingAutoencoder, {"corruption_level": 0.1}),
}


@functools.cache
def _points() -> np.ndarray:
    generator = np.random.default_rng(0)
    cluster = generator.choice(3, N_ROWS, p=[0.5, 0.3, 0.2])
    flat = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])[cluster] + generator.normal(size=(N_ROWS, 2))
    lifted = flat @ np.array([[1.0, 0.5, -0.5, 0.2], [0.0, 1.0, 0.5, -1.0]])
    return lifted + 0.5 * generator.normal(size=(N_ROWS, 4)) + [0.0, 50.0, -3.0, 7.0]


def points() -> np.ndarray:
    """Three clusters on a noisy plane in four dimensions: (400, 4) real numbers without a grid."""
    return _points().copy()


def mixed() -> pd.DataFrame:
    """Two real columns, text, truth values and whole numbers; `mass` and `colour` have gaps; an odd index."""
    generator = np.random.default_rng(1)
    cluster = generator.choice(3, N_ROWS, p=[0.5, 0.3, 0.2])
    level = np.where(generator.random(N_ROWS) < 0.85, cluster, generator.integers(0, 3, N_ROWS))
    table = pd.DataFrame(
        {
            "length": 10.0 * (np.array([0.0, 4.0, 1.0])[cluster] + generator.normal(size=N_ROWS)),
            "mass": np.array([0.0, 1.0, 5.0])[cluster] + 0.5 * generator.normal(size=N_ROWS) - 3.0,
            "colour": np.array(["red", "green", "blue"], object)[level],
            "male": generator.random(N_ROWS) < np.array([0.2, 0.8, 0.5])[cluster],
            "legs": generator.choice([1, 2, 3, 4], N_ROWS, p=[0.1, 0.2, 0.3, 0.4]),
        },
        index=[f"row {i}" for i in range(N_ROWS)],
    )
    table.loc[generator.random(N_ROWS) < 0.1, "mass"] = np.nan
    table.loc[generator.random(N_ROWS) < 0.1, "colour"] = None
    return table


def nats(estimator: Any, X: Any) -> float:
    """Mean log-density of rows, a classifier's too."""
    return float(np.mean(estimator.score_samples(X)))


TABLES = {"points": points, "mixed": mixed}


@functools.cache
def fitted(name: str, table: str = "points") -> Any:
    """A case's estimator, fitted to one of `TABLES`; shared by all tests, so none may change it."""
    estimator = CASES[name]().fit(TABLES[table]())
    vars(estimator).pop("fit", None)
    return estimator


@eqx.filter_jit
def _log_likelihoods(model: Any, params: jax.Array, values: jax.Array, observed: jax.Array) -> jax.Array:
    """log p(observed cells of one row | code) at each code of a grid: (n_codes,) nats."""
    return jnp.sum(jnp.where(observed, model.likelihood.log_prob(params, values), 0.0), axis=1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A code of two components on a grid, and what the model says at each of its (n_codes,) points.

    log_prior : nats; params : (n_codes, n_params), the decoder's; cell : log of the area that a point stands for
    """

    log_prior: np.ndarray
    params: jax.Array
    cell: float

    @classmethod
    def of(cls, estimator: Any, n_side: int, given: Any = ()) -> "Grid":
        """Under one row of conditions, (given_width,)."""
        model = estimator.model_
        drawn = np.asarray(model.join(model.draw_prior(jax.random.key(0), 20_000)))
        labels = np.eye(
            dict(model.code_widths).get("label", 0), dtype=np.float32
        )  # summed out, where there are any
        drawn = drawn[:, : drawn.shape[1] - len(labels)]
        low, high = drawn.min(axis=0) - drawn.std(axis=0), drawn.max(axis=0) + drawn.std(axis=0)
        sides = np.linspace(low, high, n_side)  # (n_side, 2)
        points = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, 2).astype(np.float32)
        if len(labels):
            beside = np.repeat(labels, len(points), axis=0)
            points = np.hstack([np.tile(points, (len(labels), 1)), beside])
        codes = model.split(points)
        params = model.decode(codes, np.tile(np.asarray(given, np.float32), (len(points), 1)))
        return cls(
            np.asarray(model.log_prior(codes), np.float64), params, np.log(np.prod(sides[1] - sides[0]))
        )

    def log_joint(self, estimator: Any, rows: Rows) -> np.ndarray:
        """log p(observed cells of a row, code), (n_rows, n_codes) nats."""
        each = [
            np.asarray(_log_likelihoods(estimator.model_, self.params, values, observed), np.float64)
            for values, observed in zip(rows.values, rows.observed, strict=True)
        ]
        return np.array(each) + self.log_prior


def by_quadrature(estimator: Any, rows: Rows, n_side: int = 401) -> np.ndarray:
    """log p(row) of the observed cells by the rectangle rule over a code of two components: (n_rows,) nats.

    Each row under its own conditions.
    """
    out = np.empty(len(rows.values))
    for given in set(map(tuple, rows.given.tolist())):
        here = (rows.given == np.asarray(given, np.float32)).all(axis=1)
        part, grid = Rows(*(one[here] for one in rows)), Grid.of(estimator, n_side, given)
        out[here] = logsumexp(grid.log_joint(estimator, part), axis=1) + grid.cell + part.offset
    return out


def law_given_rest(
    estimator: Any, rows: Rows, column: int, n_side: int = 101
) -> tuple[np.ndarray, np.ndarray]:
    """What p(a modelled column | observed cells) is, by quadrature over a code of two components.

    Returns
    -------
    (n_rows, width) : the mean of the column's encoded cells; for levels their probabilities, were each seen
    (n_rows,) : the spread of the first encoded cell, that of plain real columns
    """
    grid, likelihood = Grid.of(estimator, n_side, rows.given[0]), estimator.model_.likelihood
    log_joint = grid.log_joint(estimator, rows)
    weights = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    here = np.flatnonzero(likelihood.column_of_value == column)
    n_draws = 64  # at each of 10,201 codes: the law's own spread needs no formula of its own
    drawn = np.asarray(
        likelihood.draw(jnp.repeat(grid.params, n_draws, axis=0), jax.random.key(1)), np.float64
    )
    cells = drawn[:, here].reshape(-1, n_draws, len(here))
    mean = weights @ cells.mean(axis=1)
    square = weights @ (cells[:, :, 0] ** 2).mean(axis=1)
    return mean, np.sqrt(np.maximum(square - mean[:, 0] ** 2, 0.0))
