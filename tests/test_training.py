"""The engine on a model whose every step is known, and the estimator's verbs that train."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from cases import CASES, N_ROWS, SMALL, fitted, points
from jax import Array
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diabolo
from diabolo import (
    MADE,
    RBM,
    VAE,
    InputError,
    NormalizingFlow,
    ParzenWindow,
    devices,
    engine,
    progress,
    restarts,
)
from diabolo.batches import Batch, Batches
from diabolo.joint import JointLikelihood
from diabolo.model import Loss, Model, Phase, State
from diabolo.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder


class Walk(Model):
    """Two numbers that the absolute error pulls towards 10: Adam moves each by exactly the rate at every step.

    The held-out score is best where `first` is 3; the running state counts steps.
    """

    density_kind: ClassVar[str] = "estimate"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    first: Array
    second: Array
    phases: tuple[Phase, ...] = eqx.field(static=True, default=(Phase(),))
    breaks_at: int = eqx.field(static=True, default=2**30)

    def plan(self) -> tuple[Phase, ...]:
        return self.phases

    def initial_state(self) -> State:
        return State(np.int32(0), np.int32(0), running={"n": np.int32(0)})

    def loss(self, batch, key, state) -> Loss:
        away = jnp.mean(jnp.abs(batch.values - self.first)) + jnp.mean(jnp.abs(batch.values - self.second))
        value = jnp.where(state.step >= self.breaks_at, jnp.nan, away)
        return Loss(value, {"away": away}, state._replace(running={"n": state.running["n"] + 1}))

    def only_first(self) -> "Walk":
        return eqx.tree_at(lambda walk: walk.second, self.trainable(), replace=False)

    def only_second(self) -> "Walk":
        return eqx.tree_at(lambda walk: walk.first, self.trainable(), replace=False)

    def held_out(self, batch, key) -> Array:
        return -jnp.abs(3.0 - self.first) + 0.0 * batch.values[:, 0]

    def encode(self, batch):
        raise NotImplementedError

    def typical(self, codes, given):
        raise NotImplementedError

    def sample(self, key, n, given):
        raise NotImplementedError


STEADY = {"learning_rate": 0.01, "decay": "constant", "n_warm": 1}


def walk(**fields):
    zero = np.zeros((), np.float32)
    return Walk(JointLikelihood.stack([], []), code_widths=(), first=zero, second=zero, **fields)


def tens(fraction: float = 0.5) -> Batches:
    values = np.full((40, 1), 10.0, np.float32)
    return Batches.split(Batch(values, values > 0, values[:, :0]), 8, fraction, seed=0)


def trained(model, batches=None, on_round=None, **schedule):
    plan = engine.Schedule(**{**STEADY, **schedule})
    batches = tens() if batches is None else batches
    return engine.fit(model, batches, plan, jax.random.key(0), on_round=on_round)


# ---- the engine ------------------------------------------------------------------------------------------------


def test_patience_stops_and_the_best_weights_are_kept():
    model, history, training = trained(walk(), n_steps=1000, patience=2)
    assert history.stopped == "patience" and history.n_steps == 500
    np.testing.assert_allclose(history.held_out, [-2, -1, 0, -1, -2], atol=1e-3)
    np.testing.assert_allclose([model.first, training.weights.first], [3.0, 5.0], atol=1e-3)
    assert history.best == max(history.held_out)


def test_without_held_out_rows_the_last_weights_are_kept():
    model, history, _ = trained(walk(), tens(0.0), n_steps=500, patience=2)
    assert history.stopped == "steps" and history.held_out == []
    np.testing.assert_allclose(model.first, 5.0, atol=1e-3)


def test_the_last_shorter_round_counts_its_own_steps():
    model, history, training = trained(walk(), tens(0.0), n_steps=250)
    assert history.n_steps == 250 and len(history.losses) == 3
    np.testing.assert_allclose(model.first, 2.5, atol=1e-3)
    # means over the steps of a round, of the loss before each step: 2 (10 - 0.01 i)
    np.testing.assert_allclose(history.losses, [19.01, 17.01, 15.51], atol=1e-3)
    np.testing.assert_allclose([part["away"] for part in history.parts], history.losses, atol=1e-4)
    assert int(training.state.step) == 250


def test_running_state_rides_along_from_round_to_round():
    _, _, training = trained(walk(), n_steps=250)
    assert int(training.state.running["n"]) == 250 and int(training.state.n_steps) == 250


def test_each_phase_trains_its_own_part_for_its_share():
    phases = (Phase("one", "loss", "only_first", 0.3), Phase("two", "loss", "only_second", 0.7))
    rounds = []
    model, history, _ = trained(
        walk(phases=phases), tens(0.0), n_steps=1000, on_round=lambda done, *_: rounds.append(done)
    )
    np.testing.assert_allclose([model.first, model.second], [3.0, 7.0], atol=2e-3)
    assert history.n_steps == 1000 and rounds == list(range(100, 1001, 100))


def test_training_goes_on_where_an_earlier_call_ended():
    _, _, training = trained(walk(), tens(0.0), n_steps=200)
    plan = engine.Schedule(n_steps=100, **STEADY)
    model, history, after = engine.fit(walk(), tens(0.0), plan, jax.random.key(1), training=training)
    np.testing.assert_allclose(model.first, 3.0, atol=1e-3)
    assert int(after.state.step) == 300 and history.n_steps == 100


def averaged(n_steps, n_averaged, rate=0.01):
    """What stands behind a walk of n steps: the mean of all at first, then an average that trails it."""
    behind = [rate * (n - 1) / 2 for n in range(1, n_averaged + 1)]
    while len(behind) < n_steps:
        behind.append((1.0 - 1.0 / n_averaged) * (behind[-1] + rate))
    return rate * n_steps - behind[n_steps - 1]


def test_an_average_of_the_last_weights_is_looked_at_and_kept():
    model, history, training = trained(walk(), n_steps=800, n_averaged=50, patience=2)
    seen = [averaged(n, 50) for n in range(100, 700, 100)]
    assert seen[3] == pytest.approx(4.0 - 0.01 * 49, abs=1e-3)  # 49 steps behind in the end
    np.testing.assert_allclose(history.held_out, [-abs(3.0 - one) for one in seen[:5]], atol=1e-3)
    np.testing.assert_allclose([model.first, training.weights.first], [seen[2], 5.0], atol=1e-3)
    model, history, training = trained(walk(), tens(0.0), n_steps=40, n_averaged=50)
    np.testing.assert_allclose([model.first, training.weights.first], [0.205, 0.4], atol=1e-4)


def test_an_average_goes_on_where_an_earlier_call_ended():
    _, _, training = trained(walk(), tens(0.0), n_steps=30, n_averaged=50)
    for n_averaged, expected in ((50, averaged(110, 50)), (1, 1.1)):
        plan = engine.Schedule(n_steps=80, n_averaged=n_averaged, **STEADY)
        model, _, _ = engine.fit(walk(), tens(0.0), plan, jax.random.key(1), training=training)
        np.testing.assert_allclose(model.first, expected, atol=1e-3)


def test_the_rate_warms_up_and_falls_along_a_cosine():
    rates = engine.Schedule(n_steps=1000, learning_rate=0.5, n_warm=50).rates(0, 1000)
    np.testing.assert_allclose(rates[:3], np.array([1, 2, 3]) / 50 * 0.5, rtol=1e-4)
    np.testing.assert_allclose(
        rates[[250, 500, 999]], 0.5 * np.cos(np.pi * np.array([0.125, 0.25, 0.4995])) ** 2, rtol=1e-4
    )
    assert np.all(
        engine.Schedule(n_steps=4, learning_rate=0.5, decay="constant", n_warm=1).rates(0, 4) == 0.5
    )


def test_a_loss_that_is_no_number_keeps_the_last_good_weights_and_names_the_remedy():
    sentence = (
        r"after 200 steps: the loss became nan; the last good weights are kept\. "
        r"Set learning_rate below 0\.01 \(try 0\.001\)"
    )
    with pytest.warns(engine.DivergenceWarning, match=sentence):
        model, history, _ = trained(walk(breaks_at=250), tens(0.0), n_steps=1000)
    assert history.stopped == "divergence" and history.n_steps == 200 and len(history.losses) == 2
    np.testing.assert_allclose(model.first, 2.0, atol=1e-3)


def interrupting(at: int):
    """Ctrl-C, as the terminal sends it, at the end of round `at`."""
    rounds = []

    def on_round(done, n_steps, history):
        rounds.append(done)
        if len(rounds) == at:
            # a shell that runs the tests in the background has it ignored
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.signal(signal.SIGINT, before)

    return on_round


def test_an_interrupt_keeps_the_best_weights_so_far():
    with pytest.warns(
        engine.InterruptedWarning, match="Interrupted after 400 steps: the best weights so far"
    ):
        model, history, _ = trained(walk(), n_steps=1000, on_round=interrupting(4))
    assert history.stopped == "interrupt" and history.n_steps == 400
    np.testing.assert_allclose(model.first, 3.0, atol=1e-3)


def test_a_share_of_the_rows_is_held_out_and_none_is_in_both_parts():
    values = np.arange(200, dtype=np.float32)[:, None]
    batches = Batches.split(Batch(values, values > -1, values[:, :0]), 128, 0.25, seed=3)
    held, train = (set(np.asarray(part.values)[:, 0]) for part in (batches.held_out, batches.train))
    assert len(held) == 50 and len(train) == 150 and not held & train
    assert Batches.split(Batch(values[:19], values[:19] > -1, values[:19, :0]), 128, 0.25, 0).held_out is None


# ---- several starts, several devices ---------------------------------------------------------------------------


def ahead(by: float, **fields) -> Walk:
    """A walk that begins further on."""
    return eqx.tree_at(lambda one: one.first, walk(**fields), np.asarray(by, np.float32))


def test_starts_that_train_together_each_stop_for_themselves():
    models, keys = [ahead(0.0), ahead(2.0), ahead(-4.0)], [jax.random.key(i) for i in range(3)]
    plan = engine.Schedule(n_steps=600, patience=2, **STEADY)
    runs = engine.fit_together(models, tens(), plan, keys)
    assert [run.history.stopped for run in runs] == ["patience", "patience", "steps"]
    assert [run.history.n_steps for run in runs] == [500, 300, 600]
    for model, key, run in zip(models, keys, runs, strict=True):
        alone = engine.fit(model, tens(), plan, key)
        np.testing.assert_allclose(run.history.held_out, alone.history.held_out, atol=1e-4)
        np.testing.assert_allclose(run.history.losses, alone.history.losses, atol=1e-4)
        np.testing.assert_allclose(run.model.first, alone.model.first, atol=1e-4)
        np.testing.assert_allclose(run.training.weights.first, alone.training.weights.first, atol=1e-4)
        assert int(run.training.state.step) == run.history.n_steps


def test_together_one_start_that_breaks_keeps_its_last_good_weights_and_the_others_go_on():
    models = [
        eqx.tree_at(lambda one: one.second, walk(), np.asarray(value, np.float32)) for value in (0.0, np.inf)
    ]
    plan = engine.Schedule(n_steps=300, **STEADY)
    with pytest.warns(engine.DivergenceWarning, match="after 0 steps"):
        good, broken = engine.fit_together(models, tens(0.0), plan, [jax.random.key(0)] * 2)
    assert good.history.n_steps == 300 and broken.history.n_steps == 0
    assert (good.history.stopped, broken.history.stopped) == ("steps", "divergence")
    np.testing.assert_allclose([good.model.first, broken.model.first], [3.0, 0.0], atol=1e-3)


def test_together_every_phase_trains_its_part():
    phases = (Phase("one", "loss", "only_first", 0.3), Phase("two", "loss", "only_second", 0.7))
    plan = engine.Schedule(n_steps=1000, **STEADY)
    runs = engine.fit_together(
        [walk(phases=phases), ahead(1.0, phases=phases)], tens(0.0), plan, [jax.random.key(0)] * 2
    )
    np.testing.assert_allclose([run.model.first for run in runs], [3.0, 4.0], atol=2e-3)
    np.testing.assert_allclose([run.model.second for run in runs], [7.0, 7.0], atol=2e-3)


def test_an_interrupt_stops_all_starts_and_each_keeps_its_best():
    plan = engine.Schedule(n_steps=1000, **STEADY)
    with pytest.warns(engine.InterruptedWarning, match="Interrupted after 300 steps"):
        runs = engine.fit_together(
            [ahead(0.0), ahead(2.0)], tens(), plan, [jax.random.key(0)] * 2, on_round=interrupting(3)
        )
    assert [run.history.stopped for run in runs] == ["interrupt"] * 2
    np.testing.assert_allclose([run.model.first for run in runs], [3.0, 3.0], atol=1e-3)


def test_starts_side_by_side_are_the_starts_one_after_another():
    vae = CASES["VAE"]()
    schema = diabolo.table.Schema.learn(points())
    batches = Batches.split(Batch.of(schema.encode(points())), 128, 0.1, seed=0)
    plan = engine.Schedule(n_steps=200, learning_rate=0.004, patience=5)

    def best(together):
        return restarts.best_of(
            3, lambda key: vae.build(schema, key), batches, plan, seed=4, together=together
        )

    one, other = best(True), best(False)
    np.testing.assert_allclose(one.history.held_out, other.history.held_out, atol=2e-3)
    for a, b in zip(weights(one.model), weights(other.model), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


ON_TWO_DEVICES = """
import sys
import jax, numpy as np
from diabolo import VAE
from diabolo.batches import Batch, Batches

