"""The face of the variational members: their common parameters, and what is told of the code after a fit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo.checks import OneOf, Range
from diabolo.estimator import DiaboloEstimator
from diabolo.keys import children
from diabolo.table import Schema
from diabolo.variational import ACTIVE, Usage, Weights, n_said, starting_prior, warn_of_collapse
from diabolo.wiring import Parts

__all__ = ["VariationalEstimator"]

_MIN_ROWS = 100  # of fewer, a code that says nothing may well be right


class VariationalEstimator(DiaboloEstimator):
    """Abstract; a family adds `__init__` and `build`."""

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "dispersion": DiaboloEstimator._dispersions,
        "prior": [OneOf("normal", "mixture", "vamp", "flow")],
        "n_prior": [Range(1, whole=True)],
        "posterior": [OneOf("diagonal", "full")],
        "beta": [Range(0.0)],
        "free_bits": [Range(0.0)],
        "warm_up": [Range(0.0, 1.0)],
    }

    @property
    def divergence_(self) -> np.ndarray:
        """(n_components,) nats."""
        return np.asarray(self._usage.divergence, np.float64)

    @property
    def active_components_(self) -> np.ndarray:
        """(n_components,) bool."""
        return np.asarray(self._usage.variance > ACTIVE)

    @property
    def prior_gap_(self) -> tuple[float, float]:
        """Low and high, nats."""
        low, high = self._usage.gap
        return float(low), float(high)

    @property
    def _usage(self) -> Usage:
        check_is_fitted(self, "model_")
        return self.model_.usage

    def _judge(self, n_rows: int) -> None:
        if n_rows >= _MIN_ROWS and not self.schema_.given_width:  # conditions may say all there is to say
            warn_of_collapse(self._usage, stacklevel=4)

    def _fields(self, schema: Schema, key: Array) -> dict[str, Any]:
        """The fields of an untrained model, by name."""
        params = self.get_params(deep=False)
        parts = Parts.of(self, schema, key, lambda n_components: n_said(params["posterior"], n_components))
        n_inputs = parts.encoder.n_inputs(schema.width, parts.encoder.gap_columns, schema.given_width)
        sizes = (params["n_prior"], parts.n_components, n_inputs)
        return {
            **parts.fields(),
            "code_prior": starting_prior(params["prior"], *sizes, children(key, 3)[2]),
            **self._objective(),
            "usage": Usage.unknown(parts.n_components),
        }

    def _objective(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        return {
            "weights": Weights.of(params.get("beta", 1.0), params.get("free_bits", 0.0), params["warm_up"])
        }
