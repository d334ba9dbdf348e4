"""Panels as inline SVG that takes the page's fonts and colours, pictures as PNG in the page itself."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from diabolo.plot import drawing

__all__ = ["picture", "svg"]

# what a panel draws in a fixed colour, the page draws in one that suits its background
VARIABLES = {
    drawing.INK: "var(--ink)",
    drawing.SOFT: "var(--soft)",
    drawing.RULE: "var(--rule)",
    drawing.PAPER: "var(--paper)",
    **{color: f"var(--c{number})" for number, color in enumerate(drawing.PALETTE)},
}
PIXELS_PER_INCH = 96


def svg(draw: Callable[..., Any], shown: Any, width: float, height: float, label: str) -> Markup:
    """One panel as an SVG element.

    Parameters
    ----------
    draw : `(shown, axes)` from `diabolo.plot.drawing`
    shown : what it draws
    width, height : inches
    label : what a screen reader says
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(shown, figure.subplots())
    text = io.StringIO()
    # text as text, or the page's fonts could not set it; a salt of its own, or two panels' ids would meet
    options: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": label}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts have it
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    content = _bare(text.getvalue())
    for color, variable in VARIABLES.items():
        content = content.replace(color, variable)
    box = re.search(r'viewBox="[^"]*"', content)
    assert box is not None
    style = f"width:{width * PIXELS_PER_INCH:.0f}px"
    head = f'<svg class="panel" role="img" {box.group()} style="{style}">'
    return Markup(f"{head}<title>{escape(label)}</title>{content[content.index('>') + 1 :]}")


def _bare(content: str) -> str:
    """matplotlib's SVG without what only a file of its own needs, in the page's font."""
    content = content[content.index("<svg") :]
    content = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->\n?", "", content, flags=re.DOTALL)
    content = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", content)  # figure_1 and the like, in every panel
    content = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", content)
    return re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--sans)", content)


def picture(pixels: Any) -> str:
    """An image (h, w[, channels]) of bytes as a `data:` address."""
    import PIL.Image

    array = np.asarray(pixels, np.uint8)
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    stream = io.BytesIO()
    PIL.Image.fromarray(array[..., :3] if array.ndim == 3 else array).save(
        stream, format="PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
