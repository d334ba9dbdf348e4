"""Published numbers: test nats on the fixed binarized MNIST, beside the papers'.

    python benchmarks/published.py                  the rows and their state
    python benchmarks/published.py vae --seed 0     train and test one row; what is done is not done again
    python benchmarks/published.py --table          the table of docs/results.md

The data folder is named by DIABOLO_DATA. A row may be stopped at any time: the estimator is saved every two minutes
under benchmarks/results/, which git ignores, and the same command goes on from there. Numbers are kept, one file per
row and seed, under benchmarks/published/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax import Array
from scipy.special import logsumexp

import diabolo
from diabolo import IWAE, MADE, RBM, VAE, HierarchicalVAE
from diabolo.boltzmann import annealed_log_z
from diabolo.keys import children, host_generator, key_of
from diabolo.nets import Linear
from diabolo.orders import scans

HERE = Path(__file__).parent
NUMBERS, UNDER_WAY, PAGE = HERE / "published", HERE / "results", HERE.parent / "docs" / "results.md"
DATA = Path(os.environ.get("DIABOLO_DATA", "data")) / "images" / "binarized_mnist.npz"
N_DRAWS, N_FEW = 5000, 250
N_TEMPERATURES, N_CHAINS = 20_000, 250  # of the annealed log Z behind a machine's test nats
SAVE_EVERY = 120.0  # seconds of training
TOGETHER = 100  # test rows between two saves

# Named one by one: a kind for all columns at once would leave the 97 pixels alone that are blank in all training rows,
# and the five test rows with ink there would have no density.
KINDS = {f"x{i}": "binary" for i in range(784)}


class Gated(eqx.Module):
    """Two gated layers, h(x) · sigmoid(g(x)), and an affine one (Tomczak & Welling 2018, section 5)."""

    hidden: tuple[Linear, ...]
    last: Linear

    def __init__(self, n_inputs: int, n_outputs: int, key: Array, n_hidden: int = 300) -> None:
        rng = host_generator(children(key, 1)[0])
        # side by side, h and g are one matrix product; the gate, half open at the start, takes away half the scale
        self.hidden = tuple(Linear(n, 2 * n_hidden, rng, 2.0) for n in (n_inputs, n_hidden))
        self.last = Linear(n_hidden, n_outputs, rng)

    def __call__(self, row: Array) -> Array:
        for layer in self.hidden:
            value, gate = jax.numpy.split(layer(row), 2)
            row = value * jax.nn.sigmoid(gate)
        return self.last(row)


class Row(NamedTuple):
    """A member with its setting, and what it is compared with.

    `paper` and `floor` are test nats per image, with the sign turned: smaller is better; no floor where none is asked.
    `n_passes` over the 50,000 training rows follow a cosine from `learning_rate` to zero, each at one rate. `draws` are
    (passes, draws per row in the training bound), in their order, for members that average over draws: a pass costs
    what its draws do, and most of what a net learns it learns from few. On the cosine a pass of k draws is as long as
    √k of one: its gradient has so much less noise, and the last passes would else have no rate left to learn at.
    `n_warm` passes let the divergence's weight grow to one. `of` names rows whose exact densities are averaged: nothing
    more is trained.
    """

    what: str
    source: str
    paper: float | None
    floor: float | None
    make: Callable[..., Any] | None
    n_passes: int
    learning_rate: float
    batch_size: int
    network: Callable[..., Any] | None = None
    draws: tuple[tuple[int, int], ...] = ()
    n_warm: int = 0
    of: tuple[str, ...] = ()

    def params(self, n_done: int) -> dict[str, Any]:
        """What the estimator is set to for the next pass: the cosine's value in its middle, beta, draws."""
        draws = [
            n_draws for n_passes, n_draws in self.draws or ((self.n_passes, 1),) for _ in range(n_passes)
        ]
        length = np.sqrt(draws)
        share = (length[:n_done].sum() + 0.5 * length[n_done]) / length.sum()
        params = {"learning_rate": self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))}
        if self.n_warm:
            params["beta"] = min((n_done + 1) / self.n_warm, 1.0)
        if self.draws:
            params["n_draws"] = draws[n_done]
        return params


