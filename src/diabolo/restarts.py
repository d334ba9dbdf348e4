"""Several independent starts of one model, of which the best is kept."""

from __future__ import annotations

from collections.abc import Callable

import jax

from diabolo import engine
from diabolo.batches import Batches
from diabolo.engine import OnRound, Run, Schedule
from diabolo.keys import key_of
from diabolo.model import Model

__all__ = ["best_of"]


def best_of(
    n_init: int,
    build: Callable[[jax.Array], Model],
    batches: Batches,
    schedule: Schedule,
    seed: int,
    *,
    on_round: OnRound | None = None,
    together: bool | None = None,
) -> Run:
    """Train `n_init` starts and keep the one of the best held-out score, or of the lowest loss.

    Parameters
    ----------
    build : random key to an untrained model
    batches, schedule, on_round : as `engine.fit` takes them
    seed : of weights, batches and noise; start i of many is the start i of few
    together : side by side in one program, or one after another; None decides by the device. A processor that one
        start keeps busy gains nothing from several, an accelerator trains them in little more than the time of one
    """
    keys = [(key_of(seed, number, 0), key_of(seed, number, 1)) for number in range(n_init)]
    if together is None:
        together = jax.default_backend() != "cpu"
    if together and n_init > 1:
        models = [build(weights) for weights, _ in keys]
        runs = engine.fit_together(models, batches, schedule, [steps for _, steps in keys], on_round=on_round)
        return max(runs, key=lambda run: run.history.merit)
    kept: Run | None = None
    for weights, steps in keys:
        try:
            run = engine.fit(build(weights), batches, schedule, steps, on_round=on_round)
        except KeyboardInterrupt:
            if kept is None:
                raise
            engine.say_interrupted(kept.history.n_steps, stacklevel=4)
            break
        if kept is None or run.history.merit > kept.history.merit:
            kept = run
        if run.history.stopped == "interrupt":
            break
    assert kept is not None
    return kept
