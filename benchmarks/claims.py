"""Draw what a density claims beside what is true: exact values, bounds and estimates of the same ten columns.

`python benchmarks/claims.py` fits six members to ten pixels of scikit-learn's digits, as ink and paper: 1,024 rows that
there can be, so each member's own log p(x) can be had by enumeration, or by quadrature over a code of two numbers. It
keeps the numbers in benchmarks/published/claims.json, prints them and draws docs/img/claims.png. It takes some
minutes; without --fresh it draws from the numbers kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from diabolo import GSN, IWAE, MADE, RBM, VAE
from diabolo.batches import Batch, Batches
from diabolo.boltzmann import annealed_log_z
from diabolo.density import reading_of
from diabolo.plot import drawing

HERE = Path(__file__).parent
NUMBERS, PICTURE = HERE / "published" / "claims.json", HERE.parent / "docs" / "img" / "claims.png"
PIXELS = (18, 19, 20, 26, 27, 28, 34, 35, 36, 43)  # of the middle of an image
EVERY = np.array(list(itertools.product([0.0, 1.0], repeat=len(PIXELS))))
COUNTS = (4, 16, 64, 256, 1024, 4096)
Z90 = 1.645  # standard errors to either side that hold 90 %
N_REPEATED = 20  # where all rows of a reading share their error


class Claim(NamedTuple):
    """What a member says at some count of draws, states or temperatures, over the data's rows and repetitions: nats.

    above : what it says less its own true log p(x), mean
    error : the standard error that it states for a row, root mean square
    low, high : of 90 % of the differences from the truth
    """

    above: float
    error: float
    low: float
    high: float


def main() -> None:
    if "--fresh" in sys.argv or not NUMBERS.is_file():
        NUMBERS.write_text(json.dumps(measured(), indent=1) + "\n")
    found = json.loads(NUMBERS.read_text())
    print("| member | claims | sum of p(x) over all rows |\n|---|---|---:|")
    for name, (kind, total) in found["totals"].items():
        print(f"| `{name}` | {kind} | {total:.4f} |")
    print("\n| " + " | ".join(["nats above the truth ± error stated", *map(str, COUNTS)]) + " |")
    print("|---|" + "---:|" * len(COUNTS))
    claims = {name: [Claim(*one) for one in each] for name, each in found["claims"].items()}
    for name, each in claims.items():
        cells = (f"{one.above:.3f} ± {one.error:.3f}, {one.low:.3f} to {one.high:.3f}" for one in each)
        print(f"| {name} | " + " | ".join(cells) + " |")
    draw(claims)


def measured() -> dict[str, Any]:
    """By member, what it claims and its total; by member and what is counted, a `Claim` for each of `COUNTS`."""
    rows = (load_digits().data[:, PIXELS] > 7).astype(float)
    place = (rows @ 2 ** np.arange(len(PIXELS))[::-1]).astype(int)
    shares = np.bincount(place, minlength=len(EVERY)) / len(rows)
    options: dict[str, Any] = {"kinds": "binary", "random_state": 0}
    members = {
        "MADE()": MADE(**options),
        "RBM(8)": RBM(8, **options),
        "VAE(2)": VAE(2, **options),
        "IWAE(2)": IWAE(2, **options),
        "GSN()": GSN(**options),
        "RBM(24)": RBM(24, **options),
    }
    totals, claims = {}, {}
    for name, member in members.items():
        member.fit(rows)
        total = float(np.exp(logsumexp(member.log_density(EVERY, n_draws=256).values)))
        totals[name] = (member.density_kind_, total)
    for name in ("VAE(2)", "IWAE(2)"):
        truth = on_a_grid(members[name])
        readings = [members[name].log_density(EVERY, n_draws=n) for n in COUNTS]
        claims[f"{name}, draws"] = [
            claim([reading.values - truth], [reading.standard_error], shares) for reading in readings
        ]
    gsn, truth = members["GSN()"], of_the_chain(members["GSN()"])
    batches = Batches.split(Batch.of(gsn.schema_.encode(rows)), 128, 0.0, 0)
    claims["GSN(), states"] = []
    for n in COUNTS:
        readings = [with_states(gsn, batches, n, seed) for seed in range(N_REPEATED)]
        above = [reading.values - truth for reading in readings]
        claims["GSN(), states"].append(claim(above, [one.standard_error for one in readings], shares))
    claims["RBM(24), temperatures"] = [annealed(members["RBM(24)"], n) for n in COUNTS]
    return {"totals": totals, "claims": claims}


def claim(above: Any, error: Any, shares: np.ndarray) -> Claim:
    """Of what repetitions say of every row, (n, n_rows), less the truth, and of the errors that they state."""
    above, error = np.asarray(above), np.asarray(error)
    weight = np.broadcast_to(shares / len(above), above.shape)
    ends = np.quantile(above, (0.05, 0.95), weights=weight, method="inverted_cdf")
    return Claim(float(np.sum(weight * above)), float(np.sqrt(np.sum(weight * error**2))), *map(float, ends))


def on_a_grid(member: Any, n_side: int = 301, reach: float = 6.0) -> np.ndarray:
    """log p of every row by the rectangle rule over the two numbers of the code: (1024,) nats."""
    side = np.linspace(-reach, reach, n_side)
    codes = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    groups = member.model_.split(codes)
    logits = np.asarray(member.model_.decode(groups, np.zeros((len(codes), 0))), np.float64)
    log_prior = np.asarray(member.model_.log_prior(groups), np.float64)
    log_off = -np.logaddexp(0.0, logits).sum(axis=1) + log_prior + 2.0 * np.log(side[1] - side[0])
    return np.array([logsumexp(log_off + logits @ row) for row in EVERY])


def of_the_chain(gsn: Any) -> np.ndarray:
    """log of how often the chain visits every row in the end, by its 1,024 x 1,024 transitions: (1024,) nats."""
    model, n_columns = gsn.model_, len(PIXELS)
    share = 1.0 / (1.0 + np.exp(-np.asarray(model.likelihood.initial, np.float64)))
    rate, stays = float(model.resampling), EVERY[:, None] == EVERY[None]
    anew = np.where(EVERY == 1.0, share, 1.0 - share)
    noisy = np.prod((1.0 - rate) * stays + rate * anew[None], axis=2)
    codes = model.code_of(jnp.asarray(EVERY, jnp.float32), jnp.ones((len(EVERY), n_columns), bool))
    logits = np.asarray(model.said(codes), np.float64)
    drawn = np.exp(logits @ EVERY.T - np.logaddexp(0.0, logits).sum(axis=1, keepdims=True))
    shares = np.full(len(EVERY), 1.0 / len(EVERY))
    for _ in range(2000):
        shares = shares @ noisy @ drawn
    return np.log(shares)


def with_states(gsn: Any, batches: Batches, n_states: int, seed: int) -> Any:
    """The reading of as many states of other chains."""
    model = dataclasses.replace(gsn.model_, n_states=n_states).finish(batches, jax.random.key(1000 + seed))
    return reading_of(model, gsn.schema_.encode(EVERY), 1, 0)


def annealed(rbm: Any, n_temperatures: int) -> Claim:
    """Every row's log p errs alike, by what log Z does; the truth is the sum over all rows."""
    model = rbm.model_
    cells, seen = model._inward(Batch.of(rbm.schema_.encode(EVERY)))
    true = logsumexp(np.asarray(model.machine.log_unnormalised(cells, seen), np.float64))
    found = [
        annealed_log_z(model.machine, model.marginal, max(n_temperatures, 3), 1024, jax.random.key(seed))
        for seed in range(N_REPEATED)
    ]
    return claim([[true - one.log_z] for one in found], [[one.error] for one in found], np.ones(1))


