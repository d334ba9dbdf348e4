"""The contract between a family's network and everything that trains or reads it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diabolo import devices
from diabolo.batches import Batch, Batches
from diabolo.joint import JointLikelihood
from diabolo.nets import Network

__all__ = [
    "SHARED_GAIN",
    "CodeModel",
    "Decoder",
    "DirectModel",
    "Encoder",
    "Loss",
    "Model",
    "Phase",
    "Proposal",
    "State",
    "on_device",
    "untrained",
]

#: Learned vectors shared by all rows (scales, thresholds) move on the scale of units, weights on that of 0.1:
#: one learning rate serves both when the vector is stored at a tenth of its size.
SHARED_GAIN = 10.0


class State(NamedTuple):
    """What rides along in the scan: steps done, steps planned (0 if open), and whatever a family keeps running."""

    step: Array
    n_steps: Array
    running: Any = None


class Loss(NamedTuple):
    """Mean loss of a batch in nats per row, its parts by name, and the state after it."""

    value: Array
    parts: dict[str, Array]
    state: State


@dataclass(frozen=True)
class Phase:
    """One stretch of training: methods for its loss, what is trained and what is looked at; its share of the steps."""

    name: str = "training"
    loss: str = "loss"
    trainable: str = "trainable"
    share: float = 1.0
    held_out: str = "held_out"


class Proposal(Protocol):
    """Where importance sampling draws codes from, for each row."""

    def draw(self, keys: Array, n_draws: int) -> tuple[Array, Array]:
        """One key per row to codes (n_rows, n_draws, n_components) and their log_q (n_rows, n_draws), nats."""
        ...

    def log_prob(self, codes: Array, n_draws: int) -> Array:
        """log_q of any codes (n_rows, n, n_components), of `n_draws` draws' own proportions: (n_rows, n) nats."""
        ...

    def counts(self, n_draws: int) -> tuple[int, ...]:
        """How many of the draws come from each stratum, in order."""
        ...


class Encoder(eqx.Module):
    """A network over a row's cells, the gaps it was taught to see, and its conditions."""

    network: Network
    gap_columns: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def n_inputs(width: int, gap_columns: tuple[int, ...], given_width: int) -> int:
        return width + len(gap_columns) + given_width

    def embed(self, batch: Batch) -> Array:
        """Differentiable inputs: (n_rows, n_inputs)."""
        parts = [batch.values]
        if self.gap_columns:
            parts.append(batch.observed[:, np.asarray(self.gap_columns)].astype(batch.values.dtype))
        if batch.given.shape[1]:
            parts.append(batch.given)
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)

    def __call__(self, inputs: Array) -> Array:
        return jax.vmap(self.network)(inputs)


class Decoder(eqx.Module):
    """A network from codes to the parameters of the columns' likelihoods.

    It starts at the columns' own marginal laws; parameters shared by all rows are one learned vector.

    Attributes
    ----------
    network : (n_components + given_width,) to (n_free + len(by_row),)
    shared : (n_shared,), the learned vector, a tenth of what it adds
    start : (n_free + n_shared,), the marginal laws' parameters, not trained
    by_row : static; which of the shared parameters the network moves for each row as well
    """

    network: Network
    shared: Array
    start: Array
    by_row: tuple[int, ...] = eqx.field(static=True, default=())

    @classmethod
    def starting_at(
        cls, network: Network, start: np.ndarray, n_shared: int, by_row: tuple[int, ...] = ()
    ) -> Decoder:
        shared = np.zeros(n_shared, np.float32)
        return cls(network, shared, np.asarray(start, np.float32), by_row)  # type: ignore[arg-type]

    def __call__(self, codes: Array, given: Array) -> tuple[Array, Array]:
        """What is said of each row, (n_rows, n_free), and what all share, (n_shared,) or (n_rows, n_shared)."""
        inputs = jnp.concatenate([codes, given], axis=1) if given.shape[1] else codes
        said = jax.vmap(self.network)(inputs)
        n_free = len(self.start) - len(self.shared)
        shared = self.start[n_free:] + SHARED_GAIN * self.shared
        if self.by_row:
            shared = jnp.broadcast_to(shared, (len(said), len(shared)))
            shared = shared.at[:, np.asarray(self.by_row)].add(said[:, n_free:])
        return said[:, :n_free] + self.start[:n_free], shared

    def with_shared(self, total: Array) -> Decoder:
        """The same with the shared parameters set to `total` (n_shared,)."""
        shared = (total - self.start[len(self.start) - len(self.shared) :]) / SHARED_GAIN
        return eqx.tree_at(lambda decoder: decoder.shared, self, shared)


