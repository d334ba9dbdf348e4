"""Render a summary as one self-contained page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diabolo.files import check_output, replacing
from diabolo.plot import drawing
from diabolo.report import words
from diabolo.report.facts import summary
from diabolo.report.figures import picture, svg

__all__ = ["render", "write"]

MAX_MARGINALS = 40
SMALL = 64  # an image is shown at least this many screen pixels wide, in whole multiples of its own


def write(
    estimator: Any,
    X: Any,
    path: str | Path,
    color: Any = None,
    *,
    title: str | None = None,
    labels: Sequence[Any] | None = None,
) -> Path:
    """Write the page of a fitted estimator and some rows: one HTML file that needs no network.

    Parameters
    ----------
    estimator : fitted
    X : rows like the training rows
    path : ending in .html; written whole or not at all
    color, title, labels : as for `summary`

    Returns
    -------
    Path : the file written. It contains values of some rows of X.
    """
    path = check_output(path, (".html", ".htm"))
    text = render(summary(estimator, X, color, title=title, labels=labels))
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def render(told: dict[str, Any]) -> str:
    """The page of a summary, as HTML text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "nats": words.nats,
        "signed": words.signed,
        "cell": words.cell,
        "picture": picture,
    }
    environment.globals |= {"counted": words.counted, "claims": words.CLAIMS, "strength": _strength}
    read = told["read"]
    decimals = {column["name"]: column["decimals"] for column in read["columns"]}
    return environment.get_template("page.html").render(
        told=told,
        sentences=words.opening(told),
        panels=_panels(told),
        decimals=decimals,
        names=[column["name"] for column in read["columns"]],
        zoom=_zoom(read["image_shape"]),
    )


def _panels(told: dict[str, Any]) -> dict[str, Any]:
    """Every drawing of the page."""
    colored = told["map"]["color"]["name"]
    panels: dict[str, Any] = {
        "loss": svg(drawing.draw_loss, told["training"], 7.4, 2.9, "Loss per training step"),
        "map": svg(drawing.draw_map, told["map"], 7.4, 4.9, f"Map of the codes, coloured by {colored}"),
        "surprise": svg(
            drawing.draw_histogram, told["density"]["histogram"], 7.4, 1.9, "Surprise of data and of draws"
        ),
    }
    panels["marginals"] = [
        svg(drawing.draw_marginal, one, 2.35, _height(one), f"{one['name']}: data and draws")
        for one in told["marginals"][:MAX_MARGINALS]
    ]
    return panels


def _height(marginal: dict[str, Any]) -> float:
    """Inches: a bar needs its line, a histogram is a histogram."""
    return 1.75 if marginal["type"] == "number" else max(1.75, 0.62 + 0.16 * len(marginal["levels"]))


def _zoom(image_shape: list[int] | None) -> int:
    """Screen pixels per pixel."""
    return 1 if not image_shape else -(-SMALL // max(image_shape[:2]))


@functools.cache
def _strength(change: float | None) -> str:
    """The class of a changed cell: none under a quarter of the column's spread, strong over one."""
    if change is None or abs(change) < 0.25:
        return ""
    return "change-1" if abs(change) < 0.5 else "change-2" if abs(change) < 1 else "change-3"