def draw(claims: dict[str, list[Claim]]) -> None:
    """A panel for each: the band in which 90 % should lie by the error stated, and where 90 % lie, about the truth."""
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    panels[1].sharey(panels[0])
    for number, (axes, (name, each)) in enumerate(zip(panels, claims.items(), strict=True)):
        drawing.dress(axes, name.split(", ")[1], "nats above the truth" if number % 2 == 0 else "")
        color = drawing.PALETTE[number]
        above, error, low, high = np.array(each).T
        axes.fill_between(COUNTS, -Z90 * error, Z90 * error, color=color, alpha=0.15, linewidth=0)
        axes.axhline(0.0, color=drawing.INK, linewidth=0.8)
        axes.vlines(COUNTS, low, high, color=color, linewidth=1.4)
        axes.plot(COUNTS, above, color=color, marker="o", markersize=4.5, linewidth=1.4)
        kind = "bound" if number < 2 else "estimate"
        axes.set_title(f"{name.split(', ')[0]}, {kind}", fontsize=9, color=drawing.INK, loc="left")
        axes.set_xscale("log", base=4)
        axes.set_xticks(COUNTS, [f"{n:,}" for n in COUNTS])
        axes.minorticks_off()
    figure.savefig(PICTURE, dpi=200, facecolor="white")


if __name__ == "__main__":
    main()
