"""Draw the four pictures of the README, one per reading, on data that travel with the package.

Run `python docs/pictures.py` after a change of the models or of the panels; it takes about a minute.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from diabolo import VAE, Autoencoder, plot
from diabolo.files import as_bytes
from diabolo.plot import drawing, shown

FOLDER = Path(__file__).parent / "img"
WIDTH, HEIGHT, DOTS_PER_INCH = 4.0, 2.4, 250  # inches; all four alike, so that they line up
SIDE = 8  # pixels of a digit


def main() -> None:
    matplotlib.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib: the same everywhere
    FOLDER.mkdir(exist_ok=True)
    digits = load_digits()
    images = digits.images

    figure, ax = _page()
    plot.loss(Autoencoder(random_state=0).fit(images), ax=ax)
    ax.set_ylabel("loss, nats per image", color=drawing.SOFT, fontsize=9)
    _keep(figure, "loss")

    figure, ax = _page()
    flat = VAE(n_components=2, random_state=0).fit(images)
    plot.map(flat, images, color={"digit": digits.target}, ax=ax)
    ax.legend_.remove()  # every cloud carries its digit
    _keep(figure, "map")

    vae = VAE(random_state=0).fit(images)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    some = np.random.default_rng(0).permutation(len(images))[:30]
    _sheet(images[some], left, "data", 5)
    _sheet(vae.sample(30, random_state=0), right, "draws", 5)
    _keep(figure, "draws")

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.4, 1))
    ax, nats = above.subplots(), vae.score_samples(images)
    drawing.draw_histogram(shown.surprises(nats, None, vae.density_kind_), ax)
    ax.set_xlabel("surprise −log p(x), nats", color=drawing.SOFT, fontsize=9)
    order, (left, right) = np.argsort(nats), below.subplots(1, 2)
    _sheet(images[order[::-1][:6]], left, "likeliest", 6)
    _sheet(images[order[:6][::-1]], right, "least likely", 6)
    _keep(figure, "surprise")


def _page() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.subplots()


def _sheet(images: np.ndarray, ax: Axes, title: str, n_columns: int) -> None:
    """Digits on white paper, ink dark, under a title."""
    sheet = drawing.tile(as_bytes(16.0 - images.reshape(-1, SIDE, SIDE), 0, 16), n_columns)
    drawing.draw_sheet(sheet, ax)
    ax.set_title(title, fontsize=9, color=drawing.SOFT, loc="left")


def _keep(figure: Figure, name: str) -> None:
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches: air, where the page is dark
    figure.savefig(FOLDER / f"{name}.png", dpi=DOTS_PER_INCH, facecolor="white")


if __name__ == "__main__":
    main()
