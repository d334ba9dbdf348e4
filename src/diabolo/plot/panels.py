"""The panels: each reads a fitted estimator and draws one reading of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diabolo.checks import refuse
from diabolo.files import as_bytes
from diabolo.plot import drawing, shown
from diabolo.plot.view import View

__all__ = ["loss", "map", "marginals", "reconstructions", "samples", "surprise"]


def loss(estimator: Any, *, ax: Axes | None = None) -> Axes:
    """Loss per training step, nats per row of the scaled cells; the round that was kept is marked."""
    return drawing.draw_loss(shown.training(estimator), ax or drawing.new_axes())


def map(estimator: Any, X: Any, *, color: Any = None, ax: Axes | None = None) -> Axes:
    """The rows' codes in a plane: themselves where there are two, else their principal plane.

    Parameters
    ----------
    color : a column's name, one value per row, or a dict of one name to these; numbers get a scale, labels a
        colour and a mark each
    """
    view = View(X, estimator.schema_)
    colors = None if color is None else shown.coloring(view, estimator.schema_, color)
    return drawing.draw_map(shown.code_map(estimator.transform(X), colors), ax or drawing.new_axes(7, 5))


def surprise(
    estimator: Any, X: Any, *, n_draws: int = 1000, random_state: int = 0, ax: Axes | None = None
) -> Axes:
    """Histogram of -log p(x), nats: of the rows, and of as many of the model's own draws.

    Where the two differ, the model's density does not describe the rows. The values are what the estimator
    claims of them (an exact value, a bound, an estimate); the axis says which.
    """
    values = estimator.score_samples(X)
    drawn = estimator.score_samples(estimator.sample(n_draws, random_state=random_state))
    data = shown.surprises(values, drawn, estimator.density_kind_)
    ax = drawing.draw_histogram(data, ax or drawing.new_axes(6.4, 2.6))
    ax.legend(frameon=False, fontsize=8, labelcolor=drawing.INK)
    ax.set_xlabel(f"surprise -log p(x), {data['unit']} ({data['kind']})")
    return ax


def marginals(
    estimator: Any,
    X: Any,
    *,
    columns: Sequence[str] | None = None,
    n_draws: int = 2000,
    random_state: int = 0,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Each column's spread in the data and in the model's draws; returns an array of Axes, one per column."""
    schema = estimator.schema_
    if schema.image_shape is not None:
        raise refuse("X", got="images", want="a table", fix="diabolo.plot.samples shows drawn images.")
    drawn = View(estimator.sample(n_draws, random_state=random_state), schema)
    view = View(X, schema)
    lawful = [column for column in schema.columns if column.kind.counted and not column.given]
    names = [column.name for column in lawful] if columns is None else list(columns)
    axes = np.ravel(np.array(ax, object)) if ax is not None else np.empty(0, object)
    if ax is None:
        width = min(4, len(names))
        height = -(-len(names) // width)
        axes = Figure(figsize=(2.6 * width, 2.1 * height), layout="constrained").subplots(
            height, width, squeeze=False
        )
        axes = axes.ravel()
        for spare in axes[len(names) :]:
            spare.set_axis_off()
    axes = axes[: len(names)]
    for name, one in zip(names, axes, strict=True):
        cells = view.column(name)
        column = schema.columns[view.names.index(name)]
        drawing.draw_marginal(shown.marginal(column, cells, drawn.column(name)), one)
    return axes


def reconstructions(
    estimator: Any, X: Any, *, n: int = 10, random_state: int = 0, ax: Axes | None = None
) -> Axes:
    """Some images of X above their reconstructions."""
    images = _images(estimator, X, n, random_state)
    again = np.asarray(estimator.reconstruct(images)).reshape(images.shape)
    low, high = _range(X)
    sheet = drawing.tile(as_bytes(np.concatenate([images, again]), low, high), len(images))
    ax = ax or drawing.new_axes(0.7 * len(images) + 1, 1.8)
    return drawing.draw_sheet(sheet, ax, ["data", "reconstruction"])


def samples(
    estimator: Any, *, n: int = 24, n_columns: int = 12, random_state: int = 0, ax: Axes | None = None
) -> Axes:
    """Images drawn from the model."""
    shape = estimator.schema_.image_shape
    if shape is None:
        raise refuse("estimator", got="one fitted on a table", want="one fitted on images", fix=_TABLES)
    images = np.asarray(estimator.sample(n, random_state=random_state)).reshape(n, *shape)
    sheet = drawing.tile(as_bytes(images), n_columns)
    return drawing.draw_sheet(sheet, ax or drawing.new_axes(0.6 * n_columns, 0.6 * -(-n // n_columns)))


_TABLES = "diabolo.plot.marginals and diabolo.report.write show rows of a table."


def _images(estimator: Any, X: Any, n: int, random_state: int) -> np.ndarray:
    """n images of X, drawn without replacement, in their order."""
    view = View(X, estimator.schema_)
    if not view.is_images:
        raise refuse("X", got="a table", want="images", fix=_TABLES)
    rows = np.random.default_rng(random_state).permutation(view.n_rows)[:n]
    return view.pictures()[np.sort(rows)]


def _range(images: Any) -> tuple[float | None, float | None]:
    """Black and white of the data, so that a reconstruction is shown on the data's scale."""
    images = np.asarray(images)
    if images.dtype == np.uint8 and images.max() > 1:
        return 0.0, 255.0
    return float(np.nanmin(images)), float(np.nanmax(images))
