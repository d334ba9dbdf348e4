"""One line per member, the small tables that its laws are tested with, and what integration says of them.

A new family adds its line to `CASES`; every law of `test_laws.py` then runs on it.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import logsumexp

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.density import reading_of
from diabolo.families.autoencoder import Autoencoder
from diabolo.families.conditional import ConditionalVAE
from diabolo.families.denoising import DenoisingAutoencoder
from diabolo.families.gsn import GSN
from diabolo.families.hierarchical import HierarchicalVAE
from diabolo.families.iwae import IWAE
from diabolo.families.made import MADE
from diabolo.families.nonlocal_parzen import NonlocalManifoldParzen
from diabolo.families.normalizing_flow import NormalizingFlow
from diabolo.families.parzen import ManifoldParzen
from diabolo.families.rbm import RBM
from diabolo.families.semi_supervised import SemiSupervisedVAE
from diabolo.families.vae import VAE
from diabolo.model import DirectModel
from diabolo.orders import ranks_after
from diabolo.table import Rows

N_ROWS = 400
#: What is asked of one member instead of its like is asked of all by `make test-all`: minutes of compiling.
THOROUGH = bool(os.environ.get("DIABOLO_THOROUGH"))
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
    with_cell : (estimator, rows, column) to log p of the rows with a cell, by the reading that would leave it out; None
        where there is one reading for both
    no_bottleneck : why `reconstruct` need not keep most of a row
    no_decoder : why no decoder can be silenced nor an encoder be looked at; its own file says what stands in for them
    untrained : why no untrained copy of it can be compared with; empty where one can
    chained : by how much of a spread draws given the rest may be off, beside what chance allows: a clamped chain and
        the density's own law of the missing cells agree only as far as the network's laws do
    anew : (estimator, X, seed) to its model with what a reading's error is of drawn anew, where that is not drawn in
        the reading itself
    """

    member: type[Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    condition: Callable[[Any], np.ndarray] | None = None
    with_cell: Callable[[Any, Rows, int], np.ndarray] | None = None
    no_bottleneck: str = ""
    no_decoder: str = ""
    untrained: str = ""
    chained: float = 0.0
    anew: Callable[[Any, Any, int], Any] | None = None

    def __call__(self, **options: Any) -> Any:
        known = self.member().get_params(deep=False)  # members of kernels take no step, and no batch
        wanted = {**SMALL, **self.options, **options}
        estimator = self.member(**{name: value for name, value in wanted.items() if name in known})
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


@devices.compiled
def _in_order(model: Any, batch: Batch, ranks: jax.Array) -> jax.Array:
    """log p of each row by its one network in an order of the row's own: (n_rows,) nats."""
    return jax.vmap(model._first().log_prob_in)(batch, ranks)


def _in_orders_that_end_with(estimator: Any, rows: Rows, column: int) -> np.ndarray:
    """log p of whole rows by MADE's orders, each moved so that it ends with one column: (n_rows,) nats."""
    model, batch = estimator.model_, Batch.of(rows)
    left = rows.observed & (np.arange(rows.observed.shape[1]) != column)
    each = []
    for ranks in model.orders[0]:
        moved = jax.vmap(ranks_after, in_axes=(None, 0))(jnp.asarray(ranks), left)
        each.append(_in_order(model, batch, moved))
    return logsumexp(np.array(each, np.float64), axis=0) - np.log(len(each)) + rows.offset


def _in_its_one_reading(estimator: Any, rows: Rows, column: int) -> np.ndarray:
    """log p of rows, the same whichever cell is left out: (n_rows,) nats."""
    return reading_of(estimator.model_, rows, 256, 0).values


def _other_states(estimator: Any, X: Any, seed: int) -> Any:
    """GSN's model with states of other chains."""
    batches = Batches.split(Batch.of(estimator.schema_.encode(X)), 128, 0.0, seed)
    return estimator.model_.finish(batches, jax.random.key(1000 + seed))


ITS_KERNELS = "its kernels are of the rows: what stands in for the decoder is in test_parzen"
ITS_LAYERS = "its layers are encoder and decoder at once: test_normalizing_flow looks at them"
ITS_ROWS = "without its rows there is no model, and nothing else is trained: test_parzen judges the widths"
ITS_NOISE = (
    "an untrained network's kernels are nearly round and their noise is settled like any: see test_parzen"
)


CASES = {
    "VAE": Case(VAE),
    "IWAE": Case(IWAE, {"n_draws": 4}),
    "HierarchicalVAE": Case(HierarchicalVAE, {"n_components": (1, 1), "level_layer_sizes": (8,)}),
    "ConditionalVAE": Case(ConditionalVAE, {"given_dropout": 0.5}, halves),
    "SemiSupervisedVAE": Case(SemiSupervisedVAE, {}, some_halves),
    "M1 + M2": Case(
        SemiSupervisedVAE,
        {"stacked": True, "n_components": 1, "n_feature_components": 2, "label_layer_sizes": (8,)},
        some_halves,
    ),
    "Autoencoder": Case(Autoencoder),
    "DenoisingAutoencoder": Case(DenoisingAutoencoder, {"corruption_level": 0.1}),
    "MADE": Case(
        MADE,
        {"hidden_layer_sizes": (64,), "n_orders": 3, "n_parts": 3, "agnostic": 0.1, "dropout": 0.0},
        with_cell=_in_orders_that_end_with,
        no_bottleneck="each column is told from those before it only, the first from none",
        no_decoder="one network reads and says; its start is a mixture near the marginal laws (test_made.py)",
    ),
    "NormalizingFlow": Case(NormalizingFlow, {"n_layers": 1, "max_steps": 400}, no_decoder=ITS_LAYERS),
    "ManifoldParzen": Case(
        ManifoldParzen, {"n_neighbors": 11, "n_directions": 2}, no_decoder=ITS_KERNELS, untrained=ITS_ROWS
    ),
    "NonlocalManifoldParzen": Case(
        NonlocalManifoldParzen, {"max_steps": 300}, no_decoder=ITS_KERNELS, untrained=ITS_NOISE
    ),
    "GSN": Case(
        GSN,
        {"n_states": 1024, "n_burn": 30, "max_steps": 600},
        with_cell=_in_its_one_reading,
        chained=0.15,
        anew=_other_states,
    ),
    "RBM": Case(
        RBM,
        {"n_components": 6, "max_steps": 600},
        no_decoder="one matrix is encoder and decoder: test_rbm looks at it",
    ),
}

#: A member whose table, network and readings are another's, and whose training alone differs.
TWINS = {
    "IWAE": "VAE",
    "ConditionalVAE": "VAE",
    "DenoisingAutoencoder": "Autoencoder",
    "M1 + M2": "SemiSupervisedVAE",
}


@functools.cache
def _points(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    cluster = generator.choice(3, N_ROWS, p=[0.5, 0.3, 0.2])
    flat = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])[cluster] + generator.normal(size=(N_ROWS, 2))
    lifted = flat @ np.array([[1.0, 0.5, -0.5, 0.2], [0.0, 1.0, 0.5, -1.0]])
    return lifted + 0.5 * generator.normal(size=(N_ROWS, 4)) + [0.0, 50.0, -3.0, 7.0]


