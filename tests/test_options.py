"""Every option of every member does something, and none can be forgotten: a name that is not in the table fails.

What an option must change is looked at where it first shows, which costs no training: in what `fit` hands to the
engine, in the loss of one step, or in a reading of a member that takes no steps. That the engine heeds what it is
handed is in `test_training.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

import diabolo
from diabolo import boltzmann, engine, progress, restarts
from diabolo.batches import Batch, Batches
from diabolo.checks import InputError
from diabolo.keys import key_of
from diabolo.nets import MLP

N_ROWS = 40
# of both sides of every comparison, where a member has them
BASE: dict[str, Any] = {
    "n_components": 2,
    "hidden_layer_sizes": (4,),
    "batch_size": 8,
    "max_steps": 100,
    "random_state": 0,
    "corruption_level": 0.1,
    "bandwidth": 0.5,
    "smoothing": 0.1,
    "n_neighbors": 5,
    "n_directions": 1,
    "n_layers": 1,
    "n_bins": 4,
    "n_states": 16,
    "n_burn": 2,
    "estimator": diabolo.ParzenWindow(bandwidth=0.5, smoothing=0.1, random_state=0),
}


def table() -> pd.DataFrame:
    """Two real columns of unlike spread, one of two values, one of three levels."""
    rng = np.random.default_rng(0)
    columns = {"a": 3.0 * rng.normal(size=N_ROWS), "b": rng.normal(size=N_ROWS)}
    columns |= {"c": rng.integers(0, 2, N_ROWS).astype(float), "d": rng.choice(["x", "y", "z"], N_ROWS)}
    return pd.DataFrame(columns)


def pictures() -> np.ndarray:
    """Flattened images of 8 x 8 pixels."""
    return np.random.default_rng(0).normal(size=(N_ROWS, 64))


# ---- what is looked at -----------------------------------------------------------------------------------------


class Handed(Exception):
    """What `fit` would have trained, had the engine's door been open."""

    def __init__(self, model: Any, batches: Batches, schedule: engine.Schedule, **more: Any) -> None:
        self.model, self.batches, self.schedule = model, batches, schedule
        self.n_init, self.seed, self.on_round = more.get("n_init"), more.get("seed"), more.get("on_round")


@dataclasses.dataclass
class Asked:
    """A member under some options, and the rows that it is asked about."""

    estimator: Any
    X: Any
    y: np.ndarray | None

    @functools.cached_property
    def handed(self) -> Handed:
        """What the engine is handed by a first fit."""
        return self._turned_away()

    @functools.cached_property
    def fitted(self) -> Any:
        """For members that take no steps."""
        return self.estimator.fit(self.X, self.y)

    @functools.cached_property
    def handed_again(self) -> Handed:
        """What it is handed by a second fit, of no fixed seed, after one that left the weights as they began."""
        one, first = self.estimator, self.handed
        schema = one.columns_of(self.X, one._beside(self.y, known=False) if one._conditions_on_y else None)
        history = engine.History([0.0], [{}], [0.0], n_steps=1)
        one.set_params(random_state=None)._keep(schema, history, first.model, 0)
        return self._turned_away()

    def _turned_away(self) -> Handed:
        def best_of(n_init, build, batches, schedule, seed, *, on_round=None):
            raise Handed(
                build(key_of(seed, 0, 0)), batches, schedule, n_init=n_init, seed=seed, on_round=on_round
            )

        def fit(model, batches, schedule, key, *, training=None, on_round=None):
            raise Handed(model, batches, schedule, on_round=on_round)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(restarts, "best_of", best_of)
            patch.setattr(engine, "fit", fit)
            with pytest.raises(Handed) as turned_away:
                self.estimator.fit(self.X, self.y)
        return turned_away.value


See = Callable[[Asked], Iterator[Any]]  # what is looked at, one thing after the other, until one differs


def _loss(weights: Any, frozen: Any, phase: engine.Phase, batch: Batch, key: Any, state: Any) -> Any:
    return getattr(eqx.combine(weights, frozen), phase.loss)(batch, key, state).value


_loss_of_step, _gradient_of_step = eqx.filter_jit(_loss), eqx.filter_jit(jax.grad(_loss))


