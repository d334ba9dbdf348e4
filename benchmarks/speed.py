"""Speed: training steps, transform, import and first fit, beside a bare PyTorch loop and the machine's peak.

`make bench` runs this file in an environment of its own that has PyTorch. Each pair of rivals is measured in
one process, in turns, and medians are compared, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

import diabolo
from diabolo import VAE

N_TURNS = 7
ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),  # jax.nn.gelu's default form
    "silu": functional.silu,
    "tanh": torch.tanh,
    "softplus": functional.softplus,
}


class Line(NamedTuple):
    """One line of the table: what was measured, what it was to reach, and whether it did."""

    what: str
    target: str
    measured: str
    reached: bool


class Net(NamedTuple):
    """A VAE's shape: width of a row, hidden layers, width of the code; and the batch it trains on."""

    width: int
    hidden: tuple[int, ...]
    code: int
    batch: int

    def layers(self) -> list[tuple[int, int]]:
        """Input and output widths of every matrix product, encoder first; it gives a mean and a spread."""
        encoder = [self.width, *self.hidden, 2 * self.code]
        decoder = [self.code, *reversed(self.hidden), self.width]
        return [*pairwise(encoder), *pairwise(decoder)]

    def flops(self) -> float:
        """Floating-point operations of the matrix products of one training step.

        Forward, gradient of the weights, gradient of the layer's input: 2 each per weight and row. The first
        layer needs no gradient of its input.
        """
        layers = self.layers()
        n_weights = sum(a * b for a, b in layers)
        return self.batch * (6.0 * n_weights - 2.0 * layers[0][0] * layers[0][1])

    def __str__(self) -> str:
        return "-".join(map(str, (self.width, *self.hidden, self.code)))


