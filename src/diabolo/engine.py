"""The one trainer: batches, keys, phases, rounds, patience; never a family's name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diabolo.batches import Batch, Batches
from diabolo.keys import children, seed_of
from diabolo.model import Model, Phase, State

__all__ = [
    "DivergenceWarning",
    "History",
    "InterruptedWarning",
    "Schedule",
    "Training",
    "fit",
    "say_interrupted",
    "start",
]

#: Steps between two looks at the losses: long enough that reading them back costs nothing.
STEPS_PER_ROUND = 100


class DivergenceWarning(RuntimeWarning):
    """The loss stopped being a number; training ended with the last good weights."""


class InterruptedWarning(RuntimeWarning):
    """Training was interrupted; the best weights so far were kept."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes
    ----------
    n_steps : at most so many steps, all phases together
    learning_rate : Adam's, at its highest
    decay : "cosine" to zero over `n_steps` (Loshchilov & Hutter 2017), or "constant"
    n_warm : steps over which the rate rises linearly from zero
    patience : rounds without a better held-out score before stopping; None never stops early
    clip : largest norm of the gradient of one nat per row
    """

    n_steps: int
    learning_rate: float = 1e-3
    decay: str = "cosine"
    n_warm: int = 50
    patience: int | None = None
    clip: float = 100.0

    def rates(self, start: int, stop: int) -> np.ndarray:
        """Learning rates of steps start to stop: (stop - start,)."""
        step = np.arange(start, stop)
        rate = self.learning_rate * np.minimum(1.0, (step + 1) / max(min(self.n_warm, self.n_steps // 10), 1))
        if self.decay == "cosine":
            rate = rate * 0.5 * (1.0 + np.cos(np.pi * step / self.n_steps))
        return rate.astype(np.float32)


@dataclass
class History:
    """What happened, as plain data: one entry per round."""

    losses: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    n_steps: int = 0
    stopped: str = "steps"  # or "patience", "divergence", "interrupt"

    @property
    def best(self) -> float:
        """The best held-out score, nats per row; nan where nothing was held out."""
        return max(self.held_out, default=float("nan"))

    @property
    def merit(self) -> float:
        """What restarts compare, larger is better: the best held-out score, else minus the last loss."""
        return max(self.held_out) if self.held_out else -self.losses[-1] if self.losses else -np.inf


class Training(eqx.Module):
    """All that changes while training, on the device."""

    weights: Any
    optimizer: Any
    state: State
    best: Any
    best_score: Array


OnRound = Callable[[int, int, History], None]  # steps done, steps at most, what happened


def fit(
    model: Model,
    batches: Batches,
    schedule: Schedule,
    key: Array,
    *,
    training: Training | None = None,
    on_round: OnRound | None = None,
) -> tuple[Model, History, Training]:
    """Train a model through all phases of its plan.

    Parameters
    ----------
    model : what to train
    batches : rows on the device
    schedule : how long and how fast
    key : random key of batches and noise
    training : where an earlier call ended, to go on from there (one phase only)
    on_round : called after every round with steps done, steps done when this phase ends at the latest, history

    Returns
    -------
    the model with the best weights (the last, where nothing is held out), what happened, and where it ended
    """
    history = History()
    done = 0
    plan = model.plan()
    assert training is None or len(plan) == 1, "going on is defined for one phase"
    for number, (phase, phase_key) in enumerate(zip(plan, children(key, len(plan)), strict=True)):
        n_steps = schedule.n_steps - done if number == len(plan) - 1 else int(phase.share * schedule.n_steps)
        if number or training is None:
            running = None if training is None else training.state.running
            training = start(model, phase, n_steps, running)
        phase_schedule = Schedule(**{**vars(schedule), "n_steps": n_steps})
        model, training = _run_phase(
            model, phase, batches, phase_schedule, phase_key, history, training, on_round
        )
        done += n_steps
        if history.stopped in ("divergence", "interrupt"):
            break
    assert training is not None
    return model, history, training


def start(model: Model, phase: Phase = Phase(), n_steps: int = 0, running: Any = None) -> Training:  # noqa: B008  (frozen)
    """The beginning of training: zero moments, no best yet.

    Parameters
    ----------
    n_steps : planned; 0 leaves them open, and then nothing is warmed up
    running : a family's running state from an earlier phase; None starts it anew
    """
    weights = eqx.filter(model, getattr(model, phase.trainable)())
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), weights)
    moments = optax.ScaleByAdamState(count=np.zeros((), np.int32), mu=zeros, nu=zeros)
    state = model.initial_state()._replace(n_steps=np.int32(n_steps))
    if running is not None:
        state = state._replace(running=running)
    return Training(weights, moments, state, weights, np.float32(-np.inf))  # type: ignore[arg-type]


def _run_phase(
    model: Model,
    phase: Phase,
    batches: Batches,
    schedule: Schedule,
    key: Array,
    history: History,
    training: Training,
    on_round: OnRound | None,
) -> tuple[Model, Training]:
    history.stopped, before = "steps", history.n_steps
    _, frozen = eqx.partition(model, getattr(model, phase.trainable)())
    n_steps = min(STEPS_PER_ROUND, schedule.n_steps)
    orders = batches.orders(n_steps, seed=seed_of(key))
    done, since_best, best_score = 0, 0, -np.inf
    chooses = model.keeps_best and batches.held_out is not None
    try:
        while done < schedule.n_steps:
            n_now = min(n_steps, schedule.n_steps - done)
            rates = np.zeros(n_steps, np.float32)
            rates[:n_now] = schedule.rates(done, done + n_now)
            after, loss, parts, score = _compiled_round(jax.default_backend())(
                phase,
                training,
                frozen,
                batches,
                next(orders),
                rates,
                np.int32(n_now),
                np.float32(schedule.clip),
                key,
            )
            loss, score = float(loss), float(score)  # the one wait for the device in a round
            if not np.isfinite(loss):
                history.stopped = "divergence"
                warnings.warn(_remedy(loss, history.n_steps, schedule), DivergenceWarning, stacklevel=4)
                break
            training = after
            done += n_now
            history.n_steps += n_now
            history.losses.append(loss)
            history.parts.append({name: float(part) for name, part in parts.items()})
            if batches.held_out is not None:
                history.held_out.append(score if np.isfinite(score) else -np.inf)
            if on_round is not None:
                on_round(history.n_steps, before + schedule.n_steps, history)
            since_best = 0 if score > best_score else since_best + 1
            best_score = max(score, best_score)
            if chooses and schedule.patience is not None and since_best >= schedule.patience:
                history.stopped = "patience"
                break
    except KeyboardInterrupt:
        if not history.n_steps:
            raise  # nothing was learned: an untrained model would pass for a trained one
        history.stopped = "interrupt"
        say_interrupted(history.n_steps, stacklevel=5)
    chosen = training.best if chooses and np.isfinite(best_score) else training.weights
    return eqx.combine(chosen, frozen), training


def say_interrupted(n_steps: int, stacklevel: int = 3) -> None:
    """Warn that training ended early, and with what."""
    said = f"Interrupted after {n_steps} steps: the best weights so far are kept."
    warnings.warn(said, InterruptedWarning, stacklevel=stacklevel)


def _remedy(loss: float, n_steps: int, schedule: Schedule) -> str:
    return (
        f"Training stopped after {n_steps} steps: the loss became {loss}; the last good weights are kept. "
        f"Set learning_rate below {schedule.learning_rate:g} (try {schedule.learning_rate / 10:g}), "
        "or look for extreme values in the data."
    )


@functools.cache
def _compiled_round(backend: str) -> Callable[..., tuple[Training, Array, dict[str, Array], Array]]:
    """`_round`, compiled; on a CPU without LLVM's later passes, which cost half a second and gain no step any time."""
    options = {"xla_backend_optimization_level": 1} if backend == "cpu" else None
    return eqx.filter_jit(_round, compiler_options=options)  # type: ignore[call-overload]