X = np.random.default_rng(0).normal(size=(400, 4)) @ np.diag([1.0, 2.0, 3.0, 4.0])
vae = VAE(hidden_layer_sizes=(16,), n_components=2, max_steps=100, random_state=0).fit(X)
batches = Batches.split(Batch.of(vae.schema_.encode(X)), 128, 0.1, seed=0)
print(jax.local_device_count(), len(batches.train.values.devices()), *vae.loss_curve_, *vae.score_samples(X[:5]))
"""


def test_several_devices_share_the_rows_and_give_the_answers_of_one():
    """Two devices that the processor plays: every batch and every chunk of a reading is cut between them."""
    said = []
    for n_devices in (1, 2):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
        command = [sys.executable, "-c", ON_TWO_DEVICES]
        run = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        said.append([float(word) for word in run.stdout.split()])
    assert said[0][:2] == [1, 1] and said[1][:2] == [2, 2]
    np.testing.assert_allclose(said[1][2:], said[0][2:], atol=1e-2)


def test_programs_are_forgotten_before_the_process_runs_out_of_maps(tmp_path):
    """Linux aborts a process that maps too many pieces of memory, and every program takes hundreds."""
    limit = Path("/proc/sys/vm/max_map_count")
    if not limit.exists():
        pytest.skip("no /proc: not Linux")
    (tmp_path / "maps").write_text("one\n" * int(0.8 * int(limit.read_text())))
    (tmp_path / "few").write_text("one\n")
    compiled = jax.jit(lambda x: x + 1)
    compiled(1.0)
    assert not devices.make_room(process=tmp_path / "few") and not devices.make_room(
        process=tmp_path / "none"
    )
    assert compiled._cache_size() == 1
    assert devices.make_room(process=tmp_path / "maps") and compiled._cache_size() == 0
    assert compiled(1.0) == 2.0


def test_what_the_user_says_of_the_compiler_wins(monkeypatch):
    option = "xla_backend_optimization_level"
    monkeypatch.setenv("XLA_FLAGS", f"--{option}=0 --xla_cpu_use_fusion_emitters=false")
    assert option not in devices.compiler_options("cpu", **{option: 1})
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    assert devices.compiler_options("cpu", **{option: 1})[option] == 1


# ---- the estimator's verbs -------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """What the estimator asks of the engine and gets: (batches, schedule, model, history, training) per call."""
    seen, fit = [], engine.fit

    def spy(model, batches, schedule, key, **more):
        result = fit(model, batches, schedule, key, **more)
        seen.append((batches, schedule, *result))
        return result

    monkeypatch.setattr(engine, "fit", spy)
    return seen


def weights(model):
    """What training moves; not what is seen of it afterwards."""
    networks = (model.encoder, model.decoder)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(networks, eqx.is_array_like))]


def same_weights(one, other):
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_an_interrupted_fit_leaves_a_usable_estimator(monkeypatch):
    @contextlib.contextmanager
    def bar(name, shown):
        yield interrupting(3)

    whole, vae = fitted("VAE"), CASES["VAE"](n_init=4)
    monkeypatch.setattr(progress, "bar", bar)
    with pytest.warns(engine.InterruptedWarning, match="Interrupted after 300 steps"):
        vae.fit(points())
    assert vae.n_steps_ == 300 and vae.n_iter_ == 3  # and the three other starts were not begun
    assert vae.best_validation_score_ == max(vae.validation_scores_)
    assert vae.score(points()) > whole.score(points()) - 3.0
    assert vae.sample(3).shape == (3, 4)


def test_the_best_of_several_starts_wins(runs):
    for seed in range(10):  # until it is not the first
        runs.clear()
        vae = CASES["VAE"](n_init=3, max_steps=200, random_state=seed).fit(points())
        bests = [history.best for _, _, _, history, _ in runs]
        assert len(set(bests)) == 3 and vae.best_validation_score_ == max(bests)
        assert same_weights(vae.model_, runs[int(np.argmax(bests))][2])
        if np.argmax(bests):
            break
    assert np.argmax(bests)
    single = CASES["VAE"](max_steps=200, random_state=seed).fit(points())
    assert single.best_validation_score_ == bests[0] < vae.best_validation_score_


def test_several_starts_without_held_out_rows_still_keep_the_best(runs):
    """Then the loss is all there is to compare: the start that the fit keeps is the one of the lowest."""
    for seed in range(10):
        runs.clear()
        vae = CASES["VAE"](n_init=3, max_steps=200, random_state=seed, early_stopping=False).fit(points())
        lasts = [history.losses[-1] for _, _, _, history, _ in runs]
        if np.argmin(lasts):
            break
    assert vae.loss_curve_[-1] == min(lasts)


@pytest.mark.parametrize("name", ["VAE", "Autoencoder"])
def test_a_warm_start_goes_on(name):
    model = CASES[name](warm_start=True, max_steps=500, learning_rate=3e-4).fit(points())
    first_scores, first_losses = model.validation_scores_, model.loss_curve_
    model.fit(points())
    second_scores, second_losses = model.validation_scores_[-5:], model.loss_curve_[-5:]
    assert first_scores[0] < first_scores[-1] - 0.5
    assert abs(second_scores[0] - first_scores[-1]) < 0.5 * (first_scores[-1] - first_scores[0])
    assert second_losses[0] < first_losses[0] - 0.5 * (first_losses[0] - first_losses[-1])
    with pytest.raises(InputError, match=r"(?i)features|columns"):
        model.fit(points()[:, :3])


SHORT = {"max_steps": 20, "random_state": 0}


@pytest.mark.parametrize(
    "made, changes",
    [
        (
            MADE((8,), n_orders=2, **SHORT),
            {"activation": "sigmoid", "n_orders": 3, "dropout": 0.0, "orders": [[3, 2, 1, 0]]},
        ),
        (RBM(4, n_gibbs=1, **SHORT), {"n_components": 6, "n_gibbs": 2}),
        (ParzenWindow(random_state=0), {"n_components": 3, "bandwidth": 0.5}),
    ],
)
def test_a_file_holds_the_model_whatever_was_set_since(made, changes, tmp_path):
    X, path = points(), tmp_path / "model.safetensors"
    model = clone(made).fit(X)
    before = model.score_samples(X), model.transform(X)
    model.set_params(**changes).save(path)
    again = diabolo.load(path)
    assert np.array_equal(again.score_samples(X), before[0])
    assert np.array_equal(again.transform(X), before[1])
    names = again.get_feature_names_out()
    assert len(names) == before[1].shape[1]
    again.set_params(**changes).save(path)  # a file of a file knows it as well
    assert np.array_equal(diabolo.load(path).score_samples(X), before[0])
    if "warm_start" in model.get_params():
        with pytest.warns(UserWarning, match="was set since the model was made, which keeps its own"):
            model.set_params(warm_start=True).fit(X)
        model.save(path)
        assert np.array_equal(diabolo.load(path).score_samples(X), model.score_samples(X))


def test_without_warm_start_a_fit_begins_anew():
    model = CASES["VAE"](max_steps=500).fit(points())
    scores = model.validation_scores_
    assert model.fit(points()).validation_scores_ == scores


def test_partial_fit_improves_at_a_constant_rate_on_the_first_calls_columns(runs):
    X = points()
    vae = CASES["VAE"](learning_rate=0.004)
    vae.partial_fit(X)
    schema, first = vae.schema_, vae.score(X)
    assert vae.n_steps_ == 4 and vae.n_iter_ == 1  # 400 rows are four batches of 128
    for _ in range(99):
        vae.partial_fit(X)
    assert vae.n_steps_ == 400 and len(vae.loss_curve_) == vae.n_iter_ == 100
    assert vae.score(X) > first + 0.5
    for _, schedule, _, _, _ in runs:
        np.testing.assert_allclose(schedule.rates(0, 4), 0.004, rtol=1e-6)
    assert int(runs[-1][4].state.step) == 400  # Adam's moments and the divergence's weight go on too
    vae.partial_fit(X[:200] * 1000.0)
    assert vae.schema_ == schema
    with pytest.raises(InputError, match=r"(?i)features"):
        vae.partial_fit(X[:, :3])


@pytest.mark.parametrize(
    ("name", "changed"),
    [("IWAE", {"n_draws": 64}), ("HierarchicalVAE", {"n_draws": 64}), ("VAE", {"beta": 0.0})],
)
def test_what_is_trained_for_may_be_set_anew_between_two_calls(name, changed):
    """At a rate of next to nothing the weights stay: what falls is the loss of the new objective."""
    X = points()
    options = {"n_draws": 1} if "n_draws" in changed else {}
    model = CASES[name](learning_rate=0.004, warm_start=True, max_steps=100, warm_up=0.0, **options)
    for _ in range(30):
        model.partial_fit(X)
    for _ in range(20):
        model.set_params(learning_rate=1e-9).partial_fit(X)
    before = model.loss_curve_[-20:]
    for _ in range(20):
        model.set_params(**changed).partial_fit(X)
    after = model.loss_curve_[-20:]
    assert np.mean(after) < np.mean(before) - 5.0 * np.hypot(np.std(before), np.std(after)) / np.sqrt(20.0)
    assert model._training is not None and int(model._training.state.step) == 280  # Adam's moments stay
    refit = model.fit(X).loss_curve_[-1]  # a warm start as well
    assert abs(refit - np.mean(after)) < 0.5 * (np.mean(before) - np.mean(after))


def test_partial_fit_goes_on_from_the_last_fit():
    X = points()
    vae = CASES["VAE"]()
    vae.partial_fit(X)
    vae.fit(X)
    fit_score, n_steps = vae.score(X), vae.n_steps_
    vae.partial_fit(X)
    assert vae.score(X) > fit_score - 0.3  # four steps at the full rate cost a little, not the training
    assert vae.n_steps_ == n_steps + 4


def test_partial_fit_goes_on_after_a_pickle():
    X = points()
    one = CASES["VAE"]()
    for _ in range(3):
        one.partial_fit(X)
    other = pickle.loads(pickle.dumps(one))
    assert np.array_equal(one.partial_fit(X).transform(X), other.partial_fit(X).transform(X))


def test_without_early_stopping_all_rows_train_and_the_last_weights_stay(runs):
    vae = CASES["VAE"](early_stopping=False, max_steps=300).fit(points())
    (batches, schedule, _, history, training), *_ = runs
    assert batches.held_out is None and batches.train.n_rows == N_ROWS and schedule.patience is None
    assert vae.n_steps_ == 300 and vae.validation_scores_ == [] and np.isnan(vae.best_validation_score_)
    assert len(vae.loss_curve_) == 3 and history.stopped == "steps"
    assert same_weights(eqx.filter(vae.model_, vae.model_.trainable()), training.weights)


def test_held_out_rows_are_the_fraction_that_was_asked_for(runs):
    CASES["VAE"](validation_fraction=0.25, max_steps=100).fit(points())
    batches, schedule, *_ = runs[0]
    assert batches.held_out.n_rows == 100 and batches.train.n_rows == 300 and schedule.patience == 20


def test_patience_of_the_estimator_counts_rounds():
    vae = CASES["VAE"](n_iter_no_change=2, learning_rate=0.05, max_steps=10_000).fit(points())
    scores = vae.validation_scores_
    assert vae.n_steps_ == 100 * len(scores) < 10_000
    assert int(np.argmax(scores)) == len(scores) - 3 and vae.best_validation_score_ == max(scores)


def test_a_whole_number_is_a_seed_and_a_generator_is_drawn_from():
    def codes(random_state):
        return CASES["VAE"](max_steps=100, random_state=random_state).fit(points()).transform(points())

    assert np.array_equal(codes(5), codes(np.int64(5)))
    assert not np.any(codes(5) == codes(6))
    for make in (np.random.RandomState, np.random.default_rng):
        assert np.array_equal(codes(make(5)), codes(make(5)))
        generator = make(5)
        assert not np.any(codes(generator) == codes(generator))  # it moves on
    assert not np.any(codes(None) == codes(None))
    for wrong in (-1, 1.5, True, "zero"):
        with pytest.raises(InputError, match=r"parameter 'random_state': got .*; expected a whole number"):
            codes(wrong)


def test_a_bar_on_stderr_only_where_one_is_asked_for(capsys, monkeypatch):
    CASES["VAE"](max_steps=100).fit(points())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if stderr were a terminal
    CASES["VAE"](max_steps=100, verbose=True).fit(points())
    out, err = capsys.readouterr()
    assert out == "" and "VAE" in err and "steps" in err


# ---- parameters ------------------------------------------------------------------------------------------------


def narrow(n_inputs, n_outputs, key):
    return MLP(n_inputs, n_outputs, (5,), "tanh", key)


def test_a_network_factory_makes_both_nets_and_is_wanted_again_to_load(tmp_path):
    X = points()
    vae = VAE(2, network=narrow, max_steps=200, random_state=0).fit(X)
    for net, n_outputs in ((vae.model_.encoder.network, 4), (vae.model_.decoder.network, 4)):
        assert isinstance(net, MLP) and net.activation == "tanh"
        assert net.layers[0].weight.shape[1] == 5
        assert net.layers[-1].weight.shape[1] >= n_outputs
    vae.save(tmp_path / "model.safetensors")
    again = diabolo.load(tmp_path / "model.safetensors", network=narrow)
    assert np.array_equal(again.score_samples(X), vae.score_samples(X)) and again.network is narrow
    with pytest.raises(
        InputError,
        match=r"a model made with network=; expected that factory\. Call load\(path, network=factory\)",
    ):
        diabolo.load(tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def conditional():
    """y = 2 x + noise of spread 0.5, conditional on x."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=N_ROWS)
    table = pd.DataFrame({"x": x, "y": 2.0 * x + 0.5 * generator.normal(size=N_ROWS)})
    return VAE(**SMALL, given=["x"]).fit(table), table