def _burda(member: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        return member(50, hidden_layer_sizes=(200, 200), activation="tanh", kinds=KINDS, **options, **more)

    return make


def _two_levels(**more: Any) -> Any:
    nets = {"hidden_layer_sizes": (200, 200), "level_layer_sizes": (100, 100), "activation": "tanh"}
    return HierarchicalVAE((100, 50), n_draws=50, kinds=KINDS, **nets, **more)


def _twelve_levels(**more: Any) -> Any:
    return HierarchicalVAE((16,) * 12, network=Gated, level_layer_sizes=(128,), kinds=KINDS, **more)


def _vamp(**more: Any) -> Any:
    return VAE(40, network=Gated, prior="vamp", n_prior=500, kinds=KINDS, **more)


def _hour(**more: Any) -> Any:
    return IWAE(40, network=Gated, prior="vamp", n_prior=500, n_draws=20, kinds=KINDS, **more)


def _masked(*sizes: int, **options: Any) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        return MADE(sizes, kinds=KINDS, n_orders=1, agnostic=0.0, **options, **more)

    return make


def _rbm(**more: Any) -> Any:
    chains = {"n_gibbs": 5, "n_chains": 128, "n_temperatures": 10}
    return RBM(500, kinds=KINDS, decoupled_weight_decay=0.05, **chains, **more)


BURDA = "Burda et al. 2016, arXiv:1509.00519"
GERMAIN = "Germain et al. 2015, arXiv:1502.03509"
SALAKHUTDINOV = "Salakhutdinov & Murray 2008, ICML"
TOMCZAK = "Tomczak & Welling 2018, arXiv:1705.07120"
LAST_OF_50 = ((150, 1), (20, 5), (15, 50))
N_LAST_OF_50 = sum(n_passes for n_passes, _ in LAST_OF_50)
ROWS = {
    "vae": Row("VAE, 2 x 200 tanh, 50 codes", BURDA, 88.71, 89.5, _burda(VAE), 240, 2e-3, 128),
    "iwae50": Row(
        "IWAE, 50 draws, 2 x 200 tanh, 50 codes",
        BURDA,
        87.10,
        88.5,
        _burda(IWAE, n_draws=50),
        N_LAST_OF_50,
        2e-3,
        128,
        draws=LAST_OF_50,
    ),
    "ladder50": Row(
        "HierarchicalVAE, 50 draws, 100 and 50 codes",
        BURDA,
        85.32,
        None,
        _two_levels,
        N_LAST_OF_50,
        2e-3,
        128,
        draws=LAST_OF_50,
    ),
    "ladder12": Row(
        "HierarchicalVAE, 12 levels of 16 codes, 2 x 300 gated",
        "github.com/addtt/ladder-vae-pytorch, README: convolutions, a million weights a level",
        78.30,
        None,
        _twelve_levels,
        60,
        1.5e-3,
        128,
        Gated,
        draws=((50, 1), (10, 5)),
        n_warm=10,
    ),
    "vamp": Row(
        "VAE, VampPrior of 500, 2 x 300 gated, 40 codes", TOMCZAK, 85.57, 87.0, _vamp, 50, 1.5e-3, 128, Gated
    ),
    "hour": Row(
        "IWAE, VampPrior of 500, 2 x 300 gated, 40 codes",
        "the best preset for one hour of two cores",
        None,
        None,
        _hour,
        65,
        1.5e-3,
        128,
        Gated,
        ((50, 1), (10, 5), (5, 20)),
    ),
    "made": Row(
        "MADE, 4 networks of 4,000, each of one order",
        GERMAIN,
        88.04,
        88.04,
        _masked(4000, n_networks=4),
        18,
        1.5e-3,
        256,
    ),
    "made2": Row(
        "MADE, 4 networks of 1,500-1,500, each of one order",
        GERMAIN,
        86.64,
        None,
        _masked(1500, 1500, n_networks=4, dropout=0.3),
        45,
        1.5e-3,
        256,
    ),
    "made2s": Row(
        "MADE, 4 networks of 1,500-1,500, each of one scan",
        GERMAIN,
        86.64,
        None,
        _masked(1500, 1500, n_networks=4, dropout=0.3, orders=scans((28, 28))[:4]),
        26,
        1.5e-3,
        256,
    ),
    "made2both": Row(
        "MADE, 8 networks of 1,500-1,500: the two rows above, averaged",
        GERMAIN,
        86.64,
        86.64,
        None,
        71,
        1.5e-3,
        256,
        of=("made2", "made2s"),
    ),
    "rbm": Row("RBM, 500 units, five steps of 128 chains", SALAKHUTDINOV, 86.3, 86.3, _rbm, 170, 2e-3, 128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep-rows", type=int, default=1000, help="test rows that get all 5,000 draws")
    parser.add_argument("--table", action="store_true", help="write the table of docs/results.md")
    asked = parser.parse_args()
    if asked.table:
        return write_table()
    if asked.row is None:
        return say_state()
    if not DATA.is_file():
        sys.exit(f"skipped: no {DATA}; name the folder of the data sets in DIABOLO_DATA")
    run(asked.row, asked.seed, asked.deep_rows)


def run(name: str, seed: int, n_deep: int) -> None:
    """Train and test one row, or go on with it."""
    target = NUMBERS / f"{name}-{seed}.json"
    if target.is_file():
        print(f"{target.name} is there: nothing to do")
        return
    NUMBERS.mkdir(exist_ok=True)
    UNDER_WAY.mkdir(exist_ok=True)
    parts = np.load(DATA)
    train, valid, test = (parts[f"x_{part}"].reshape(-1, 784) for part in ("train", "valid", "test"))
    commit = _commit()  # of the code that runs, not of what is committed meanwhile
    row = ROWS[name]
    learned = [learn(one, seed, train, valid) for one in row.of or (name,)]
    estimator = learned[0][0]
    spent = {clock: sum(one[clock] for _, one in learned) for clock in ("seconds", "processor")}
    if row.of:
        measured = measure_exactly(test, *(one for one, _ in learned))
    elif isinstance(estimator, RBM):
        measured = measure_annealed(estimator, {"train": train[:10_000], "valid": valid, "test": test})
    elif estimator.density_kind_ == "exact":
        measured = measure_exactly(test, estimator)
    else:
        measured = measure(estimator, test, n_deep, UNDER_WAY / f"{name}-{seed}-test.npz")
    numbers = {
        "row": name,
        "what": row.what,
        "seed": seed,
        "n_passes": row.n_passes,
        "n_steps": sum(one.n_steps_ for one, _ in learned),
        "batch_size": row.batch_size,
        "learning_rate": row.learning_rate,
        **({"passes_and_draws": row.draws} if row.draws else {}),
        "training_minutes": round(spent["seconds"] / 60, 1),
        "processor_minutes": round(spent["processor"] / 60, 1),
        **({} if row.of else {"training_loss": round(estimator.loss_curve_[-1], 3)}),
        **measured,
        "processor": f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f} at the end",
        "device": jax.default_backend(),
        "commit": commit,
        "versions": {"diabolo": diabolo.__version__, "jax": jax.__version__},
        "date": datetime.date.today().isoformat(),
    }
    target.write_text(json.dumps(numbers, indent=1) + "\n")
    print(json.dumps(numbers, indent=1))


def learn(name: str, seed: int, train: np.ndarray, valid: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """The trained estimator, and the seconds it took, its own earlier stretches included."""
    row, path = ROWS[name], UNDER_WAY / f"{name}-{seed}.safetensors"
    clock = path.with_suffix(".json")
    setting = [row.n_passes, row.learning_rate, row.batch_size, *map(list, row.draws)]
    spent = {"seconds": 0.0, "processor": 0.0, "setting": setting}
    assert row.make is not None
    estimator = row.make(batch_size=row.batch_size, random_state=seed)
    if path.is_file():
        estimator, spent = diabolo.load(path, network=row.network), json.loads(clock.read_text())
        if spent.setdefault("setting", setting) != setting:
            sys.exit(f"{path} was begun with another setting, {spent['setting']}: move it away to start anew")
    per_pass = -(-len(train) // row.batch_size)
    n_done = estimator.n_steps_ // per_pass if path.is_file() else 0
    schedule = "".join(f", {n_passes} of {n_draws} draws" for n_passes, n_draws in row.draws)
    print(
        f"{name}: {row.what}; seed {seed}, {row.n_passes} passes of {per_pass} steps{schedule}, {n_done} done",
        flush=True,
    )
    since = 0.0
    while n_done < row.n_passes:
        start = time.perf_counter(), time.process_time()
        estimator.set_params(**row.params(n_done)).partial_fit(train)
        n_done += 1
        seconds = time.perf_counter() - start[0]
        spent["seconds"] += seconds
        spent["processor"] += time.process_time() - start[1]
        since += seconds
        if since > SAVE_EVERY or n_done == row.n_passes:
            since = 0.0
            estimator.save(path)
            clock.write_text(json.dumps(spent))
            watch(estimator, n_done, spent["seconds"], train, valid)
    return estimator, spent


def watch(estimator: Any, n_done: int, seconds: float, train: np.ndarray, valid: np.ndarray) -> None:
    """Say how it goes: the training loss, and nats of a few training and validation rows."""
    if isinstance(estimator, RBM):
        found, how = annealed_log_z(*_machine(estimator), 1000, 100, key_of(1)), "1,000 temperatures"
        nats = [
            found.log_z - float(_log_unnormalised(estimator, part[:5000]).mean()) for part in (train, valid)
        ]
    else:
        how = "200 draws"
        nats = [
            float(-estimator.log_density(part[:400], n_draws=200).values.mean()) for part in (train, valid)
        ]
    last = estimator.loss_curve_[-1]
    print(
        f"pass {n_done}, {seconds / 60:.1f} min: loss {last:.2f}; {how}: {nats[0]:.2f} of training rows, "
        f"{nats[1]:.2f} of validation rows",
        flush=True,
    )


def measure(estimator: Any, test: np.ndarray, n_deep: int, path: Path) -> dict[str, float]:
    """Test nats, sign turned: all rows with few draws, and a random part of them with all draws.

    The few draws' mean over all rows, less the mean gain of the part (Cochran 1977, section 7.2, with a slope of one),
    because rows differ from each other by ten times what draws add to one of them. With every row in the part it is the
    plain mean. `of_part` is what the part leaves open (a standard error), `of_rows` what 10,000 rows do.
    """
    test = test[np.random.default_rng(0).permutation(len(test))]  # the file is sorted by digit
    deep, seconds = np.zeros((3, 0)), 0.0
    if path.is_file():
        with np.load(path) as before:
            deep, seconds = before["deep"], float(before["seconds"])
    while deep.shape[1] < n_deep:
        start = time.perf_counter()
        reading = estimator.log_density(test[deep.shape[1] :][:TOGETHER], n_draws=N_DRAWS)
        new = np.stack([reading.values, reading.standard_error, reading.pareto_k])
        deep = np.concatenate([deep, new], axis=1)
        seconds += time.perf_counter() - start
        np.savez(path, deep=deep, seconds=seconds)
        print(f"{deep.shape[1]} test rows, {seconds / 60:.1f} min: {-deep[0].mean():.3f}", flush=True)
    start = time.perf_counter()
    few = estimator.log_density(test, n_draws=N_FEW).values
    seconds += time.perf_counter() - start
    values, error, tail = deep[:, :n_deep]
    gain, n_rows = values - few[:n_deep], len(test)
    of_part = gain.std(ddof=1) / math.sqrt(n_deep) * math.sqrt(1.0 - n_deep / n_rows)
    return {
        "test_nats": round(float(-few.mean() - gain.mean()), 3),
        "of_part": round(float(of_part), 3),
        "of_rows": round(float(few.std(ddof=1) / math.sqrt(n_rows)), 3),
        "n_draws": N_DRAWS,
        "n_deep": n_deep,
        "nats_of_few_draws": round(float(-few.mean()), 3),
        "n_few": N_FEW,
        "monte_carlo_error": round(float(np.sqrt(np.mean(error**2))), 3),  # of one row, root mean square
        "share_heavy_tails": round(float(np.mean(tail > 0.7)), 3),  # of rows: their error cannot be trusted
        "test_minutes": round(seconds / 60, 1),
    }


def measure_exactly(test: np.ndarray, *estimators: Any) -> dict[str, float]:
    """Test nats of the average of exact densities, sign turned: the plain mean over all rows."""
    start = time.perf_counter()
    nats = np.log(len(estimators)) - logsumexp([one.score_samples(test) for one in estimators], axis=0)
    return {
        "test_nats": round(float(nats.mean()), 3),
        "of_rows": round(float(nats.std(ddof=1) / math.sqrt(len(nats))), 3),
        "test_minutes": round((time.perf_counter() - start) / 60, 1),
    }


def measure_annealed(estimator: Any, parts: dict[str, np.ndarray]) -> dict[str, float]:
    """Nats of each part, sign turned: minus log p(x) + log Z, exact, and one annealed log Z for all of them."""
    start = time.perf_counter()
    found = annealed_log_z(*_machine(estimator), N_TEMPERATURES, N_CHAINS, key_of(0))
    each = {name: _log_unnormalised(estimator, rows) for name, rows in parts.items()}
    return {
        **{f"{name}_nats": round(float(found.log_z - each[name].mean()), 3) for name in parts},
        "of_rows": round(float(each["test"].std(ddof=1) / math.sqrt(len(each["test"]))), 3),
        "log_z": round(found.log_z, 3),
        "log_z_error": round(found.error, 3),
        "n_temperatures": N_TEMPERATURES,
        "n_chains": N_CHAINS,
        "test_minutes": round((time.perf_counter() - start) / 60, 1),
    }


def _machine(estimator: Any) -> tuple[Any, Any]:
    """A trained machine, and the marginal laws from which its log Z is annealed."""
    return estimator.model_.machine, estimator.model_.marginal


def _log_unnormalised(estimator: Any, rows: np.ndarray) -> np.ndarray:
    """log p(x) + log Z: (n_rows,) nats."""
    return estimator.score_samples(rows) + estimator.log_z_


def results(rows: Iterable[str] = ROWS, folder: Path = NUMBERS) -> dict[str, list[dict[str, Any]]]:
    """What is done, by row, in order of seeds."""
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for name in done:
        done[name] = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-*.json"))]
    return done


def say_state() -> None:
    """One line per row."""
    for name, done in results().items():
        row = ROWS[name]
        seeds = ", ".join(f"{one['test_nats']:.2f} (seed {one['seed']})" for one in done) or "not run"
        print(f"{name:8} {row.what}; paper {_paper(row)}, floor {_floor(row)}: {seeds}")


def write_table() -> None:
    """Put the table between the marks of docs/results.md."""
    lines = [
        "| member | paper | to reach | test nats | seeds | steps of rows | minutes (of processor) | reached |",
        "|---|---:|---:|---:|---|---:|---:|---|",
    ]
    for name, done in results().items():
        row = ROWS[name]
        if not done:
            lines.append(f"| {row.what} | {_paper(row)} | {_floor(row)} | not run | | | | |")
            continue
        nats = np.array([one["test_nats"] for one in done])
        spread = f" ± {nats.std(ddof=1):.2f}" if len(nats) > 1 else ""
        seeds = ", ".join(f"{one['seed']}: {one['test_nats']:.2f}" for one in done)
        wall, busy = (np.mean([one[f"{of}_minutes"] for one in done]) for of in ("training", "processor"))
        steps = f"{done[0]['n_steps']:,} of {done[0]['batch_size']}"
        reached = "" if row.floor is None else "yes" if nats.mean() <= row.floor else "no"
        lines.append(
            f"| {row.what} | {_paper(row)} | {_floor(row)} | {nats.mean():.2f}{spread} | {seeds} "
            f"| {steps} | {wall:.0f} ({busy:.0f}) | {reached} |"
        )
    before, rest = PAGE.read_text().split("<!-- table -->\n")[0], PAGE.read_text().split("<!-- end -->\n")[1]
    PAGE.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->\n" + rest)


def _paper(row: Row) -> str:
    return "none" if row.paper is None else f"{row.paper:.2f}"


def _floor(row: Row) -> str:
    return "none" if row.floor is None else f"{row.floor:.2f}".removesuffix("0")


def _commit() -> str:
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, cwd=HERE).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