def rows_like(net: Net, n_rows: int = 10_000) -> np.ndarray:
    """Rows with a few directions behind them: real numbers for a narrow net, 0 and 1 for a wide one."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(n_rows, 5)) @ rng.normal(size=(5, net.width))
    if net.width > 100:
        return (signal + rng.logistic(size=signal.shape) > 1.0).astype(np.float64)
    return signal + 0.3 * rng.normal(size=signal.shape)


def diabolo_steps(net: Net, rows: np.ndarray, n_steps: int) -> Callable[[], float]:
    """Seconds per step: two fits that differ in their number of steps alone; what is paid once cancels."""

    def fit(n: int) -> tuple[float, int]:
        vae = VAE(
            hidden_layer_sizes=net.hidden,
            n_components=net.code,
            batch_size=net.batch,
            max_steps=n,
            early_stopping=False,
            random_state=0,
        )
        start = time.perf_counter()
        vae.fit(rows)
        return time.perf_counter() - start, vae.n_steps_

    few = max(n_steps // 4, 1)

    def measure() -> float:
        (short, n_short), (long, n_long) = fit(few), fit(n_steps)
        return (long - short) / (n_long - n_short)

    measure()  # compiles
    return measure


def torch_steps(net: Net, rows: np.ndarray, n_steps: int) -> Callable[[], float]:
    """Seconds per step of a plain loop: the same net and loss, Adam, batches indexed out of one tensor."""
    bernoulli = set(np.unique(rows[:100])) <= {0.0, 1.0}
    spread = 1.0 if bernoulli else rows.std(0)
    data = torch.tensor(rows / spread, dtype=torch.float32)
    activate = ACTIVATIONS[VAE().activation]
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in net.layers())
    log_scale = torch.nn.Parameter(torch.zeros(net.width))
    optimizer = torch.optim.Adam([*layers.parameters(), log_scale], lr=1e-3)
    n_encoder = len(net.hidden) + 1

    def chain(part: torch.nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        for layer in part[:-1]:
            x = activate(layer(x))
        return part[-1](x)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        mean, log_variance = chain(layers[:n_encoder], batch).chunk(2, dim=1)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1.0).sum(1)
        params = chain(layers[n_encoder:], code)
        if bernoulli:
            misfit = functional.binary_cross_entropy_with_logits(params, batch, reduction="none").sum(1)
        else:
            misfit = (0.5 * ((batch - params) / log_scale.exp()) ** 2 + log_scale).sum(1)
        return (misfit + divergence).mean()

    def measure() -> float:
        done, start = 0, time.perf_counter()
        while done < n_steps:
            order = torch.randperm(len(data))
            for i in range(0, len(data) - net.batch + 1, net.batch):
                optimizer.zero_grad()
                loss(data[order[i : i + net.batch]]).backward()
                optimizer.step()
                done += 1
                if done == n_steps:
                    break
        return (time.perf_counter() - start) / n_steps

    measure()  # warms up
    return measure


def peak() -> Callable[[], float]:
    """Operations per second of one large matrix product in float32."""
    n = 2048
    square = jnp.ones((n, n), jnp.float32)
    product = jax.jit(jnp.dot)
    product(square, square).block_until_ready()

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(5):
            product(square, square).block_until_ready()
        return 5 * 2.0 * n**3 / (time.perf_counter() - start)

    return measure


def in_turns(*measures: Callable[[], float], n_turns: int = N_TURNS) -> list[float]:
    """Median of each, taken in turns."""
    return [
        statistics.median(taken)
        for taken in zip(*([m() for m in measures] for _ in range(n_turns)), strict=True)
    ]


def training(net: Net, n_steps: int, faster: float | None = None, share: float | None = None) -> list[Line]:
    """A net's steps beside PyTorch's, and beside the peak."""
    rows = rows_like(net)
    ours, theirs, best = in_turns(diabolo_steps(net, rows, n_steps), torch_steps(net, rows, n_steps), peak())
    gain, used = theirs / ours, net.flops() / ours / best
    what = f"training step, {net}, batch {net.batch}"
    lines = []
    if faster is not None:
        measured = f"{gain:.2f}x ({1e3 * ours:.2f} against {1e3 * theirs:.2f} ms)"
        lines.append(Line(f"{what}: beside bare PyTorch", f"at least {faster}x", measured, gain >= faster))
    if share is not None:
        measured = f"{used:.0%} of {best / 1e9:.0f} GFLOP/s ({1e3 * ours:.2f} ms; PyTorch {1e3 * theirs:.2f})"
        lines.append(Line(f"{what}: share of the peak", f"at least {share:.0%}", measured, used >= share))
    return lines


def transform(n_rows: int = 1_000_000, width: int = 20) -> list[Line]:
    """One call on a tall table, beside nothing but the matrix products of its encoder."""
    from diabolo.passes import _chunk_size

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_rows, 5)) @ rng.normal(size=(5, width)) + rng.normal(size=(n_rows, width))
    vae = VAE(max_steps=200, early_stopping=False, random_state=0).fit(rows[:20_000])
    leaves = jax.tree.leaves(vae.model_.encoder)
    weights = [jnp.asarray(leaf) for leaf in leaves if np.ndim(leaf) == 2]  # biases have one dimension
    size = _chunk_size(width)
    chunk = jnp.asarray(rows[:size], jnp.float32)

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        for weight in weights:
            x = x @ weight
        return x

    def ours() -> float:
        start = time.perf_counter()
        vae.transform(rows)
        return time.perf_counter() - start

    def needed() -> float:
        start = time.perf_counter()
        for _ in range(-(-n_rows // size)):
            products(chunk).block_until_ready()
        return time.perf_counter() - start

    ours(), needed()  # compiles
    whole, bare = in_turns(ours, needed)
    shape = "-".join(str(n) for n in (width, *(w.shape[1] for w in weights)))
    measured = f"{whole / bare:.2f}x ({whole:.2f} against {bare:.2f} s, encoder {shape})"
    what = f"`transform` of {n_rows:,} x {width} rows over its matrix products"
    return [Line(what, "at most 2x", measured, whole <= 2 * bare)]


FIRST_FIT = """
import json, statistics, time
import jax, numpy as np
from diabolo import VAE
rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)) @ rng.normal(size=(3, 10)) + 0.5 * rng.normal(size=(1000, 10))

