"""The face of the members trained on reconstruction: what makes a density of them after training."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from diabolo import density
from diabolo.batches import Batch, Batches
from diabolo.deterministic import DeterministicModel
from diabolo.estimator import DiaboloEstimator
from diabolo.table import Rows

__all__ = ["DeterministicEstimator", "held_out_nats"]

_SHARPNESS = (0.7, 0.5, 0.35, 0.25, 0.15)
_N_JUDGED = 256  # held-out rows behind the choice
_N_SHIFTED = 2000  # training rows whose levels keep their frequencies


class DeterministicEstimator(DiaboloEstimator):
    """Abstract; a family adds `__init__` and `build`."""

    _finishes: ClassVar[bool] = True

    def _finished(self, model: Any, batches: Batches, seed: int, n_starts: int) -> Any:
        """The prior and the noise, then how sure the decoder may be of levels: what held-out rows find likeliest.

        A code wide enough to hold a row by heart makes the decoder all but certain of each level, and the integral
        over the codes of other rows pays for it: in german_credit, 2.0 of 35 nats. Real columns have a noise for that.
        """
        model = super()._finished(model, batches, seed, n_starts)
        if batches.held_out is None or not np.any(model.is_level):
            return model
        judged, train = _some(batches.held_out, _N_JUDGED), _some(batches.train, _N_SHIFTED)
        tried = [model, *(model.as_sure_as(sharpness, train) for sharpness in _SHARPNESS)]
        nats = [held_out_nats(one, judged, seed) for one in tried]
        return tried[int(np.argmax(nats))]


def _some(batch: Batch, n: int) -> Batch:
    """At most n of the rows, evenly spread."""
    return batch[np.unique(np.linspace(0, batch.n_rows - 1, min(n, batch.n_rows)).astype(int))]


def held_out_nats(model: DeterministicModel, batch: Batch, seed: int) -> float:
    """Mean log-density of encoded rows, nats."""
    values, observed, given = (np.asarray(part) for part in (batch.values, batch.observed, batch.given))
    rows = Rows(values, observed, given, np.zeros(batch.n_rows))
    return float(np.mean(density.reading_of(model, rows, density.N_DRAWS, seed).values))
