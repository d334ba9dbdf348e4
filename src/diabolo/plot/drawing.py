"""Drawing on matplotlib Axes what `shown` computed; nothing here knows an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

__all__ = ["draw_histogram", "draw_loss", "draw_map", "draw_marginal", "new_axes", "tile"]

INK, SOFT, RULE, PAPER = "#20262d", "#68717d", "#d6dae0", "#fdfdfb"
ROWS, DRAWS = "#0072b2", "#d55e00"  # data and draws, everywhere
# Okabe & Ito 2008, told apart by the colour-blind; without its black and yellow, each lost on one background
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b61c9",
    "#8c3a4b",
    "#8a8a2e",
    "#7a8794",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MANY = 6  # categories, beyond which a legend alone does not do
SCALE = "viridis"  # perceptually even, and readable without colour


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Axes on a figure of their own, of which pyplot knows nothing; inches."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def dress(ax: Axes, xlabel: str = "", ylabel: str = "") -> Axes:
    """Quiet frame: two thin spines, soft small labels."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(RULE)
    ax.tick_params(colors=SOFT, labelsize=8, length=3, color=RULE)
    ax.set_xlabel(literal(xlabel), color=SOFT, fontsize=9)
    ax.set_ylabel(literal(ylabel), color=SOFT, fontsize=9)
    return ax


def literal(text: Any) -> str:
    """Text as it is: `$` starts no formula, a leading underscore hides no legend entry."""
    text = str(text).replace("$", r"\$")
    return "\u200b" + text if text.startswith("_") else text


def shorten(text: Any, length: int = 22) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def draw_loss(shown: dict[str, Any], ax: Axes) -> Axes:
    """Loss per step; the first steep part is cut off, the rest would be a flat line."""
    step = shown["steps_per_round"]
    best = shown["best_round"]
    at_the_end = best is not None and best == len(shown["held_out"]) - 1
    held_out = "held out, kept" if at_the_end else "held out"
    curves = [("training", shown["loss"], SOFT), (held_out, shown["held_out"], ROWS)]
    ends = [losses[-1] if losses else -np.inf for _, losses, _ in curves]
    for (name, losses, color), end in zip(curves, ends, strict=True):
        if losses:
            steps = step * np.arange(1, len(losses) + 1)
            ax.plot(steps, losses, color=color, linewidth=1.6)
            upper = end == max(ends)
            _remark(ax, name, steps[-1], end, color, (5, 1 if upper else -1), va="bottom" if upper else "top")
    if best is not None:
        place = step * (best + 1), shown["held_out"][best]
        ax.plot(*place, "o", color=ROWS, markersize=5)
        if not at_the_end:
            side = 1 if ends[1] >= ends[0] else -1
            _remark(ax, "kept", *place, ROWS, (0, 6 * side), ha="center", va=("top", "bottom")[side > 0])
    values = np.array([loss for _, losses, _ in curves for loss in losses], np.float64)
    values = values[np.isfinite(values)]
    if len(values) > 20:
        low, high = values.min(), np.quantile(values, 0.93)
        ax.set_ylim(low - 0.06 * (high - low), high + 0.12 * (high - low))
    ax.margins(x=0.1)
    ax.set_xlim(left=0)
    return dress(ax, "training steps", f"loss, {shown['unit']}")


def _remark(
    ax: Axes, text: str, x: float, y: float, color: str, offset: tuple[float, float], **at: Any
) -> None:
    """A word beside a point; offset in points."""
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", color=color, fontsize=8, **at)


def draw_map(shown: dict[str, Any], ax: Axes) -> Axes:
    """Points of the code plane; categories differ by colour and by mark."""
    x, y = np.array(shown["x"]), np.array(shown["y"])
    color = shown["color"]
    size = float(np.clip(9000 / max(len(x), 1), 9, 26))
    common: dict[str, Any] = {"s": size, "linewidths": 0}
    if color is None:
        ax.scatter(x, y, color=ROWS, alpha=0.6, **common)
    elif color["type"] == "number":
        values = np.array(color["values"], np.float64)
        gap = ~np.isfinite(values)
        ax.scatter(x[gap], y[gap], color=RULE, **common)
        span = np.quantile(values[~gap], [0.01, 0.99]) if (~gap).any() else (0.0, 1.0)
        drawn = ax.scatter(
            x[~gap], y[~gap], c=values[~gap], cmap=SCALE, vmin=span[0], vmax=span[1], alpha=0.85, **common
        )
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.75, aspect=30, pad=0.01)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=SOFT, labelsize=8, length=0)
        bar.set_label(literal(shorten(color["name"], 40)), color=SOFT, fontsize=9)
    else:
        _draw_categories(x, y, color, ax, common)
    dress(ax, *shown["labels"])
    if not shown["labels"][1]:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    return ax


