"""Defaults just work: `VAE()` with no argument but a seed, beside classical methods, on real tables.

    python benchmarks/defaults.py [anomaly] [tables] [nats] [--fresh]

Every finished line is written to benchmarks/results/ at once, so a run that was stopped goes on where it was.
The data are those of the folder that DIABOLO_DATA names.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from mixture import Mixture
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo import VAE

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("DIABOLO_DATA", HERE.parents[1] / "shared" / "data"))
SEEDS = (0, 1, 2)
MAX_ROWS = 10_000


def vae_surprise(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """-log p(x), nats: the reading under test."""
    return -VAE(random_state=seed).fit(train).score_samples(test)


def neighbour_distance(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Distance to the 5th nearest training row, on standardized columns."""
    scaler = StandardScaler().fit(train)
    neighbours = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train))
    return neighbours.kneighbors(scaler.transform(test))[0][:, -1]


def pca_error(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Squared distance to the principal subspace that holds 90 % of the variance of standardized columns."""
    scaler = StandardScaler().fit(train)
    pca = PCA(n_components=0.9, svd_solver="full").fit(scaler.transform(train))
    rows = scaler.transform(test)
    return ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).sum(1)


def isolation(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Isolation forest, scikit-learn's defaults."""
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "VAE()": vae_surprise,
    "5th neighbour": neighbour_distance,
    "PCA": pca_error,
    "isolation forest": isolation,
}


