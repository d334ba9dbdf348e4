"""Defaults just work, member by member: every table, gaps, every kind of column, no argument but a seed.

    python benchmarks/gate.py [member ...] [--set NAME ...] [--seed N] [--show] [--fresh]

Each task fits one member to one set and looks at rows that it never saw: their nats beside the product of the columns'
own laws and beside an untrained copy, and whether every reading works and comes back whole. Finished lines are written
to benchmarks/published/gate.jsonl at once; `--fresh` measures the named members anew on the named sets and leaves the
other lines. The data are those of the folder that DIABOLO_DATA names.

A table's target is y: a condition of `ConditionalVAE`, whose nats are log p(x | y); of `SemiSupervisedVAE` the label,
70 % of them hidden; for the others it is left out, so that all describe the same columns.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from defaults import DATA, HERE, collect, halves, target
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo.batches import Batch, Batches
from diabolo.comparison import independent_columns

MAX_TRAIN, MAX_TEST = 3000, 300
N_FILLED = 50  # test rows whose gaps are filled
HIDDEN = 0.7  # share of labels hidden from the semi-supervised member
MEMBERS: dict[str, Callable[..., Any]] = {
    "DenoisingAutoencoder": diabolo.DenoisingAutoencoder,
    "IWAE": diabolo.IWAE,
    "HierarchicalVAE": diabolo.HierarchicalVAE,
    "SemiSupervisedVAE": diabolo.SemiSupervisedVAE,
    "M1 + M2": functools.partial(diabolo.SemiSupervisedVAE, stacked=True),
    "ConditionalVAE": diabolo.ConditionalVAE,
    "VAE": diabolo.VAE,
    "Autoencoder": diabolo.Autoencoder,
    "MADE": diabolo.MADE,
    "NormalizingFlow": diabolo.NormalizingFlow,
    "RBM": diabolo.RBM,
    "GSN": diabolo.GSN,
    "ParzenWindow": diabolo.ParzenWindow,
    "ManifoldParzen": diabolo.ManifoldParzen,
    "NonlocalManifoldParzen": diabolo.NonlocalManifoldParzen,
}
# their rows are the model: an untrained copy has them as well
KERNELS = ("ParzenWindow", "ManifoldParzen", "NonlocalManifoldParzen")
SEMI_SUPERVISED = ("SemiSupervisedVAE", "M1 + M2")
# Baselines: PCA's network with the columns' own laws, and PCA itself where all columns are real.
LINEAR, PRINCIPAL = "linear Autoencoder", "PCA"
BEATEN = ("german_credit", "winequality_red", "winequality_white", "digits")  # of the baselines, at two seeds
SETS = (
    "every_kind", *BEATEN, "horse_colic", "penguins", "titanic", "auto_imports", "adult", "bank_marketing"
)  # fmt: skip
SEEDS = (0, 1)
ANNOUNCED = ("mostly distinct text: set aside", "one value or none: kept in outputs")


class Data(NamedTuple):
    """Rows to learn, rows to judge by, their targets, and whether those are classes."""

    train: Any
    test: Any
    y_train: np.ndarray
    y_test: np.ndarray
    classes: bool = True


def every_kind() -> Data:
    """Every kind of column, three clusters behind them, and a tenth of the cells missing: 800 rows."""
    rng = np.random.default_rng(0)
    n = 800
    cluster = rng.integers(0, 3, n)
    table = pd.DataFrame(
        {
            "real": np.round(np.array([0.0, 3.0, 6.0])[cluster] + rng.normal(size=n), 2),
            "positive": np.exp(np.array([0.0, 1.0, 2.0])[cluster] + 0.5 * rng.normal(size=n)),
            "count": rng.poisson(np.array([1.0, 4.0, 12.0])[cluster]).astype(float),
            "binary": np.where(rng.random(n) < np.array([0.2, 0.8, 0.5])[cluster], "yes", "no").astype(
                object
            ),
            "categorical": np.array(["red", "green", "blue"], object)[(cluster + (rng.random(n) < 0.2)) % 3],
            "pixels": rng.binomial(255, np.array([0.2, 0.5, 0.9])[cluster]).astype(float),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(200 * cluster + rng.integers(0, 90, n), "D"),
        }
    )
    sizes = np.array(["small", "middle", "large"], object)[np.clip(cluster + rng.integers(-1, 2, n), 0, 2)]
    table["ordinal"] = pd.Categorical(sizes, ["small", "middle", "large"], ordered=True)
    table = table.mask(rng.random(table.shape) < 0.1)
    table["constant"], table["identifier"] = "cm", [f"row {i}" for i in range(n)]
    y = np.array(["a", "b", "c"], object)[cluster]
    return Data(table[:600], table[600:], y[:600], y[600:])


def read(name: str, seed: int) -> Data:
    """A set and its split. Tables: as `defaults.halves`; wines: a random fifth held out; digits: the last 497."""
    if name == "every_kind":
        return every_kind()
    if name == "digits":
        digits = load_digits()
        X, y, classes = digits.images, digits.target.astype(str).astype(object), True
        train, test = np.split(np.arange(len(X)), [1300])
        data = Data(X[train], X[test], y[train], y[test])
    else:
        if name.startswith("winequality"):
            table, column = pd.read_csv(DATA / "density" / f"{name}.csv"), "quality"
            kept = np.random.default_rng(0).random(len(table)) >= 0.2
            train, test = table[kept], table[~kept]
        else:
            column = json.loads((DATA / "tabular" / "schema.json").read_text())[name]["target"]
            train, test = halves(name)
        classes = column is not None
        y = [part.pop(column or "price") for part in (train, test)]
        y_train, y_test = (one.astype(str).to_numpy(object) if classes else one.to_numpy(float) for one in y)
        data = Data(train, test, y_train, y_test, classes)
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(data.train))[:MAX_TRAIN]
    last = rng.permutation(len(data.test))[:MAX_TEST]
    train, test = (
        X.iloc[kept].reset_index(drop=True) if isinstance(X, pd.DataFrame) else X[kept]
        for X, kept in ((data.train, first), (data.test, last))
    )
    return Data(train, test, data.y_train[first], data.y_test[last], data.classes)


def with_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of the finite values and its standard error."""
    values = values[np.isfinite(values)]
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def untrained_copy(estimator: Any, rows: Any, seed: int) -> Any:
    """The same model as it was built, with what is fitted after training: priors on codes, noise."""
    fresh = clone(estimator)
    vars(fresh).update(vars(estimator))
    batches = Batches.split(Batch.of(rows), 128, 0.1, seed, estimator._scarce(rows.given))
    model = fresh.build(estimator.schema_, jax.random.key(seed)).begin(batches, jax.random.key(seed))
    fresh.model_ = model.finish(batches, jax.random.key(seed + 1))
    return fresh


