"""A stack of Boltzmann machines as the start of an autoencoder, and the machines' laws in its layers."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import diabolo
from diabolo import Autoencoder, InputError
from diabolo.batches import Batch, Batches
from diabolo.pretraining import _ends, _trained

DEEP = {"activation": "sigmoid", "hidden_layer_sizes": (64, 32, 16), "random_state": 0}


def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    group = generator.integers(0, 3, 300)
    return pd.DataFrame(
        {
            "size": 3.0 * group + generator.normal(size=300),
            "colour": np.array(["red", "green", "blue"])[group],
            "male": generator.random(300) < np.array([0.2, 0.5, 0.9])[group],
        }
    )


def test_the_layers_say_what_the_machine_says():
    """Hidden units on the way in, and the columns' laws on the way out, of a table of three kinds."""
    made = Autoencoder(2, hidden_layer_sizes=(5,), activation="sigmoid", pretrain="rbm", max_steps=1).fit(
        table()
    )
    rows = made.schema_.encode(table())
    batches = Batches.split(Batch.of(rows), 64, 0.0, 0)
    model = made.build(made.schema_, jax.random.key(0))
    stack = model.stack
    machine, codes = _trained(
        stack.units, np.asarray(stack.marginal), batches.train, 5, 64, model.likelihood, jax.random.key(1)
    )
    first, last = _ends(
        machine,
        model.encoder.network.layers[0],
        model.decoder.network.layers[-1],
        model.decoder,
        model.likelihood,
    )
    told = jax.nn.sigmoid(rows.values @ first.weight + first.bias)
    np.testing.assert_allclose(told, codes.values, atol=1e-5)
    hidden = np.eye(5, dtype=np.float32)
    said = hidden @ last.weight + last.bias + model.decoder.start[: model.likelihood.n_free]
    params = machine.units.outward(machine.params(hidden) * machine.spread)
    columns = model.likelihood.column_of_param[: model.likelihood.n_free]
    for column in range(3):
        here = model.likelihood.column_of_value == column
        np.testing.assert_allclose(said[:, columns == column], params[:, here], atol=1e-5)


def test_a_deep_narrow_net_learns_sooner_from_there():
    """Three logistic layers hardly learn from a random start; the digits' spread off the mean is the measure."""
    rows = load_digits().data[:300]
    rows = rows[:, rows.std(axis=0) > 0.0]
    error = {}
    for pretrain in (None, "rbm"):
        made = Autoencoder(8, pretrain=pretrain, kinds="real", max_steps=400, **DEEP).fit(rows)
        error[pretrain] = np.mean((made.reconstruct(rows) - rows) ** 2)
    assert error["rbm"] < 0.8 * error[None]


def test_a_file_keeps_it(tmp_path):
    made = Autoencoder(2, pretrain="rbm", max_steps=20, **DEEP).fit(table())
    made.save(tmp_path / "deep.safetensors")
    again = diabolo.load(tmp_path / "deep.safetensors")
    assert np.array_equal(again.transform(table()), made.transform(table()))


def test_networks_that_are_no_stack_are_refused():
    with pytest.raises(InputError, match=r"got 'silu'; expected 'sigmoid'.*Say activation='sigmoid'"):
        Autoencoder(pretrain="rbm").fit(table())
    with pytest.raises(InputError, match="'pretrain': got a network of another kind"):
        Autoencoder(pretrain="rbm", activation="sigmoid").fit(load_digits().images[:50])
    with pytest.raises(InputError, match="each layer of another width"):
        Autoencoder(pretrain="rbm", activation="sigmoid", hidden_layer_sizes=(8, 8, 8)).fit(table())
    with pytest.raises(InputError, match="Did you mean 'rbm'"):
        Autoencoder(pretrain="rbn").fit(table())