def _round(
    phase: Phase,
    training: Training,
    frozen: Model,
    batches: Batches,
    order: Array,
    rates: Array,
    n_steps: Array,
    clip: Array,
    key: Array,
) -> tuple[Training, Array, dict[str, Array], Array]:
    """Up to `len(order)` steps and a look at the held-out rows, one compiled program.

    The number of steps is an operand, so that the last, shorter round runs in the same program.
    """
    moment = optax.scale_by_adam()

    def loss_of(weights: Any, batch: Batch, step_key: Array, state: State) -> tuple[Array, Any]:
        model = eqx.combine(weights, frozen)
        loss = getattr(model, phase.loss)(batch, step_key, state)
        return loss.value, (loss.parts, loss.state)

    def step(i: Array, carry: Any) -> Any:
        weights, optimizer, state, total, totals = carry
        batch = batches.train[order[i]]
        step_key = jax.random.fold_in(key, state.step)
        (loss, (parts, state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            weights, batch, step_key, state
        )
        norm = optax.tree.norm(gradient)
        shrink = jnp.minimum(1.0, clip / (norm + 1e-6))
        gradient = jax.tree.map(lambda g: g * shrink, gradient)
        update, optimizer = moment.update(gradient, optimizer)
        weights = jax.tree.map(lambda w, u: w - rates[i] * u, weights, update)
        state = state._replace(step=state.step + 1)
        return weights, optimizer, state, total + loss, jax.tree.map(jnp.add, totals, parts)

    shapes = jax.eval_shape(loss_of, training.weights, batches.train[order[0]], key, training.state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[1][0])
    carry = (training.weights, training.optimizer, training.state, jnp.zeros(()), zeros)
    weights, optimizer, state, total, totals = jax.lax.fori_loop(0, n_steps, step, carry)
    score = jnp.asarray(-jnp.inf)
    if batches.held_out is not None:
        score = jnp.mean(
            eqx.combine(weights, frozen).held_out(batches.held_out, jax.random.fold_in(key, 2**31))
        )
    better = score > training.best_score
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, training.best)
    after = Training(weights, optimizer, state, best, jnp.where(better, score, training.best_score))
    # losses are taken before each update: the last one may have broken the weights and not yet a loss
    total = jnp.where(jnp.isfinite(optax.tree.norm(weights)), total, jnp.nan)
    return after, total / n_steps, jax.tree.map(lambda part: part / n_steps, totals), score
