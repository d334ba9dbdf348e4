"""Boltzmann machines: chains and training against scikit-learn's, and rates on small binary sets.

    python benchmarks/boltzmann.py speed            chains, and a pass of training beside BernoulliRBM's
    python benchmarks/boltzmann.py small            the small binary sets, settings by their validation parts

The data folder is named by DIABOLO_DATA. 500 units on the fixed binarized MNIST are a row of `published.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neural_network import BernoulliRBM

from diabolo import RBM, devices, engine
from diabolo.batches import Batch, Batches
from diabolo.keys import key_of

HERE = Path(__file__).parent
NUMBERS = HERE / "published"
DATA = Path(os.environ.get("DIABOLO_DATA", "data"))
KINDS = {f"x{i}": "binary" for i in range(784)}  # blank pixels as well: some test rows have ink there
N_TURNS, N_PASSES = 5, 3
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
    encoded = Batch.of(ours.schema_.encode(rows))
    walk = devices.compiled(lambda machine, hidden, key: machine.walk(hidden, key, 1000))
    hidden, machine = jnp.zeros((500, 500)), ours.model_.machine
    _alternate(
        f"1,000 steps of {len(hidden)} chains, 784-500",
        {"diabolo": lambda i: walk(machine, hidden, key_of(i))},
    )

    def ours_by(batch_size: int, n_gibbs: int) -> Callable[[int], Any]:
        batches = Batches.split(encoded, batch_size, 0.0, 0)
        schedule = engine.Schedule(N_PASSES * -(-len(rows) // batch_size), 1e-3, "constant", 1)
        model = dataclasses.replace(ours.model_, n_gibbs=n_gibbs, n_chains=batch_size)
        return lambda i: engine.fit(model, batches, schedule, key_of(i)).training.weights

    def theirs_by(batch_size: int, dtype: type) -> Callable[[int], Any]:
        peer = BernoulliRBM(500, batch_size=batch_size, n_iter=N_PASSES, learning_rate=0.01, random_state=0)
        cells = rows.astype(dtype)
        return lambda _: peer.fit(cells)

    for batch_size in (128, 10):
        _alternate(
            f"{N_PASSES} passes over 10,000 rows, one step of the chain, both in batches of {batch_size}",
            {
                "diabolo": ours_by(batch_size, 1),
                "BernoulliRBM, float64 rows": theirs_by(batch_size, np.float64),
                "BernoulliRBM, float32 rows": theirs_by(batch_size, np.float32),
            },
        )
    _alternate(
        f"{N_PASSES} passes over 10,000 rows, each at its defaults: 128 rows and five steps, 10 rows and one",
        {"diabolo": ours_by(128, 5), "BernoulliRBM, float64 rows": theirs_by(10, np.float64)},
    )


def _alternate(what: str, runs: dict[str, Callable[[int], Any]]) -> None:
    """Print medians of `N_TURNS` turns, and of their ratios to the first run's in the same turn."""
    for run in runs.values():
        jax.block_until_ready(run(0))  # compiled and warm
    turns = [{name: _timed(run, i) for name, run in runs.items()} for i in range(N_TURNS)]
    print(f"{what}:")
    first = next(iter(runs))
    for name in runs:
        wall, busy = (statistics.median(turn[name][part] for turn in turns) for part in (0, 1))
        ratio = statistics.median(turn[name][0] / turn[first][0] for turn in turns)
        print(
            f"  {name}: {wall:.2f} s wall, {busy:.2f} s of processor, {ratio:.2f} of diabolo's turn",
            flush=True,
        )


def _timed(run: Callable[[int], Any], number: int) -> tuple[float, float]:
    """Wall clock and processor's seconds, once the threads of the run before have stopped waiting for more."""
    time.sleep(0.5)
    wall, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(run(number))
    return time.perf_counter() - wall, time.process_time() - busy


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
    parser.add_argument("what", choices=("speed", "small"))
    {"speed": speed, "small": small}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