def test_the_density_is_that_of_the_rest_given_the_conditions(conditional):
    vae, table = conditional
    side = np.linspace(-10.0, 10.0, 801)
    for x in (-1.0, 0.0, 1.5):
        density = np.exp(vae.score_samples(pd.DataFrame({"x": np.full(801, x), "y": side}))) * 0.025
        assert abs(density.sum() - 1.0) < 0.02
        assert abs((density * side).sum() - 2.0 * x) < 0.3
    truth = -0.5 * ((table["y"] - 2.0 * table["x"]) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2.0 * np.pi))
    assert abs(vae.score(table) - truth.mean()) < 0.1


def test_draws_follow_their_conditions_and_hold_them(conditional):
    vae, _ = conditional
    for x in (-1.0, 1.5):
        draws = vae.sample(2000, given=pd.DataFrame({"x": [x]}), random_state=0)
        assert abs(draws["y"].mean() - 2.0 * x) < 0.2 and abs(draws["y"].std() / 0.5 - 1.0) < 0.2
    each = vae.sample(3, given=np.array([[-1.0], [0.0], [1.5]]), random_state=0)
    assert each["y"].is_monotonic_increasing
    np.testing.assert_allclose(each["x"], [-1.0, 0.0, 1.5], atol=1e-5)  # whole rows: the conditions are known


