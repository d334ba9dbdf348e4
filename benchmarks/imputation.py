"""Gaps filled: `VAE().impute` beside scikit-learn's imputers, on real tables of which a fifth of the cells is hidden.

    python benchmarks/imputation.py [TABLE ...] [--seeds 1] [--fresh]

Every method sees the same table with the same cells hidden at random, fills it, and is compared with what was hidden.
Numbers: root of the mean squared error, in standard deviations of the column. Categories (whole numbers of at most ten
values among them): share of wrong levels. Both are means over the columns. scikit-learn's imputers work on standardized
numbers beside one column per level, of which the largest is the answer. Every finished line is written to
benchmarks/results/imputation.jsonl at once, so a run that was stopped goes on where it was. The data are those of the
folder that DIABOLO_DATA names.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd
from defaults import DATA, HERE, target
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import diabolo
from diabolo import VAE, Schema

SHARE_HIDDEN = 0.2
MAX_ROWS = 5000  # of adult and bank_marketing, drawn at random
MAX_LEVELS = 50  # text of more levels than that (names, tickets, cabins) is left out for all methods
N_DRAWS = 100  # behind the 90 % intervals
NUMBERS = {"real", "positive", "count"}

Filled = pd.DataFrame
Method = Callable[[pd.DataFrame, list[str], int], tuple[Filled, list[Filled]]]


def table_of(name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table, and which of its columns are numbers by diabolo's own reading of them."""
    table = pd.read_csv(DATA / "tabular" / f"{name}.csv").drop(columns="split", errors="ignore")
    if len(table) > MAX_ROWS:
        table = table.sample(MAX_ROWS, random_state=0).reset_index(drop=True)
    text = table.select_dtypes(exclude="number").columns
    table = table.drop(columns=[column for column in text if table[column].nunique() > MAX_LEVELS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = {column.name: column.kind.name for column in Schema.learn(table).columns}
    table = table.drop(columns=[c for c, kind in kinds.items() if kind in {"constant", "identifier"}])
    return table, [column for column in table if kinds[column] in NUMBERS]


def hide(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The table with cells hidden, and which: (n_rows, n_columns) bool, the gaps that it had not among them."""
    hidden = (np.random.default_rng(seed).random(table.shape) < SHARE_HIDDEN) & table.notna().to_numpy()
    return table.mask(hidden), hidden


def vae(gappy: pd.DataFrame, numbers: list[str], seed: int) -> tuple[Filled, list[Filled]]:
    """`VAE(random_state=seed)` with no other argument: the centres, and draws for the intervals."""
    model = VAE(random_state=seed).fit(gappy)
    return model.impute(gappy), model.impute(gappy, N_DRAWS, random_state=seed)


def middles(gappy: pd.DataFrame, numbers: list[str], seed: int) -> tuple[Filled, list[Filled]]:
    """Each column's median or commonest level."""
    middle = {c: gappy[c].median() if c in numbers else gappy[c].mode().iloc[0] for c in gappy}
    return gappy.fillna(middle), []


def on_dummies(imputer: Callable[[int], object], n_dropped: int = 0) -> Method:
    """One of scikit-learn's imputers on standardized numbers beside one column per level, standardized too."""

    def run(gappy: pd.DataFrame, numbers: list[str], seed: int) -> tuple[Filled, list[Filled]]:
        blocks, levels = {}, {}
        for column in gappy:
            cells = gappy[column]
            if column not in numbers:
                dummies = pd.get_dummies(cells, dtype=float).where(cells.notna(), axis=0)
                levels[column] = dummies.columns.to_numpy()
                cells = dummies.iloc[:, : dummies.shape[1] - n_dropped]
            blocks[column] = pd.DataFrame(cells)
        wide = np.concatenate([block.to_numpy(float) for block in blocks.values()], axis=1)
        mean, spread = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
        spread[spread == 0] = 1.0
        found = imputer(seed).fit_transform((wide - mean) / spread) * spread + mean
        filled, start = gappy.copy(), 0
        for column, block in blocks.items():
            part = found[:, start : start + block.shape[1]]
            if column in numbers:
                values = part[:, 0]
            else:
                last = 1.0 - part.sum(axis=1, keepdims=True)
                values = levels[column][np.hstack([part, last][: 1 + n_dropped]).argmax(axis=1)]
            filled[column] = gappy[column].where(gappy[column].notna(), values)
            start += block.shape[1]
        return filled, []

    return run


METHODS: dict[str, Method] = {
    "VAE().impute": vae,
    "IterativeImputer": on_dummies(lambda seed: IterativeImputer(random_state=seed), n_dropped=1),
    "KNNImputer": on_dummies(lambda seed: KNNImputer()),
    "median, mode": middles,
}


def measured(name: str, method: str, seed: int) -> dict:
    """Errors per column, and the coverage of 90 % intervals where there are draws."""
    table, numbers = table_of(name)
    gappy, hidden = hide(table, seed)
    start = time.perf_counter()
    filled, draws = METHODS[method](gappy.astype(dict.fromkeys(numbers, float)), numbers, seed)
    seconds = time.perf_counter() - start
    errors, inside = {}, []
    for j, column in enumerate(table):
        at = hidden[:, j]
        truth, told = table[column].to_numpy()[at], filled[column].to_numpy()[at]
        if column not in numbers:
            errors[column] = float(np.mean(truth != told))
            continue
        errors[column] = float(np.sqrt(np.mean((truth - told) ** 2)) / table[column].std())
        if draws:
            ends = np.quantile([draw[column].to_numpy()[at] for draw in draws], [0.05, 0.95], axis=0)
            inside.append((ends[0] <= truth) & (truth <= ends[1]))
    rmse = [errors[c] for c in errors if c in numbers]
    wrong = [errors[c] for c in errors if c not in numbers]
    return {
        "rows": len(table),
        "numbers": len(rmse),
        "categories": len(wrong),
        "rmse": float(np.mean(rmse)),
        "wrong": float(np.mean(wrong)),
        "covered": float(np.concatenate(inside).mean()) if inside else None,
        "errors": errors,
        "seconds": round(seconds, 1),
    }


def collect(names: list[str], n_seeds: int, fresh: bool) -> list[dict]:
    """Run what is not yet written down; one JSON line per table, method and seed."""
    path = HERE / "results" / "imputation.jsonl"
    path.parent.mkdir(exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    lines = []
    for name in names:
        for seed in range(n_seeds):
            for method in METHODS:
                key = {"set": name, "method": method, "seed": seed}
                line = next((d for d in done if d.items() >= key.items()), None)
                if line is None:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # IterativeImputer says where it did not converge
                        line = key | measured(name, method, seed)
                    with path.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(json.dumps(line), file=sys.stderr, flush=True)
                lines.append(line)
    return lines


def show(lines: list[dict]) -> None:
    """Both errors per table and method, the coverage, and on how many tables diabolo is ahead of all."""
    found = defaultdict(list)
    for line in lines:
        found[line["set"], line["method"]].append(line)

    def mean(name: str, method: str, fact: str) -> float:
        return float(np.mean([line[fact] for line in found[name, method]]))

    names = list(dict.fromkeys(line["set"] for line in lines))
    shown = " | ".join(METHODS)
    ahead, covered = [], []
    for fact, what in (("rmse", "error of numbers, in spreads"), ("wrong", "share of wrong levels")):
        print(f"| {what} | columns | {shown} |\n|---|---:|{'---:|' * len(METHODS)}")
        for name in names:
            first = found[name, "VAE().impute"][0]
            errors = [mean(name, method, fact) for method in METHODS]
            n_columns = first["numbers" if fact == "rmse" else "categories"]
            cells = [f"**{e:.3f}**" if e == min(errors) else f"{e:.3f}" for e in errors]
            print(f"| {name} | {n_columns} | {' | '.join(cells)} |")
            ahead.append((name, fact, errors[0] <= min(errors)))
        print()
    print("| table | rows | covered by 90 % intervals | seconds, VAE | IterativeImputer | KNNImputer |")
    print(f"|---|{'---:|' * 5}")
    for name in names:
        covered.append(mean(name, "VAE().impute", "covered"))
        spent = " | ".join(f"{mean(name, method, 'seconds'):.0f}" for method in list(METHODS)[:3])
        n_rows = found[name, "VAE().impute"][0]["rows"]
        print(f"| {name} | {n_rows:,} | {100 * covered[-1]:.1f} % | {spent} |")
    print()
    for fact, what in (("rmse", "numbers"), ("wrong", "categories")):
        won = sum(is_ahead for _, which, is_ahead in ahead if which == fact)
        target(won > len(names) / 2, f"ahead of all three on most tables, {what}", f"{won} of {len(names)}")
    within = sum(0.85 <= share <= 0.95 for share in covered)
    target(within == len(names), "coverage between 85 and 95 %", f"{within} of {len(names)} tables")


def main() -> None:
    """Run the tables that are named, or all, and print the Markdown tables."""
    known = [path.stem for path in sorted((DATA / "tabular").glob("*.csv"))]
    parser = argparse.ArgumentParser(description="Measure imputation; prints Markdown tables.")
    parser.add_argument("tables", nargs="*", help=f"any of {', '.join(known)}; all unless named")
    parser.add_argument("--seeds", type=int, default=1, help="hidings of cells per table")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    for name in options.tables:
        if name not in known:
            parser.error(f"unknown table {name!r}; known: {', '.join(known)}")
    print(f"{datetime.date.today()}: diabolo {diabolo.__version__}\n")
    show(collect(options.tables or known, options.seeds, options.fresh))


if __name__ == "__main__":
    main()
