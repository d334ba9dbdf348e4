"""Baselines for mixed tables: the product of marginals, and mixtures of such products.

Every cell's law is the column's own (same kinds, resolutions, atoms and reserved mass as the model it is
compared with); only the dependence between columns differs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from diabolo import Schema

CHUNK = 4096
MIN_SCALE = 1e-3  # the floor of every learned scale, in the column's spread
SMOOTHING = 0.5  # pseudo-rows per level, as Krichevsky and Trofimov 1981


class Cell(NamedTuple):
    """Where one modelled column's encoded values and raw parameters lie; half its resolution, encoded."""

    kind: str
    values: np.ndarray
    params: np.ndarray
    half: float


def cells_of(schema: Schema) -> list[Cell]:
    """The modelled columns, in the order of the joint likelihood."""
    joint = schema.likelihood()
    cells = []
    modelled = [column.kind for column in schema.columns if column.kind.counted and not column.given]
    for j, kind in enumerate(modelled):
        law = kind.likelihood()
        of_values, of_params = joint.column_of_value == j, joint.column_of_param == j
        half = float(law.half) if getattr(law, "coarse", False) else 0.0
        cells.append(Cell(kind.name, np.flatnonzero(of_values), np.flatnonzero(of_params), half))
    return cells


class Mixture:
    """A mixture of products of column laws, fitted to rows by expectation-maximisation.

    The M-step sets a real column's mean and variance and a discrete column's frequencies to their weighted
    moments (Sheppard's correction takes the rounding out of the variance). A few hundred steps of gradient
    ascent on the training likelihood follow, because moments are not quite the maximum for rounded numbers.

    Source: Dempster, Laird & Rubin 1977; the moments are those of a latent class model.
    """

    def __init__(self, schema: Schema, n_products: int, seed: int = 0) -> None:
        self.schema, self.n_products, self.seed = schema, n_products, seed
        self.law = schema.likelihood()
        self.cells = cells_of(schema)
        unknown = {cell.kind for cell in self.cells} - {"real", "binary", "categorical"}
        assert not unknown, f"no weighted update is written for {sorted(unknown)}"
        self.per_product = jax.jit(self._per_product)

    def fit(self, X: object, max_rounds: int = 200, n_ascent: int = 300) -> Mixture:
        """Fit to a table; the best of the rounds' training likelihoods is kept."""
        rows = self.schema.encode(X)
        values = np.asarray(rows.values, np.float32)
        observed = np.asarray(rows.observed)
        n_rows = len(values)
        if self.n_products > 1:
            labels = KMeans(self.n_products, n_init=1, random_state=self.seed).fit_predict(values)
            share = np.eye(self.n_products)[labels] * 0.9 + 0.1 / self.n_products
        else:
            share = np.ones((n_rows, 1))
        best, last = -np.inf, -np.inf
        for _ in range(max_rounds):
            weights, params = share.mean(0), self._moments(values, observed, share)
            terms = self._terms(params, values, observed) + np.log(weights)
            total = logsumexp(terms, axis=1)
            share = np.exp(terms - total[:, None])
            if total.mean() > best:
                best, self.weights, self.params = total.mean(), weights, params
            if total.mean() - last < 1e-5:
                break
            last = total.mean()
        self._ascend(values, observed, n_ascent, best)
        return self

    def score_samples(self, X: object) -> np.ndarray:
        """(n_rows,) nats, exact; log p of the observed cells in the user's units."""
        rows = self.schema.encode(X)
        terms = self._terms(self.params, rows.values, rows.observed) + np.log(self.weights)
        return logsumexp(terms, axis=1) + rows.offset

    def _per_product(self, params: Array, values: Array, observed: Array) -> Array:
        """(n_rows, n_products) log-likelihood of each row's observed cells under each product."""

        def one(product: Array) -> Array:
            spread = jnp.broadcast_to(product, (len(values), len(product)))
            return jnp.where(observed, self.law.log_prob(spread, values), 0.0).sum(1)

        return jax.vmap(one, out_axes=1)(params)

    def _terms(self, params: np.ndarray, values: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """The same for many rows, in padded chunks, so that one compilation serves."""
        found = []
        for start in range(0, len(values), CHUNK):
            part, seen = values[start : start + CHUNK], observed[start : start + CHUNK]
            short = CHUNK - len(part)
            padded = np.pad(part, ((0, short), (0, 0))), np.pad(seen, ((0, short), (0, 0)))
            found.append(np.asarray(self.per_product(jnp.asarray(params, jnp.float32), *padded), np.float64))
        return np.concatenate(found)[: len(values)]

    def _moments(self, values: np.ndarray, observed: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Raw parameters (n_products, n_params) whose laws have the weighted moments of the cells."""
        params = np.tile(np.asarray(self.law.initial, np.float64), (share.shape[1], 1))
        for j, cell in enumerate(self.cells):
            seen = observed[:, j]
            part, weight = values[seen][:, cell.values].astype(np.float64), share[seen]  # (n, width), (n, k)
            if cell.kind == "real":
                params[:, cell.params] = _normal(part, weight, cell.half)
                continue
            counts = weight.T @ part + SMOOTHING  # (n_products, width)
            if cell.kind == "binary":
                rest = weight.sum(0)[:, None] - counts + 2 * SMOOTHING
                params[:, cell.params] = np.log(counts) - np.log(rest)
            else:
                params[:, cell.params] = np.log(counts)
        return params

    def _ascend(self, values: np.ndarray, observed: np.ndarray, n_steps: int, best: float) -> None:
        """Gradient ascent on the mean training likelihood from the moments; kept only where it helped."""
        optimizer = optax.adam(optax.cosine_decay_schedule(0.02, n_steps))

        def loss(guess: dict[str, Array], part: Array, seen: Array) -> Array:
            terms = self._per_product(guess["params"], part, seen) + jax.nn.log_softmax(guess["logits"])
            return -jax.nn.logsumexp(terms, axis=1).mean()

        @jax.jit
        def step(guess, state, part, seen):  # type: ignore[no-untyped-def]
            updates, state = optimizer.update(jax.grad(loss)(guess, part, seen), state)
            return optax.apply_updates(guess, updates), state

        guess = {
            "params": jnp.asarray(self.params, jnp.float32),
            "logits": jnp.log(jnp.asarray(self.weights, jnp.float32)),
        }
        state = optimizer.init(guess)
        rng = np.random.default_rng(self.seed)
        for _ in range(n_steps):
            picked = rng.integers(0, len(values), min(CHUNK, len(values)))
            guess, state = step(guess, state, values[picked], observed[picked])
        logits = np.asarray(guess["logits"], np.float64)
        params, weights = np.asarray(guess["params"]), np.exp(logits - logsumexp(logits))
        if logsumexp(self._terms(params, values, observed) + np.log(weights), axis=1).mean() > best:
            self.params, self.weights = params, weights


def _normal(part: np.ndarray, weight: np.ndarray, half: float) -> np.ndarray:
    """Location, atoms' logits and raw scale, (n_products, 1 + n_atoms + 1), of cells (n, 1 + n_atoms)."""
    smooth = weight * (part[:, 1:].sum(1) == 0)[:, None]
    mass = smooth.sum(0) + 1e-9
    mean = smooth.T @ part[:, 0] / mass
    variance = smooth.T @ part[:, 0] ** 2 / mass - mean**2 - (2 * half) ** 2 / 12
    sigma = np.sqrt(np.maximum(variance, (2 * MIN_SCALE) ** 2))
    atoms = np.log(weight.T @ part[:, 1:] + SMOOTHING) - np.log(mass + SMOOTHING)[:, None]
    # the inverse of sigma = floor + (1 - floor) softplus(raw + log(e - 1))
    raw = np.log(np.expm1((sigma - MIN_SCALE) / (1 - MIN_SCALE))) - np.log(np.e - 1)
    return np.column_stack([mean, atoms, raw])
