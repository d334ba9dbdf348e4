"""Densities of the wine tables: ten folds, nats of rows that no model has seen, one line per model.

    python benchmarks/wine.py                     what is there
    python benchmarks/wine.py red flow            measure a model on a table; folds that are done are not done again
    python benchmarks/wine.py --table             the table of docs/results.md

The data folder is named by DIABOLO_DATA. Duplicated rows are dropped before anything is split, the column quality too.
A column's step is the coarsest of 1, 0.1, ... of which 95 % of its values are multiples; the density of a row is the
mass of its cell, half a step to each side, divided by its volume, and all models are asked for it alike: nats are
averages over draws in the cell. They are per unit of the z-scored columns (spreads of all rows).
Numbers are kept under benchmarks/wine/, one file per table and model.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity

from diabolo import MADE, VAE, NormalizingFlow, Real

HERE = Path(__file__).parent
NUMBERS, PAGE = HERE / "wine", HERE.parent / "docs" / "results.md"
DATA = Path(os.environ.get("DIABOLO_DATA", "data")) / "density"
N_FOLDS, N_DRAWS = 10, 128
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
BEGIN, END = "<!-- wine: begin -->", "<!-- wine: end -->"

Score = Callable[[np.ndarray], np.ndarray]  # rows to (n_rows,) nats per unit of z


class Wine:
    """One table: rows in the spreads of its columns, and each column's step in them."""

    def __init__(self, colour: str) -> None:
        table = pd.read_csv(DATA / f"winequality_{colour}.csv").drop(columns="quality").drop_duplicates()
        raw = table.to_numpy(np.float64)
        self.names, self.scale = list(table.columns), raw.std(axis=0)
        self.step = np.array([step_of(column) for column in raw.T])
        self.rows = (raw - raw.mean(axis=0)) / self.scale
        self.half = 0.5 * self.step / self.scale

    def spread(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows moved within their cells."""
        return rows + self.half * rng.uniform(-1, 1, rows.shape)

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(KFold(N_FOLDS, shuffle=True, random_state=0).split(self.rows))


def step_of(values: np.ndarray) -> float:
    """The coarsest decimal step of which 95 % of the values are multiples."""
    for step in (1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5):
        multiples = values / step
        if np.mean(np.abs(multiples - np.rint(multiples)) < 1e-6) >= 0.95:
            return step
    raise AssertionError("every column of these tables has a step")


def of_density(wine: Wine, log_density: Score) -> Score:
    """The cells' mean density, by draws."""

    def score(rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(1)
        nats = [log_density(wine.spread(rows, rng)) for _ in range(N_DRAWS)]
        return logsumexp(nats, axis=0) - np.log(N_DRAWS)

    return score


def gaussian(wine: Wine, train: np.ndarray) -> tuple[Score, dict[str, Any]]:
    law = GaussianMixture(1).fit(wine.spread(train, np.random.default_rng(0)))
    return of_density(wine, law.score_samples), {}


def mixture(wine: Wine, train: np.ndarray) -> tuple[Score, dict[str, Any]]:
    spread = wine.spread(train, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EM's last steps
        laws = [GaussianMixture(size, n_init=3, random_state=0).fit(spread) for size in SIZES]
    law = min(laws, key=lambda one: one.bic(spread))
    return of_density(wine, law.score_samples), {"size": law.n_components}


def kernel(wine: Wine, train: np.ndarray) -> tuple[Score, dict[str, Any]]:
    spread = wine.spread(train, np.random.default_rng(0))
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.1, 1.0, 21)}, cv=5).fit(spread)
    return of_density(wine, search.best_estimator_.score_samples), search.best_params_


def member(make: Callable[..., Any]) -> Callable[[Wine, np.ndarray], tuple[Score, dict[str, Any]]]:
    def fit(wine: Wine, train: np.ndarray) -> tuple[Score, dict[str, Any]]:
        kinds = {f"x{i}": Real(resolution=2 * half, atoms=()) for i, half in enumerate(wine.half)}
        estimator = make(kinds=kinds, random_state=0).fit(train)
        facts = {"n_steps": estimator.n_steps_, "held_out": round(estimator.best_validation_score_, 3)}
        return lambda rows: estimator.log_density(rows, n_draws=N_DRAWS).values, facts

    return fit


MODELS: dict[str, tuple[str, Callable[[Wine, np.ndarray], tuple[Score, dict[str, Any]]]]] = {
    "gaussian": ("Gaussian", gaussian),
    "kernel": ("kernel density, bandwidth by 5 folds of the training rows", kernel),
    "mixture": ("full-covariance mixture, size by BIC", mixture),
    "vae": ("`VAE()`", member(VAE)),
    "made": ("`MADE()`", member(MADE)),
    "coupling": ('`NormalizingFlow("coupling")`', member(lambda **more: NormalizingFlow("coupling", **more))),
    "flow": ("`NormalizingFlow()`", member(NormalizingFlow)),
}


def measure(colour: str, name: str) -> None:
    """All folds that are not done; the file is written after each."""
    wine, target = Wine(colour), NUMBERS / f"{colour}-{name}.json"
    NUMBERS.mkdir(exist_ok=True)
    done = json.loads(target.read_text()) if target.is_file() else {"what": MODELS[name][0], "folds": []}
    for number, (train, test) in list(enumerate(wine.folds()))[len(done["folds"]) :]:
        began = time.process_time()
        score, facts = MODELS[name][1](wine, wine.rows[train])
        fitted = time.process_time()
        nats = score(wine.rows[test])
        fold = {
            "nats": round(float(nats.mean()), 4),
            "n_rows": len(test),
            "fit": round(fitted - began, 1),
            **facts,
        }
        done["folds"].append(fold)
        done |= {"date": datetime.date.today().isoformat(), "step": wine.step.tolist()}
        target.write_text(json.dumps(done, indent=1) + "\n")
        print(colour, name, number, fold, flush=True)


def found(colour: str, name: str) -> np.ndarray | None:
    """(n_folds,) nats, or None where none is done."""
    target = NUMBERS / f"{colour}-{name}.json"
    return (
        np.array([fold["nats"] for fold in json.loads(target.read_text())["folds"]])
        if target.is_file()
        else None
    )


def write_table() -> None:
    """Mean nats, and the paired difference to the mixture with its standard error over folds."""
    lines = ["| model | red | to the mixture | white | to the mixture |", "|---|---:|---:|---:|---:|"]
    for name, (what, _) in MODELS.items():
        cells = [what]
        for colour in ("red", "white"):
            nats, rival = found(colour, name), found(colour, "mixture")
            if nats is None or rival is None:
                cells += ["not measured", ""]
                continue
            both = min(len(nats), len(rival))
            apart = nats[:both] - rival[:both]
            short = "" if len(nats) == N_FOLDS else f" ({len(nats)} folds)"
            error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.nan
            cells += [
                f"{nats.mean():.2f}{short}",
                "" if name == "mixture" else f"{apart.mean():+.2f} ± {error:.2f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("colour", nargs="?", choices=("red", "white"))
    parser.add_argument("model", nargs="?", choices=MODELS)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        return write_table()
    if asked.model is None:
        for colour in ("red", "white"):
            for name in MODELS:
                nats = found(colour, name)
                print(colour, name, "-" if nats is None else f"{nats.mean():.3f}, {len(nats)} folds")
        return
    if not DATA.is_dir():
        sys.exit(f"skipped: no {DATA}; name the folder of the data sets in DIABOLO_DATA")
    measure(asked.colour, asked.model)


if __name__ == "__main__":
    main()
