"""Densities by neighbours against the dimension, beside one by a network: `python benchmarks/neighbourhood.py`.

Rows are d noisy rings side by side, 2 d columns, whose true density is known: an angle drawn evenly and a radius of
1 ± 0.1 in each. What each member falls short of the truth is measured on rows that it never saw, in nats per ring: with
one number per ring to be learned, a method that generalises beyond its neighbours stays level as rings are added. The
picture goes to docs/img/neighbourhood.png; numbers are kept under benchmarks/published/neighbourhood.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ive

from diabolo import VAE, ManifoldParzen, NonlocalManifoldParzen, ParzenWindow

HERE = Path(__file__).parent
NUMBERS, PICTURE = (
    HERE / "published" / "neighbourhood.json",
    HERE.parent / "docs" / "img" / "neighbourhood.png",
)
N_TRAIN, N_TEST, NOISE = 1000, 500, 0.1
RINGS = (1, 2, 4, 8)


def rows(n: int, n_rings: int, seed: int) -> np.ndarray:
    """(n, 2 n_rings): points of rings, with round Gaussian noise."""
    generator = np.random.default_rng(seed)
    angle = 2.0 * np.pi * generator.random((n, n_rings))
    flat = np.stack([np.cos(angle), np.sin(angle)], axis=2).reshape(n, -1)
    return flat + NOISE * generator.normal(size=flat.shape)


def truth(X: np.ndarray) -> np.ndarray:
    """log p(x), nats: a Gaussian's mean over a circle, exp(-(r² + 1) / 2 s²) I0(r / s²) / (2 pi s²), for each ring."""
    radius = np.sqrt(X[:, ::2] ** 2 + X[:, 1::2] ** 2)
    each = -((radius - 1.0) ** 2) / (2 * NOISE**2) + np.log(ive(0, radius / NOISE**2))
    return np.sum(each - np.log(2.0 * np.pi * NOISE**2), axis=1)


def members(n_rings: int) -> dict[str, Any]:
    """What is compared; the Parzen members are told how many directions a row can move in."""
    near = {"n_neighbors": 11, "n_directions": min(n_rings, 10), "random_state": 0}
    return {
        "ParzenWindow": ParzenWindow(random_state=0),
        "ManifoldParzen": ManifoldParzen(**near),
        "NonlocalManifoldParzen": NonlocalManifoldParzen(**near),
        "VAE": VAE(2 * n_rings, random_state=0),
    }


def main() -> None:
    found = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    for n_rings in RINGS:
        train, test = rows(N_TRAIN, n_rings, 0), rows(N_TEST, n_rings, 1)
        for name, member in members(n_rings).items():
            if f"{name} {n_rings}" in found:
                continue
            start = time.perf_counter()
            short = (truth(test) - member.fit(train).score_samples(test)) / n_rings
            found[f"{name} {n_rings}"] = [
                round(float(short.mean()), 4),
                round(time.perf_counter() - start, 1),
            ]
            NUMBERS.write_text(json.dumps(found, indent=1) + "\n")
            print(name, n_rings, found[f"{name} {n_rings}"], flush=True)
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    print("| rings | " + " | ".join(members(1)) + " |\n|---:|" + "---:|" * 4)
    for name in members(1):
        axes.plot(RINGS, [found[f"{name} {n}"][0] for n in RINGS], marker="o", label=name)
    for n in RINGS:
        print(f"| {n} | " + " | ".join(f"{found[f'{name} {n}'][0]:.2f}" for name in members(1)) + " |")
    axes.set(xscale="log", xlabel="rings (half the columns)", ylabel="nats per ring short of the truth")
    axes.set_xticks(RINGS, [str(n) for n in RINGS])
    axes.minorticks_off()
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()
