"""The one trainer: batches, keys, phases, rounds, patience; never a family's name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.keys import children, seed_of
from diabolo.model import Model, Phase, State

__all__ = [
    "DivergenceWarning",
    "History",
    "InterruptedWarning",
    "OnRound",
    "Run",
    "Schedule",
    "Training",
    "fit",
    "fit_together",
    "resume",
    "say_interrupted",
    "start",
]

#: Steps between two looks at the losses: long enough that reading them back costs nothing.
STEPS_PER_ROUND = 100
_LONG = 2**16  # entries of an array from which their squares are added in parts


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
    n_averaged : the weights that are looked at and kept are a mean over about so many last steps, an exponential one
        (Polyak & Juditsky 1992; Kingma & Ba 2015, section 7.2); 1 takes them as they are
    """

    n_steps: int
    learning_rate: float = 1e-3
    decay: str = "cosine"
    n_warm: int = 50
    patience: int | None = None
    clip: float = 100.0
    n_averaged: int = 1

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
    n_earlier: int = 0  # looks of earlier phases, which looked at something else
    stopped: str = "steps"  # or "patience", "divergence", "interrupt"

    @property
    def best(self) -> float:
        """The best held-out score of the last phase, nats per row; nan where nothing was held out."""
        return max(self.held_out[self.n_earlier :], default=float("nan"))

    @property
    def merit(self) -> float:
        """What restarts compare, larger is better: the best held-out score, else minus the last loss."""
        looks = self.held_out[self.n_earlier :]
        return max(looks) if looks else -self.losses[-1] if self.losses else -np.inf


class Training(eqx.Module):
    """All that changes while training, on the device; no average is kept where none is asked for."""

    weights: Any
    optimizer: Any
    state: State
    best: Any
    best_score: Array
    average: Any = None

    @property
    def shown(self) -> Any:
        """The weights that are looked at and kept."""
        return self.weights if self.average is None else self.average


OnRound = Callable[[int, int, History], None]  # steps done, steps at most, what happened


class Run(NamedTuple):
    """One start, trained: the best weights (the last, where nothing is held out), what happened, where it ended."""

    model: Model
    history: History
    training: Training


def fit(
    model: Model,
    batches: Batches,
    schedule: Schedule,
    key: Array,
    *,
    training: Training | None = None,
    on_round: OnRound | None = None,
) -> Run:
    """Train a model through all phases of its plan.

    Parameters
    ----------
    model : what to train
    batches : rows on the device
    schedule : how long and how fast
    key : random key of batches and noise
    training : where an earlier call ended, to go on from there; of several phases each begins with zero moments
    on_round : called after every round with steps done, steps done when this phase ends at the latest, history
    """
    return fit_together(
        [model], batches, schedule, [key], trainings=training and [training], on_round=on_round
    )[0]


def fit_together(
    models: Sequence[Model],
    batches: Batches,
    schedule: Schedule,
    keys: Sequence[Array],
    *,
    trainings: Sequence[Training] | None = None,
    on_round: OnRound | None = None,
) -> list[Run]:
    """Train several starts of one model side by side, in one program; each stops for itself and then waits.

    Parameters and rounds as in `fit`, with a model and a key per start; `on_round` hears of the best start so far.
    """
    plan = models[0].plan()
    going_on = trainings is not None
    histories = [History() for _ in models]
    phase_keys = [children(key, len(plan)) for key in keys]
    done = 0
    for number, phase in enumerate(plan):
        n_steps = schedule.n_steps - done if number == len(plan) - 1 else int(phase.share * schedule.n_steps)
        if trainings is None or len(plan) > 1:
            before = [None] * len(models) if trainings is None else [one.state.running for one in trainings]
            starts = zip(models, before, strict=True)
            n_planned = 0 if going_on else n_steps  # nothing is warmed up a second time
            trainings = [start(model, phase, n_planned, running) for model, running in starts]
        for history in histories:
            history.n_earlier = len(history.held_out)
        courses = [
            _Course(history, replace(schedule, n_steps=n_steps), batches, key[number])
            for history, key in zip(histories, phase_keys, strict=True)
        ]
        models, trainings = _run_phase(models, phase, batches, courses, trainings, on_round)
        done += n_steps
    assert trainings is not None
    return list(map(Run, models, histories, trainings))


