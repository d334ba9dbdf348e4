"""Digits from few labels: test error of M1 + M2 on MNIST, beside the paper's.

    python benchmarks/few_labels.py                 the rows and their state
    python benchmarks/few_labels.py 100 --seed 0    train and test with 100 labels; what is done is not done again
    python benchmarks/few_labels.py 100 --tried apart    the same with another setting; kept under tried/
    python benchmarks/few_labels.py 100 --spread    no M2: labels spread over M1's codes by scikit-learn; under spread/
    python benchmarks/few_labels.py --table         the table of docs/results.md

The data folder is named by DIABOLO_DATA. M1 needs no label: it is trained once, kept under benchmarks/results/, which
git ignores, and every row and seed starts from it; labels, M2 and what both learn together are the seed's. Numbers are
kept, one file per row and seed, under benchmarks/published/labels/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from published import DATA as NATS_DATA
from published import HERE, KINDS, PAGE, UNDER_WAY, _processor, results
from published import NUMBERS as NATS
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

import diabolo
from diabolo import SemiSupervisedVAE

NUMBERS, DATA = NATS / "labels", NATS_DATA.with_name("mnist.npz")
M1 = UNDER_WAY / "m1m2-m1.safetensors"
HALF = 128  # grey levels from here on are ink: drawn ink would be noise that the test rows have, too
SOURCE = "Kingma et al. 2014, arXiv:1406.5298"


class Row(NamedTuple):
    """How many labels, and what is compared with: test error in percent, as the paper has it and as it should be."""

    n_labels: int
    paper: float
    floor: float | None
    options: dict[str, Any]


NETWORKS: dict[str, Any] = {
    "stacked": True,
    "n_feature_components": 32,
    "n_components": 10,
    "hidden_layer_sizes": (500, 250),
    "label_layer_sizes": (100,),
    "batch_size": 200,
    "kinds": KINDS,
    "early_stopping": False,
}
FIRST = {"shares": (1, 0, 0), "max_steps": 10_000, "learning_rate": 1.5e-3}
THEN = {"shares": (0, 3, 4), "max_steps": 14_000, "learning_rate": 2e-3, "alpha": 0.3, "warm_up": 0.0}
TRIED: dict[str, dict[str, Any]] = {
    "apart": {"shares": (0, 1, 0), "max_steps": 6000},
    "alpha-10": {"alpha": 10.0},
}
WHAT = {
    "": "as above",
    "apart": "6,000 steps of M2 alone: as in the paper, M1 stays as it is",
    "alpha-10": "the classifier's cross-entropy weighs 10, the default, not 0.3",
}
ROWS = {str(n): Row(n, paper, floor, THEN) for n, paper, floor in ((100, 3.33, 4.5), (1000, 2.40, None))}


class OnM1(SemiSupervisedVAE):
    """M1 + M2 that starts from a trained M1."""

    def build(self, schema: Any, key: Any) -> Any:
        parts = lambda model: (model.encoder, model.decoder)  # noqa: E731
        return eqx.tree_at(parts, super().build(schema, key), parts(diabolo.load(M1).model_))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tried", choices=TRIED, help="another setting")
    parser.add_argument("--spread", action="store_true", help="labels spread over M1's codes instead")
    parser.add_argument("--table", action="store_true", help="write the table of docs/results.md")
    asked = parser.parse_args()
    if asked.table:
        return write_table()
    if asked.row is None:
        return say_state()
    if not DATA.is_file():
        sys.exit(f"skipped: no {DATA}; name the folder of the data sets in DIABOLO_DATA")
    if asked.spread:
        return spread(asked.row, asked.seed)
    run(asked.row, asked.seed, asked.tried)


def run(name: str, seed: int, tried: str | None = None) -> None:
    """Train and test one row."""
    target = NUMBERS / f"m1m2-{name}-{seed}.json"
    if tried:
        target = NUMBERS / "tried" / f"m1m2-{name}-{seed}-{tried}.json"
    if _is_done(target):
        return
    row = ROWS[name]
    train, label, test, truth = rows()
    few = some_labels(label, row.n_labels, seed)
    m1, of_m1 = first(train, few)
    own = row.options | TRIED.get(tried or "", {})
    options = NETWORKS | own
    said = ", ".join(f"{key} {value}" for key, value in own.items())
    print(f"{name} labels, seed {seed}: {said}", flush=True)
    start = time.perf_counter(), time.process_time()
    estimator = OnM1(**options, random_state=seed).fit(train, few)
    seconds, busy = time.perf_counter() - start[0], time.process_time() - start[1]
    known = few >= 0
    codes = [m1.transform(part)[:, : options["n_feature_components"]] for part in (train[known], test)]
    numbers = {
        "row": name,
        "seed": seed,
        "test_error": _percent(estimator.predict(test) != truth),
        "error_of_labelled": _percent(estimator.predict(train[known]) != few[known]),
        "error_of_unlabelled": _percent(estimator.predict(train[~known]) != label[~known]),
        "nearest_pixels": _nearest(train[known], few[known], test, truth),
        "nearest_codes": _nearest(codes[0], few[known], codes[1], truth),
        "options": {key: value for key, value in options.items() if key != "kinds"},
        "n_steps": estimator.n_steps_,
        "training_loss": round(estimator.loss_curve_[-1], 3),
        "training_minutes": round(seconds / 60, 1),
        "processor_minutes": round(busy / 60, 1),
        "m1": of_m1,
    }
    _keep(target, numbers)


def spread(name: str, seed: int) -> None:
    """Test error of labels that spread to all training rows along M1's codes, with no M2 (Zhou et al. 2004)."""
    target = NUMBERS / "spread" / f"spread-{name}-{seed}.json"
    if _is_done(target):
        return
    train, label, test, truth = rows()
    few = some_labels(label, ROWS[name].n_labels, seed)
    m1, _ = first(train, few)
    start = time.perf_counter()
    codes, of_test = (m1.transform(part)[:, : NETWORKS["n_feature_components"]] for part in (train, test))
    spreading = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.99, max_iter=200).fit(codes, few)
    numbers = {
        "row": name,
        "seed": seed,
        "test_error": _percent(spreading.predict(of_test) != truth),
        "error_of_unlabelled": _percent((spreading.transduction_ != label)[few < 0]),
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    _keep(target, numbers)


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows of ink and paper with their classes, and the test rows with theirs."""
    parts = np.load(DATA)
    train, test = (
        (parts[f"x_{part}"].reshape(-1, 784) >= HALF).astype(np.uint8) for part in ("train", "test")
    )
    return train, parts["y_train"].astype(int), test, parts["y_test"].astype(int)


def some_labels(label: np.ndarray, n_labels: int, seed: int) -> np.ndarray:
    """(n_rows,) labels of which n, as many of each class, are kept; the others are -1."""
    rng, few = np.random.default_rng(seed), np.full(len(label), -1)
    for one in range(10):
        kept = rng.permutation(np.flatnonzero(label == one))[: n_labels // 10]
        few[kept] = one
    return few


def first(train: np.ndarray, few: np.ndarray) -> tuple[SemiSupervisedVAE, dict[str, Any]]:
    """M1 and what it took, trained unless it is there already.

    Its loss has no label in it; labels only say which rows are in every batch, and weights make up for that.
    """
    clock = M1.with_suffix(".json")
    setting = {key: value for key, value in (NETWORKS | FIRST).items() if key != "kinds"}
    setting = json.loads(json.dumps(setting))
    if M1.is_file():
        facts = json.loads(clock.read_text())
        if facts["options"] != setting:
            sys.exit(f"{M1} has another setting, {facts['options']}: move it away to start anew")
        return diabolo.load(M1), facts
    print(f"M1, seed 0: {setting}", flush=True)
    start = time.perf_counter(), time.process_time()
    m1 = SemiSupervisedVAE(**(NETWORKS | FIRST), random_state=0).fit(train, few)
    facts = {
        "options": setting,
        "seed": 0,
        "n_steps": m1.n_steps_,
        "training_loss": round(m1.loss_curve_[-1], 3),
        "training_minutes": round((time.perf_counter() - start[0]) / 60, 1),
        "processor_minutes": round((time.process_time() - start[1]) / 60, 1),
    }
    m1.save(M1)
    clock.write_text(json.dumps(facts))
    return m1, facts


def _is_done(target: Path) -> bool:
    """Whether the numbers are there; makes room for them otherwise."""
    if target.is_file():
        print(f"{target.name} is there: nothing to do")
        return True
    for folder in (target.parent, UNDER_WAY):
        folder.mkdir(parents=True, exist_ok=True)
    return False


def _keep(target: Path, numbers: dict[str, Any]) -> None:
    """Write the numbers, and where and when they were measured."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    numbers = numbers | {
        "processor": f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f} at the end",
        "device": jax.default_backend(),
        "commit": subprocess.run(head, capture_output=True, text=True, cwd=HERE).stdout.strip(),
        "versions": {"diabolo": diabolo.__version__, "jax": jax.__version__},
        "date": datetime.date.today().isoformat(),
    }
    target.write_text(json.dumps(numbers, indent=1) + "\n")
    print(json.dumps(numbers, indent=1))