def faults(what: str, rows: Any, like: Any, schema: Any) -> list[str]:
    """What is wrong with rows that a reading gave: container, columns, cells that are no values."""
    if type(rows) is not type(like) or rows.shape[1:] != like.shape[1:]:
        return [f"{what}: {type(rows).__name__} {rows.shape}"]
    if isinstance(like, np.ndarray):
        return [] if np.isfinite(rows).all() else [f"{what}: not finite"]
    if list(rows.columns) != list(like.columns):
        return [f"{what}: other columns"]
    modelled = [column.name for column in schema.columns if column.kind.counted]
    numbers = rows[modelled].select_dtypes("number").to_numpy(float)
    empty = [name for name in modelled if rows[name].isna().any()]
    return [f"{what}: gaps in {empty}"] * bool(empty) + [f"{what}: infinite"] * bool(np.isinf(numbers).any())


def look_over(estimator: Any, data: Data, known: np.ndarray | None) -> list[str]:
    """Every other reading, once: what is wrong with it."""
    test, schema = data.test, estimator.schema_
    asked = (known,) if known is not None else ()
    found = [] if np.isfinite(estimator.transform(test, *asked)).all() else ["transform: not finite"]
    found += faults("reconstruct", estimator.reconstruct(test, *asked), test, schema)
    found += faults("sample", estimator.sample(100, random_state=0), test, schema)
    if known is not None:
        n = min(100, len(known))
        found += faults("sample(given)", estimator.sample(n, given=known[:n], random_state=0), test, schema)
    few = test[:N_FILLED]
    hidden = np.random.default_rng(0).random(few.shape) < 0.2
    gappy = few.mask(hidden) if isinstance(few, pd.DataFrame) else np.where(hidden, np.nan, few)
    filled = estimator.impute(gappy, y=None if known is None else known[:N_FILLED])
    found += faults("impute", filled, test, schema)
    kept = np.asarray(pd.notna(gappy))
    if not np.array_equal(np.asarray(filled, object)[kept], np.asarray(gappy, object)[kept]):
        found.append("impute: observed cells changed")
    return found


