"""What members with labels share: a label of each row that may be unknown, and then is summed out."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from diabolo.batches import Batch
from diabolo.codes import DiagonalGaussian
from diabolo.model import CodeModel, Loss, State
from diabolo.objectives import warm_up, weighted_mean
from diabolo.proposals import ExploredStrata, Placed
from diabolo.variational import SHARES, WIDTHS

__all__ = ["LabelModel", "Said", "placed", "with_given"]

_FLOOR = 0.05  # share of the draws whose label is the prior's: no label is without a chance


class Said(NamedTuple):
    """What a row says of label and style.

    log_label : (n_classes,) log r(y); where the label is known, 0 at it and -inf at the others
    styles : q(z | x, y) under each label
    log_known : (n_classes,) 0; where the label is known, log p(y) at it and inf at the others
    """

    log_label: Array
    styles: DiagonalGaussian
    log_known: Array


class LabelModel(CodeModel):
    """A model of rows and labels, p(y) p(z) p(· | y, z), with a classifier q(y | ·) and a code q(z | ·, y). Abstract.

    A row's label comes as the last of its given cells: one cell per class and a flag of a label that is not known.
    In the code it is the group "label": 1 at its class, or the probabilities of all.

    ```
    h ─▶ classifier ─▶ q(y | h)        h, y ─▶ q(z | h, y) ─▶ z        y, z ─▶ p(h | y, z)
    ```
    """

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    log_frequency: eqx.AbstractVar[Array]  # (n_classes,) log p(y)
    alpha: eqx.AbstractVar[Array]
    warm: eqx.AbstractVar[Array]

    @property
    def n_classes(self) -> int:
        return len(self.log_frequency)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.log_frequency, self.alpha, self.warm)

    # ---- labels --------------------------------------------------------------------------------------------

    def known(self, given: Array) -> tuple[Array, Array]:
        """Labels (n_rows, n_classes), 0 where unknown, and whether each is known, (n_rows,)."""
        return given[:, -self.n_classes - 1 : -1], given[:, -1] < 0.5

    def with_label(self, given: Array, label: Array | None) -> Array:
        """The given cells with another label (n_rows, n_classes), or with none."""
        rest = given[:, : -self.n_classes - 1]
        if label is None:
            label, flag = jnp.zeros((len(given), self.n_classes)), jnp.ones((len(given), 1))
        else:
            flag = jnp.zeros((len(given), 1))
        return jnp.concatenate([rest, label, flag], axis=1)

    def probabilities(self, batch: Batch) -> Array:
        """q(y | x), (n_rows, n_classes), whatever label the rows have."""
        return jnp.exp(self.log_classes(self.features(batch)))

    @abc.abstractmethod
    def features(self, batch: Batch) -> Array:
        """What the classifier sees of rows, deterministic: (n_rows, n_features)."""

    @abc.abstractmethod
    def log_classes(self, features: Array) -> Array:
        """log q(y | h), (n_rows, n_classes) nats."""

    # ---- training ------------------------------------------------------------------------------------------

    def objective(self, bounds: Array, log_classes: Array, given: Array) -> tuple[Array, Array]:
        """The bound of each row, and the log-probability of its label.

        Parameters
        ----------
        bounds : (n_rows, n_classes) nats, L(h, y) for every y: a bound on log p(h, y)
        log_classes : (n_rows, n_classes) nats, log q(y | h)
        given : (n_rows, given_width), with the labels

        Returns
        -------
        bound : (n_rows,) L(h, y) where y is known; else the mean of L(h, y) - log q(y | h) under q(y | h)
        log_label : (n_rows,) log q(y | h) of the known label; 0 where there is none

        Source: Kingma, Mohamed, Rezende & Welling 2014, eqs. 6 and 7, arXiv:1406.5298.
        """
        label, is_known = self.known(given)
        summed = jnp.sum(jnp.exp(log_classes) * (bounds - log_classes), axis=1)
        bound = jnp.where(is_known, jnp.sum(label * bounds, axis=1), summed)
        return bound, jnp.sum(label * log_classes, axis=1)

    def score_of(self, bounds: Array, log_classes: Array, given: Array) -> Array:
        """What is compared of held-out rows, (n_rows,) nats: unlike the bound, it does not ask the classifier.

        A classifier that is sure of a few wrong labels lowers the bound while everything else still learns. The
        parameters are those of `objective`.
        """
        label, is_known = self.known(given)
        of_label = jnp.sum(label * (bounds + self.alpha * log_classes), axis=1)
        return jnp.where(is_known, of_label, jax.nn.logsumexp(bounds, axis=1))

    def label_loss(self, bound: Array, log_label: Array, batch: Batch, state: State) -> Loss:
        """Negative mean bound and `alpha` times the classifier's cross-entropy over labelled rows (eq. 9 there)."""
        n_known = jnp.sum(self.known(batch.given)[1])
        cross_entropy = -jnp.sum(log_label) / jnp.maximum(n_known, 1.0)
        loss = self.alpha * cross_entropy - weighted_mean(bound, batch.weight)
        return Loss(loss, {"bound": jnp.mean(bound), "cross_entropy": cross_entropy}, state)

    def warmed(self, state: State) -> Array:
        """Weight of the code's divergence at a step."""
        return warm_up(state.step, self.warm * state.n_steps)

    # ---- the contract's readings ---------------------------------------------------------------------------

    def sample(self, key: Array, n: int, given: Array) -> Array:
        """Rows of the given labels, where they are known, else of labels drawn from p(y)."""
        key_codes, key_cells = jax.random.split(key)
        label, is_known = self.known(given)
        codes = self.draw_prior(key_codes, n, label, is_known)
        return self.likelihood.draw(self.decode(codes, given), key_cells)

    @abc.abstractmethod
    def draw_prior(
        self, key: Array, n: int, label: Array | None = None, is_known: Array | None = None
    ) -> dict[str, Array]:
        """n codes from the prior, under a label where one is known."""

    def draw_labels(self, key: Array, n: int, label: Array | None, is_known: Array | None) -> Array:
        """(n, n_classes) from p(y), but for known ones."""
        drawn = jax.nn.one_hot(jax.random.categorical(key, self.log_frequency, shape=(n,)), self.n_classes)
        return drawn if label is None or is_known is None else jnp.where(is_known[:, None], label, drawn)

    def proposal(self, batch: Batch) -> ExploredStrata:
        """Labels mostly as the classifier says them, codes around q(z | x, y) under each; some from the prior."""
        return ExploredStrata(self, self.evidence(batch), WIDTHS, SHARES)

    @abc.abstractmethod
    def evidence(self, batch: Batch) -> Any:
        """What rows say of their codes."""

    @abc.abstractmethod
    def explore(self, evidence: Any, key: Array, widths: Array) -> Array:
        """As `codes.Explorer` has it."""

    @abc.abstractmethod
    def placed(self, evidence: Any, codes: Array) -> Placed:
        """As `codes.Explorer` has it."""

    def told(self, log_classes: Array, label: Array, is_known: Array, styles: DiagonalGaussian) -> Said:
        """What rows say of label and style: the classifier's answer with a share of p(y) mixed in, or a known label."""
        free = jnp.logaddexp(jnp.log1p(-_FLOOR) + log_classes, jnp.log(_FLOOR) + self.log_frequency)
        at, known = label > 0.5, is_known[:, None]
        log_label = jnp.where(known, jnp.where(at, 0.0, -jnp.inf), free)
        log_known = jnp.where(known, jnp.where(at, self.log_frequency, jnp.inf), 0.0)
        return Said(log_label, styles, log_known)


def with_given(batch: Batch, given: Array) -> Batch:
    """The rows with other given cells."""
    return eqx.tree_at(lambda one: one.given, batch, given)


def placed(said: Said, groups: dict[str, Array], log_prior: Array) -> Placed:
    """Styles and labels as a row sees them; what it says is the same for all codes, or (n, ...) one for each."""
    label = jnp.argmax(groups["label"], axis=1)
    place = (label,) if said.log_label.ndim == 1 else (jnp.arange(len(label)), label)
    log_choice, mean, log_scale, log_known = (
        leaf[place] for leaf in (said.log_label, said.styles.mean, said.styles.log_scale, said.log_known)
    )
    distance = jnp.sum(((groups["style"] - mean) * jnp.exp(-log_scale)) ** 2, axis=1)
    log_choice = jnp.where(jnp.isposinf(log_known), 0.0, log_choice)
    return Placed(distance, jnp.sum(log_scale, axis=1), mean.shape[1], log_choice, log_prior, log_known)