def test_codes_are_decoded_under_their_conditions(conditional):
    vae, table = conditional
    decoded = vae.inverse_transform(np.zeros((2, 2)), given=pd.DataFrame({"x": [-1.0, 1.5]}))
    assert np.all(np.abs(decoded["y"] - [-2.0, 3.0]) < 0.5)
    np.testing.assert_allclose(decoded["x"], [-1.0, 1.5], atol=1e-5)
    np.testing.assert_allclose(vae.reconstruct(table)["x"], table["x"], atol=1e-5)


def test_conditions_that_are_missing_or_too_many_are_refused(conditional):
    vae, _ = conditional
    with pytest.raises(InputError, match="given: got nothing; expected a value for each column"):
        vae.sample(3)
    with pytest.raises(InputError, match="given: got 2 rows; expected 1 or 3 rows"):
        vae.sample(3, given=np.zeros((2, 1)))
    with pytest.raises(InputError, match=r"given: got columns \['z'\]; expected the given columns \['x'\]"):
        vae.inverse_transform(np.zeros((1, 2)), given=pd.DataFrame({"z": [1.0]}))
    with pytest.raises(InputError, match=r"given: got conditions; expected none\. Fit with given="):
        fitted("VAE").sample(3, given=np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"given: got 'w'; expected the name or position of a column"):
        VAE(given=["w"]).fit(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}))
    with pytest.raises(InputError, match="given: got every column; expected some columns left to model"):
        VAE(given=["x", "y"]).fit(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}))