def split(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows (a random half of the normal ones), test rows (all others), which of those are odd."""
    with np.load(DATA / "anomaly" / f"{name}.npz") as file:
        X, odd = file["X"].astype(np.float64), file["y"] == 1
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(X))[:MAX_ROWS]
    X, odd = X[kept], odd[kept]
    normal = np.flatnonzero(~odd)
    train = normal[: len(normal) // 2]
    test = np.setdiff1d(np.arange(len(X)), train)
    return X[train], X[test], odd[test]


def auroc(scores: np.ndarray, odd: np.ndarray) -> float:
    """Area under the ROC curve, per cent; an infinite score is the oddest of all, a nan is a failure."""
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} scores are nan")
    return 100 * roc_auc_score(odd, rankdata(scores))


def anomaly() -> Iterator[tuple[dict, Callable[[], dict]]]:
    """One task per set, method and seed."""
    sets = sorted((DATA / "anomaly").glob("*.npz"), key=lambda path: int(path.stem.split("_")[0]))
    for seed in SEEDS:
        for path in sets:
            for method in METHODS:
                key = {"set": path.stem, "method": method, "seed": seed}

                def run(name: str = path.stem, method: str = method, seed: int = seed) -> dict:
                    train, test, odd = split(name, seed)
                    return {"auroc": auroc(METHODS[method](train, test, seed), odd)}

                yield key, run


def print_anomaly(lines: list[dict]) -> None:
    """AUROC per set and method, mean of the seeds, and the mean over the sets."""
    found = defaultdict(list)
    for line in lines:
        found[line["set"], line["method"]].append(line.get("auroc", np.nan))
    names = sorted({name for name, _ in found}, key=lambda name: int(name.split("_")[0]))
    print(f"| set | {' | '.join(METHODS)} |\n|---|{'---:|' * len(METHODS)}")
    for name in names:
        print(f"| {name} | {' | '.join(f'{np.mean(found[name, m]):.1f}' for m in METHODS)} |")
    means = [np.mean([np.mean(found[name, m]) for name in names]) for m in METHODS]
    print(f"| **mean** | {' | '.join(f'**{mean:.1f}**' for mean in means)} |\n")
    target(means[0] >= 93.0, "mean AUROC of VAE() at least 93.0", f"{means[0]:.2f}")


def tables() -> Iterator[tuple[dict, Callable[[], dict]]]:
    """Fit, score and draw from every table as it was read."""
    for path in sorted((DATA / "tabular").glob("*.csv")):

        def run(path: Path = path) -> dict:
            table = pd.read_csv(path)
            vae = VAE(random_state=0).fit(table)
            scores = vae.score_samples(table)
            drawn = vae.sample(100, random_state=0)
            if list(drawn.columns) != list(table.columns):
                raise ValueError("the draws have other columns")
            return {
                "rows": len(table),
                "columns": table.shape[1],
                "steps": vae.n_steps_,
                "held out": vae.best_validation_score_,
                "mean": float(scores.mean()),
                "not finite": int((~np.isfinite(scores)).sum()),
            }

        yield {"set": path.stem}, run


def print_tables(lines: list[dict]) -> None:
    """One line per table; a failure or a warning is shown as it came."""
    shown = ["rows", "columns", "steps", "held out", "mean", "not finite", "seconds"]
    print(f"| table | {' | '.join(shown)} | warnings, failure |\n|---|{'---:|' * len(shown)}---|")
    for line in lines:
        cells = [f"{line[k]:.2f}" if isinstance(line.get(k), float) else str(line.get(k, "")) for k in shown]
        said = "; ".join([*line["warnings"], *filter(None, [line.get("failure")])])
        print(f"| {line['set']} | {' | '.join(cells)} | {said} |")
    print()
    announced = "UserWarning: columns "  # which columns are constant or set aside
    spoilt = [
        x["set"] for x in lines if "failure" in x or any(not w.startswith(announced) for w in x["warnings"])
    ]
    target(not spoilt, "no table fails or warns", f"{len(lines)} tables; {', '.join(spoilt) or 'none'} did")


def halves(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """adult: UCI's own split; bank_marketing: a random fifth is held out."""
    table = pd.read_csv(DATA / "tabular" / f"{name}.csv")
    if "split" in table:
        train = (table.pop("split") == "train").to_numpy()
    else:
        train = np.random.default_rng(0).random(len(table)) >= 0.2
    return table[train], table[~train]


def nats() -> Iterator[tuple[dict, Callable[[], dict]]]:
    """Held-out nats per row: every model over the same columns, kinds and resolutions."""

    def vae(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> np.ndarray:
        return VAE(random_state=seed).fit(train).score_samples(test)

    def mixture(n_products: int) -> Callable[[pd.DataFrame, pd.DataFrame, int], np.ndarray]:
        def run(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> np.ndarray:
            schema = VAE(max_steps=1, random_state=seed).fit(train).schema_
            return Mixture(schema, n_products, seed).fit(train).score_samples(test)

        return run

    models = {"VAE()": vae, "product of marginals": mixture(1), "mixture of ten products": mixture(10)}
    for name in ("adult", "bank_marketing"):
        for model, score in models.items():
            for seed in SEEDS if model != "product of marginals" else SEEDS[:1]:

                def run(name: str = name, score: Callable = score, seed: int = seed) -> dict:
                    scores = score(*halves(name), seed)
                    finite = np.isfinite(scores)
                    return {
                        "nats": float(scores[finite].mean()),
                        "error": float(scores[finite].std() / np.sqrt(finite.sum())),
                        "outside": int((~finite).sum()),
                    }

                yield {"set": name, "method": model, "seed": seed}, run


def print_nats(lines: list[dict]) -> None:
    """Mean held-out nats per row and model."""
    found = defaultdict(list)
    for line in lines:
        found[line["set"], line["method"]].append(line.get("nats", np.nan))
    methods = list(dict.fromkeys(method for _, method in found))
    print(f"| table | {' | '.join(methods)} |\n|---|{'---:|' * len(methods)}")
    for name in dict.fromkeys(name for name, _ in found):
        means = [np.mean(found[name, method]) for method in methods]
        print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    print()
    for name in dict.fromkeys(name for name, _ in found):
        ours, *theirs = (np.mean(found[name, method]) for method in methods)
        target(
            ours > max(theirs), f"VAE() ahead of both on {name}", f"by {ours - max(theirs):.2f} nats per row"
        )


PARTS = {"anomaly": (anomaly, print_anomaly), "tables": (tables, print_tables), "nats": (nats, print_nats)}


def target(reached: bool, what: str, measured: str) -> None:
    """One line: what was to be reached, and whether it was."""
    print(f"{'reached' if reached else 'NOT REACHED'}: {what}: {measured}\n")


def watched(run: Callable[[], dict]) -> dict:
    """What a task found, its seconds, and every warning or failure as text; the run goes on."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = run()
        except Exception as problem:
            found = {"failure": f"{type(problem).__name__}: {problem}"}
    said = dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught)
    return found | {"seconds": round(time.perf_counter() - start, 2), "warnings": list(said)}


def collect(
    part: str,
    tasks: Iterable[tuple[dict, Callable[[], dict]]],
    fresh: bool,
    only_written: bool = False,
    folder: Path = HERE / "results",
) -> list[dict]:
    """Run what is not yet written down, unless only that is wanted; one JSON line per task.

    fresh : forget the lines of these tasks first
    """
    path, tasks = folder / f"{part}.jsonl", list(tasks)
    path.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if fresh:
        done = [line for line in done if not any(line.items() >= key.items() for key, _ in tasks)]
        path.write_text("".join(json.dumps(line) + "\n" for line in done))
    lines = []
    for key, run in tasks:
        line = next((d for d in done if d.items() >= key.items()), None)
        if line is None and only_written:
            continue
        if line is None:
            line = key | watched(run)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)
        lines.append(line)
    return lines


def main() -> None:
    """Run the parts that are named, or all, and print their tables."""
    parser = argparse.ArgumentParser(
        description="Measure what VAE() does by default; prints Markdown tables."
    )
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all unless named")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    print(f"{datetime.date.today()}: diabolo {diabolo.__version__}\n")
    for part in options.parts or PARTS:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}; known: {', '.join(PARTS)}")
        lines = collect(part, PARTS[part][0](), options.fresh)
        PARTS[part][1](lines)
        failed = [line for line in lines if "failure" in line]
        for line in failed:
            print(f"FAILED: {json.dumps(line)}")


if __name__ == "__main__":
    main()
