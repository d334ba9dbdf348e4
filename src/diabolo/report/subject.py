"""What a page is about: a fitted estimator, the rows it looks at, the rows it never saw, and some draws."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diabolo.comparison import gains
from diabolo.density import Reading
from diabolo.plot.view import View
from diabolo.table import Column, Schema

__all__ = ["Subject", "lawful", "sampled"]

MAX_ROWS = 5000  # rows looked at; of more, a fixed sample
MAX_PIXELS = 1_000_000  # of the images looked at: each is decoded hundreds of times
N_DRAWS = 2000  # draws beside the data


@dataclass(frozen=True)
class Subject:
    """One estimator and some rows, each reading of them taken once.

    Attributes
    ----------
    estimator : fitted
    everything : all rows given
    places : (n_rows,) which of them are looked at
    view : these
    held_out : rows used neither for training nor for stopping, None where there are none
    with_rows : whether original values may be shown
    drawn_rows : (n_rows,) bool, which rows looked at were drawn at random; None where all were, or all are looked at
    """

    estimator: Any
    everything: View
    places: np.ndarray
    view: View
    held_out: View | None
    with_rows: bool
    drawn_rows: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        estimator: Any,
        X: Any,
        held_out: Any = None,
        labels: Sequence[Any] | None = None,
        with_rows: bool = True,
        max_rows: int | None = None,
    ) -> Subject:
        """The rows looked at: all, or a fixed sample; held-out rows come as rows, or as their positions in X."""
        max_rows = MAX_ROWS if max_rows is None else max_rows
        everything = View(X, estimator.schema_, labels)
        n_pixels = int(np.prod(everything.image_shape)) if everything.is_images else 1
        most = max(200, min(max_rows, MAX_PIXELS // n_pixels)) if everything.is_images else max_rows
        places = sampled(everything.n_rows, most)
        view = everything if len(places) == everything.n_rows else everything.part(places)
        unseen: View | None = None
        if held_out is not None:
            if _are_positions(held_out, everything.n_rows):
                unseen = everything.part(np.arange(everything.n_rows)[np.asarray(held_out)])
            else:
                unseen = View(held_out, estimator.schema_)
            unseen = unseen.part(sampled(unseen.n_rows, most))
            unseen = unseen if unseen.n_rows else None
        return cls(estimator, everything, places, view, unseen, with_rows)

    @property
    def schema(self) -> Schema:
        return self.estimator.schema_

    @property
    def is_conditional(self) -> bool:
        return self.schema.given_width > 0

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """(n_rows, n_components) of the rows looked at."""
        return np.asarray(self.estimator.transform(self.view.X), np.float64)

    @functools.cached_property
    def reading(self) -> Reading:
        """Log-densities of the rows looked at."""
        return self.estimator.log_density(self.view.X)

    @functools.cached_property
    def held_out_reading(self) -> Reading:
        """Log-densities of the held-out rows, of the rows looked at where there are none."""
        return self.reading if self.held_out is None else self.estimator.log_density(self.held_out.X)

    @property
    def judged(self) -> View:
        """The rows by which the model is judged: held-out ones where there are any."""
        return self.view if self.held_out is None else self.held_out

    def gains(self, view: View, values: np.ndarray) -> np.ndarray:
        """(n_rows,) nats by which log-densities exceed those of independent columns; nan where both are zero."""
        return gains(self.schema, view.X, values)

    @functools.cached_property
    def drawn(self) -> View:
        """Draws like the rows; where the model is conditional, under the conditions of some of them."""
        if not self.is_conditional:
            return View(self.estimator.sample(N_DRAWS, random_state=0), self.schema)
        rows = np.random.default_rng(0).integers(self.view.n_rows, size=N_DRAWS)
        drawn = self.estimator.sample(N_DRAWS, given=self.view.take(rows), random_state=0)
        return View(drawn, self.schema)

    @functools.cached_property
    def black_and_white(self) -> tuple[float, float]:
        """Of images: the least and the greatest value, 0 and 255 for bytes."""
        values = np.asarray(self.everything.X)
        if values.dtype == np.uint8 and values.max() > 1:
            return 0.0, 255.0
        return float(np.nanmin(values)), float(np.nanmax(values))

    def encoded(self, view: View) -> np.ndarray:
        """(n_rows, width) cells as distances are measured: spreads of their column, gaps at its mean.

        A level's cells are divided by the root of two, so that two different levels lie 1 apart; what is more than
        5 spreads out counts as 5, or one odd cell would hide the rest of its row.
        """
        values = np.clip(self.schema.encode(view.X).values.astype(np.float64), -5.0, 5.0)
        for place in self.schema.layout.places:
            if place.kind.name in {"categorical", "ordinal"}:
                values[:, place.start : place.stop] /= np.sqrt(2.0)
        return values


def sampled(n: int, most: int, seed: int = 0) -> np.ndarray:
    """All of n rows, or a fixed sample of them, in their order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def lawful(columns: Sequence[Column]) -> list[int]:
    """Positions of the columns that the model has a law for."""
    return [j for j, column in enumerate(columns) if column.kind.counted and not column.given]


def _are_positions(held_out: Any, n_rows: int) -> bool:
    """Whole numbers or flags in one dimension: positions, not rows."""
    array = held_out if isinstance(held_out, (np.ndarray, list, range)) else None
    if array is None or np.ndim(array) != 1:
        return False
    kind = np.asarray(array).dtype.kind
    return kind in "iu" or (kind == "b" and len(array) == n_rows)