class Model(eqx.Module):
    """Anything that can be trained and read. Abstract; families are final.

    Facts are declared on the class: `density_kind` says what `log_density` claims of its numbers, `keeps_best` whether
    held-out scores choose the weights. `code_widths` names the groups of codes in order; `transform` gives them side by
    side.
    """

    likelihood: eqx.AbstractVar[JointLikelihood]
    code_widths: eqx.AbstractVar[tuple[tuple[str, int], ...]]
    density_kind: eqx.AbstractClassVar[str]
    keeps_best: eqx.AbstractClassVar[bool]
    #: Has it arrays with an entry per training row, whose sizes a file says and the columns do not?
    sized_by_rows: ClassVar[bool] = False

    @abc.abstractmethod
    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Mean loss of a batch, nats per row."""

    @abc.abstractmethod
    def held_out(self, batch: Batch, key: Array) -> Array:
        """(n_rows,) nats: what patience and restarts compare, larger is better, at the final weights of all terms."""

    @abc.abstractmethod
    def encode(self, batch: Batch) -> dict[str, Array]:
        """Named groups of codes, each (n_rows, width); deterministic."""

    @abc.abstractmethod
    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        """(n_rows, width): the encoded rows that stand for codes."""

    @abc.abstractmethod
    def sample(self, key: Array, n: int, given: Array) -> Array:
        """(n, width): encoded draws of whole rows."""

    def plan(self) -> tuple[Phase, ...]:
        return (Phase(),)

    def initial_state(self) -> State:
        return State(np.zeros((), np.int32), np.zeros((), np.int32))  # type: ignore[arg-type]

    def fixed(self) -> tuple[Any, ...]:
        """The parts that training leaves alone; a family adds its own."""
        return (self.likelihood,)

    def trainable(self) -> Self:
        """The same tree with True at every weight that training may move."""
        return eqx.tree_at(type(self).fixed, _floats(self), replace_fn=untrained)

    def begin(self, batches: Batches, key: Array) -> Self:
        """What looks at the rows before training: a start that no random number gives."""
        return self

    def settled(self, state: State, rate: Array) -> Self:
        """The same after a step at this rate: what moves besides by a gradient, by what the step left in the state."""
        return self

    def finish(self, batches: Batches, key: Array) -> Self:
        """What is fitted after training: priors on codes, noise on held-out rows."""
        return self

    def carry_on(self, key: Array) -> Self:
        """What is done in place of `finish` after further training of a model from a file, which remembers no row."""
        return self

    def with_gaps(self) -> Self:
        """The same model for further training on rows with gaps, where the first had none."""
        return self

    def prepared(self) -> Self:
        """The same model with what all rows share worked out: asked for once, before a reading's many chunks."""
        return self

    def n_weights(self, n_draws: int) -> int:
        """How many weights a row has, and so how many rows are read at once."""
        return n_draws

    def common_error(self) -> float:
        """Standard error, in nats, of what all rows share, as an estimated log Z."""
        return 0.0

    def kinds(self, observed: np.ndarray) -> np.ndarray:
        """What is claimed of the density of rows with these cells (n_rows, n_columns): (n_rows,) text."""
        return np.full(len(observed), self.density_kind, "<U8")

    def kind_of_whole_rows(self) -> str:
        """The same of rows without a gap."""
        return str(self.kinds(np.ones((1, self.likelihood.n_columns), bool))[0])

    @property
    def chooses(self) -> bool:
        """Whether held-out scores choose the weights; some members can say them at some sizes only."""
        return self.keeps_best

    @property
    def mostly_products(self) -> bool:
        """Whether a step is little else than products of wide matrices, which a CPU then leaves to a faster library."""
        return False

    @property
    def n_components(self) -> int:
        """Width of all groups of codes together."""
        return sum(width for _, width in self.code_widths)

    def join(self, codes: dict[str, Array]) -> Array:
        """All groups side by side: (n_rows, n_components)."""
        groups = [codes[name] for name, _ in self.code_widths]
        return groups[0] if len(groups) == 1 else jnp.concatenate(groups, axis=-1)

    def split(self, joined: Array) -> dict[str, Array]:
        """The inverse of `join`."""
        names, widths = zip(*self.code_widths, strict=True)
        edges = np.cumsum(widths)[:-1].tolist()
        return dict(zip(names, jnp.split(joined, edges, axis=-1), strict=True))