def _at_step_3(function: Callable[..., Any], handed: Handed) -> list[Any]:
    """A function of one step of each phase, of a hundred steps: where anything warms up, it has not arrived."""
    model, batch = handed.model, handed.batches.train[np.arange(8)]
    out = []
    for phase in model.plan():
        weights, frozen = eqx.partition(model, getattr(model, phase.trainable)())
        state = engine.start(model, phase, 100).state._replace(step=np.int32(3))
        out.append(function(weights, frozen, phase, batch, jax.random.key(1), state))
    return out


def trained(handed: Handed) -> Any:
    return eqx.filter(handed.model, handed.model.trainable())


def training(asked: Asked) -> Iterator[Any]:
    """The sizes of what is trained, and the loss."""
    yield [np.zeros(leaf.shape) for leaf in jax.tree.leaves(trained(asked.handed))]
    yield _at_step_3(_loss_of_step, asked.handed)


def gradient(asked: Asked) -> Iterator[Any]:
    """Where two options have the same loss."""
    yield _at_step_3(_gradient_of_step, asked.handed)


def settled(asked: Asked) -> Iterator[Any]:
    """What a step moves besides by a gradient."""
    model = asked.handed.model
    yield eqx.filter(model.settled(engine.start(model).state, np.float32(0.1)), model.trainable())


def judged(asked: Asked) -> Iterator[Any]:
    """What held-out rows are judged by."""
    yield asked.handed.model.held_out(asked.handed.batches.held_out, jax.random.key(1))


def handed(what: Callable[[Handed], Any]) -> See:
    """Something that the engine is handed."""
    return lambda asked: iter([what(asked.handed)])


def read(what: Callable[[Any, Asked], Any]) -> See:
    """Something that a fitted member says."""
    return lambda asked: iter([what(asked.fitted, asked)])


def convolves(it: Handed) -> bool:
    """Does the encoder look at neighbouring pixels?"""
    return "Convolution" in str(jax.tree.structure(it.model.encoder))


def begins_anew(asked: Asked) -> Iterator[bool]:
    """Has a second fit other weights to begin with than the first one ended with?"""
    yield differ(trained(asked.handed), trained(asked.handed_again))


def bar_shown(asked: Asked) -> Iterator[bool]:
    """Of members that report no round."""
    seen, bar = [], progress.bar
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "bar", lambda name, shown: (seen.append(shown), bar(name, False))[1])
        asked.estimator.fit(asked.X, asked.y)
    yield seen


def refused(asked: Asked) -> Iterator[str]:
    """What is said of an option that a member has only to say why it has not."""
    try:
        yield str(asked.handed.seed)
    except InputError as error:
        yield str(error)


def image_shape(asked: Asked) -> Iterator[Any]:
    """Of members whose networks look at no neighbouring pixels: what pictures of them are drawn by."""
    yield asked.estimator.columns_of(asked.X).image_shape


def finished(what: Callable[[Any], Any]) -> See:
    """Something that is settled after training."""
    return lambda asked: iter([what(asked.handed.model.finish(asked.handed.batches, jax.random.key(1)))])


def annealed(asked: Asked) -> Iterator[Any]:
    """What log Z is estimated with; test_rbm holds the estimate itself against enumeration."""
    model, seen = asked.handed.model, []
    found = boltzmann.Annealed(0.0, 0.0, model.kept)

    def spy(machine, marginal, n_steps, n_chains, key):
        seen.append(n_steps)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boltzmann.model, "annealed_log_z", spy)
        model.finish(asked.handed.batches, jax.random.key(1))
    yield seen


def filled(one: Any, asked: Asked) -> Any:
    """The first row's first cell, once it is gone."""
    return one.impute(asked.X[:1].assign(a=np.nan))["a"]


# ---- the table -------------------------------------------------------------------------------------------------


def narrow(n_inputs, n_outputs, key):
    return MLP(n_inputs, n_outputs, (3,), "tanh", key)


class Change(NamedTuple):
    """Another value of an option, what it must change, what has to be set beside it, and on which rows."""

    value: Any
    see: See = training
    beside: dict[str, Any] = {}
    rows: Callable[[], Any] = table