def start(model: Model, phase: Phase | None = None, n_steps: int = 0, running: Any = None) -> Training:
    """The beginning of training: zero moments, no best yet.

    Parameters
    ----------
    phase : the first of the model's plan, unless named
    n_steps : planned; 0 leaves them open, and then nothing is warmed up
    running : a family's running state from an earlier phase; None starts it anew
    """
    weights = eqx.filter(model, getattr(model, (phase or model.plan()[0]).trainable)())
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), weights)
    moments = optax.ScaleByAdamState(count=np.zeros((), np.int32), mu=zeros, nu=zeros)
    state = model.initial_state()._replace(n_steps=np.int32(n_steps))
    if running is not None:
        state = state._replace(running=running)
    return Training(weights, moments, state, weights, np.float32(-np.inf))  # type: ignore[arg-type]


def resume(model: Model, training: Training) -> Training:
    """Where an earlier call ended, for the same weights in a model whose objective may be another by now."""
    plan = model.plan()
    weights = eqx.filter(model, getattr(model, plan[0].trainable)())
    running, anew = training.state.running, model.initial_state().running
    if jax.tree.map(np.shape, running) != jax.tree.map(np.shape, anew):
        running = anew  # other chains are asked for than those that ran
    if len(plan) > 1 or len(jax.tree.leaves(weights)) != len(jax.tree.leaves(training.weights)):
        return start(model, running=running)  # each phase begins anew; what rides along stays
    structure = jax.tree.structure(weights)

    def of_model(tree: Any) -> Any:
        return jax.tree.unflatten(structure, jax.tree.leaves(tree))

    moments = training.optimizer
    return Training(
        of_model(training.weights),
        moments._replace(mu=of_model(moments.mu), nu=of_model(moments.nu)),
        training.state._replace(running=running),
        of_model(training.best),
        training.best_score,
        None if training.average is None else of_model(training.average),
    )


class _Course:
    """One start's way through a phase, as the host follows it: steps done, the best score, and whether it runs."""

    def __init__(self, history: History, schedule: Schedule, batches: Batches, key: Array) -> None:
        self.history, self.schedule, self.key = history, schedule, key
        self.n_round = min(STEPS_PER_ROUND, schedule.n_steps)
        self.orders = batches.orders(self.n_round, seed=seed_of(key))
        self.last = history.n_steps + schedule.n_steps
        self.done, self.since_best, self.best_score = 0, 0, -np.inf
        self.halted = history.stopped in ("divergence", "interrupt")

    @property
    def n_next(self) -> int:
        """Steps of the next round; none once it has stopped."""
        return 0 if self.halted else min(self.n_round, self.schedule.n_steps - self.done)

    def rates(self) -> np.ndarray:
        """Learning rates of the next round: (n_round,), zero beyond its steps."""
        rates = self.schedule.rates(self.done, self.done + self.n_next)
        return np.pad(rates, (0, self.n_round - self.n_next))

    def take(
        self, loss: float, parts: dict[str, float], score: float, *, scored: bool, patient: bool
    ) -> None:
        """What a round gave; it may be the last."""
        history = self.history
        if not np.isfinite(loss):
            self.stop("divergence")
            warnings.warn(_remedy(loss, history.n_steps, self.schedule), DivergenceWarning, stacklevel=7)
            return
        n_now = self.n_next
        self.done += n_now
        history.n_steps += n_now
        history.losses.append(loss)
        history.parts.append({name: float(part) for name, part in parts.items()})
        if scored:
            history.held_out.append(score if np.isfinite(score) else -np.inf)
        self.since_best = 0 if score > self.best_score else self.since_best + 1
        self.best_score = max(score, self.best_score)
        patience = self.schedule.patience
        if patient and patience is not None and self.since_best >= patience:
            self.stop("patience")

    def stop(self, why: str) -> None:
        self.halted, self.history.stopped = True, why