def _draw_categories(x: np.ndarray, y: np.ndarray, color: dict[str, Any], ax: Axes, common: dict) -> None:
    values = np.array([OTHERWISE if v is None else v for v in color["values"]], object)
    levels = [*color["levels"], *([OTHERWISE] if OTHERWISE in set(values) else [])]
    for number, level in enumerate(levels):
        chosen = values == level
        rest = level in {OTHERWISE, "other"}
        ax.scatter(
            x[chosen],
            y[chosen],
            color=RULE if rest else PALETTE[number % len(PALETTE)],
            marker="." if rest else MARKERS[number % len(MARKERS)],
            alpha=0.75,
            label=literal(shorten(level)),
            zorder=1 if rest else 2,
            **common,
        )
        if len(levels) > MANY and not rest and chosen.any():  # too many to be looked up: said in their midst
            ax.text(
                np.median(x[chosen]),
                np.median(y[chosen]),
                literal(shorten(level, 12)),
                color=INK,
                fontsize=9,
                fontweight="bold",
                ha="center",
                va="center",
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "boxstyle": "round,pad=0.2"},
                zorder=3,
            )
    legend = ax.legend(
        title=literal(shorten(color["name"], 30)),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        labelcolor=INK,
        handletextpad=0.3,
        markerscale=1.4,
    )
    legend.get_title().set_color(SOFT)
    legend.set_alignment("left")


OTHERWISE = "missing"


def draw_histogram(shown: dict[str, Any], ax: Axes) -> Axes:
    """Data as a filled shape, draws as a line over it."""
    edges = np.array(shown["edges"])
    ax.stairs(shown["rows"], edges, fill=True, color=ROWS, alpha=0.35, linewidth=0, label="data")
    if "draws" in shown:
        ax.stairs(shown["draws"], edges, color=DRAWS, linewidth=1.4, label="draws")
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return dress(ax)


def draw_marginal(shown: dict[str, Any], ax: Axes) -> Axes:
    """One column: data against draws."""
    if shown["type"] == "number":
        draw_histogram(shown, ax)
        if shown["clock"]:
            locator = AutoDateLocator(maxticks=4)
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            ax.xaxis.get_offset_text().set(color=SOFT, fontsize=8)
        else:
            ax.locator_params(axis="x", nbins=4)
            if np.max(np.abs(shown["edges"])) >= 1e5:
                ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 3M
    else:
        place = np.arange(len(shown["levels"]))[::-1]
        ax.barh(place, shown["rows"], height=0.72, color=ROWS, alpha=0.35, linewidth=0, label="data")
        ax.plot(
            shown["draws"],
            place,
            "|",
            color=DRAWS,
            markersize=9,
            markeredgewidth=1.8,
            linestyle="none",
            label="draws",
        )
        dress(ax)
        ax.set_yticks(place, [literal(shorten(level, 16)) for level in shown["levels"]], fontsize=7.5)
        ax.tick_params(axis="y", length=0, colors=INK)
        ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        ax.locator_params(axis="x", nbins=3)
        ax.set_xlim(left=0)
    ax.set_title(literal(shorten(shown["name"], 28)), fontsize=9, color=INK, loc="left")
    return ax


def tile(images: np.ndarray, n_columns: int, gap: int = 1) -> np.ndarray:
    """Images (n, h, w[, c]) as bytes, in one sheet (height, width, 4) with transparent gaps between them."""
    n, height, width = images.shape[:3]
    n_lines = -(-n // n_columns)
    sheet = np.zeros((n_lines * (height + gap) - gap, n_columns * (width + gap) - gap, 4), np.uint8)
    for number, image in enumerate(images):
        top, left = (number // n_columns) * (height + gap), (number % n_columns) * (width + gap)
        pixels = image[..., None] if image.ndim == 2 else image
        sheet[top : top + height, left : left + width, :3] = pixels[..., :3]
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet


def draw_sheet(sheet: np.ndarray, ax: Axes, captions: Sequence[str] = ()) -> Axes:
    """A sheet of images without axes; captions stand at the left of its lines."""
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    for number, caption in enumerate(captions):
        place = (number + 0.5) / len(captions) * sheet.shape[0]
        ax.text(-2, place, literal(caption), ha="right", va="center", fontsize=9, color=SOFT)
    return ax
