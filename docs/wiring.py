"""Draw each member's wiring as a small SVG: `python docs/wiring.py` writes docs/img/wiring_*.svg.

A picture is a list of parts at places of a grid and of arrows between them. It stands on paper of its own, so that it
reads on a light and on a dark page alike.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from diabolo.plot.drawing import DRAWS, INK, PAPER, ROWS, RULE, SOFT

FOLDER = Path(__file__).parent / "img"
COLUMN, LINE, MARGIN = 118.0, 66.0, 16.0  # pixels
HALF_HEIGHT, NARROW = 21.0, 10.0  # of a part; of the narrow side of a network
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"
# half the width and the colour of each sort of part
SORTS = {
    "data": (36.0, INK),
    "encoder": (40.0, SOFT),
    "decoder": (40.0, SOFT),
    "code": (36.0, ROWS),
    "step": (46.0, SOFT),
    "loss": (46.0, DRAWS),
    "after": (46.0, ROWS),  # fitted when training is over: dashed
}

# (name, sort, column, line, text of one or two lines) and (from, to, "after", "level" or "")
Part = tuple[str, str, float, float, str]
Arrow = tuple[str, str, str]
CHAIN = [("x", "encoder", ""), ("encoder", "z", ""), ("z", "decoder", ""), ("decoder", "again", "")]
PICTURES: dict[str, tuple[str, list[Part], list[Arrow]]] = {
    "autoencoder": (
        "Autoencoder: row, encoder, code, decoder, row; a mixture is fitted to the codes after training",
        [
            ("x", "data", 0, 1, "x"),
            ("encoder", "encoder", 1, 1, "encoder"),
            ("z", "code", 2, 1, "code z"),
            ("decoder", "decoder", 3, 1, "decoder"),
            ("again", "data", 4, 1, "p(x | z)"),
            ("loss", "loss", 4, 0, "loss\n−log p(x | z)"),
            ("prior", "after", 2, 2, "p(z): Gaussian\nmixture"),
        ],
        [*CHAIN, ("x", "loss", ""), ("again", "loss", ""), ("z", "prior", "after")],
    ),
    "denoising": (
        "Denoising autoencoder: the row is corrupted before the encoder and compared clean after the decoder",
        [
            ("x", "data", 0, 1, "x"),
            ("corruption", "step", 1, 1, "corruption\nx̃"),
            ("encoder", "encoder", 2.1, 1, "encoder"),
            ("z", "code", 3.05, 1, "code z"),
            ("decoder", "decoder", 4, 1, "decoder"),
            ("again", "data", 5, 1, "p(x | z)"),
            ("loss", "loss", 5, 0, "loss\n−log p(x | z)"),
            ("prior", "after", 3.05, 2, "p(z): Gaussian\nmixture"),
        ],
        [
            ("x", "corruption", ""),
            ("corruption", "encoder", ""),
            *CHAIN[1:],
            ("x", "loss", ""),
            ("again", "loss", ""),
            ("z", "prior", "after"),
        ],
    ),
    "rbm": (
        "Boltzmann machine: cells and hidden units, one matrix of weights both ways; rows against the chain's draws",
        [
            ("x", "data", 0, 0, "x"),
            ("h", "code", 2.1, 0, "hidden h\n0 or 1"),
            ("w", "step", 1.05, 0, "weights W\nthere"),
            ("chain", "code", 2.1, 1, "chain's\nhidden"),
            ("back", "step", 1.05, 1, "weights W\nand back"),
            ("drawn", "data", 0, 1, "draw x'"),
            ("loss", "loss", 0, 2, "loss\nF(x) − F(x')"),
            ("z", "after", 2.1, 2, "log Z: all h,\nor annealed"),
        ],
        [
            ("x", "w", ""),
            ("w", "h", ""),
            ("h", "chain", ""),
            ("chain", "back", ""),
            ("back", "drawn", ""),
            ("drawn", "loss", ""),
            ("chain", "z", "after"),
        ],
    ),
    "gsn": (
        "Generative stochastic network: noise, encoder, decoder and a draw, again and again; states are kept",
        [
            ("x", "data", 0, 1, "x"),
            ("noise", "step", 1.05, 1, "noise\nx̃"),
            ("encoder", "encoder", 2.1, 1, "encoder"),
            ("z", "code", 3.05, 1, "code"),
            ("decoder", "decoder", 4, 1, "decoder"),
            ("again", "data", 5, 1, "P(x | x̃)"),
            ("loss", "loss", 5, 0, "loss\n−log P(x | x̃)"),
            ("draw", "step", 3.05, 2, "draw x'"),
            ("kept", "after", 3.05, 0, "states kept:\np(x)"),
        ],
        [
            ("x", "noise", ""),
            ("noise", "encoder", ""),
            *CHAIN[1:],
            ("again", "loss", ""),
            ("again", "draw", ""),
            ("draw", "noise", "level"),
            ("z", "kept", "after"),
        ],
    ),
    "vae": (
        "VAE: the encoder says a distribution of codes; its divergence from the prior is part of the loss",
        [
            ("x", "data", 0, 1, "x"),
            ("encoder", "encoder", 1, 1, "encoder"),
            ("q", "step", 2.05, 1, "q(z | x)\nmean, scale"),
            ("z", "code", 3.1, 1, "draw z"),
            ("decoder", "decoder", 4.05, 1, "decoder"),
            ("again", "data", 5, 1, "p(x | z)"),
            ("loss", "loss", 5, 0, "loss\n−log p(x | z)"),
            ("kl", "loss", 2.05, 2, "loss\nKL(q ‖ p)"),
            ("p", "code", 3.1, 2, "prior\np(z)"),
        ],
        [
            ("x", "encoder", ""),
            ("encoder", "q", ""),
            ("q", "z", ""),
            *CHAIN[2:],
            ("x", "loss", ""),
            ("again", "loss", ""),
            ("q", "kl", ""),
            ("p", "kl", ""),
        ],
    ),
    "iwae": (
        "IWAE: k codes are drawn for a row, and the log of the mean of their weights is trained",
        [
            ("x", "data", 0, 0, "x"),
            ("encoder", "encoder", 1, 0, "encoder"),
            ("q", "step", 2.05, 0, "q(z | x)\nmean, scale"),
            ("z", "code", 3.1, 0, "draws\nz₁, z₂, …"),
            ("decoder", "decoder", 4.05, 0, "decoder"),
            ("again", "data", 5, 0, "p(x | zᵢ)"),
            ("w", "step", 5, 1, "weights wᵢ\np(x, zᵢ) / q(zᵢ)"),
            ("loss", "loss", 5, 2, "loss\n−log mean wᵢ"),
            ("p", "code", 3.1, 2, "prior\np(z)"),
        ],
        [
            ("x", "encoder", ""),
            ("encoder", "q", ""),
            ("q", "z", ""),
            *CHAIN[2:],
            ("q", "w", ""),
            ("again", "w", ""),
            ("p", "w", ""),
            ("w", "loss", ""),
        ],
    ),
    "normalizing_flow": (
        "Normalizing flow: cells become places, and invertible layers bend them into independent normal codes",
        [
            ("x", "data", 0, 1, "x"),
            ("spread", "step", 1.1, 1, "places\ndequantization"),
            ("start", "step", 2.3, 1, "margins,\nwhitening"),
            ("layers", "encoder", 3.45, 1, "spline\nlayers"),
            ("z", "code", 4.5, 1, "code z\nN(0, I)"),
            ("loss", "loss", 3.45, 0, "loss\n−log N(z) |∂z/∂x|"),
            ("back", "decoder", 3.45, 2, "the same,\nbackwards"),
            ("again", "data", 0, 2, "x"),
        ],
        [
            ("x", "spread", ""),
            ("spread", "start", ""),
            ("start", "layers", ""),
            ("layers", "z", ""),
            ("layers", "loss", ""),
            ("z", "back", ""),
            ("back", "again", ""),
        ],
    ),
    "made": (
        "MADE: the row passes a masked network in an order, all columns' laws come out at once; orders are averaged",
        [
            ("x", "data", 0, 1, "x"),
            ("masks", "step", 1.15, 0, "order o\nmasks"),
            ("encoder", "encoder", 1.15, 1, "masked"),
            ("h", "code", 2.2, 1, "last\nhidden"),
            ("decoder", "decoder", 3.2, 1, "masked"),
            ("again", "data", 4.3, 1, "p(column |\nearlier)"),
            ("loss", "loss", 5.4, 1, "loss, order o\n−log p(x)"),
            ("mean", "after", 5.4, 2, "p(x): mean\nover orders"),
        ],
        [
            ("x", "encoder", ""),
            ("masks", "encoder", ""),
            ("encoder", "h", ""),
            ("h", "decoder", ""),
            ("decoder", "again", ""),
            ("again", "loss", ""),
            ("loss", "mean", "after"),
        ],
    ),
    "hierarchical": (
        "Hierarchical VAE: what the row says goes up level by level, priors come down and are multiplied with it",
        [
            ("x", "data", 0, 3, "x"),
            ("encoder", "encoder", 1, 3, "encoder"),
            ("said1", "step", 2.05, 3, "x says\nof z₁"),
            ("said2", "step", 2.05, 1, "x says\nof z₂"),
            ("p2", "code", 3.15, 0, "prior\np(z₂)"),
            ("q2", "step", 3.15, 1, "q(z₂ | x)"),
            ("p1", "step", 3.15, 2, "p(z₁ | z₂)"),
            ("q1", "step", 3.15, 3, "q(z₁ | z₂, x)"),
            ("z2", "code", 4.2, 1, "draw z₂"),
            ("z1", "code", 4.2, 3, "draw z₁"),
            ("decoder", "decoder", 5.15, 2, "decoder"),
            ("again", "data", 6.1, 2, "p(x | z)"),
            ("loss", "loss", 6.1, 1, "−log p(x | z)\n+ Σ KL(q ‖ p)"),
        ],
        [
            ("x", "encoder", ""),
            ("encoder", "said1", ""),
            ("said1", "said2", ""),
            ("said1", "q1", ""),
            ("said2", "q2", ""),
            ("p2", "q2", ""),
            ("q2", "z2", ""),
            ("z2", "p1", ""),
            ("p1", "q1", ""),
            ("q1", "z1", ""),
            ("z2", "decoder", ""),
            ("z1", "decoder", ""),
            ("decoder", "again", ""),
            ("again", "loss", ""),
        ],
    ),
    "conditional": (
        "Conditional VAE: the condition, hidden for some rows, goes into encoder and decoder, not into the prior",
        [
            ("x", "data", 0, 1, "x"),
            ("y", "data", 0, 2, "condition\ny"),
            ("hide", "step", 1, 2, "hidden for\nsome rows"),
            ("encoder", "encoder", 1, 1, "encoder"),
            ("q", "step", 2.05, 1, "q(z | x, y)\nmean, scale"),
            ("z", "code", 3.1, 1, "draw z"),
            ("decoder", "decoder", 4.05, 1, "decoder"),
            ("again", "data", 5, 1, "p(x | z, y)"),
            ("loss", "loss", 5, 0, "loss\n−log p(x | z, y)"),
            ("kl", "loss", 2.05, 0, "loss\nKL(q ‖ p)"),
            ("p", "code", 3.1, 0, "prior\np(z)"),
        ],
        [
            ("x", "encoder", ""),
            ("y", "hide", ""),
            ("hide", "encoder", ""),
            ("hide", "decoder", "level"),
            ("encoder", "q", ""),
            ("q", "z", ""),
            *CHAIN[2:],
            ("again", "loss", ""),
            ("q", "kl", ""),
            ("p", "kl", ""),
        ],
    ),
    "semi_supervised": (
        "M2: a classifier says the label where it is not known; label and style make the row",
        [
            ("x", "data", 0, 1, "x"),
            ("classifier", "encoder", 1, 2, "classifier"),
            ("y", "step", 2.05, 2, "y: known,\nor by q(y | x)"),
            ("ce", "loss", 1, 3, "loss, y known\n−log q(y | x)"),
            ("encoder", "encoder", 1, 1, "encoder"),
            ("q", "step", 2.05, 1, "q(z | x, y)\nmean, scale"),
            ("z", "code", 3.1, 1, "draw z"),
            ("decoder", "decoder", 4.05, 1, "decoder"),
            ("again", "data", 5, 1, "p(x | y, z)"),
            ("loss", "loss", 5, 0, "loss\n−log p(x | y, z)"),
            ("kl", "loss", 2.05, 0, "loss\nKL(q ‖ p)"),
            ("p", "code", 3.1, 0, "prior\np(z)"),
        ],
        [
            ("x", "encoder", ""),
            ("x", "classifier", ""),
            ("classifier", "y", ""),
            ("classifier", "ce", ""),
            ("encoder", "q", ""),
            ("y", "q", ""),
            ("y", "decoder", "level"),
            ("q", "z", ""),
            *CHAIN[2:],
            ("again", "loss", ""),
            ("q", "kl", ""),
            ("p", "kl", ""),
        ],
    ),
    "parzen": (
        "Parzen windows: every training row is a kernel, stretched along its neighbours or as a network says",
        [
            ("rows", "data", 0, 0, "rows xᵢ"),
            ("near", "step", 1.1, 0, "neighbours,\nor a network"),
            ("kernel", "step", 2.25, 0, "kernels\nN(xᵢ + μᵢ, Σᵢ)"),
            ("x", "data", 0, 1, "x"),
            ("mean", "loss", 2.25, 1, "p(x) = mean\nof the kernels"),
            ("z", "code", 3.4, 1, "code z"),
            ("wide", "step", 3.4, 0, "wide kernel:\neigenfunctions"),
        ],
        [
            ("rows", "near", ""),
            ("near", "kernel", ""),
            ("kernel", "mean", ""),
            ("x", "mean", ""),
            ("kernel", "wide", "after"),
            ("wide", "z", ""),
        ],
    ),
    "stacked": (
        "M1 + M2: a VAE's code of the row, learned first, is what label and style make",
        [
            ("x", "data", 0, 0, "x"),
            ("encoder", "encoder", 1, 0, "encoder"),
            ("z", "code", 2.05, 0, "code h"),
            ("decoder", "decoder", 3.1, 0, "decoder"),
            ("again", "data", 4.05, 0, "p(x | h)"),
            ("m2", "after", 2.05, 1, "M2 of h:\ny, z, p(h | y, z)"),
        ],
        [*CHAIN, ("z", "m2", "after")],
    ),
}


def drawn(title: str, parts: list[Part], arrows: list[Arrow]) -> str:
    """One picture as SVG."""
    place = {name: _place(sort, column, line) for name, sort, column, line, _ in parts}
    width = max(x + half for x, _, half in place.values()) + MARGIN
    height = max(y for _, y, _ in place.values()) + HALF_HEIGHT + MARGIN
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}'"
        f" height='{height:g}' role='img'>",
        f"<title>{escape(title)}</title>",
        "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0.5 L8 4 L0 7.5 z' fill='{SOFT}'/></marker></defs>",
        f"<rect x='0.5' y='0.5' width='{width - 1:g}' height='{height - 1:g}' rx='8' fill='{PAPER}' stroke='{RULE}'/>",
    ]
    lines += [_arrow(place[start], place[end], how) for start, end, how in arrows]
    lines += [_part(sort, *place[name], text) for name, sort, _, _, text in parts]
    return "\n".join([*lines, "</svg>\n"])


def _place(sort: str, column: float, line: float) -> tuple[float, float, float]:
    half = SORTS[sort][0]
    return MARGIN + 46.0 + column * COLUMN, MARGIN + HALF_HEIGHT + line * LINE, half


def _part(sort: str, x: float, y: float, half: float, text: str) -> str:
    color, top, bottom, left, right = SORTS[sort][1], y - HALF_HEIGHT, y + HALF_HEIGHT, x - half, x + half
    style = f"fill='white' stroke='{color}' stroke-width='1.4'"
    if sort in ("encoder", "decoder"):  # half of the juggling toy each
        ends = (
            (top, y - NARROW, y + NARROW, bottom)
            if sort == "encoder"
            else (y - NARROW, top, bottom, y + NARROW)
        )
        corners = zip((left, right, right, left), ends, strict=True)
        shape = f"<polygon points='{' '.join(f'{a:g},{b:g}' for a, b in corners)}' {style} stroke-linejoin='round'/>"
    else:
        dash = " stroke-dasharray='4 3'" if sort == "after" else ""
        box = f"x='{left:g}' y='{top:g}' width='{2 * half:g}' height='{2 * HALF_HEIGHT:g}'"
        shape = f"<rect {box} rx='{6 if sort in ('step', 'loss', 'after') else 20}' {style}{dash}/>"
    rows = text.split("\n")
    size = 12 if len(rows) == 1 else 10.5
    words = [
        f"<text x='{x:g}' y='{y + 4 + 14 * (i - (len(rows) - 1) / 2):g}' {FONT} font-size='{size}'"
        f" fill='{INK}' text-anchor='middle'>{escape(row)}</text>"
        for i, row in enumerate(rows)
    ]
    return "\n".join([shape, *words])


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float], how: str) -> str:
    """Level or upright where it can be; else upright out of the one and level into the other, or "level" first."""
    (x0, y0, half0), (x1, y1, half1) = start, end
    side, down = (1 if x1 > x0 else -1), (1 if y1 > y0 else -1)
    if y0 == y1:
        path = f"M{x0 + side * half0:g} {y0:g} H{x1 - side * (half1 + 1):g}"
    elif x0 == x1:
        path = f"M{x0:g} {y0 + down * HALF_HEIGHT:g} V{y1 - down * (HALF_HEIGHT + 1):g}"
    elif how == "level":
        path = f"M{x0 + side * half0:g} {y0:g} H{x1:g} V{y1 - down * (HALF_HEIGHT + 1):g}"
    else:
        path = f"M{x0:g} {y0 + down * HALF_HEIGHT:g} V{y1:g} H{x1 - side * (half1 + 1):g}"
    dash = " stroke-dasharray='4 3'" if how == "after" else ""
    return f"<path d='{path}' fill='none' stroke='{SOFT}' stroke-width='1.2'{dash} marker-end='url(#tip)'/>"


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (FOLDER / f"wiring_{name}.svg").write_text(drawn(*picture), encoding="utf-8")