def _run_phase(
    models: Sequence[Model],
    phase: Phase,
    batches: Batches,
    courses: Sequence[_Course],
    trainings: Sequence[Training],
    on_round: OnRound | None,
) -> tuple[list[Model], list[Training]]:
    frozen = [eqx.partition(model, getattr(model, phase.trainable)())[1] for model in models]
    scored = batches.held_out is not None
    chooses = models[0].chooses and scored
    together, clip = len(models) > 1, np.float32(courses[0].schedule.clip)
    n_averaged = courses[0].schedule.n_averaged
    trainings = [replace(one, average=one.shown if n_averaged > 1 else None) for one in trainings]
    one_round = _compiled_round(jax.default_backend(), together, models[0].mostly_products)
    training, still, key = (_stacked(trees) for trees in (trainings, frozen, [one.key for one in courses]))
    try:
        while any(course.n_next for course in courses):
            order = devices.shared_out(_stacked([next(course.orders) for course in courses]), axis=-1)
            rates = _stacked([course.rates() for course in courses])
            n_steps = _stacked([np.int32(course.n_next) for course in courses])
            training, *seen = one_round(
                phase, training, still, batches, order, rates, n_steps, clip, np.float32(n_averaged), key
            )
            numbers = jax.tree.map(np.asarray, seen)  # the one wait for the device in a round
            running = [course for course in courses if course.n_next]
            for course, (loss, parts, score) in zip(courses, _lanes(numbers, len(courses)), strict=True):
                if course in running:
                    course.take(float(loss), parts, float(score), scored=scored, patient=chooses)
            if on_round is not None:
                ahead = max(running, key=lambda course: course.history.merit)
                if ahead.history.losses:
                    on_round(ahead.history.n_steps, ahead.last, ahead.history)
    except KeyboardInterrupt:
        n_done = max(course.history.n_steps for course in courses)
        if not n_done:
            raise  # nothing was learned: an untrained model would pass for a trained one
        for course in courses:
            course.stop("interrupt")
        say_interrupted(n_done, stacklevel=7)
    after = _lanes(training, len(courses))
    weights = [
        one.best if chooses and np.isfinite(course.best_score) else one.shown
        for one, course in zip(after, courses, strict=True)
    ]
    return list(map(eqx.combine, weights, frozen)), after