class DirectModel(Model):
    """A model that says log p(x) itself, whatever cells are missing: no code is integrated over from outside.

    `log_weights` holds for a density that is exact, with one weight per row or equal ones; for a bound by importance
    sampling; and for an estimate, as the mean of what the states of a chain say.
    """

    @abc.abstractmethod
    def log_weights(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, n) nats over the observed cells, one key per row; the mean of a row's weights is its p(x)."""

    @abc.abstractmethod
    def draw_given(self, batch: Batch, n_draws: int, keys: Array) -> Array:
        """(n_rows, n_draws, width): whole encoded rows, drawn given the observed cells, one key per row."""


class CodeModel(Model):
    """A model with a code z: p(x) is an integral over z, and bounds, imputation and coding follow from four methods."""

    decoder: eqx.AbstractVar[Decoder]

    @abc.abstractmethod
    def log_prior(self, codes: dict[str, Array]) -> Array:
        """(n_rows,) nats."""

    @abc.abstractmethod
    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        """n codes from the prior."""

    @abc.abstractmethod
    def proposal(self, batch: Batch) -> Proposal:
        """Where to look for codes that explain each row; its draws are all groups side by side."""

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.decoder.start)

    def decode(self, codes: dict[str, Array], given: Array) -> Array:
        """(n_rows, n_params): the parameters of the columns' likelihoods."""
        return self.likelihood.assemble(*self.decoder(self.join(codes), given))

    def typical(self, codes: dict[str, Array], given: Array) -> Array:
        return self.likelihood.mean(self.decode(codes, given))

    def log_likelihood(self, batch: Batch, codes: dict[str, Array]) -> Array:
        """(n_rows,) nats over the observed cells: log p(x | z)."""
        cells = self.likelihood.log_prob(self.decode(codes, batch.given), batch.values)
        return jnp.sum(jnp.where(batch.observed, cells, 0.0), axis=-1)

    def sample(self, key: Array, n: int, given: Array) -> Array:
        key_codes, key_cells = jax.random.split(key)
        return self.likelihood.draw(self.decode(self.draw_prior(key_codes, n), given), key_cells)


def on_device(model: Any) -> Any:
    """The model with its arrays on the device: a pass over many chunks sends them there once."""
    return jax.tree.map(
        lambda leaf: devices.everywhere(leaf) if isinstance(leaf, np.ndarray) else leaf, model
    )


def _floats(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: isinstance(leaf, (np.ndarray, Array)) and np.issubdtype(leaf.dtype, np.inexact), tree
    )


def untrained(tree: Any) -> Any:
    """Of a part of a model, that no leaf of it is trained."""
    return jax.tree.map(lambda _: False, tree)
