"""What a denoising autoencoder does to rows, how it chooses how much, and what its residual says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, SMALL, mixed, points

import diabolo
from diabolo import DenoisingAutoencoder, InputError
from diabolo.batches import Batch, Batches
from diabolo.density import reading_of
from diabolo.table import Rows


def shown(corruption: str, level: float) -> tuple[Batch, Batch, np.ndarray]:
    """A batch of mixed rows, what the encoder is shown of it, and the column of each encoded value."""
    table = mixed()
    few = {**SMALL, "max_steps": 1}
    model = DenoisingAutoencoder(**few, corruption=corruption, corruption_level=level).fit(table)
    batch = jax.tree.map(jnp.asarray, Batch.of(model.schema_.encode(table)))
    return batch, model.model_.shown(batch, jax.random.key(0)), model.model_.likelihood.column_of_value


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper", "permuting"])
def test_so_many_cells_are_hit_and_none_that_is_a_gap(corruption):
    batch, seen, owner = shown(corruption, 0.3)
    gaps = ~np.asarray(batch.observed)
    assert gaps.any() and not np.asarray(seen.observed)[gaps].any()
    before, after = np.asarray(batch.values), np.asarray(seen.values)
    moved = np.stack([(before != after)[:, owner == j].any(axis=1) for j in range(owner.max() + 1)], axis=1)
    assert not moved[gaps].any()
    if corruption == "masking":
        hidden = np.asarray(batch.observed) & ~np.asarray(seen.observed)
        assert abs(hidden[~gaps].mean() - 0.3) < 0.03 and np.all(after[:, owner == 0][hidden[:, 0]] == 0.0)
        return
    assert np.array_equal(batch.observed, seen.observed)
    lengths = before[:, owner == 0][:, 0]  # real numbers: hardly any other row holds the same
    changed = after[:, owner == 0][moved[:, 0]][:, 0]
    assert abs(moved[:, 0].mean() - 0.3) < 0.06
    if corruption == "salt_and_pepper":
        assert set(changed) == {lengths.min(), lengths.max()}
        assert abs(np.mean(changed == lengths.min()) - 0.5) < 0.15
        level = after[:, owner == 2].argmax(axis=1)[moved[:, 2]]  # the first and the last of three
        assert set(level) == {0, 2}
    else:
        assert set(changed) <= set(lengths) and len(set(changed)) > 0.7 * len(changed)
        levels = after[:, owner == 2]  # a level stays one level
        assert set(map(tuple, levels[~gaps[:, 2]])) <= set(map(tuple, before[:, owner == 2][~gaps[:, 2]]))


def test_noise_has_the_spread_that_is_asked_for():
    batch, seen, owner = shown("gaussian", 0.5)
    noise = np.asarray(seen.values - batch.values)[:, owner == 0]
    assert noise.std() == pytest.approx(0.5, rel=0.1) and abs(noise.mean()) < 0.08


def test_the_level_is_chosen_by_held_out_nats(tmp_path):
    X = points()
    auto = DenoisingAutoencoder(**{**SMALL, "max_steps": 400}).fit(X)
    levels = (0.05, 0.1, 0.2, 0.4)
    each = [
        DenoisingAutoencoder(**{**SMALL, "max_steps": 400}, corruption_level=level).fit(X) for level in levels
    ]
    batches = Batches.split(Batch.of(auto.schema_.encode(X)), 128, 0.1, seed=0)
    values, observed, given = (
        np.asarray(part)
        for part in (batches.held_out.values, batches.held_out.observed, batches.held_out.given)
    )
    held_out = Rows(values, observed, given, np.zeros(len(values)))
    nats = [reading_of(one.model_, held_out, 128, 0).values.mean() for one in each]
    errors = [np.mean((one.reconstruct(X) - X) ** 2) for one in each]
    assert np.argmin(errors) != np.argmax(nats)  # reconstruction would choose another
    chosen = auto.corruption_level_
    assert chosen == pytest.approx(levels[np.argmax(nats)])
    assert np.array_equal(auto.score_samples(X), each[np.argmax(nats)].score_samples(X))
    assert auto.get_params()["corruption_level"] == "auto"
    auto.save(tmp_path / "m.safetensors")
    assert diabolo.load(tmp_path / "m.safetensors").corruption_level_ == chosen


def test_the_residual_is_the_gradient_of_a_known_log_density():
    """Of normal columns, smoothed by the noise: -Σ_σ⁻¹ (x - μ), in the user's own units."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]) * [1.0, 10.0] + [5.0, -20.0]
    dae = DenoisingAutoencoder(n_components=2, hidden_layer_sizes=(64,), corruption="gaussian",
                               corruption_level=0.3, max_steps=4000, random_state=0).fit(X)  # fmt: skip
    spread = X.std(axis=0)
    smoothed = np.cov(X.T) + np.diag((0.3 * spread) ** 2)
    rows = X[:500][np.all(np.abs(X[:500] - X.mean(axis=0)) < 2.0 * spread, axis=1)]
    truth = -(rows - X.mean(axis=0)) @ np.linalg.inv(smoothed)
    found = dae.log_density_gradient(rows)
    error = np.sqrt(np.mean((found - truth) ** 2, axis=0) / np.mean(truth**2, axis=0))
    assert found.shape == rows.shape and np.all(error < 0.2), error
    gaps = rows.copy()
    gaps[:, 1] = np.nan
    assert np.isnan(dae.log_density_gradient(gaps)[:, 1]).all()
    assert np.array_equal(dae.denoise(rows), dae.reconstruct(rows))