def test_images_of_eight_pixels_and_more_get_convolutions():
    images = load_digits().images[:60]
    vae = VAE(2, max_steps=100, random_state=0).fit(images)
    assert isinstance(vae.model_.encoder.network, ConvolutionalEncoder)
    assert isinstance(vae.model_.decoder.network, ConvolutionalDecoder)
    assert vae.sample(3).shape == vae.reconstruct(images[:3]).shape == (3, 8, 8)
    assert vae.transform(images).shape == (60, 2) and vae.score_samples(images).shape == (60,)
    assert vae.n_features_in_ == 64
    flat = VAE(2, max_steps=100, random_state=0, image_shape=(8, 8)).fit(images.reshape(60, 64))
    assert np.array_equal(flat.transform(images.reshape(60, 64)), vae.transform(images))
    small = CASES["VAE"]().build(diabolo.Schema.learn(images[:, :7, :7]), jax.random.key(0))
    assert isinstance(small.encoder.network, MLP)  # below eight pixels, and wherever sizes are given


# ---- chunks side by side ---------------------------------------------------------------------------------------


def test_chunks_come_in_order_and_few_are_on_their_way():
    asked = []

    def operands():
        for i in range(60):
            asked.append(i)
            yield (i,)

    said = devices.ahead(lambda i: i**2, operands())
    assert next(said) == 0 and asked == [0]  # it may compile
    assert next(said) == 1 and len(asked) < 15
    assert list(said) == [i**2 for i in range(2, 60)] and list(devices.ahead(abs, [])) == []