def fit(**settings):
    start = time.perf_counter()
    vae = VAE(random_state=0, **settings).fit(rows)
    return time.perf_counter() - start, vae.n_steps_

first, _ = fit()
again = [fit() for _ in range(5)]
second, n_steps = statistics.median(t for t, _ in again), again[0][1]
slopes = []
for turn in range(6):
    # never stopped early, so that both runs pay what is paid once and differ in their steps alone
    runs = [fit(max_steps=n, n_iter_no_change=10**6) for n in (n_steps, 3 * n_steps)]
    (short, n_short), (long, n_long) = runs
    slopes.append((long - short) / (n_long - n_short))
print(json.dumps([first, second, second - n_steps * statistics.median(slopes[1:]), n_steps]))
"""


def fresh(code: str) -> list:
    """What a new process prints, without a compilation cache on disk to help it."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, env=settings)
    return json.loads(run.stdout.splitlines()[-1])


def importing() -> list[Line]:
    """What importing the estimators costs: all of it, and the part spent in diabolo's own files."""
    command = [sys.executable, "-X", "importtime", "-c", "from diabolo import VAE"]

    def measure() -> tuple[float, float]:
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
        # import time: self [us] | cumulative | imported package
        lines = [line.removeprefix("import time:").split("|") for line in run.stderr.splitlines()[1:]]
        spent = [(name.strip(), 1e-6 * float(own)) for own, _, name in lines]
        return sum(own for name, own in spent if name.split(".")[0] == "diabolo"), sum(
            own for _, own in spent
        )

    ours, whole = (
        statistics.median(taken) for taken in zip(*(measure() for _ in range(N_TURNS)), strict=True)
    )
    what = "`from diabolo import VAE` beyond its dependencies' import"
    return [Line(what, "at most 0.3 s", f"{ours:.2f} s (of {whole:.2f} s)", ours <= 0.3)]


def first_fit() -> list[Line]:
    """`VAE().fit` of 1,000 x 10 rows: the first in a process, and the next beyond its steps."""
    runs = [fresh(FIRST_FIT) for _ in range(3)]
    first, second, beyond, n_steps = (statistics.median(taken) for taken in zip(*runs, strict=True))
    what = "`VAE().fit` of 1,000 x 10 rows"
    measured = f"{beyond:.2f} s ({second:.2f} s, {n_steps:.0f} steps)"
    return [
        Line(f"{what}, first in a fresh process", "at most 3 s", f"{first:.2f} s", first <= 3.0),
        Line(f"{what}, again, beyond its own steps", "at most 0.1 s", measured, beyond <= 0.1),
    ]


PARTS: dict[str, Callable[[], list[Line]]] = {
    "small": lambda: training(Net(20, (64, 32), 8, 128), 4000, faster=3.0),
    "wide": lambda: training(Net(784, (512, 256), 20, 128), 400, faster=1.6),
    "large": lambda: training(Net(784, (512, 256), 20, 512), 120, share=0.8),
    "transform": transform,
    "import": importing,
    "fit": first_fit,
}


def main() -> None:
    """Measure the parts that are named, or all, and print one Markdown table."""
    parser = argparse.ArgumentParser(description="Measure diabolo's speed; prints one Markdown table.")
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all unless named")
    parts = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    versions = f"diabolo {diabolo.__version__}, jax {jax.__version__}, PyTorch {torch.__version__}"
    threads = f"PyTorch on {torch.get_num_threads()} threads"
    print(f"{datetime.date.today()}: {machine}, {versions}; {threads}; medians of {N_TURNS} turns\n")
    print("| what | to reach | measured | reached |\n|---|---|---|---|", flush=True)
    for part in parts:
        for line in PARTS[part]():
            reached = "yes" if line.reached else "no"
            print(f"| {line.what} | {line.target} | {line.measured} | {reached} |", flush=True)


if __name__ == "__main__":
    main()
