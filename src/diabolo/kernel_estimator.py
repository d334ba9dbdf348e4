"""The face of the members whose density is a kernel on every training row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo import engine
from diabolo.batches import Batches
from diabolo.checks import OneOf, Range
from diabolo.estimator import DiaboloEstimator
from diabolo.kernels import Chart, Division, Places, Smoothing
from diabolo.keys import key_of
from diabolo.model import Model
from diabolo.table import Schema
from diabolo.wiring import width_of

__all__ = ["KernelEstimator"]


class KernelEstimator(DiaboloEstimator):
    """Abstract; a family adds `__init__` and `build`."""

    # what other members ask and these do not
    given: Any = ()
    batch_size: Any = "auto"
    learning_rate: Any = "auto"
    max_steps: Any = "auto"
    early_stopping: Any = False
    validation_fraction: Any = 0.1
    n_iter_no_change: Any = 20
    n_init: Any = 1
    warm_start: Any = False

    _kernel_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [OneOf("auto"), Range(1, whole=True)],
        "bandwidth": [OneOf("auto"), Range(1e-15, 1e15)],  # its square is a float32
        "smoothing": [OneOf("auto"), Range(0.0, 1.0)],
        "scaling": [OneOf("column", "unit")],
        "verbose": [bool, np.bool_, Range(0, whole=True)],
    }
    _constraints: ClassVar[dict[str, list[Any]]] = _kernel_constraints

    @property
    def partial_fit(self) -> Any:  # type: ignore[override]
        """There is none: every row is a kernel, and all of them settle its width."""
        raise AttributeError(f"{type(self).__name__} has no partial_fit: fit it to all rows together.")

    @property
    def bandwidth_(self) -> float:
        """Standard deviation of the kernels, in spreads of a column (in the user's unit with scaling="unit")."""
        check_is_fitted(self, "model_")
        return float(self.model_.smoothing[0])

    @property
    def smoothing_(self) -> float:
        """Share of a column's own frequencies in a kernel's levels."""
        check_is_fitted(self, "model_")
        return float(self.model_.smoothing[1])

    def _blank(self, schema: Schema) -> dict[str, Any]:
        """The fields of a model without rows."""
        division = Division.of(schema, self.scaling)
        rows = np.zeros((0, schema.width), np.float32), np.zeros((0, schema.n_columns), bool)
        n_components = width_of(self.n_components, schema.width)
        return {
            "likelihood": schema.likelihood(),
            "kernels": Places.of(division, division.own_laws(), *rows).at(Smoothing(1.0, 0.0)),
            "chart": Chart.blank(schema.width, n_components),
            "smoothing": np.array([np.nan, np.nan], np.float32),
            "merit": np.float32(np.nan),
            "code_widths": (("code", n_components),),
        }

    def _trained(
        self,
        build: Callable[[Array], Model],
        batches: Batches,
        schedule: engine.Schedule,
        seed: int,
        on_round: engine.OnRound | None,
    ) -> engine.Run:
        """What looks at the rows is all there is: no weight is trained."""
        model: Any = build(key_of(seed)).begin(batches, key_of(seed, 1))
        history = engine.History([-float(model.merit)], [{}], [float(model.merit)], n_steps=1)
        return engine.Run(model, history, engine.start(model, engine.Phase()))