def test_settings_of_the_calling_thread_hold_for_every_chunk():
    def kinds():
        return list(devices.ahead(lambda i: str(jnp.asarray(i * 0.5).dtype), ((i,) for i in range(4))))

    assert kinds() == ["float32"] * 4
    with jax.enable_x64(True):
        assert kinds() == ["float64"] * 4
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        list(devices.ahead(lambda i: np.ones(1) / (3 - i), ((i,) for i in range(4))))


def test_a_failure_in_any_chunk_is_the_callers():
    said = devices.ahead(lambda i: 1 / (5 - i), ((i,) for i in range(20)))
    with pytest.raises(ZeroDivisionError):
        list(said)


# ---- one compiled program --------------------------------------------------------------------------------------


@contextlib.contextmanager
def compilations():
    """Names of the programs that XLA compiles meanwhile."""
    events = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", list(CASES))
def test_a_second_fit_and_any_number_of_rows_compile_nothing(name):
    X = points()
    first = CASES[name]().fit(X)
    first.transform(X), first.score_samples(X), first.reconstruct(X), first.sample(5)
    width = first.model_.n_components
    first.inverse_transform(np.zeros((5, width)))
    other = np.random.default_rng(9).normal(size=X.shape) * [1.0, 10.0, 0.1, 3.0]
    with compilations() as compiled:
        jax.jit(lambda x: x + float(len(compiled)))(1.0)
        assert len(compiled) == 1  # the listener hears
        second = CASES[name](random_state=7, learning_rate=0.01).fit(other)
        for n_rows in (1, 5, 64, 65, 400):
            second.transform(other[:n_rows]), second.score_samples(other[:n_rows])
            second.reconstruct(other[:n_rows]), second.inverse_transform(np.zeros((n_rows, width)))
            second.sample(n_rows)
        longer = np.repeat(other, 11, axis=0)
        second.transform(longer), second.reconstruct(longer)
    assert len(compiled) == 1


