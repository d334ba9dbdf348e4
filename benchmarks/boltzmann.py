"""Boltzmann machines: chains and training against scikit-learn's, and 500 units on the fixed binarized MNIST.

    python benchmarks/boltzmann.py speed            chains, and a pass of training beside BernoulliRBM's
    python benchmarks/boltzmann.py mnist            train, pass by pass, and test; what is done is not done again
    python benchmarks/boltzmann.py small            the small binary sets, settings by their validation parts

The data folder is named by DIABOLO_DATA. `mnist` may be stopped at any time: the estimator is saved after every pass
under benchmarks/results/, which git ignores, and the same command goes on from there. Numbers are kept under
benchmarks/published/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neural_network import BernoulliRBM

import diabolo
from diabolo import RBM, engine
from diabolo.batches import Batch, Batches
from diabolo.boltzmann import annealed_log_z
from diabolo.keys import key_of

HERE = Path(__file__).parent
NUMBERS, UNDER_WAY = HERE / "published", HERE / "results"
DATA = Path(os.environ.get("DIABOLO_DATA", "data"))
KINDS = {f"x{i}": "binary" for i in range(784)}  # blank pixels as well: some test rows have ink there
N_TURNS = 5
N_PASSES, RATE, N_GIBBS = 60, 3e-3, 1
N_TEMPERATURES, N_CHAINS = 10_000, 100
SMALL = ("nltcs", "plants", "baudio", "jester")


def mnist() -> dict[str, np.ndarray]:
    parts = np.load(DATA / "images" / "binarized_mnist.npz")
    return {
        name: parts[f"x_{name}"].reshape(-1, 784).astype(np.float32) for name in ("train", "valid", "test")
    }


def speed() -> None:
    """Medians of turns in one process, wall clock, with the processor's seconds beside them."""
    rows = mnist()["train"][:10_000]
    ours = RBM(500, kinds=KINDS, n_gibbs=1, n_temperatures=10, max_steps=1, random_state=0).fit(rows)
    model = ours.model_
    walk = eqx.filter_jit(lambda machine, hidden, key: machine.walk(hidden, key, 1000))
    hidden = jnp.zeros((500, 500))
    jax.block_until_ready(walk(model.machine, hidden, key_of(0)))
    wall, busy = zip(
        *(_timed(lambda i=i: walk(model.machine, hidden, key_of(i))) for i in range(3)), strict=True
    )
    print(f"1,000 steps of 500 chains, 784-500: {statistics.median(wall):.1f} s wall, "
          f"{statistics.median(busy):.1f} s of processor")  # fmt: skip
    batches = Batches.split(Batch.of(ours.schema_.encode(rows)), 128, 0.0, 0)
    n_steps = -(-len(rows) // 128)
    schedule = engine.Schedule(n_steps, 1e-3, "constant", 1)
    engine.fit(model, batches, schedule, key_of(0))
    theirs = BernoulliRBM(500, batch_size=128, n_iter=1, learning_rate=0.01, random_state=0)
    doubles = rows.astype(np.float64)
    runs = {
        "diabolo": lambda i: engine.fit(model, batches, schedule, key_of(i)).training.weights,
        "BernoulliRBM, float32 rows": lambda _: theirs.fit(rows),
        "BernoulliRBM, float64 rows": lambda _: theirs.fit(doubles),
    }
    turns = [[_timed(lambda run=run, i=i: run(i)) for run in runs.values()] for i in range(N_TURNS)]
    print("a pass over 10,000 rows, PCD-1, batches of 128:")
    for name, each in zip(runs, zip(*turns, strict=True), strict=True):
        wall, busy = (statistics.median(part) for part in zip(*each, strict=True))
        ratio = statistics.median(
            one[0] / ours[0] for one, ours in zip(each, [turn[0] for turn in turns], strict=True)
        )
        print(f"  {name}: {wall:.2f} s wall, {busy:.2f} s of processor, {ratio:.2f} of diabolo's turn")


def _timed(run: Any) -> tuple[float, float]:
    """Wall clock and processor's seconds."""
    wall, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - wall, time.process_time() - busy


def train_mnist(n_passes: int) -> None:
    """Persistent chains, one step between updates, a cosine of rates over the passes."""
    parts, place = mnist(), UNDER_WAY / f"rbm500-{n_passes}"
    UNDER_WAY.mkdir(exist_ok=True)
    file, log = place.with_suffix(".safetensors"), place.with_suffix(".json")
    state = json.loads(log.read_text()) if log.exists() else {"n_done": 0, "seconds": 0.0}
    model = diabolo.load(file) if state["n_done"] else None
    if model is None:
        model = RBM(500, kinds=KINDS, n_gibbs=N_GIBBS, n_temperatures=10, random_state=0)
    while state["n_done"] < n_passes:
        began = time.perf_counter()
        rate = RATE * 0.5 * (1.0 + math.cos(math.pi * (state["n_done"] + 0.5) / n_passes))
        model.set_params(learning_rate=rate).partial_fit(parts["train"])
        state = {"n_done": state["n_done"] + 1, "seconds": state["seconds"] + time.perf_counter() - began}
        model.save(file)
        log.write_text(json.dumps(state))
        print(f"pass {state['n_done']} of {n_passes}, {state['seconds']:.0f} s", flush=True)
    inner = model.model_
    began = time.perf_counter()
    found = annealed_log_z(inner.machine, inner.marginal, N_TEMPERATURES, N_CHAINS, key_of(1))
    correction = model.log_z_ - found.log_z
    numbers = {
        name: float(model.score_samples(rows).mean() + correction)
        for name, rows in (
            ("train", parts["train"][:10_000]),
            ("valid", parts["valid"]),
            ("test", parts["test"]),
        )
    }
    told = {
        **{f"{name}_nats": round(value, 3) for name, value in numbers.items()},
        "log_z": round(found.log_z, 3),
        "log_z_error": round(found.error, 3),
        "passes": n_passes,
        "seconds_training": round(state["seconds"]),
        "seconds_annealing": round(time.perf_counter() - began),
        "temperatures": N_TEMPERATURES,
        "chains": N_CHAINS,
        "date": datetime.date.today().isoformat(),
    }
    (NUMBERS / f"rbm500-{n_passes}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))


def small() -> None:
    """Sixteen hidden units and 64, exact and estimated; the rate chosen by the validation part."""
    for name in SMALL:
        parts = np.load(DATA / "density" / f"{name}.npz")
        train, valid, test = (parts[f"x_{part}"].astype(float) for part in ("train", "valid", "test"))
        kinds = {f"x{i}": "binary" for i in range(train.shape[1])}
        told: dict[str, Any] = {}
        for n_hidden in (16, 64):
            tried = []
            for rate in (0.003, 0.01, 0.03):
                began = time.perf_counter()
                rbm = RBM(n_hidden, kinds=kinds, learning_rate=rate, max_steps=6000, random_state=0).fit(
                    train
                )
                seconds = time.perf_counter() - began
                tried.append((rbm.score(valid), rate, rbm.score(test), rbm.log_z_error_, round(seconds)))
            best = max(tried)
            told[str(n_hidden)] = dict(
                zip(("valid_nats", "learning_rate", "test_nats", "log_z_error", "seconds"), best, strict=True)
            )
            print(name, n_hidden, told[str(n_hidden)], flush=True)
        (NUMBERS / f"rbm-{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "mnist", "small"))
    parser.add_argument("--passes", type=int, default=N_PASSES)
    asked = parser.parse_args()
    if asked.what == "mnist":
        train_mnist(asked.passes)
    else:
        {"speed": speed, "small": small}[asked.what]()


if __name__ == "__main__":
    main()