SCORES = read(lambda one, asked: one.score_samples(asked.X))
#: What any member may have.
CHANGES: dict[str, Change] = {
    "n_components": Change(3),
    "hidden_layer_sizes": Change((5,)),
    "activation": Change("tanh"),
    "kinds": Change({"c": "real"}),
    "given": Change(("a",)),
    "image_shape": Change((8, 8), handed(convolves), {"hidden_layer_sizes": "auto"}, pictures),
    "network": Change(narrow),
    "dispersion": Change("row"),
    "prior": Change("mixture"),
    "n_prior": Change(3, beside={"prior": "vamp"}),
    "posterior": Change("full"),
    "beta": Change(2.0),
    "free_bits": Change(4.0),
    "warm_up": Change(0.5),
    "n_draws": Change(3),
    "batch_size": Change(4, handed(lambda it: it.batches.batch_size)),
    "learning_rate": Change(0.5, handed(lambda it: it.schedule.learning_rate)),
    "max_steps": Change(50, handed(lambda it: it.schedule.n_steps)),
    "early_stopping": Change(False, handed(lambda it: (it.schedule.patience, it.batches.train.n_rows))),
    "validation_fraction": Change(0.4, handed(lambda it: it.batches.held_out.n_rows)),
    "n_iter_no_change": Change(3, handed(lambda it: it.schedule.patience)),
    "n_init": Change(2, handed(lambda it: it.n_init)),
    "warm_start": Change(True, begins_anew),
    "random_state": Change(1),
    "verbose": Change(True, handed(lambda it: it.on_round is not None)),
}
PLAIN_IMAGES = {"image_shape": Change((8, 8), image_shape, rows=pictures)}
KERNELS = PLAIN_IMAGES | {
    "n_components": Change(3, read(lambda one, asked: one.transform(asked.X))),
    "bandwidth": Change("auto", SCORES),
    "smoothing": Change(0.9, SCORES),
    "scaling": Change("unit", SCORES),
    "kinds": Change({"c": "real"}, SCORES),
    "random_state": Change(1, read(filled)),
    "verbose": Change(True, bar_shown),
}
#: What is trained for, and no part of what is trained: it may be another in a second fit that goes on from the first.
AIMS = (
    "beta",
    "free_bits",
    "n_draws",
    "gradient",
    "given_dropout",
    "alpha",
    "corruption",
    "corruption_level",
)
AIMS += (
    "agnostic",
    "dropout",
    "weight_decay",
    "decoupled_weight_decay",
    "n_gibbs",
    "persistent",
    "n_chains",
    "n_temperatures",
)
AIMS += ("noise", "resampling", "n_walkback", "n_states", "n_burn")
#: Each member's own options, and those that show elsewhere in it than in the others.
MEMBERS: dict[str, dict[str, Change]] = {
    "VAE": {},
    "IWAE": {"gradient": Change("plain", gradient)},
    "HierarchicalVAE": {"n_levels": Change(3), "level_layer_sizes": Change((5,))},
    "ConditionalVAE": {"given_dropout": Change(0.9)},
    "SemiSupervisedVAE": {
        "alpha": Change(1.0),
        "stacked": Change(True),
        "n_feature_components": Change(4, beside={"stacked": True}),
        "label_layer_sizes": Change((5,), beside={"stacked": True}),
        "shares": Change((0.5, 0.5, 0.0), handed(lambda it: len(it.model.plan())), {"stacked": True}),
    },
    "Autoencoder": {"pretrain": Change("rbm", beside={"activation": "sigmoid"})},
    "DenoisingAutoencoder": {"corruption": Change("permuting"), "corruption_level": Change(0.4)},
    "MADE": PLAIN_IMAGES
    | {
        "n_orders": Change(2, judged),
        "orders": Change([[3, 2, 1, 0]]),
        "n_networks": Change(3),
        "weight_decay": Change(300.0),
        "agnostic": Change(1.0, beside={"dropout": 0.0}),
        "n_parts": Change(2),
        "dropout": Change(0.8),
        "direct": Change(False),
    },
    "NormalizingFlow": PLAIN_IMAGES
    | {
        "transformation": Change("coupling"),
        "n_layers": Change(2),
        "n_bins": Change(8),
        "weight_decay": Change(300.0),
    },
    "RBM": PLAIN_IMAGES
    | {
        "n_gibbs": Change(1),
        "persistent": Change(False),
        "n_chains": Change(4),
        "decoupled_weight_decay": Change(1.0, settled),
        "n_temperatures": Change(20, annealed, {"n_components": 21}),
        "given": Change(("a",), refused),
    },
    "GSN": {
        "noise": Change(1.0),
        "resampling": Change(0.9),
        "n_walkback": Change(1),
        "n_states": Change(32, finished(lambda model: model.kept)),
        "n_burn": Change(3, finished(lambda model: model.kept)),
        "given": Change(("a",), refused),
    },
    "ParzenWindow": KERNELS,
    "ManifoldParzen": KERNELS | {"n_neighbors": Change(9, SCORES), "n_directions": Change(2, SCORES)},
    "NonlocalManifoldParzen": PLAIN_IMAGES
    | {
        "n_neighbors": Change(9),
        "n_directions": Change(2),
        "scaling": Change("unit"),
        "weight_decay": Change(300.0),
        "validation_fraction": Change(0.4, handed(lambda it: it.batches.n_true)),
        "bandwidth": Change(0.1, finished(lambda model: model.kernels)),
        "smoothing": Change(0.9, finished(lambda model: model.kernels)),
        "n_components": Change(3, finished(lambda model: model.chart)),
    },
    "BayesClassifier": {
        "estimator": Change(diabolo.ParzenWindow(bandwidth=2.0, smoothing=0.1, random_state=0), SCORES),
        "priors": Change((0.9, 0.1), SCORES),
    },
    "OutlierDetector": {
        "estimator": Change(diabolo.ParzenWindow(bandwidth=2.0, smoothing=0.1, random_state=0), SCORES),
        "contamination": Change(0.3, read(lambda one, asked: one.predict(asked.X))),
    },
}


