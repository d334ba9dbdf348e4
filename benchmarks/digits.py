"""Digits classified by one density per class: error rates of the Parzen members, of an SVM and of nearest neighbours.

    python benchmarks/digits.py                       what is there
    python benchmarks/digits.py digits manifold       choose, fit and test one row; what is done is not done again
    python benchmarks/digits.py mnist nonlocal 2 3    only look at settings 2 and 3, so that others can go on
    python benchmarks/digits.py mnist nonlocal --paper    test it at the paper's shapes
    python benchmarks/digits.py --table               the tables of docs/results.md

`mnist` is learned from its first 10,000 images and tested on its 10,000 test images. `digits` are scikit-learn's 1,797
images of 8 x 8, in five stratified folds. The settings of every row, scikit-learn's too, are those of the fewest errors
on a held-out fifth of the training images, the first of equals, for every fold anew. Of the test images nothing is
chosen.
The data folder is named by DIABOLO_DATA. Numbers are kept, one file per row, under benchmarks/published/digits/.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from diabolo import BayesClassifier, ManifoldParzen, NonlocalManifoldParzen, ParzenWindow, Pixels, engine
from diabolo.batches import Batches

HERE = Path(__file__).parent
NUMBERS, PAGE = HERE / "published" / "digits", HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- digits -->", "<!-- end digits -->"
MNIST = Path(os.environ.get("DIABOLO_DATA", "data")) / "images" / "mnist.npz"
N_TRAIN, N_SEEDS = 10_000, 1
NAMES = {
    "parzen": "`ParzenWindow`",
    "manifold": "`ManifoldParzen`",
    "nonlocal": "`NonlocalManifoldParzen`",
    "neighbours": "`KNeighborsClassifier`",
    "svm": "`SVC`",
}
PAPERS = ((11, 7), (11, 11))  # neighbours and directions of Bengio, Larochelle & Vincent 2006
SHAPES = (*PAPERS, (23, 11), (23, 20), (40, 36))
BANDWIDTHS = ("auto", 0.3, 0.4, 0.5)  # each class's own, by likelihood, or one for all classes
# steps of a network: by the default's 2,000 its densities are 5 nats better on MNIST, its classes are not
N_STEPS = 800
Part = tuple[np.ndarray, np.ndarray]  # images and their digits


class OnceTrained(NonlocalManifoldParzen):
    """Trains no network again for another bandwidth, which has no part in it."""

    runs: ClassVar[dict[tuple[Any, ...], engine.Run]] = {}

    def _trained(self, build: Any, batches: Batches, schedule: Any, seed: int, on_round: Any) -> engine.Run:
        rows = hashlib.sha256(np.asarray(batches.train.values).tobytes()).hexdigest()
        of = (rows, self.n_neighbors, self.n_directions)
        if of not in self.runs:
            self.runs[of] = super()._trained(build, batches, schedule, seed, on_round)
        run = self.runs[of]
        asked = (self.bandwidth, *run.model.asked[1:])
        if asked == run.model.asked:
            return run
        wider = dataclasses.replace(run.model, asked=asked)
        return run._replace(model=self._finished(wider, batches, seed, self.n_init))


MEMBERS = {"parzen": ParzenWindow, "manifold": ManifoldParzen, "nonlocal": OnceTrained}


def settings(row: str) -> list[dict[str, Any]]:
    """What is tried for a row."""
    if row == "neighbours":
        return [{"n_neighbors": n} for n in (1, 3, 5)]
    if row == "svm":
        return [{"C": c} for c in (1.0, 3.0, 10.0)]
    widths = [{"bandwidth": width} for width in BANDWIDTHS]
    if row == "parzen":
        return widths
    more = {"max_steps": N_STEPS} if row == "nonlocal" else {}
    return [{"n_neighbors": n, "n_directions": d, **width, **more} for n, d in SHAPES for width in widths]


def classifier(row: str, data: str, setting: dict[str, Any]) -> Any:
    """The unfitted classifier of a row."""
    if row in MEMBERS:
        kinds = Pixels(n_levels=17 if data == "digits" else 256)
        return BayesClassifier(MEMBERS[row](kinds=kinds, random_state=0, **setting))
    return KNeighborsClassifier(**setting) if row == "neighbours" else SVC(**setting)


def parts(data: str) -> list[tuple[Part, Part]]:
    """Training and test images; of each fold, where there are folds."""
    if data == "mnist":
        with np.load(MNIST) as z:
            return [((z["x_train"][:N_TRAIN], z["y_train"][:N_TRAIN]), (z["x_test"], z["y_test"]))]
    X, y = load_digits(return_X_y=True)
    images = X.reshape(-1, 8, 8)
    return [((images[train], y[train]), (images[test], y[test])) for train, test in test_folds(y)]


def test_folds(y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed in range(N_SEEDS):
        yield from StratifiedKFold(5, shuffle=True, random_state=seed).split(y, y)


def held_out(train: Part) -> tuple[Part, Part]:
    """Training images divided once more, to choose a setting by."""
    images, y = train
    kept, out = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(y, y))
    return (images[kept], y[kept]), (images[out], y[out])


def wrong(row: str, data: str, setting: dict[str, Any], train: Part, new: Part) -> list[int]:
    """Places of the new images that get a wrong digit."""
    (X, y), (images, truth) = train, new
    if row not in MEMBERS:
        X, images = (part.reshape(len(part), -1) / 255.0 for part in (X, images))
    predicted = classifier(row, data, setting).fit(X, y).predict(images)
    return np.flatnonzero(predicted != truth).tolist()


class Record:
    """A row's numbers, written after each.

    looked : setting to its errors on held-out training images, one number per part
    chosen, wrong : a setting and the places of wrong test images, per part
    seconds : of processor, to fit and to test with the settings chosen
    paper : setting to the places of wrong test images, per part; each of the paper's shapes, bandwidths by likelihood
    """

    def __init__(self, data: str, row: str) -> None:
        self.data, self.row, self.path = data, row, NUMBERS / f"{data}-{row}.json"
        empty: dict[str, Any] = {"looked": {}, "chosen": [], "wrong": [], "seconds": 0.0, "paper": {}}
        self.found = empty | (json.loads(self.path.read_text()) if self.path.exists() else {})

    def write(self) -> None:
        NUMBERS.mkdir(parents=True, exist_ok=True)
        lines = [f' "{name}": {json.dumps(value)}' for name, value in self.found.items()]
        self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def look(self, number: int) -> None:
        """Errors of a setting on held-out training images, of every part where they are not known."""
        setting = settings(self.row)[number]
        errors = self.found["looked"].setdefault(json.dumps(setting), [])
        for train, _ in parts(self.data)[len(errors) :]:
            errors.append(len(wrong(self.row, self.data, setting, *held_out(train))))
            print(f"{self.data} {self.row} {setting}: {errors} wrong", flush=True)
            self.write()

    def test(self) -> None:
        """Every part, at its own best setting."""
        for place, (train, new) in list(enumerate(parts(self.data)))[len(self.found["wrong"]) :]:
            tried = settings(self.row)
            best = min(tried, key=lambda setting: self.found["looked"][json.dumps(setting)][place])
            began = time.process_time()
            self.found["wrong"].append(wrong(self.row, self.data, best, train, new))
            self.found["chosen"].append(best)
            self.found["seconds"] = round(self.found["seconds"] + time.process_time() - began, 1)
            print(f"{self.data} {self.row} {best}: {len(self.found['wrong'][-1])} wrong", flush=True)
            self.write()

    def test_papers(self) -> None:
        """Every part at the paper's shapes, which nothing is chosen for."""
        for setting in papers(self.row):
            places = self.found["paper"].setdefault(json.dumps(setting), [])
            for train, new in parts(self.data)[len(places) :]:
                places.append(wrong(self.row, self.data, setting, train, new))
                print(f"{self.data} {self.row} {setting}: {len(places[-1])} wrong", flush=True)
                self.write()


