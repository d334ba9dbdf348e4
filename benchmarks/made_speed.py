"""Seconds for 10,000 draws of a 784-column MADE with one hidden layer of 500, with one order and with eight.

    python benchmarks/made_speed.py                prints the lines of docs/benchmarks.md

Weights are untrained: they change no operation. The first call, which compiles, is not counted.
"""

from __future__ import annotations

import os
import statistics
import time

import jax
import numpy as np

from diabolo import MADE, Schema
from diabolo.passes import draws

N_ROWS, N_COLUMNS, N_TURNS, TARGET = 10_000, 784, 5, 2.0


def main() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (200, N_COLUMNS)).astype(float)
    schema = Schema.learn(bits)
    nothing = np.zeros((N_ROWS, 0), np.float32)
    for n_orders in (1, 8):
        model = MADE((500,), n_orders=n_orders).build(schema, jax.random.key(0))
        draws(model, nothing[:1], 0)
        seconds, worked = [], []
        for turn in range(N_TURNS):
            begun, before = time.perf_counter(), time.process_time()
            draws(model, nothing, turn)
            seconds.append(time.perf_counter() - begun)
            worked.append(time.process_time() - before)
        clock, processor = statistics.median(seconds), statistics.median(worked)
        reached = "yes" if clock <= TARGET else "no"
        what = f"{N_ROWS:,} draws of a 784-column `MADE((500,), n_orders={n_orders})`"
        print(f"| {what} | at most {TARGET:g} s | {clock:.2f} s ({processor:.2f} of processor) | {reached} |")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