def differ(one: Any, other: Any) -> bool:
    """Are two trees of unlike form, or is a number in them another?"""
    ones, others = jax.tree.leaves(one), jax.tree.leaves(other)
    if [np.shape(leaf) for leaf in ones] != [np.shape(leaf) for leaf in others]:
        return True
    return any(
        x != y if isinstance(x, str) else not np.allclose(x, y, rtol=1e-5, atol=1e-7, equal_nan=True)
        for x, y in zip(ones, others, strict=True)
    )


def asked(name: str, rows: Callable[[], Any], options: dict[str, Any]) -> Asked:
    member = getattr(diabolo, name)
    known = member().get_params(deep=False)
    chosen = {option: value for option, value in {**BASE, **options}.items() if option in known}
    return Asked(member(**chosen), rows(), np.arange(N_ROWS) % 2)


def options_of(name: str) -> list[str]:
    return list(getattr(diabolo, name)().get_params(deep=False))


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in MEMBERS for option in options_of(name)]
)
def test_an_option_does_something(name, option):
    changes = CHANGES | MEMBERS[name]
    assert option in changes, f"what {option!r} of {name} changes is not in the table of this file"
    change = changes[option]
    plain, other = (
        asked(name, change.rows, {**change.beside, **more}) for more in ({}, {option: change.value})
    )
    assert any(differ(*seen) for seen in zip(change.see(plain), change.see(other), strict=True))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name in MEMBERS
        for option in options_of(name)
        if option in AIMS and "warm_start" in options_of(name)
    ],
)
def test_a_second_fit_heeds_what_it_is_to_train_for(name, option):
    change = (CHANGES | MEMBERS[name])[option]
    plain, other = (asked(name, change.rows, {**change.beside, "warm_start": True}) for _ in range(2))
    for one, options in ((plain, {}), (other, {option: change.value})):
        first = one.handed
        one.estimator.set_params(**options)
        assert not differ(*(trained(handed) for handed in (first, one.handed_again)))
        one.handed = one.handed_again
    assert any(differ(*seen) for seen in zip(change.see(plain), change.see(other), strict=True))


def test_the_table_has_every_member_and_no_name_that_is_none():
    public = [getattr(diabolo, name) for name in diabolo.__all__]
    members = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, BaseEstimator)}
    assert members == set(MEMBERS)
    for name, changes in MEMBERS.items():
        assert set(changes) <= set(options_of(name)), name
    assert set(CHANGES) <= {option for name in MEMBERS for option in options_of(name)}