def papers(row: str) -> list[dict[str, Any]]:
    """The settings of a row at the paper's shapes, bandwidths by likelihood; round kernels have no shape."""
    auto = [setting for setting in settings(row) if setting["bandwidth"] == "auto"]
    return auto * len(PAPERS) if row == "parzen" else auto[: len(PAPERS)]


def at_paper(data: str, row: str, shape: int) -> list[list[int]]:
    """Places of a row's wrong test images at one of the paper's shapes, per part."""
    return Record(data, row).found["paper"].get(json.dumps(papers(row)[shape]), [])


def per_image(data: str, found: list[list[int]]) -> np.ndarray | None:
    """Share of the times that each test image got a wrong digit, or None where not all parts are done.

    found : places of the wrong ones, per part
    """
    if data == "mnist":
        out = np.zeros(10_000)
        out[found[0] if found else []] = 1.0
        return out if found else None
    y = load_digits().target
    if len(found) < 5 * N_SEEDS:
        return None
    out = np.zeros(len(y))
    for places, (_, test) in zip(found, test_folds(y), strict=True):
        out[test[places]] += 1.0 / N_SEEDS
    return out


def cells_of(data: str, found: list[list[int]], other: list[list[int]]) -> list[str]:
    """Error rate, the paired difference to another row's and its standard error over images."""
    mine, theirs = per_image(data, found), per_image(data, other)
    if mine is None:
        return ["-"] * 2
    apart = ""
    if theirs is not None:
        difference = 100 * (mine - theirs)
        apart = f"{difference.mean():+.2f} ± {difference.std(ddof=1) / np.sqrt(len(difference)):.2f}"
    return [f"{100 * mine.mean():.2f}", apart]