def test_a_gradient_needs_noise_and_real_columns():
    masked = CASES["DenoisingAutoencoder"](max_steps=1).fit(points())
    with pytest.raises(InputError, match="log_density_gradient: got corruption 'masking'"):
        masked.log_density_gradient(points())
    noisy = DenoisingAutoencoder(**{**SMALL, "max_steps": 1}, corruption="gaussian", corruption_level=0.1)
    with pytest.raises(InputError, match="column 'colour': got kind 'categorical'; expected real columns"):
        noisy.fit(mixed()).log_density_gradient(mixed())


def test_denoising_takes_most_of_the_noise_away():
    X = points()
    dae = DenoisingAutoencoder(**SMALL, corruption="gaussian", corruption_level=0.5).fit(X)
    noisy = X + 0.5 * X.std(axis=0) * np.random.default_rng(0).normal(size=X.shape)
    assert np.mean((dae.denoise(noisy) - X) ** 2) < 0.7 * np.mean((noisy - X) ** 2)


def test_a_value_on_an_atom_is_a_number_to_be_cleaned_like_any_other():
    """Half of the rows hold zero; noise moves them off it, and the encoder has seen such rows in training."""
    generator = np.random.default_rng(0)
    plane = np.maximum(generator.normal(size=(600, 2)), 0.0) @ generator.normal(size=(2, 6))
    X = np.where(np.abs(plane) < 0.3, 0.0, plane)
    options = SMALL | {"n_components": 4, "corruption": "gaussian", "corruption_level": 0.5}
    dae = DenoisingAutoencoder(**options).fit(X)
    assert sum(bool(column.kind.atoms) for column in dae.schema_.columns) >= 3
    near = X + 1e-4 * X.std(axis=0)
    spread = dae.transform(X).std(axis=0)
    assert np.all(np.abs(dae.transform(near) - dae.transform(X)) < 0.01 * spread)
    dirty = X + 0.5 * X.std(axis=0) * generator.normal(size=X.shape)
    error = [np.mean((rows - X) ** 2) for rows in (dae.denoise(dirty), dirty)]
    assert error[0] < 0.6 * error[1]


def test_a_probability_is_at_most_one_and_what_is_set_anew_is_trained_for():
    X = points()
    with pytest.raises(
        InputError, match=r"corruption_level': got 5.0; expected a probability, for .*'masking'"
    ):
        DenoisingAutoencoder(corruption_level=5.0).fit(X)
    dae = CASES["DenoisingAutoencoder"](max_steps=100, warm_start=True).fit(X)
    dae.set_params(corruption="gaussian", corruption_level=0.3)
    with pytest.raises(
        InputError, match=r"got corruption 'masking' at level 0.1; expected 'gaussian' at a level"
    ):
        dae.log_density_gradient(X)
    for again in (dae.partial_fit(X), dae.fit(X)):
        assert again.model_.corruption == "gaussian" and abs(again.corruption_level_ - 0.3) < 1e-6
        assert again.log_density_gradient(X).shape == X.shape
