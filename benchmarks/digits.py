"""Handwritten digits by densities of the classes: the Parzen family beside an SVM and k-nearest neighbours.

    python benchmarks/digits.py                     the rows and their state
    python benchmarks/digits.py digits manifold     one row; what is done is not done again
    python benchmarks/digits.py --table             the table of docs/results.md

`digits` are scikit-learn's 8 x 8 images, five stratified folds, each tested by a fit to the others; `mnist` is learned
from its first 10,000 images and tested on its own 10,000 test images. The data folder is named by DIABOLO_DATA. The
bandwidth is settled by held-out likelihood within each class's training rows; of the test images nothing is chosen.
Numbers are kept, one file per row, under benchmarks/published/digits/.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from diabolo import BayesClassifier, ManifoldParzen, NonlocalManifoldParzen, ParzenWindow, Pixels

NUMBERS = Path(__file__).parent / "published" / "digits"
MNIST = Path(os.environ.get("DIABOLO_DATA", "data")) / "images" / "mnist.npz"
N_TRAIN = 10_000
ROWS = ("parzen", "manifold", "nonlocal", "neighbours", "svm")
NAMES = {
    "parzen": "`BayesClassifier(ParzenWindow())`",
    "manifold": "`BayesClassifier(ManifoldParzen())`, 11 neighbours, 7 directions",
    "nonlocal": "`BayesClassifier(NonlocalManifoldParzen())`, 11 neighbours, 7 directions",
    "neighbours": "scikit-learn `KNeighborsClassifier(3)`",
    "svm": "scikit-learn `SVC()`",
}
SHAPE: dict[str, Any] = {"n_neighbors": 11, "n_directions": 7}
STEPS = {"digits": 1000, "mnist": 500}  # of the network of each class


def classifier(row: str, data: str) -> Any:
    """The unfitted classifier of a row."""
    if row == "neighbours":
        return KNeighborsClassifier(3)
    if row == "svm":
        return SVC()
    options: dict[str, Any] = {"random_state": 0, "kinds": Pixels(n_levels=17 if data == "digits" else 256)}
    if row == "parzen":
        return BayesClassifier(ParzenWindow(**options))
    if row == "manifold":
        return BayesClassifier(ManifoldParzen(**SHAPE, **options))
    return BayesClassifier(NonlocalManifoldParzen(**SHAPE, max_steps=STEPS[data], **options))


def parts(data: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Training images and labels, test images and labels; several times where there are folds."""
    if data == "mnist":
        with np.load(MNIST) as z:
            return [(z["x_train"][:N_TRAIN], z["y_train"][:N_TRAIN], z["x_test"], z["y_test"])]
    X, y = load_digits(return_X_y=True)
    images = X.reshape(-1, 8, 8)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(images, y)
    return [(images[train], y[train], images[test], y[test]) for train, test in folds]


def run(data: str, row: str) -> dict[str, Any]:
    """Fit and test a row."""
    start, n_wrong, n_rows, widths = time.perf_counter(), 0, 0, []
    for X, y, new, truth in parts(data):
        one = classifier(row, data)
        if not isinstance(one, BayesClassifier):
            X, new = X.reshape(len(X), -1) / 255.0, new.reshape(len(new), -1) / 255.0
        one.fit(X, y)
        if isinstance(one, BayesClassifier):
            widths += [density.bandwidth_ for density in one.estimators_]
        n_wrong += int(np.sum(one.predict(new) != truth))
        n_rows += len(truth)
        print(f"{data} {row}: {n_wrong} of {n_rows} wrong, {time.perf_counter() - start:.0f} s", flush=True)
    seconds = time.perf_counter() - start
    return {
        "n_wrong": n_wrong,
        "n_rows": n_rows,
        "seconds": round(seconds),
        "bandwidths": np.round(widths, 3).tolist(),
    }


def table() -> None:
    print("| | digits, % wrong | MNIST, % wrong | seconds, digits / MNIST |\n|---|---:|---:|---:|")
    for row in ROWS:
        cells, seconds = [], []
        for data in ("digits", "mnist"):
            path = NUMBERS / f"{data}-{row}.json"
            found = json.loads(path.read_text()) if path.exists() else None
            cells.append("-" if found is None else f"{100 * found['n_wrong'] / found['n_rows']:.2f}")
            seconds.append("-" if found is None else str(found["seconds"]))
        print(f"| {NAMES[row]} | {' | '.join(cells)} | {' / '.join(seconds)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", choices=("digits", "mnist"))
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        table()
        return
    if asked.data is None or asked.row is None:
        for data in ("digits", "mnist"):
            for row in ROWS:
                path = NUMBERS / f"{data}-{row}.json"
                print(data, row, path.read_text().strip() if path.exists() else "not yet")
        return
    path = NUMBERS / f"{asked.data}-{asked.row}.json"
    if path.exists():
        print(path.read_text())
        return
    found = run(asked.data, asked.row)
    NUMBERS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
