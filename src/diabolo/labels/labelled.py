"""M2: label and style make the row (Kingma, Mohamed, Rezende & Welling 2014, section 2)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian
from diabolo.joint import JointLikelihood
from diabolo.labels.model import LabelModel, Said, placed, with_given
from diabolo.model import Decoder, Encoder, Loss, State
from diabolo.nets import Network
from diabolo.priors import StandardNormal
from diabolo.proposals import Placed
from diabolo.variational import gaussian

__all__ = ["LabelledModel"]


class LabelledModel(LabelModel):
    """M2: label and style make the row.

    ```
    x ─▶ classifier ─▶ q(y | x)     x, y ─▶ encoder ─▶ q(z | x, y) ─▶ z     y, z ─▶ decoder ─▶ log p(x | y, z)
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    classifier: Network
    log_frequency: Array
    alpha: Array
    warm: Array
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def features(self, batch: Batch) -> Array:
        return self.encoder.embed(with_given(batch, self.with_label(batch.given, None)))

    def log_classes(self, features: Array) -> Array:
        return jax.nn.log_softmax(jax.vmap(self.classifier)(features))

    def styles(self, batch: Batch) -> DiagonalGaussian:
        """q(z | x, y) under every label: leaves (n_classes, n_rows, width)."""

        def under(label: Array) -> DiagonalGaussian:
            labels = jnp.broadcast_to(label, (batch.n_rows, self.n_classes))
            inputs = self.encoder.embed(with_given(batch, self.with_label(batch.given, labels)))
            return gaussian(self.encoder(inputs))

        return jax.vmap(under)(jnp.eye(self.n_classes))

    def bounds(self, batch: Batch, key: Array, weight: Array | float = 1.0) -> Array:
        """L(x, y) for every y, one draw of the style each: (n_rows, n_classes) nats (eq. 6 of Kingma et al. 2014).

        All labels of a row share its noise, so that their differences, which teach the classifier, have little of it.
        """

        def under(label: Array, style: DiagonalGaussian) -> Array:
            labels = jnp.broadcast_to(label, (batch.n_rows, self.n_classes))
            codes = {"style": style.draw_one(key), "label": labels}
            return self.log_likelihood(batch, codes) - weight * style.to_normal()

        each = jax.vmap(under, out_axes=1)(jnp.eye(self.n_classes), self.styles(batch))
        return each + self.log_frequency

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative bound of rows with and without labels, and the classifier's cross-entropy."""
        bounds, log_classes = (
            self.bounds(batch, key, self.warmed(state)),
            self.log_classes(self.features(batch)),
        )
        return self.label_loss(*self.objective(bounds, log_classes, batch.given), batch, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        return self.score_of(self.bounds(batch, key), self.log_classes(self.features(batch)), batch.given)

    def encode(self, batch: Batch) -> dict[str, Array]:
        """The label where it is known, else its probabilities; the style's mean under them."""
        label, is_known = self.known(batch.given)
        label = jnp.where(is_known[:, None], label, self.probabilities(batch))
        return {"style": jnp.einsum("nc,cnk->nk", label, self.styles(batch).mean), "label": label}

    def decode(self, codes: dict[str, Array], given: Array) -> Array:
        said = self.decoder(codes["style"], self.with_label(given, codes["label"]))
        return self.likelihood.assemble(*said)

    def log_prior(self, codes: dict[str, Array]) -> Array:
        return (
            StandardNormal(codes["style"].shape[1]).log_prob(codes["style"])
            + codes["label"] @ self.log_frequency
        )

    def draw_prior(
        self, key: Array, n: int, label: Array | None = None, is_known: Array | None = None
    ) -> dict[str, Array]:
        key_label, key_style = jax.random.split(key)
        style = jax.random.normal(key_style, (n, self.code_widths[0][1]))
        return {"style": style, "label": self.draw_labels(key_label, n, label, is_known)}

    def evidence(self, batch: Batch) -> Said:
        """Labels and styles of rows; where a label is known, the density is given it."""
        styles = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), self.styles(batch))
        return self.told(self.log_classes(self.features(batch)), *self.known(batch.given), styles)

    def explore(self, evidence: Said, key: Array, widths: Array) -> Array:
        key_label, key_style = jax.random.split(key)
        label = jax.random.categorical(key_label, evidence.log_label, shape=(len(widths),))
        mean, log_scale = evidence.styles.mean[label], evidence.styles.log_scale[label]
        style = mean + widths * jnp.exp(log_scale) * jax.random.normal(key_style, mean.shape)
        return self.join({"style": style, "label": jax.nn.one_hot(label, self.n_classes)})

    def placed(self, evidence: Said, codes: Array) -> Placed:
        groups = self.split(codes)
        return placed(evidence, groups, self.log_prior(groups))