def measure(member: str, name: str, seed: int) -> dict:
    """Fit one member to one set; nats are of rows it never saw."""
    data = read(name, seed)
    if member == PRINCIPAL:
        return principal(data, seed)
    options: dict[str, Any] = {"random_state": seed}
    if (
        name == "every_kind"
    ):  # three that are never inferred; a Boltzmann machine has no units for two of them
        asked = ("positive",) if member == "RBM" else ("positive", "count", "pixels")
        options["kinds"] = {kind: kind for kind in asked}
    if member == LINEAR:
        estimator = diabolo.Autoencoder(hidden_layer_sizes=(), **options)
    else:
        estimator = MEMBERS[member](**options)
    y, known = None, None
    if member == "ConditionalVAE":
        y, known = data.y_train, data.y_test
    if member in SEMI_SUPERVISED:
        y = data.y_train.copy()
        y[np.random.default_rng(seed).random(len(y)) < HIDDEN] = None
    start = time.perf_counter()
    estimator.fit(data.train, y)
    seconds = time.perf_counter() - start
    nats = estimator.score_samples(data.test, known)
    alone = independent_columns(estimator.schema_, data.test)
    with np.errstate(invalid="ignore"):
        gain = with_error(nats - alone)
    beside: dict[str, Any] = {}
    if name in BEATEN and member not in KERNELS:
        rows = estimator.schema_.encode(data.train, beside=None if y is None else estimator._beside(y))
        untrained = untrained_copy(estimator, rows, seed).score_samples(data.test, known)
        beside["learned"], beside["learned error"] = with_error(nats - untrained)
    return beside | {
        "rows": len(data.train),
        "tested": len(data.test),
        "outside": int((~np.isfinite(nats)).sum()),
        "not finite": int((~np.isfinite(nats) & np.isfinite(alone)).sum()),
        "nats": with_error(nats)[0],
        "gain": gain[0],
        "gain error": gain[1],
        "steps": estimator.n_steps_,
        "components": estimator.model_.n_components,
        "level": getattr(estimator, "corruption_level_", None),
        "fit": round(seconds, 1),
        "faults": look_over(estimator, data, known),
    }