# ---- scikit-learn's company ------------------------------------------------------------------------------------


def test_a_pipeline_a_search_and_cross_validation():
    X = points()
    pipeline = make_pipeline(StandardScaler(), CASES["VAE"]())
    assert pipeline.fit_transform(X).shape == (N_ROWS, 2)
    scaled = StandardScaler().fit_transform(X)
    direct = CASES["VAE"]().fit(scaled)
    assert pipeline.score(X) == direct.score(scaled)
    assert np.array_equal(pipeline.fit_transform(X), direct.transform(scaled))
    assert list(pipeline.get_feature_names_out()) == ["vae0", "vae1"]
    scores = cross_val_score(CASES["VAE"](), X, cv=2)
    search = GridSearchCV(CASES["VAE"](), {"learning_rate": [1e-6, 4e-3]}, cv=2).fit(X)
    assert search.best_params_ == {"learning_rate": 4e-3}
    np.testing.assert_array_equal([search.cv_results_[f"split{i}_test_score"][1] for i in range(2)], scores)
    assert search.score(X) == fitted("VAE").score(X)  # refitted on all rows with the default rate


# ---- what is refused -------------------------------------------------------------------------------------------


def frame(**columns):
    return pd.DataFrame(columns)


TWO = frame(age=[1.5, 2.5, 4.5] * 10, name=["a", "b", "c"] * 10)
REFUSALS = {
    "infinite values": (
        lambda vae: VAE().fit(np.array([[1.0, np.inf], [2.0, 3.0]])),
        r"column 'x1': got 1 infinite value \(infinity\); expected finite numbers\. .*",
    ),
    "text among numbers": (
        lambda vae: VAE().fit(frame(age=["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "x"])),
        r"column 'age': got .*'x'.*; expected .*number.*",
    ),
    "text for a number": (
        lambda vae: vae.transform(frame(age=["one"], name=["a"])),
        r"column 'age': got text; expected numbers, as in training\.",
    ),
    "another name": (lambda vae: vae.transform(TWO.rename(columns={"age": "years"})), r"(?s).*years.*"),
    "another order": (lambda vae: vae.transform(TWO[["name", "age"]]), r"(?s).*order.*"),
    "a column less": (lambda vae: vae.transform(TWO[["age"]]), r"(?s).*name.*"),
    "a column more in an array": (
        lambda vae: fitted("VAE").transform(np.zeros((3, 5))),
        r"X has 5 features, but VAE is expecting 4.*",
    ),
    "no rows": (
        lambda vae: vae.score_samples(TWO[:0]),
        r".*0 sample\(s\).* while a minimum of 1 is required.*",
    ),
    "no rows to fit": (
        lambda vae: VAE().fit(np.zeros((0, 3))),
        r".*0 sample\(s\).* while a minimum of 1 is required.*",
    ),
    "no columns": (
        lambda vae: VAE().fit(np.zeros((3, 0))),
        r".*0 feature\(s\).* while a minimum of 1 is required.*",
    ),
    "one dimension": (
        lambda vae: VAE().fit(np.zeros(3)),
        r"(?s).*Expected 2D array, got 1D array instead.*Reshape your data.*",
    ),
    "five dimensions": (lambda vae: VAE().fit(np.zeros((2, 2, 2, 2, 2))), r".*got .*; expected .*"),
    "codes of another width": (
        lambda vae: fitted("VAE").inverse_transform(np.zeros((3, 5))),
        r"codes: got an array of shape \(3, 5\); expected \(n_rows, 2\)\.",
    ),
    "no draws": (
        lambda vae: vae.sample(0),
        r"parameter 'n_samples': got 0; expected a whole number at least 1\.",
    ),
    "no draws of codes": (
        lambda vae: vae.log_density(TWO, n_draws=0),
        r"parameter 'n_draws': got 0; expected a whole number at least 1\.",
    ),
    "a wrong size": (
        lambda vae: VAE(batch_size=0).fit(TWO),
        r"parameter 'batch_size': got 0; expected 'auto' or a whole number at least 1\.",
    ),
    "a wrong activation": (
        lambda vae: VAE(activation="relo").fit(TWO),
        r"parameter 'activation': got 'relo'; .* Did you mean 'relu'\?",
    ),
    "a wrong fraction": (
        lambda vae: VAE(validation_fraction=1.0).fit(TWO),
        r"parameter 'validation_fraction': got 1\.0; expected a number above 0 and below 1\.",
    ),
    "a wrong hidden size": (
        lambda vae: VAE(hidden_layer_sizes=(16, -1)).fit(TWO),
        r"parameter 'hidden_layer_sizes': got .*; expected .*",
    ),
    "a hidden size of text": (
        lambda vae: VAE(hidden_layer_sizes=("16",)).fit(TWO),
        r"parameter 'hidden_layer_sizes': got .*; expected .*",
    ),
    "an unknown parameter": (
        lambda vae: VAE().set_params(learning_rat=1),
        r"parameter 'learning_rat' of VAE: got an unknown name .* Did you mean 'learning_rate'\?",
    ),
    "an unknown kind": (
        lambda vae: VAE(kinds={"age": "reel"}).fit(TWO),
        r"kinds\['age'\]: got 'reel'; expected a kind\. Did you mean 'real'\?",
    ),
    "a switch that is none": (
        lambda vae: VAE(early_stopping="yes").fit(TWO),
        r"parameter 'early_stopping': got 'yes'; expected a bool\.",
    ),
    "no level of an interval": (
        lambda vae: vae.log_density(TWO).interval(95),
        r"parameter 'level': got 95; expected a share of at least 0 and below 1, such as 0\.95\.",
    ),
    "no path to save to": (lambda vae: vae.save(3), r"path: got 3; expected the path of a model file\."),
    "names of several types": (
        lambda vae: VAE(**SMALL).fit(TWO.set_axis(["a", 1], axis=1)),
        r"Feature names are only supported if all input features have string names.*",
    ),
    "a kind of an unknown column": (
        lambda vae: VAE(kinds={"aeg": "real"}).fit(TWO),
        r"kinds: got 'aeg'; .* Did you mean 'age'\?",
    ),
}


@pytest.fixture(scope="module")
def of_two():
    return VAE(**{**SMALL, "max_steps": 100}).fit(TWO)


@pytest.mark.parametrize("name", ["VAE", "RBM", "ManifoldParzen"])
def test_doubles_of_the_users_own_programs_change_nothing(name):
    X = (points()[:64] > 0).astype(float) if name == "RBM" else points()[:64]
    made = getattr(diabolo, name)(random_state=0)
    made.set_params(**{key: value for key, value in SMALL.items() if key in made.get_params()})
    before = made.fit(X).score_samples(X), made.sample(5, random_state=0), made.reconstruct(X)
    with jax.enable_x64(True):
        after = made.fit(X).score_samples(X), made.sample(5, random_state=0), made.reconstruct(X)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", list(REFUSALS))
def test_what_cannot_be_used_is_refused_in_one_sentence(case, of_two):
    ask, sentence = REFUSALS[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a refusal comes alone
        with pytest.raises(InputError) as refusal:
            ask(of_two)
    assert re.fullmatch(sentence, str(refusal.value)), str(refusal.value)


@pytest.mark.parametrize(
    "member",
    [
        MADE((4,), n_orders=1, batch_size=16, random_state=0),
        NormalizingFlow(n_layers=1, hidden_layer_sizes=(4,), batch_size=16, random_state=0),
    ],
)
def test_gaps_of_a_later_call_are_gaps(member):
    """What stands in a gap's place teaches nothing: two tables that differ there alone train the same."""
    X = points()[:64]
    holes = np.zeros(X.shape, bool)
    holes[::2, 0] = True
    seen = []
    for filler in (0.0, 50.0):
        again = clone(member).partial_fit(X)
        rows = again.schema_.encode(np.where(holes, np.nan, X))
        moved = np.where(np.repeat(holes, rows.values.shape[1] // 4, axis=1), filler, rows.values)
        batch = Batch.of(rows._replace(values=moved.astype(np.float32)))
        model = again._resumed(again.model_, rows)
        seen.append(model.loss(batch, jax.random.key(0), model.initial_state()).value)
    assert np.isfinite(seen).all() and seen[0] == seen[1]


@pytest.mark.parametrize("size", [5, engine._LONG, engine._LONG + 7])
def test_the_norm_of_long_and_of_short_arrays_is_optax_s(size):
    entries = np.random.default_rng(0).normal(size=size).astype(np.float32)
    tree = {"one": entries, "two": (np.ones((3, 4), np.float32), None)}
    assert float(engine._norm(tree)) == pytest.approx(float(optax.tree.norm(tree)), rel=1e-5)