def _stacked(trees: Sequence[Any]) -> Any:
    """Trees side by side along a new first axis; one alone as it is: its program has no axis of starts."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _lanes(tree: Any, n: int) -> list[Any]:
    """The inverse of `_stacked`."""
    return [tree] if n == 1 else [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(n)]


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
def _compiled_round(
    backend: str, together: bool = False, mostly_products: bool = False
) -> Callable[..., tuple[Training, Array, dict[str, Array], Array]]:
    """`_round`, compiled; on a CPU without LLVM's later passes, which cost half a second and gain no step any time.

    Starts that train together are an axis of everything but the rows; one that has stopped takes no steps, and
    `lax.fori_loop` under `vmap` leaves it as it is.
    """
    options = devices.compiler_options(
        backend, mostly_products=mostly_products, xla_backend_optimization_level=1
    )

    def one_round(phase: Phase, *operands: Any) -> Any:
        rounds = functools.partial(_round, phase)
        if together:
            rounds = eqx.filter_vmap(rounds, in_axes=(0, 0, None, 0, 0, 0, None, None, 0))
        return rounds(*operands)

    return eqx.filter_jit(one_round, compiler_options=options)  # type: ignore[call-overload]


def _round(
    phase: Phase,
    training: Training,
    frozen: Model,
    batches: Batches,
    order: Array,
    rates: Array,
    n_steps: Array,
    clip: Array,
    n_averaged: Array,
    key: Array,
) -> tuple[Training, Array, dict[str, Array], Array]:
    """Up to `len(order)` steps and a look at the held-out rows, one compiled program.

    The number of steps is an operand, so that the last, shorter round runs in the same program.
    """
    moment = optax.scale_by_adam()
    trained = jax.tree.map(lambda leaf: leaf is not None, training.weights, is_leaf=lambda leaf: leaf is None)

    def loss_of(weights: Any, batch: Batch, step_key: Array, state: State) -> tuple[Array, Any]:
        model = eqx.combine(weights, frozen)
        loss = getattr(model, phase.loss)(batch, step_key, state)
        return loss.value, (loss.parts, loss.state)

    def step(i: Array, carry: Any) -> Any:
        weights, optimizer, state, average, total, totals = carry
        batch = batches.train[order[i]]
        step_key = jax.random.fold_in(key, state.step)
        (loss, (parts, state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            weights, batch, step_key, state
        )
        norm = _norm(gradient)
        shrink = jnp.minimum(1.0, clip / (norm + 1e-6))
        gradient = jax.tree.map(lambda g: g * shrink, gradient)
        update, optimizer = moment.update(gradient, optimizer)
        weights = jax.tree.map(lambda w, u: w - rates[i] * u, weights, update)
        weights = eqx.filter(eqx.combine(weights, frozen).settled(state, rates[i]), trained)
        state = state._replace(step=state.step + 1)
        if average is not None:  # at first the mean of all steps: what they began with is soon forgotten
            share = 1.0 / jnp.minimum(state.step, n_averaged)
            average = jax.tree.map(lambda old, new: old + share * (new - old), average, weights)
        return weights, optimizer, state, average, total + loss, jax.tree.map(jnp.add, totals, parts)

    shapes = jax.eval_shape(loss_of, training.weights, batches.train[order[0]], key, training.state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[1][0])
    carry = (training.weights, training.optimizer, training.state, training.average, jnp.zeros(()), zeros)
    weights, optimizer, state, average, total, totals = jax.lax.fori_loop(0, n_steps, step, carry)
    after = replace(training, weights=weights, optimizer=optimizer, state=state, average=average)
    score = jnp.asarray(-jnp.inf)
    if batches.held_out is not None:
        look = getattr(eqx.combine(after.shown, frozen), phase.held_out)
        score = jnp.mean(look(batches.held_out, jax.random.fold_in(key, 2**31)))
    better = score > training.best_score
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), after.shown, training.best)
    after = replace(after, best=best, best_score=jnp.where(better, score, training.best_score))
    # losses are taken before each update: the last one may have broken the weights and not yet a loss
    loss = jnp.where(jnp.isfinite(optax.tree.norm(weights)), total / n_steps, jnp.nan)
    good = jnp.isfinite(loss)  # nan as well where no step was taken
    after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, training)
    return after, loss, jax.tree.map(lambda part: part / n_steps, totals), score


def _norm(tree: Any) -> Array:
    """The Euclidean norm of all entries, real ones, as `optax.tree.norm` has it.

    A long sum's squares are written down by XLA on a CPU before they are added, those of 32 at a time are not: 6 % of a
    step of 10 rows and 784-500 weights. Short sums are left alone, since more operations take longer to compile.
    """

    def square(leaf: Array) -> Array:
        if leaf.size < _LONG:
            return jnp.sum(jnp.square(leaf))
        rows = jnp.pad(jnp.ravel(leaf), (0, -leaf.size % 32)).reshape(32, -1)
        return jnp.sum(jnp.sum(jnp.square(rows), axis=0))

    return jnp.sqrt(sum(square(leaf) for leaf in jax.tree.leaves(tree)))