def points(seed: int = 0) -> np.ndarray:
    """Three clusters on a noisy plane in four dimensions: (400, 4) real numbers without a grid."""
    return _points(seed).copy()


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


def among_chances(name: str, table: str, rows: Rows, n_readings: int) -> tuple[np.ndarray, list[Any]]:
    """What is estimated of rows, (n_rows,) nats, and readings of 1,000 draws that differ by chance alone."""
    estimator, X = fitted(name, table), TABLES[table]()
    anew = CASES[name].anew
    if anew is None:
        readings = [reading_of(estimator.model_, rows, 1000, seed) for seed in range(n_readings)]
        return by_quadrature(estimator, rows), readings
    readings = [reading_of(anew(estimator, X, seed), rows, 1000, 0) for seed in range(n_readings)]
    others = [reading_of(anew(estimator, X, n_readings + seed), rows, 1000, 0).values for seed in range(32)]
    return logsumexp(others, axis=0) - np.log(len(others)), readings


TABLES = {"points": points, "mixed": mixed}


@functools.cache
def fitted(name: str, table: str = "points") -> Any:
    """A case's estimator, fitted to one of `TABLES`; shared by all tests, so none may change it."""
    estimator = CASES[name]().fit(TABLES[table]())
    vars(estimator).pop("fit", None)
    return estimator


