"""M2 and M1 + M2: the label summed out by hand, densities against a known law, labels as scikit-learn has them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from cases import SMALL, by_quadrature
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import diabolo
from diabolo import InputError, SemiSupervisedVAE
from diabolo.batches import Batch, Batches
from diabolo.model import State

N_ROWS, NOISE = 600, 0.3
EFFECT = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, -2.0], [0.0, 5.0, 1.0]])
SLOPE = np.array([[2.0, -2.0, 1.0]])
COVARIANCE = SLOPE.T @ SLOPE + NOISE**2 * np.eye(3)
SHARES = np.array([0.5, 0.3, 0.2])


@functools.cache
def rows(seed=0):
    """Rows (600, 3) = style · slope + effect of the label + noise, and their labels 0, 1, 2."""
    generator = np.random.default_rng(seed)
    label = generator.choice(3, N_ROWS, p=SHARES)
    style = generator.normal(size=(N_ROWS, 1))
    return style @ SLOPE + EFFECT[label] + NOISE * generator.normal(size=(N_ROWS, 3)), label


@functools.cache
def trained(stacked=False):
    """One row in twenty has its label."""
    X, label = rows()
    y = np.where(np.arange(N_ROWS) % 20 == 0, label, -1)
    options = SMALL | {"n_components": 1, "stacked": stacked, "n_feature_components": 3}
    if stacked:
        options |= {"label_layer_sizes": (16,), "shares": (0.5, 0.5, 0.0)}  # as in the paper
    return SemiSupervisedVAE(**options).fit(X, y)


def _whole(X, y, model):
    return Batch.of(model.schema_.encode(X, beside=np.where(y < 0, np.nan, y.astype(float))))


def test_the_bound_is_that_of_the_label_summed_by_hand():
    model, (X, label) = trained(), rows()
    y = np.where(np.arange(60) < 30, label[:60], -1)
    batch, net, key = _whole(X[:60], y, model), model.model_, jax.random.key(5)
    log_q = np.asarray(net.log_classes(net.features(batch)), np.float64)
    by_label = np.empty((60, 3))
    for c in range(3):
        one_hot = jnp.broadcast_to(jnp.eye(3)[c], (60, 3))
        style = jax.tree.map(lambda leaf, c=c: leaf[c], net.styles(batch))
        mean, scale = (np.asarray(part, np.float64) for part in (style.mean, jnp.exp(style.log_scale)))
        code = mean + scale * np.asarray(jax.random.normal(key, mean.shape))
        groups = {"style": jnp.asarray(code, jnp.float32), "label": one_hot}
        kl = 0.5 * np.sum(mean**2 + scale**2 - 1.0 - 2.0 * np.log(scale), axis=1)
        log_frequency = np.log(np.mean(rows()[1][::20] == c))
        by_label[:, c] = np.asarray(net.log_likelihood(batch, groups)) - kl + log_frequency
    np.testing.assert_allclose(net.bounds(batch, key), by_label, atol=1e-3)
    summed = sum(np.exp(log_q[:, c]) * (by_label[:, c] - log_q[:, c]) for c in range(3))
    by_hand = np.where(y >= 0, by_label[np.arange(60), np.maximum(y, 0)], summed)
    bound, log_label = net.objective(net.bounds(batch, key), jnp.asarray(log_q), batch.given)
    np.testing.assert_allclose(bound, by_hand, atol=1e-3)
    expected = np.where(y >= 0, log_q[np.arange(60), np.maximum(y, 0)], 0.0)
    np.testing.assert_allclose(log_label, expected, atol=1e-5)
    # the classifier's entropy at most makes up for what it leaves out
    assert np.all(summed <= logsumexp(by_label, axis=1) + 1e-6)
    loss = net.label_loss(bound, log_label, batch, State(np.int32(0), np.int32(0)))
    by_hand_loss = -by_hand.mean() - 10.0 * np.mean(expected[:30])
    assert float(loss.value) == pytest.approx(by_hand_loss, abs=1e-3)


@pytest.mark.parametrize("stacked", [False, True])
def test_densities_are_those_of_the_known_law(stacked):
    model, (X, label) = trained(stacked), rows(1)
    X, label = X[:200], label[:200]
    given = np.array([multivariate_normal(mean, COVARIANCE).logpdf(X) for mean in EFFECT]).T
    truth = logsumexp(given + np.log(SHARES), axis=1)
    reading = model.log_density(X, n_draws=512)
    if not stacked:  # M1 alone, under a normal prior, is 2 nats from this law
        assert -0.35 < np.mean(reading.values - truth) < 0.05
        of_label = model.score_samples(X, label)
        assert -0.4 < np.mean(of_label - given[np.arange(200), label]) < 0.1
    # log p(x) is the sum of its own parts: the label is summed out, not guessed
    shares = np.bincount(rows()[1][::20]) / 30
    each = [model.log_density(X, n_draws=512, y=np.full(200, c)).values for c in range(3)]
    parts = logsumexp(np.array(each).T + np.log(shares), axis=1)
    np.testing.assert_allclose(np.median(reading.values - parts), 0.0, atol=0.02)
    # thirty labels: the rule of Bayes, which knows the law, is right of all rows; M1's code has lost some of it
    best = np.mean(np.argmax(given + np.log(SHARES), axis=1) == label)
    assert model.score(X, label) > best - (0.2 if stacked else 0.04)


def test_the_reading_is_the_quadrature_over_style_and_the_sum_over_labels():
    X, label = rows()
    y = np.where(np.arange(N_ROWS) % 20 == 0, label, -1)
    options = SMALL | {
        "n_components": 1,
        "stacked": True,
        "n_feature_components": 1,
        "label_layer_sizes": (8,),
    }
    model = SemiSupervisedVAE(**options | {"max_steps": 400}).fit(X, y)
    reading = model.log_density(X[:40], n_draws=4000)
    truth = by_quadrature(model, model.schema_.encode(X[:40]))
    clear = ~reading.withheld
    assert clear.mean() > 0.6
    assert np.all(np.abs(reading.values - truth)[clear] < 0.05 + 4.5 * reading.standard_error[clear])


def test_draws_are_of_the_label_asked_for_and_else_of_all():
    model = trained()
    for c in range(3):
        drawn = model.sample(500, given=c, random_state=0)
        np.testing.assert_allclose(drawn.mean(axis=0), EFFECT[c], atol=0.5)
    drawn = model.sample(3000, random_state=0)
    nearest = np.argmin(((drawn[:, None] - EFFECT) ** 2).sum(axis=2), axis=1)
    true = np.argmin(((rows()[0][:, None] - EFFECT) ** 2).sum(axis=2), axis=1)
    assert np.all(np.abs(np.bincount(nearest) / 3000 - np.bincount(true) / N_ROWS) < 0.12)


def test_codes_are_style_and_probabilities():
    model, (X, label) = trained(), rows()
    codes = model.transform(X)
    np.testing.assert_allclose(codes[:, 1:], model.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(codes[:, 1:].sum(axis=1), 1.0, atol=1e-5)
    assert np.array_equal(model.transform(X, label)[:, 1:], np.eye(3)[label])
    # the style says what the label does not: it goes along the slope in every class
    style = model.transform(X, label)[:, 0]
    for c in range(3):
        along = (X[label == c] - EFFECT[c]) @ SLOPE[0]
        assert abs(np.corrcoef(style[label == c], along)[0, 1]) > 0.95


def test_the_first_phase_leaves_the_labels_networks_and_the_second_the_features():
    model = trained(stacked=True)
    X, label = rows()
    y = np.where(np.arange(N_ROWS) % 20 == 0, label, -1)
    half = SemiSupervisedVAE(**(model.get_params() | {"max_steps": 2, "validation_fraction": 0.1})).fit(X, y)
    before = half.build(half.schema_, jax.random.key(0))
    for part, others in (
        ("feature_part", ("classifier", "inner", "outer")),
        ("label_part", ("encoder", "decoder")),
    ):
        moves = getattr(before, part)()
        assert not any(jax.tree.leaves(tuple(getattr(moves, name) for name in others)))
    assert any(jax.tree.leaves(before.feature_part().encoder)) and any(
        jax.tree.leaves(before.label_part().classifier)
    )
    # the score told is the last phase's: a bound with M2 for a prior and the classifier's
    n_second = model.n_iter_ - 8
    assert model.best_validation_score_ == max(model.validation_scores_[-max(n_second, 1) :])


def test_under_every_class_m2_starts_at_the_prior_of_m1():
    X, model = rows()[0], trained(stacked=True)
    fresh = model.build(model.schema_, jax.random.key(0))
    style, truth = jnp.asarray([[-2.0], [0.0], [3.0]]), multivariate_normal(np.zeros(3)).logpdf(X[:3])
    for c in range(3):
        made = fresh.made(style, jnp.broadcast_to(jnp.eye(3)[c], (3, 3)))
        np.testing.assert_allclose(made.log_prob(jnp.asarray(X[:3], jnp.float32)), truth, rtol=1e-5)


def test_each_class_has_its_own_networks():
    model = trained(stacked=True).model_
    style, key = jnp.linspace(-2.0, 2.0, 5)[:, None], jax.random.key(1)
    features = jax.random.normal(key, (5, 3))
    bounds = model.bounds(features, key)
    for c in range(3):
        own = lambda network, c=c: jax.tree.map(lambda leaf: leaf[c], network)  # noqa: E731
        said = jax.vmap(own(model.inner))(features)
        np.testing.assert_allclose(model.styles(features).mean[c], said[:, :1], atol=1e-5)
        made = model.made(style, jnp.broadcast_to(jnp.eye(3)[c], (5, 3)))
        np.testing.assert_allclose(made.mean, jax.vmap(own(model.outer))(style)[:, :3], atol=1e-5)
        drawn = jax.tree.map(lambda leaf, c=c: leaf[c], model.styles(features))
        own_made = model.made(drawn.draw_one(key), jnp.broadcast_to(jnp.eye(3)[c], (5, 3)))
        of_class = own_made.log_prob(features) - drawn.to_normal() + model.log_frequency[c]
        np.testing.assert_allclose(bounds[:, c], of_class, atol=1e-4)


def test_together_m1_learns_the_law_that_it_lacked_alone():
    X, label = rows()
    y = np.where(np.arange(N_ROWS) % 20 == 0, label, -1)
    options = trained(stacked=True).get_params() | {"shares": (3, 2, 5)}
    both = SemiSupervisedVAE(**options).fit(X, y)
    assert [phase.name for phase in both.model_.plan()] == ["features", "labels", "both"]
    held = rows(1)[0][:200]
    apart = trained(stacked=True).log_density(held, n_draws=512).values
    assert np.mean(both.log_density(held, n_draws=512).values - apart) > 0.5
    with pytest.raises(InputError, match=r"parameter 'shares': got .*; expected three numbers"):
        SemiSupervisedVAE(**options | {"shares": (1, 0)}).fit(X, y)


def test_few_labels_are_in_every_batch_are_never_set_aside_and_count_once():
    values = np.arange(200, dtype=np.float32)[:, None]
    scarce = np.arange(200) % 50 == 0
    batches = Batches.split(Batch(values, values > -1, values[:, :0]), 16, 0.2, 0, scarce)
    assert set(np.flatnonzero(scarce)) <= set(np.asarray(batches.train.values)[:, 0].astype(int))
    assert batches.held_out.n_rows == 39 and batches.n_scarce == 2
    weight, order = np.asarray(batches.train.weight), next(batches.orders(5000, seed=1))
    seen = np.asarray(batches.train.values)[order, 0]
    assert np.all((seen[:, :2] % 50) == 0) and np.all((seen[:, 2:] % 50) != 0)
    # the weighted mean over many batches is the mean of all rows
    mean = np.sum(weight[order] * seen) / np.sum(weight[order])
    assert mean == pytest.approx(np.asarray(batches.train.values).mean(), rel=2e-3)
    assert np.mean(weight[order]) == pytest.approx(1.0, abs=1e-5)
    # where labels are common there is nothing to make up for
    assert (
        Batches.split(Batch(values, values > -1, values[:, :0]), 16, 0.2, 0, values[:, 0] < 150).scarce
        is None
    )


def test_labels_are_given_as_people_have_them(tmp_path):
    X, label = rows()
    few = np.arange(N_ROWS) % 20 == 0
    options = SMALL | {"n_components": 1, "max_steps": 300}
    known = SemiSupervisedVAE(**options).fit(X, np.where(few, label, -1))
    names = np.array(["b", "a", "c"])
    for y in (
        np.where(few, label.astype(float), np.nan),
        pd.Series(np.where(few, label, -1)),
        np.where(few, label, -1).tolist(),
    ):
        assert np.array_equal(SemiSupervisedVAE(**options).fit(X, y).predict(X), known.predict(X))
    text = np.where(few, names[label], None)
    named = SemiSupervisedVAE(**options).fit(X, text)
    assert named.classes_.tolist() == ["a", "b", "c"] and set(named.predict(X)) <= {"a", "b", "c"}
    assert known.classes_.tolist() == [0, 1, 2] and known.predict(X).dtype.kind == "i"
    signs = SemiSupervisedVAE(**options).fit(X, np.where(label == 0, 1, -1))
    assert signs.classes_.tolist() == [-1, 1]
    assert signs.score(X, np.where(label == 0, 1, -1)) > 0.9
    alone, whole = signs.score_samples(X[:5], [-1] * 5), signs.score_samples(X[:6], [-1] * 5 + [1])
    assert np.array_equal(alone, whole[:5]) and not np.array_equal(alone, signs.score_samples(X[:5]))
    chunk = SemiSupervisedVAE(**options).partial_fit(X, label == 0)
    assert chunk.partial_fit(X, np.where(label == 0, 1, -1)).classes_.tolist() == [0, 1]
    first = SemiSupervisedVAE(**options).partial_fit(X, np.full(N_ROWS, -1), classes=[-1, 1])
    assert first.classes_.tolist() == [-1, 1]
    named.save(tmp_path / "m2.safetensors")
    again = diabolo.load(tmp_path / "m2.safetensors")
    assert np.array_equal(again.predict_proba(X), named.predict_proba(X)) and list(again.classes_) == [
        "a",
        "b",
        "c",
    ]


def test_partial_fit_knows_classes_that_come_later():
    X, label = rows()
    first, later = label < 2, label == 2
    m2 = SemiSupervisedVAE(**SMALL | {"n_components": 1, "batch_size": 32})
    m2.partial_fit(X[first], label[first], classes=[0, 1, 2])
    for _ in range(40):
        m2.partial_fit(X[first], label[first]).partial_fit(X[later], label[later])
    m2.partial_fit(X).partial_fit(X, np.full(N_ROWS, -1))
    assert m2.classes_.tolist() == [0, 1, 2] and m2.score(X[later], label[later]) > 0.8
    assert not [name for name in vars(m2) if name == "_kind_of_y"]


def test_stacked_goes_through_its_phases_at_every_further_call():
    X, label = rows()
    stacked = trained(stacked=True).get_params() | {"batch_size": 32, "learning_rate": 0.01}
    model = SemiSupervisedVAE(**stacked).partial_fit(X, label)
    for _ in range(40):
        before = model.model_
        model.partial_fit(X, label)
        changed = [
            np.any(
                jax.tree.leaves(getattr(before, part))[0] != jax.tree.leaves(getattr(model.model_, part))[0]
            )
            for part in ("encoder", "inner")
        ]
        assert changed == [True, True]
    assert model.score(X, label) > 0.8 and model.n_steps_ == 41 * 19
    model.set_params(alpha=0.5, shares=(0, 1, 0)).partial_fit(X, label)
    assert float(model.model_.alpha) == 0.5 and model.model_.shares == (0.0, 1.0, 0.0)
    model.set_params(shares=(0.5, 0.5, 0)).partial_fit(X, label)
    again = SemiSupervisedVAE(**stacked | {"warm_start": True, "max_steps": 100}).fit(X, label)
    first = again.loss_curve_[-1]
    assert again.fit(X, label).loss_curve_[-1] < first
    assert model.partial_fit(X[:1], label[:1]).n_steps_ == 43 * 19 + 1  # too few steps for two phases


def test_the_networks_on_top_of_the_code_are_as_wide_as_asked():
    model = trained(stacked=True)
    net = model.model_
    assert dict(net.code_widths) == {"features": 3, "style": 1, "label": 3}
    assert [layer.weight.shape[-2:] for layer in net.classifier.layers] == [(3, 16), (16, 3)]
    assert [layer.weight.shape[-2:] for layer in net.inner.layers] == [(3, 16), (16, 2)]
    other = SemiSupervisedVAE(**model.get_params() | {"label_layer_sizes": (5, 4), "n_feature_components": 2})
    wider = other.build(model.schema_, jax.random.key(0))
    assert dict(wider.code_widths)["features"] == 2
    assert [layer.weight.shape[-2:] for layer in wider.outer.layers] == [(1, 4), (4, 5), (5, 4)]


def test_what_is_no_label_is_refused():
    X, label = rows()
    m2 = SemiSupervisedVAE(max_steps=1)
    with pytest.raises(InputError, match="y: got no label; expected at least one row with a label"):
        m2.fit(X, np.full(N_ROWS, -1))
    with pytest.raises(InputError, match="requires y to be passed"):
        m2.fit(X)
    with pytest.raises(InputError, match="Unknown label type: continuous"):
        m2.fit(X, X[:, 0])
    with pytest.raises(InputError, match="y: got 599 values; expected 600"):
        m2.fit(X, label[1:])


def test_without_the_classifiers_own_term_it_learns_the_labels_less():
    X, label = rows()
    y = np.where(np.arange(N_ROWS) % 20 == 0, label, -1)
    small = SMALL | {"n_components": 1, "max_steps": 300}
    plain, other = (SemiSupervisedVAE(**small | more).fit(X, y) for more in ({}, {"alpha": 0.0}))
    assert other.score(X, label) < plain.score(X, label) - 0.1