def principal(data: Data, seed: int, n_draws: int = 64) -> dict:
    """Probabilistic PCA, as wide as the members, in the same nats: the mean density over each cell's resolution.

    It is trained on rows with uniform noise of one step; the density of a held-out row is the mean over such noise,
    which is what the columns' own laws integrate. Columns of tables are standardized first, pixels are not.
    """
    schema = diabolo.Schema.learn(data.train)
    train, test = (np.asarray(X, float).reshape(len(X), -1) for X in (data.train, data.test))
    steps = np.array([getattr(column.kind, "resolution", 1.0) for column in schema.columns])
    alone, rng = independent_columns(schema, data.test), np.random.default_rng(seed)
    noisy = train + steps * (rng.random(train.shape) - 0.5)
    images = data.train.ndim == 3
    scaler = StandardScaler(with_mean=not images, with_std=not images).fit(noisy)
    jacobian = 0.0 if images else -np.log(scaler.scale_).sum()
    pca = PCA(int(np.clip(schema.width // 2, 2, 16))).fit(scaler.transform(noisy))
    draws = [
        pca.score_samples(scaler.transform(test + steps * (rng.random(test.shape) - 0.5)))
        for _ in range(n_draws)
    ]
    nats = logsumexp(draws, axis=0) - np.log(n_draws) + jacobian
    gain = with_error(nats - alone)
    return {"nats": float(nats.mean()), "gain": gain[0], "gain error": gain[1], "outside": 0}


def tasks(members: list[str], sets: list[str], seeds: list[int]) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """Set by set, so that a run that is stopped has whole lines; then the sets of the baselines at other seeds."""
    todo = [(member, name, SEEDS[0]) for name in SETS for member in members]
    todo += [(member, name, seed) for seed in SEEDS[1:] for name in BEATEN for member in members]
    todo = [task for task in todo if task[1] in sets and task[2] in seeds]
    for member, name, seed in todo:
        if member not in MEMBERS and name not in BEATEN:
            continue
        if (member in SEMI_SUPERVISED and name == "auto_imports") or (member, name) == (
            PRINCIPAL,
            "german_credit",
        ):
            continue  # the target is no class; some columns are no numbers

        def run(member: str = member, name: str = name, seed: int = seed) -> dict:
            return measure(member, name, seed)

        yield {"method": member, "set": name, "seed": seed}, run


def show(lines: list[dict]) -> None:
    """Gain over the product of marginals per member and set, over untrained copies and baselines, and all faults."""
    found = defaultdict(list)
    for line in lines:
        found[line["method"], line["set"]].append(line)

    # of the first seed, the one that all have
    first = {key: line for key, part in found.items() for line in part if line["seed"] == SEEDS[0]}
    for line in first.values():
        if "learned" in line:
            line["untrained"] = line["nats"] - line["learned"]

    def cell(member: str, name: str, fact: str, form: str = "{:.2f}") -> str:
        line = first.get((member, name), {})
        return "failed" if "failure" in line else form.format(line[fact]) if fact in line else ""

    methods = [name for name in (*MEMBERS, LINEAR, PRINCIPAL) if any(one[0] == name for one in found)]
    members = [name for name in methods if name in MEMBERS]
    sets = [name for name in SETS if any(key[1] == name for key in found)]
    for what, fact, form in (
        ("nats ahead of the product of marginals", "gain", "{:.2f}"),
        ("nats ahead of an untrained copy", "learned", "{:.2f}"),
        ("seconds of the fit", "fit", "{:.0f}"),
    ):
        print(f"| {what} | {' | '.join(sets)} |\n|---|{'---:|' * len(sets)}")
        for member in members:
            cells = [cell(member, name, fact, form) for name in sets]
            print(f"| {member} | {' | '.join(cells)} |")
        print()
    print(f"| held-out nats, seed {SEEDS[0]} | {' | '.join(BEATEN)} |\n|---|{'---:|' * len(BEATEN)}")
    for method in methods:
        cells = [cell(method, name, "nats") for name in BEATEN]
        print(f"| {method} | {' | '.join(cells)} |")
        if method in MEMBERS and method not in KERNELS:
            cells = [cell(method, name, "untrained") for name in BEATEN]
            print(f"| {method}, untrained | {' | '.join(cells)} |")
    print()
    spoilt = []
    for line in lines:
        said = [w for w in line["warnings"] if not any(known in w for known in ANNOUNCED)]
        said += line.get("faults", []) + list(filter(None, [line.get("failure")]))
        if line.get("not finite"):
            said.append(f"{line['not finite']} nats are not finite")
        if line.get("gain", 0.0) <= 0.0 and line["method"] in MEMBERS:
            said.append(f"{line['gain']:.2f} ± {line['gain error']:.2f} nats ahead of the marginals")
        if line.get("learned", 1.0) <= 0.0 and line["method"] in MEMBERS:
            said.append(
                f"{line['learned']:.2f} ± {line['learned error']:.2f} nats ahead of an untrained copy"
            )
        if said:
            spoilt.append(line)
            print(f"- {line['method']}, {line['set']}, seed {line['seed']}: {'; '.join(said)}")
    print()
    n_gate = sum(line["method"] in MEMBERS for line in lines)
    target(not spoilt, "no member fails, warns or falls short on any set", f"{len(spoilt)} of {n_gate} did")
    for rival in (LINEAR, PRINCIPAL):
        short = [
            f"{member} on {name}"
            for member in members
            for name in BEATEN
            if found[member, name]
            and found[rival, name]
            and not float(cell(member, name, "nats") or "-inf") > float(cell(rival, name, "nats") or "inf")
        ]
        target(not short, f"every member ahead of the {rival}", ", ".join(short) or "all are")


def main() -> None:
    """Run the members that are named, or all and the baselines, and print their tables."""
    known = (*MEMBERS, LINEAR, PRINCIPAL)
    parser = argparse.ArgumentParser(
        description="Measure every member at its defaults; prints Markdown tables."
    )
    parser.add_argument("members", nargs="*", help=f"any of {', '.join(known)}; all unless named")
    parser.add_argument(
        "--set", dest="sets", action="append", choices=SETS, help="on this one; all unless named"
    )
    parser.add_argument("--seed", dest="seeds", action="append", type=int, choices=SEEDS, help="likewise")
    parser.add_argument("--show", action="store_true", help="run nothing, print what is written down")
    parser.add_argument("--fresh", action="store_true", help="measure anew what is written down")
    options = parser.parse_args()
    for name in options.members:
        if name not in known:
            parser.error(f"unknown member {name!r}; known: {', '.join(known)}")
    print(f"{datetime.date.today()}: diabolo {diabolo.__version__}\n")
    todo = tasks(options.members or list(known), options.sets or list(SETS), options.seeds or list(SEEDS))
    show(collect("gate", todo, options.fresh, options.show, HERE / "published"))


if __name__ == "__main__":
    main()
