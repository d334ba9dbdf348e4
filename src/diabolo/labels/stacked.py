"""M1 + M2: label and style make the code of the row (Kingma, Mohamed, Rezende & Welling 2014, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian
from diabolo.joint import JointLikelihood
from diabolo.labels.model import LabelModel, Said, placed, with_given
from diabolo.model import Decoder, Encoder, Loss, Phase, State, untrained
from diabolo.nets import MLP
from diabolo.objectives import weighted_mean
from diabolo.priors import StandardNormal
from diabolo.proposals import Placed
from diabolo.variational import gaussian

__all__ = ["StackedModel", "side_by_side", "starting_at_zero"]


class StackedModel(LabelModel):
    """M1 + M2: a VAE's code of the row is what label and style make.

    ```
    x ─▶ encoder ─▶ q(h | x) ─▶ h ─▶ classifier ─▶ q(y | h)     h ─▶ inner of y ─▶ q(z | h, y) ─▶ z
    log p(x | h) ◀─ decoder ◀── h ◀──────────── N(mean, scale) ◀─ outer of y ◀─ z
    ```

    A departure from the paper, whose networks of M2 have the label as an input: here each class has its own.
    `inner` and `outer` hold them side by side, (n_classes, ...) at every leaf. Under every class p(h | y, z) starts at
    M1's prior, N(0, I), so that what M2 says of a class it has learned from rows, and not from its first weights.
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    classifier: MLP
    inner: MLP
    outer: MLP
    log_frequency: Array
    alpha: Array
    warm: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    shares: tuple[float, float, float] = eqx.field(static=True)

    def plan(self) -> tuple[Phase, ...]:
        """M1 first, then M2 on its codes, while M1 stays as it is, then both; what has no share is left out."""
        of_features, of_labels, of_both = self.shares
        phases = (
            Phase("features", "feature_loss", "feature_part", of_features, "feature_bound"),
            Phase("labels", trainable="label_part", share=of_labels),
            Phase("both", "whole_loss", share=of_both),
        )
        return tuple(phase for phase in phases if phase.share > 0.0)

    def feature_part(self) -> Self:
        """What the first phase trains."""
        label_nets = lambda model: (model.classifier, model.inner, model.outer)  # noqa: E731
        return eqx.tree_at(label_nets, self.trainable(), replace_fn=untrained)

    def label_part(self) -> Self:
        """What the second phase trains."""
        return eqx.tree_at(
            lambda model: (model.encoder, model.decoder), self.trainable(), replace_fn=untrained
        )

    def said(self, batch: Batch) -> DiagonalGaussian:
        """q(h | x), which does not look at labels."""
        return gaussian(
            self.encoder(self.encoder.embed(with_given(batch, self.with_label(batch.given, None))))
        )

    def features(self, batch: Batch) -> Array:
        return self.said(batch).mean

    def log_classes(self, features: Array) -> Array:
        return jax.nn.log_softmax(jax.vmap(self.classifier)(features))

    def styles(self, features: Array) -> DiagonalGaussian:
        """q(z | h, y) under every label: leaves (n_classes, n_rows, width)."""
        return gaussian(jax.vmap(_answers, in_axes=(0, None))(self.inner, features))

    def made(self, style: Array, label: Array) -> DiagonalGaussian:
        """p(h | y, z), label (n_rows, n_classes)."""
        each = jax.vmap(_answers, in_axes=(0, None))(self.outer, style)  # (n_classes, n_rows, 2 width)
        return gaussian(jnp.einsum("nc,cnk->nk", label, each))

    def bounds(self, features: Array, key: Array, weight: Array | float = 1.0) -> Array:
        """L(h, y) for every y, with the same noise: (n_rows, n_classes) nats."""

        def under(outer: MLP, style: DiagonalGaussian) -> Array:
            made = gaussian(_answers(outer, style.draw_one(key)))
            return made.log_prob(features) - weight * style.to_normal()

        each = jax.vmap(under, out_axes=1)(self.outer, self.styles(features))
        return each + self.log_frequency

    def feature_loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """M1's negative evidence bound under N(0, I), its divergence warmed up."""
        bound = self._feature_bound(batch, key, self.warmed(state))
        return Loss(-weighted_mean(bound, batch.weight), {"bound": jnp.mean(bound)}, state)

    def feature_bound(self, batch: Batch, key: Array) -> Array:
        """M1's evidence bound."""
        return self._feature_bound(batch, key, 1.0)

    def _feature_bound(self, batch: Batch, key: Array, weight: Array | float) -> Array:
        said = self.said(batch)
        return self._log_row(batch, said.draw_one(key)) - weight * said.to_normal()

    def _log_row(self, batch: Batch, features: Array) -> Array:
        """log p(x | h): (n_rows,) nats."""
        params = self.likelihood.assemble(*self.decoder(features, self.with_label(batch.given, None)))
        cells = self.likelihood.log_prob(params, batch.values)
        return jnp.sum(jnp.where(batch.observed, cells, 0.0), axis=-1)

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """M2's loss, on codes drawn from M1's posterior."""
        key_features, key_styles = jax.random.split(key)
        features = self.said(batch).draw_one(key_features)
        bounds = self.bounds(features, key_styles, self.warmed(state))
        return self.label_loss(*self.objective(bounds, self.log_classes(features), batch.given), batch, state)

    def whole_loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """The whole model's loss: M1's, with M2 for its prior, and M2's; nothing is warmed up a second time.

        The classifier's gradient ends at the code: a hundred labels would soon be learned by heart by all of M1.
        """
        key_features, key_styles = jax.random.split(key)
        features, rest = self._drawn(batch, key_features)
        log_classes = self.log_classes(lax.stop_gradient(features))
        bound, log_label = self.objective(self.bounds(features, key_styles), log_classes, batch.given)
        return self.label_loss(rest + bound, log_label, batch, state)

    def _drawn(self, batch: Batch, key: Array) -> tuple[Array, Array]:
        """A code of each row from q(h | x), and log p(x | h) - log q(h | x) of it, (n_rows,) nats."""
        said = self.said(batch)
        features = said.draw_one(key)
        return features, self._log_row(batch, features) - said.log_prob(features)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """A bound on log p(x), or on log p(x, y) where y is known: M1's, with M2 for its prior."""
        key_features, key_styles = jax.random.split(key)
        features, rest = self._drawn(batch, key_features)
        bounds = self.bounds(features, key_styles)
        return rest + self.score_of(bounds, self.log_classes(features), batch.given)

    def encode(self, batch: Batch) -> dict[str, Array]:
        """M1's mean; the label where it is known, else its probabilities; the style's mean under them."""
        features = self.features(batch)
        label, is_known = self.known(batch.given)
        label = jnp.where(is_known[:, None], label, jnp.exp(self.log_classes(features)))
        style = jnp.einsum("nc,cnk->nk", label, self.styles(features).mean)
        return {"features": features, "style": style, "label": label}

    def decode(self, codes: dict[str, Array], given: Array) -> Array:
        return self.likelihood.assemble(*self.decoder(codes["features"], self.with_label(given, None)))

    def log_prior(self, codes: dict[str, Array]) -> Array:
        made = self.made(codes["style"], codes["label"])
        of_label = codes["label"] @ self.log_frequency
        return (
            StandardNormal(codes["style"].shape[1]).log_prob(codes["style"])
            + of_label
            + made.log_prob(codes["features"])
        )

    def draw_prior(
        self, key: Array, n: int, label: Array | None = None, is_known: Array | None = None
    ) -> dict[str, Array]:
        key_label, key_style, key_features = jax.random.split(key, 3)
        drawn = self.draw_labels(key_label, n, label, is_known)
        style = jax.random.normal(key_style, (n, self.code_widths[1][1]))
        return {
            "features": self.made(style, drawn).draw_one(key_features),
            "style": style,
            "label": drawn,
        }

    def evidence(self, batch: Batch) -> tuple[DiagonalGaussian, Array, Array]:
        """q(h | x), and labels that are known."""
        return self.said(batch), *self.known(batch.given)

    def _said_of(self, evidence: Any, features: Array) -> Said:
        """Of one row's label and style, where its features are (n, width): leaves (n, n_classes, ...)."""
        _, label, is_known = evidence
        styles = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), self.styles(features))
        labels = jnp.broadcast_to(label, (len(features), *label.shape))
        knows = jnp.broadcast_to(is_known, (len(features),))
        return self.told(self.log_classes(features), labels, knows, styles)

    def explore(self, evidence: Any, key: Array, widths: Array) -> Array:
        key_features, key_label, key_style = jax.random.split(key, 3)
        said, n = evidence[0], len(widths)
        noise = jax.random.normal(key_features, (n, len(said.mean)))
        features = said.mean + widths * jnp.exp(said.log_scale) * noise
        of_label = self._said_of(evidence, features)
        label = jax.random.categorical(key_label, of_label.log_label)
        mean, log_scale = (
            leaf[jnp.arange(n), label] for leaf in (of_label.styles.mean, of_label.styles.log_scale)
        )
        style = mean + widths * jnp.exp(log_scale) * jax.random.normal(key_style, mean.shape)
        one_hot = jax.nn.one_hot(label, self.n_classes)
        return self.join({"features": features, "style": style, "label": one_hot})

    def placed(self, evidence: Any, codes: Array) -> Placed:
        groups, said = self.split(codes), evidence[0]
        seen = placed(self._said_of(evidence, groups["features"]), groups, self.log_prior(groups))
        away = jnp.sum(((groups["features"] - said.mean) * jnp.exp(-said.log_scale)) ** 2, axis=1)
        return seen._replace(
            distance=seen.distance + away,
            log_volume=seen.log_volume + jnp.sum(said.log_scale),
            n_components=seen.n_components + len(said.mean),
        )


def side_by_side(networks: Sequence[MLP]) -> MLP:
    """Networks of one shape as one, the leaves of which have a first axis more."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *networks)


def starting_at_zero(network: MLP) -> MLP:
    """The same network, which at first answers nothing but zeros."""
    last = lambda net: net.layers[-1].weight  # noqa: E731
    return eqx.tree_at(last, network, np.zeros_like(last(network)))


def _answers(network: MLP, rows: Array) -> Array:
    return jax.vmap(network)(rows)
