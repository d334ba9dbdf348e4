"""The rows in a plane, three ways, and how far each way can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits

from diabolo.plot import shown
from diabolo.report.subject import Subject, sampled

__all__ = ["maps", "points_of"]

MAX_POINTS = 1500  # points of a map
MAX_PIXELS = 600_000  # of all images together that a page carries
N_NEIGHBOURS = 10  # of a point, by which a map is judged
N_CELLS = 28  # a side of the grid on which empty places are found


def points_of(subject: Subject, always: list[int]) -> np.ndarray:
    """Rows drawn on the maps: a fixed sample, and those that other parts of the page show."""
    most = MAX_POINTS
    if subject.view.is_images:
        most = max(100, min(most, MAX_PIXELS // int(np.prod(subject.view.image_shape))))
    return np.unique(np.concatenate([sampled(subject.view.n_rows, most), np.array(always, int)]))


def maps(subject: Subject, points: np.ndarray) -> list[dict[str, Any]]:
    """Each map's points, axes and trustworthiness.

    Parameters
    ----------
    points : (n_points,) rows drawn

    Returns
    -------
    list of dict : `name`, `x`, `y`, `labels`, `trustworthiness` (the share of a point's neighbours on the map that are
        neighbours among the rows, 1 at best; Venna & Kaski 2001), `empty` places of its grid, and for the plane of the
        codes `centre`, `axes` and `share`
    """
    codes = subject.codes
    plane = shown.code_map(codes)
    encoded = subject.encoded(subject.view)[points]
    coordinates = np.column_stack([plane["x"], plane["y"]])[points]
    name = "Codes" if codes.shape[1] <= 2 else "Principal plane of the codes"
    found = [
        _told(name, "codes", coordinates, plane["labels"], encoded)
        | {key: plane[key] for key in ("share", "centre", "axes")}
    ]
    if codes.shape[1] > 2 and len(points) > 12:
        with threadpool_limits(1):  # OpenMP threads that wait for a busy core take ten times as long
            embedded = _neighbours_plane(codes[points])
        found.append(_told("t-SNE of the codes", "tsne", embedded, ["", ""], encoded))
    if encoded.shape[1] > 1 and len(points) > 2:
        plane = shown.code_map(encoded) if encoded.shape[1] > 2 else _as_they_are(encoded)
        rows = np.column_stack([plane["x"], plane["y"]])
        found.append(_told("PCA of the rows", "pca", rows, _renamed(plane["labels"]), encoded))
    return found


def _neighbours_plane(codes: np.ndarray) -> np.ndarray:
    perplexity = min(30.0, (len(codes) - 1) / 4)
    spread = codes.std(axis=0).max() or 1.0
    return TSNE(
        perplexity=perplexity, init="pca", random_state=0, max_iter=500, n_jobs=1
    ).fit_transform(codes / spread)  # fmt: skip


def _as_they_are(encoded: np.ndarray) -> dict[str, Any]:
    return {"x": encoded[:, 0], "y": encoded[:, 1], "labels": ["first column", "second column"]}


def _renamed(labels: list[str]) -> list[str]:
    return [label.replace(" of the codes", "") for label in labels]


def _told(name: str, key: str, points: np.ndarray, labels: list[str], encoded: np.ndarray) -> dict[str, Any]:
    n_neighbours = min(N_NEIGHBOURS, (len(points) - 1) // 2)
    trust = None
    if n_neighbours >= 1:
        trust = float(trustworthiness(encoded, points, n_neighbors=n_neighbours))
    return {
        "name": name,
        "key": key,
        "x": points[:, 0].round(4).tolist(),
        "y": points[:, 1].round(4).tolist(),
        "labels": labels,
        "trustworthiness": trust,
        "empty": _empty(points),
    }


def _empty(points: np.ndarray) -> dict[str, Any]:
    """The map's frame, and the cells of its grid that hold no point, nor does a neighbour."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * np.maximum(high - low, 1e-9)
    low, high = low - margin, high + margin
    edges = [np.linspace(low[k], high[k], N_CELLS + 1) for k in (0, 1)]
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0]
    near = np.pad(counts, 1)
    filled = sum(
        near[1 + i : 1 + i + N_CELLS, 1 + j : 1 + j + N_CELLS] for i in (-1, 0, 1) for j in (-1, 0, 1)
    )
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "n": N_CELLS,
        "cells": np.flatnonzero(filled == 0).tolist(),
    }