def tables() -> None:
    """Error rates, and what was chosen how often."""
    head = "| | digits, % wrong | to the row above | seconds | MNIST, % wrong | to the row above | seconds |"
    lines, above = [head, "|---|---:|---:|---:|---:|---:|---:|"], ""
    for row, name in NAMES.items():
        cells = []
        for data in ("digits", "mnist"):
            mine = Record(data, row).found
            other = Record(data, above).found["wrong"] if above and row in MEMBERS else []
            cells += [*cells_of(data, mine["wrong"], other), f"{mine['seconds']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        above = row
    head = "| the paper's shapes | digits, % wrong | to the row above | MNIST, % wrong | to the row above |"
    lines += ["", head, "|---|---:|---:|---:|---:|"]
    for shape in range(len(PAPERS)):
        above = ""
        for row in MEMBERS:
            cells = []
            for data in ("digits", "mnist"):
                other = at_paper(data, above, shape) if above else []
                cells += cells_of(data, at_paper(data, row, shape), other)
            lines.append(f"| {NAMES[row]}{said(papers(row)[shape])} | {' | '.join(cells)} |")
            above = row
    for data, name in (("digits", "digits"), ("mnist", "MNIST")):
        lines += ["", f"| {name}: held-out wrong, % (times chosen) | {' | '.join(map(str, BANDWIDTHS))} |"]
        lines += ["|---|" + "---:|" * len(BANDWIDTHS)]
        for row in MEMBERS:
            for alike in zip(*[iter(settings(row))] * len(BANDWIDTHS), strict=True):
                cells = [looked(data, row, setting) for setting in alike]
                lines.append(f"| {row}{said(alike[0])} | {' | '.join(cells)} |")
    lines += ["", "| held-out wrong, % (times chosen) | digits | MNIST |", "|---|---:|---:|"]
    for row in ("neighbours", "svm"):
        for setting in settings(row):
            cells = [looked(data, row, setting) for data in ("digits", "mnist")]
            lines.append(f"| {row}{said(setting)} | {' | '.join(cells)} |")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])
    print("\n".join(lines))


def said(setting: dict[str, Any]) -> str:
    """A setting in words, after the name of its row; without what other columns or the page say."""
    shown = {name: value for name, value in setting.items() if name not in ("bandwidth", "max_steps")}
    parts = [f"{name.removeprefix('n_')} {value}" for name, value in shown.items()]
    return ": " + ", ".join(parts) if parts else ""


def looked(data: str, row: str, setting: dict[str, Any]) -> str:
    """A setting's error rate on held-out training images, and of how many parts it was the choice."""
    found = Record(data, row).found
    errors = found["looked"].get(json.dumps(setting), [])
    if not errors:
        return "-"
    n_images = 0.2 * (N_TRAIN if data == "mnist" else 0.8 * len(load_digits().target))
    times = Counter(map(json.dumps, found["chosen"]))[json.dumps(setting)]
    return f"{100 * np.mean(errors) / n_images:.2f} ({times})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?", choices=("digits", "mnist"))
    parser.add_argument("row", nargs="?", choices=NAMES)
    parser.add_argument("settings", nargs="*", type=int)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        tables()
    elif asked.row is None:
        for data in ("digits", "mnist"):
            for row in NAMES:
                found = Record(data, row).found
                print(data, row, [len(places) for places in found["wrong"]], found["looked"])
    elif asked.paper:
        Record(asked.data, asked.row).test_papers()
    elif asked.settings:
        record = Record(asked.data, asked.row)
        for number in asked.settings:
            record.look(number)
    else:
        record = Record(asked.data, asked.row)
        for number in range(len(settings(asked.row))):
            record.look(number)
        record.test()


if __name__ == "__main__":
    main()