def _percent(wrong: np.ndarray) -> float:
    return round(100.0 * float(np.mean(wrong)), 2)


def _nearest(rows: np.ndarray, label: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Test error of the nearest labelled row, percent."""
    return _percent(KNeighborsClassifier(1).fit(rows, label).predict(test) != truth)


def _results() -> dict[str, list[dict[str, Any]]]:
    """What is done, by number of labels, in order of seeds."""
    return {name: results([f"m1m2-{name}"], NUMBERS)[f"m1m2-{name}"] for name in ROWS}


def say_state() -> None:
    """One line per row."""
    for name, done in _results().items():
        seeds = ", ".join(f"{one['test_error']:.2f} (seed {one['seed']})" for one in done) or "not run"
        print(f"{name:>5} labels; paper {ROWS[name].paper:.2f} %: {seeds}")


def write_table() -> None:
    """Put the table between the marks of docs/results.md."""
    lines = [
        "| labels | paper | to reach | M1 + M2 | seeds | nearest, pixels | nearest, codes | spread | minutes "
        "(of processor) |",
        "|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for name, done in _results().items():
        row = ROWS[name]
        floor = f"{row.floor:.1f}" if row.floor else ""
        lead = f"| {row.n_labels:,} | {row.paper:.2f} | {floor} "
        if not done:
            lines.append(lead + "| not run | | | | | |")
            continue
        errors = np.array([one["test_error"] for one in done])
        spread = f" ± {errors.std(ddof=1):.2f}" if len(errors) > 1 else ""
        seeds = ", ".join(f"{one['seed']}: {one['test_error']:.2f}" for one in done)
        means = {
            of: np.mean([one[of] for one in done])
            for of in ("nearest_pixels", "nearest_codes", "training_minutes", "processor_minutes")
        }
        paths = sorted((NUMBERS / "spread").glob(f"spread-{name}-*.json"))
        apart = [json.loads(path.read_text())["test_error"] for path in paths]
        spreading = f"{np.mean(apart):.2f}" if apart else "not run"
        lines.append(
            f"{lead}| {errors.mean():.2f}{spread} | {seeds} | {means['nearest_pixels']:.1f} "
            f"| {means['nearest_codes']:.1f} | {spreading} "
            f"| {means['training_minutes']:.0f} ({means['processor_minutes']:.0f}) |"
        )
    _put("labels", lines)
    lines = ["| setting | test error | minutes (of processor) |", "|---|---:|---:|"]
    kept = NUMBERS / "m1m2-100-0.json"
    for path in [kept, *sorted((NUMBERS / "tried").glob("*.json"))]:
        one = json.loads(path.read_text())
        what = WHAT["" if path == kept else path.stem.split("-", 3)[3]]
        minutes = f"{one['training_minutes']:.0f} ({one['processor_minutes']:.0f})"
        lines.append(f"| {what} | {one['test_error']:.2f} | {minutes} |")
    _put("tried", lines)


def _put(mark: str, lines: list[str]) -> None:
    """Lines between two marks of docs/results.md."""
    before, rest = PAGE.read_text().split(f"<!-- {mark} -->\n")
    after = rest.split(f"<!-- end {mark} -->\n")[1]
    text = "\n".join([f"<!-- {mark} -->", *lines, f"<!-- end {mark} -->\n"])
    PAGE.write_text(before + text + after)


if __name__ == "__main__":
    main()
