"""What only a page of images shows: the decoded plane, reconstructions, copies, interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np

from diabolo.plot.view import View
from diabolo.report.components import decode
from diabolo.report.subject import Subject

__all__ = ["as_bytes_of", "decoded_plane", "interpolation", "pictures_of_draws", "reconstructions"]

N_SIDE = 11  # decoded pictures a side of the plane
N_PICTURES = 12  # in a line
N_KINDS = 4  # best, median and worst reconstructions, each
N_STEPS = 9  # from one image to another


def as_bytes_of(subject: Subject, pictures: np.ndarray) -> np.ndarray:
    """Pictures as bytes on the data's own scale: its least value black, its greatest white."""
    from diabolo.files import as_bytes

    low, high = subject.black_and_white
    return as_bytes(np.asarray(pictures), low, high)


def decoded_plane(subject: Subject, plane: dict[str, Any]) -> dict[str, Any]:
    """Pictures decoded on a grid of the codes' plane: (n_side, n_side) of them, from the top left."""
    (left, bottom), (right, top) = plane["empty"]["low"], plane["empty"]["high"]
    xs = np.linspace(left, right, 2 * N_SIDE + 1)[1::2]
    ys = np.linspace(top, bottom, 2 * N_SIDE + 1)[1::2]
    axes = np.array(plane["axes"])
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    codes = np.array(plane["centre"]) + grid[:, : len(axes)] @ axes
    pictures = _pictures(subject, decode(subject, codes))
    return {"n_side": N_SIDE, "pictures": as_bytes_of(subject, pictures)}


def reconstructions(subject: Subject) -> list[dict[str, Any]]:
    """The best, the median and the worst reconstructions by mean squared error per pixel."""
    view = subject.view
    n = min(view.n_rows, 2000)
    part = view.part(np.arange(n))
    data = part.pictures().astype(np.float64)
    again = _pictures(subject, subject.estimator.reconstruct(part.X))
    spread = float(np.nanstd(data)) or 1.0
    errors = np.nanmean(((data - again) / spread) ** 2, axis=tuple(range(1, data.ndim)))
    order = np.argsort(errors, kind="stable")
    middle = max(0, n // 2 - N_KINDS // 2)
    chosen = {
        "best": order[:N_KINDS],
        "median": order[middle : middle + N_KINDS],
        "worst": order[::-1][:N_KINDS],
    }
    return [
        {
            "name": name,
            "places": [int(row) for row in rows],
            "errors": errors[rows].tolist(),
            "data": as_bytes_of(subject, data[rows]),
            "again": as_bytes_of(subject, again[rows]),
        }
        for name, rows in chosen.items()
    ]


def pictures_of_draws(subject: Subject, near: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Draws, each beside the image of the rows that is nearest to it."""
    n = N_PICTURES
    drawn = as_bytes_of(subject, subject.drawn.pictures()[:n])
    if near is None:
        return [{"draw": picture, "place": None, "nearest": None, "distance": None} for picture in drawn]
    places = [one["place"] for one in near["of_draws"][:n]]
    beside = as_bytes_of(subject, subject.view.part(np.array(places)).pictures())
    return [
        {"draw": picture, "place": place, "nearest": other, "distance": one["distance"]}
        for picture, other, place, one in zip(drawn, beside, places, near["of_draws"], strict=False)
    ]


def interpolation(subject: Subject) -> list[dict[str, Any]]:
    """From one image to another through the code, and by averaging their pixels."""
    view, codes = subject.view, subject.codes
    generator = np.random.default_rng(4)
    pairs = []
    for _ in range(2):
        first = int(generator.integers(view.n_rows))
        apart = ((codes - codes[first]) ** 2).sum(axis=1)
        second = int(np.argsort(apart, kind="stable")[int(0.8 * (view.n_rows - 1))])
        share = np.linspace(0, 1, N_STEPS)[:, None]
        decoded = _pictures(subject, decode(subject, (1 - share) * codes[first] + share * codes[second]))
        ends = view.part(np.array([first, second])).pictures().astype(np.float64)
        share = share.reshape(-1, *(1,) * (ends.ndim - 1))
        pairs.append(
            {
                "places": [first, second],
                "code": as_bytes_of(subject, decoded),
                "pixels": as_bytes_of(subject, (1 - share) * ends[0] + share * ends[1]),
            }
        )
    return pairs


def _pictures(subject: Subject, X: Any) -> np.ndarray:
    return View(X, subject.schema).pictures().astype(np.float64)