@devices.compiled
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
        codes = model.draw_prior(jax.random.key(0), 20_000)
        labels = np.eye(
            dict(model.code_widths).get("label", 0), dtype=np.float32
        )  # summed out, where there are any
        first = next(iter(model.code_widths))[0]
        drawn = np.asarray(codes["features"] if first == "features" else model.join(codes))
        drawn = drawn[:, :2]
        low, high = drawn.min(axis=0) - drawn.std(axis=0), drawn.max(axis=0) + drawn.std(axis=0)
        sides = np.linspace(low, high, n_side)  # (n_side, 2)
        points = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, drawn.shape[1]).astype(np.float32)
        cell = np.log(np.prod(sides[1] - sides[0]))
        if first == "features":
            conditions = np.tile(np.asarray(given, np.float32), (len(points), 1))
            zeros = {name: np.zeros((len(points), n), np.float32) for name, n in model.code_widths}
            params = model.decode(zeros | {"features": points}, conditions)
            return cls(_log_prior_of_features(model, points, labels), params, cell)
        if len(labels):
            beside = np.repeat(labels, len(points), axis=0)
            points = np.hstack([np.tile(points, (len(labels), 1)), beside])
        codes = model.split(points)
        params = model.decode(codes, np.tile(np.asarray(given, np.float32), (len(points), 1)))
        return cls(np.asarray(model.log_prior(codes), np.float64), params, cell)

    def log_joint(self, estimator: Any, rows: Rows) -> np.ndarray:
        """log p(observed cells of a row, code), (n_rows, n_codes) nats."""
        each = [
            np.asarray(_log_likelihoods(estimator.model_, self.params, values, observed), np.float64)
            for values, observed in zip(rows.values, rows.observed, strict=True)
        ]
        return np.array(each) + self.log_prior


def _log_prior_of_features(model: Any, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log p(features) of M1 + M2, (n,) nats: its label is summed out, its one number of style integrated."""
    style = np.linspace(-6.0, 6.0, 121, dtype=np.float32)[:, None]
    total = np.full(len(features), -np.inf)
    for label, log_frequency in zip(labels, np.asarray(model.log_frequency), strict=True):
        made = model.made(style, np.tile(label, (len(style), 1)))
        each = np.asarray(made.log_prob_of_all(features), np.float64)  # (n, 121)
        log_prior = -0.5 * style[:, 0] ** 2 - 0.5 * np.log(2.0 * np.pi) + np.log(0.1) + log_frequency
        total = np.logaddexp(total, logsumexp(each + log_prior, axis=1))
    return total


def by_quadrature(estimator: Any, rows: Rows, n_side: int = 401) -> np.ndarray:
    """log p(row) of the observed cells by the rectangle rule over a code of two components: (n_rows,) nats.

    Each row under its own conditions. A model that says its density itself is asked with many draws, of another seed.
    """
    if isinstance(estimator.model_, DirectModel):
        many = [reading_of(estimator.model_, rows, 4096, 1000 + seed).values for seed in range(4)]
        return logsumexp(many, axis=0) - np.log(len(many))
    out = np.empty(len(rows.values))
    for given in set(map(tuple, rows.given.tolist())):
        here = (rows.given == np.asarray(given, np.float32)).all(axis=1)
        part, grid = Rows(*(one[here] for one in rows)), Grid.of(estimator, n_side, given)
        out[here] = logsumexp(grid.log_joint(estimator, part), axis=1) + grid.cell + part.offset
    return out


def _law_of_cells(estimator: Any, rows: Rows, column: int) -> tuple[np.ndarray, np.ndarray]:
    """`law_given_rest` of a model without a code: each value that the cell may have, weighed by its density."""
    here = np.flatnonzero(estimator.model_.likelihood.column_of_value == column)
    cells = np.eye(len(here)) if len(here) > 1 else np.linspace(-6.0, 6.0, 121)[:, None]
    with_cell = CASES[type(estimator).__name__].with_cell or _in_its_one_reading
    n_rows, n_cells = len(rows.values), len(cells)
    filled = Rows(*(np.repeat(part, n_cells, axis=0) for part in rows))
    filled.values[:, here] = np.tile(cells, (n_rows, 1))
    filled.observed[:, column] = True
    nats = with_cell(estimator, filled, column).reshape(n_rows, n_cells)
    weights = np.exp(nats - logsumexp(nats, axis=1, keepdims=True))
    mean = weights @ cells
    return mean, np.sqrt(np.maximum(weights @ cells[:, 0] ** 2 - mean[:, 0] ** 2, 0.0))


def law_given_rest(
    estimator: Any, rows: Rows, column: int, n_side: int = 101
) -> tuple[np.ndarray, np.ndarray]:
    """What p(a modelled column | observed cells) is, by quadrature over a code of two components.

    Returns
    -------
    (n_rows, width) : the mean of the column's encoded cells; for levels their probabilities, were each seen
    (n_rows,) : the spread of the first encoded cell, that of plain real columns
    """
    if isinstance(estimator.model_, DirectModel):
        return _law_of_cells(estimator, rows, column)
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
