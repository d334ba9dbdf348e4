"""Parzen windows: a kernel on every training row, round (Parzen 1962) or along the data (Vincent & Bengio 2003)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import equinox as eqx
import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo.batches import Batches
from diabolo.checks import OneOf, Range
from diabolo.joint import JointLikelihood
from diabolo.kernel_estimator import KernelEstimator
from diabolo.kernels import Chart, KernelModel, Kernels, Learner
from diabolo.keys import seed_of
from diabolo.table import Schema

__all__ = ["ManifoldParzen", "ParzenWindow"]

# what "auto" tries: the paper's digits wanted 11 neighbours and 7 to 11 directions
_NEIGHBOURS = (5, 11, 23, 47)
_DIRECTIONS = (0, 1, 2, 4, 7, 11)


class ParzenModel(KernelModel):
    """Kernels of one width on every row, wider along the directions in which the neighbours lie.

    ```
    training rows ─▶ neighbours ─▶ local principal directions ─▶ Σᵢ ┐
    x ──────────────────────────────────────────────▶ 1/n Σᵢ N(x; xᵢ, Σᵢ) ─▶ log p(x)
    ```
    """

    likelihood: JointLikelihood
    kernels: Kernels
    chart: Chart
    smoothing: Array  # (2,) bandwidth, share of the levels' frequencies
    merit: Array  # () mean log-density of rows that had no kernel
    shape: Array  # (2,) neighbours and directions
    asked: tuple[Any, ...] = eqx.field(static=True)  # bandwidth, smoothing, neighbours, directions
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def begin(self, batches: Batches, key: Array) -> Self:
        """Settle the widths on held-out rows, then put a kernel on every row."""
        bandwidth, smoothing, n_neighbors, n_directions = self.asked
        learner = Learner.of(self.kernels, batches.train, seed_of(key) % 2**31)
        n_most = max(learner.n_rows - 1, 0)
        neighbours = _offered(n_neighbors, _NEIGHBOURS, n_most)
        directions = _offered(n_directions, _DIRECTIONS, min(n_most, learner.division.n_block))
        shape, settled = learner.shaped(bandwidth, smoothing, neighbours, directions)
        return eqx.tree_at(
            lambda model: (model.kernels, model.chart, model.smoothing, model.merit, model.shape),
            self,
            (
                learner.kernels(settled.smoothing, *shape),
                learner.chart(self.n_components),
                np.array(settled.smoothing, np.float32),
                np.float32(settled.merit),
                np.array(shape, np.float32),
            ),
        )


def _offered(asked: Any, choices: tuple[int, ...], most: int) -> list[int]:
    """What to try: the number asked for, or all choices, none above the most there can be."""
    return sorted({min(n, most) for n in (choices if asked == "auto" else (asked,))})


class ParzenWindow(KernelEstimator):
    """Parzen windows, or kernel density estimation: a round kernel on every training row.

    ```
    x ─▶ 1/n Σᵢ K(x; xᵢ) ─▶ p(x)        x ─▶ leading eigenfunctions of a wider kernel ─▶ codes
    ```

    The kernel is a product: Gaussians for real columns, tables of levels that keep a share of the column's own
    frequencies, the column's own law for counts and atoms. Nothing is trained but its two widths.

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    bandwidth : standard deviation of the kernels in spreads of each column; "auto" is the one under which rows without
        a kernel are likeliest. Never below three quarters of a column's resolution
    smoothing : share of a column's own frequencies in a kernel's table of levels, 0 to 1; "auto" likewise
    scaling : "column" measures each real column by its spread, "unit" all in the user's unit, bandwidth included;
        positive numbers and counts have none and are then as wide as the others typically
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    image_shape : (height, width[, channels]) of rows that are flattened images
    random_state : seed of the folds, of landmarks and draws
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the kernels, the columns
    n_features_in_, feature_names_in_ : of the training data
    bandwidth_, smoothing_ : the widths used
    best_validation_score_ : mean log-density of rows without a kernel, nats per row of the encoded cells
    density_kind_ : "exact"; "bound" with columns of pixels, where a Gaussian's mass beyond black and white is left out
    n_iter_, n_steps_, loss_curve_, validation_scores_ : one entry, as nothing is trained step by step

    References
    ----------
    Rosenblatt 1956; Parzen 1962. Bandwidth by held-out likelihood: Habbema, Hermans & van den Broek 1974; Duin 1976.
    Levels: Aitchison & Aitken 1976, with the column's frequencies in place of equal ones. Codes: Bengio et al. 2004,
    "Learning eigenfunctions links spectral embedding and kernel PCA".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ParzenWindow
    >>> X = load_iris().data
    >>> windows = ParzenWindow(n_components=2, random_state=0).fit(X)
    >>> windows.transform(X).shape, windows.sample(5).shape, windows.score_samples(X).shape
    ((150, 2), (5, 4), (150,))
    """

    def __init__(
        self,
        n_components="auto",
        *,
        bandwidth="auto",
        smoothing="auto",
        scaling="column",
        kinds=None,
        image_shape=None,
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.smoothing = smoothing
        self.scaling = scaling
        self.kinds = kinds
        self.image_shape = image_shape
        self.random_state = random_state
        self.verbose = verbose

    def build(self, schema: Schema, key: Array) -> ParzenModel:
        """The model of a table, before it has seen a row."""
        asked = (self.bandwidth, self.smoothing, 0, 0)
        return ParzenModel(**self._blank(schema), shape=np.zeros(2, np.float32), asked=asked)  # type: ignore[arg-type]


class ManifoldParzen(KernelEstimator):
    """Manifold Parzen windows: every kernel is stretched along the directions in which its row's neighbours lie.

    ```
    xᵢ ─▶ its neighbours ─▶ their leading directions, factorᵢ ─▶ Σᵢ = h² I + factorᵢᵀ factorᵢ
    x ─▶ 1/n Σᵢ N(x; xᵢ, Σᵢ) ─▶ p(x)
    ```

    Other columns than real ones have kernels as in `ParzenWindow`.

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    n_neighbors : of each row, from which its directions are taken; "auto" tries 5, 11, 23 and 47 by held-out likelihood
    n_directions : leading directions of each kernel; 0 is `ParzenWindow`; "auto" tries 0, 1, 2, 4, 7 and 11 likewise
    bandwidth, smoothing, scaling : as in `ParzenWindow`; the bandwidth is the noise in all directions
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    image_shape : (height, width[, channels]) of rows that are flattened images
    random_state : seed of the folds, of landmarks and draws
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the kernels, the columns
    n_features_in_, feature_names_in_ : of the training data
    bandwidth_, smoothing_, n_neighbors_, n_directions_ : as used
    best_validation_score_ : mean log-density of rows without a kernel, nats per row of the encoded cells
    density_kind_ : "exact"; "bound" with columns of pixels, where a Gaussian's mass beyond black and white is left out
    n_iter_, n_steps_, loss_curve_, validation_scores_ : one entry, as nothing is trained step by step

    References
    ----------
    Vincent & Bengio 2003, "Manifold Parzen windows", eq. 2 to 5, with the directions' own second moments about the row.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import ManifoldParzen
    >>> X = load_iris().data
    >>> windows = ManifoldParzen(n_neighbors=11, n_directions=2, random_state=0).fit(X)
    >>> windows.sample(5).shape, windows.score_samples(X).shape
    ((5, 4), (150,))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **KernelEstimator._kernel_constraints,
        "n_neighbors": [OneOf("auto"), Range(1, whole=True)],
        "n_directions": [OneOf("auto"), Range(0, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_neighbors="auto",
        n_directions="auto",
        bandwidth="auto",
        smoothing="auto",
        scaling="column",
        kinds=None,
        image_shape=None,
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.n_directions = n_directions
        self.bandwidth = bandwidth
        self.smoothing = smoothing
        self.scaling = scaling
        self.kinds = kinds
        self.image_shape = image_shape
        self.random_state = random_state
        self.verbose = verbose

    @property
    def n_neighbors_(self) -> int:
        check_is_fitted(self, "model_")
        return int(self.model_.shape[0])

    @property
    def n_directions_(self) -> int:
        check_is_fitted(self, "model_")
        return int(self.model_.shape[1])

    def build(self, schema: Schema, key: Array) -> ParzenModel:
        """The model of a table, before it has seen a row."""
        asked = (self.bandwidth, self.smoothing, self.n_neighbors, self.n_directions)
        return ParzenModel(**self._blank(schema), shape=np.zeros(2, np.float32), asked=asked)  # type: ignore[arg-type]
