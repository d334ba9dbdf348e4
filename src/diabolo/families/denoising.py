"""The denoising autoencoder (Vincent, Larochelle, Bengio & Manzagol 2008)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo import passes
from diabolo.batches import Batch, Batches
from diabolo.checks import OneOf, Range, refuse
from diabolo.columns import Real
from diabolo.deterministic import DeterministicModel
from diabolo.deterministic_estimator import DeterministicEstimator, held_out_nats
from diabolo.engine import OnRound, Run, Schedule
from diabolo.estimator import DiaboloEstimator
from diabolo.joint import JointLikelihood
from diabolo.likelihoods import Categorical, Normal, Ordinal
from diabolo.model import Decoder, Encoder, Model
from diabolo.priors import Mixture
from diabolo.table import Rows, Schema
from diabolo.wiring import Parts

__all__ = ["DenoisingAutoencoder"]

# tried where the level is not given: probabilities, or spreads of the column
_LEVELS = {
    "masking": (0.05, 0.1, 0.2, 0.4),
    "gaussian": (0.1, 0.2, 0.4, 0.8),
    "salt_and_pepper": (0.05, 0.1, 0.2, 0.4),
    "permuting": (0.05, 0.1, 0.2, 0.4),
}


class DenoisingModel(DeterministicModel):
    """Corrupted row to code to clean row.

    ```
    x ─▶ corruption ─▶ encoder ─▶ code ─▶ decoder ─▶ parameters ─▶ log p(x | code)
                                    └─ after training: Gaussian mixture p(code) of uncorrupted rows
    ```
    """

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    prior: Mixture
    is_scale: Array
    is_level: Array
    sharpness: Array
    level_shift: Array
    level: Array  # () probability or standard deviation, not trained
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    corruption: str = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.level)

    def shown(self, batch: Batch, key: Array) -> Batch:
        """The corrupted rows, fresh at every step; a gap stays one."""
        owner = self.likelihood.column_of_value
        if self.corruption == "gaussian":
            noise = self.level * jax.random.normal(key, batch.values.shape)
            known = jnp.take(batch.observed, owner, axis=1)
            for _, flags, _ in self._atoms():
                noise = noise.at[:, flags].set(0.0)
            moved = self._off_atoms(batch.values) + noise
            return eqx.tree_at(lambda b: b.values, batch, jnp.where(known, moved, 0.0))
        key_which, key_what = jax.random.split(key)
        hit = batch.observed & jax.random.bernoulli(key_which, self.level, batch.observed.shape)
        if self.corruption == "masking":
            values = jnp.where(jnp.take(hit, owner, axis=1), 0.0, batch.values)
            return eqx.tree_at(lambda b: (b.values, b.observed), batch, (values, batch.observed & ~hit))
        if self.corruption == "salt_and_pepper":
            source = self._extremes(batch, key_what)
        else:
            source = jax.random.randint(key_what, batch.observed.shape, 0, batch.n_rows)
        # the whole cell of another row, unless it has a gap there
        hit &= jnp.take_along_axis(batch.observed, source, axis=0)
        other = jnp.take_along_axis(batch.values, jnp.take(source, owner, axis=1), axis=0)
        values = jnp.where(jnp.take(hit, owner, axis=1), other, batch.values)
        return eqx.tree_at(lambda b: b.values, batch, values)

    def encode(self, batch: Batch) -> dict[str, Array]:
        if self.corruption == "gaussian":
            batch = eqx.tree_at(lambda b: b.values, batch, self._off_atoms(batch.values))
        return super().encode(batch)

    def _off_atoms(self, values: Array) -> Array:
        """Rows whose atoms are plain numbers: noise moves a value off its atom."""
        for start, flags, places in self._atoms():
            moved = values[:, start] + jnp.sum(values[:, flags] * places, axis=-1)
            values = values.at[:, start].set(moved).at[:, flags].set(0.0)
        return values

    def _extremes(self, batch: Batch, key: Array) -> Array:
        """For each cell a row of the batch with the least or the most of its column: (n_rows, n_columns)."""
        order = self._order(batch.values)
        low = jnp.argmin(jnp.where(batch.observed, order, jnp.inf), axis=0)
        high = jnp.argmax(jnp.where(batch.observed, order, -jnp.inf), axis=0)
        return jnp.where(jax.random.bernoulli(key, 0.5, batch.observed.shape), low, high)

    def _order(self, values: Array) -> Array:
        """What orders the cells of a column, its value or the place of its level: (n_rows, n_columns)."""
        owner = self.likelihood.column_of_value
        first = self.likelihood.first_value
        laws = zip(self.likelihood.groups, self.likelihood.columns, strict=True)
        levels = [
            column for law, of_law in laws if isinstance(law, (Categorical, Ordinal)) for column in of_law
        ]
        place = np.where(np.isin(owner, levels), np.arange(len(owner)) - first[owner], 1)
        return jnp.zeros((len(values), len(first))).at[:, owner].add(self._off_atoms(values) * place)

    def _atoms(self) -> Iterator[tuple[np.ndarray, np.ndarray, Array]]:
        """Of like columns with atoms: their first cells (n,), their flags (n, n_atoms), and the atoms' places."""
        first = self.likelihood.first_value
        for law, columns in zip(self.likelihood.groups, self.likelihood.columns, strict=True):
            if isinstance(law, Normal) and law.atoms.shape[-1]:
                start = first[list(columns)]
                yield start, start[:, None] + 1 + np.arange(law.atoms.shape[-1]), law.atoms


class DenoisingAutoencoder(DeterministicEstimator):
    """Denoising autoencoder: gives back the clean row from a corrupted one, and so learns where data lie.

    ```
    x ─▶ corruption ─▶ encoder ─▶ code ─▶ decoder ─▶ x'      after training: p(code) by a Gaussian mixture, noise
    ```

    Parameters
    ----------
    n_components : width of the code; "auto" is half the encoded width, between 2 and 16
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    corruption : what training does to a row: "masking" hides cells, "gaussian" adds noise to the encoded row,
        "salt_and_pepper" puts the column's least or largest value of the batch in a cell, "permuting" another row's
    corruption_level : probability that a cell is hit; of "gaussian" the standard deviation, in spreads of the column,
        of grey levels in halves of their range.
        "auto" trains at four levels (0.05, 0.1, 0.2 and 0.4, of "gaussian" 0.1, 0.2, 0.4 and 0.8) and keeps the one of
        the most held-out nats, of training rows where none is held out: the error of reconstruction would always
        prefer none. `partial_fit` chooses nothing and takes the second
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out error has not fallen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that, and for the noise
    n_init : independent starts; the best held-out error wins
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row at unit spread
    corruption_level_ : the level trained at
    density_kind_ : "bound" on the density under a prior borrowed for the codes: a Gaussian mixture, fitted after
        training, its size by BIC. The training objective itself defines no p(x)

    References
    ----------
    Vincent, Larochelle, Bengio & Manzagol 2008, Extracting and composing robust features with denoising autoencoders;
    2010, JMLR 11, section 3. Density by importance sampling as in Burda, Grosse & Salakhutdinov 2016, eq. 8,
    arXiv:1509.00519.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import DenoisingAutoencoder
    >>> X = load_iris().data
    >>> dae = DenoisingAutoencoder(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> dae.transform(X).shape, dae.reconstruct(X).shape
    ((150, 2), (150, 4))
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **DiaboloEstimator._constraints,
        "corruption": [OneOf(*_LEVELS)],
        "corruption_level": [DiaboloEstimator._auto, Range(0.0)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        hidden_layer_sizes="auto",
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        network=None,
        corruption="masking",
        corruption_level="auto",
        batch_size="auto",
        learning_rate="auto",
        max_steps="auto",
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=20,
        n_init=1,
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.network = network
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_init = n_init
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def build(self, schema: Schema, key: Array) -> DenoisingModel:
        """The untrained network for a table."""
        parts = Parts.of(self, schema, key, n_said=int)
        return DenoisingModel(**parts.fields(), **parts.borrowed(), **self._objective())

    def _resumed(self, model: Any, rows: Rows) -> Any:
        kept = self.corruption_level == "auto" and self.corruption == model.corruption
        return model if kept else super()._resumed(model, rows)

    def _objective(self) -> dict[str, Any]:
        """The level asked for, or a middle one until another is chosen."""
        chosen = self.corruption_level
        if chosen != "auto" and chosen > 1.0 and self.corruption != "gaussian":
            want = f"a probability, for corruption {self.corruption!r}"
            raise refuse(
                "parameter 'corruption_level'", got=f"{chosen}", want=want, fix="Set it between 0 and 1."
            )
        level = _LEVELS[self.corruption][1] if chosen == "auto" else chosen
        return {"corruption": self.corruption, "level": np.asarray(level, np.float32)}

    def _trained(
        self,
        build: Callable[[Array], Model],
        batches: Batches,
        schedule: Schedule,
        seed: int,
        on_round: OnRound | None,
    ) -> Run:
        if self.corruption_level != "auto":
            return super()._trained(build, batches, schedule, seed, on_round)
        judged = batches.train if batches.held_out is None else batches.held_out
        best: tuple[float, Run] | None = None
        for level in _LEVELS[self.corruption]:
            at_level = functools.partial(_at_level, build, level)
            run = super()._trained(at_level, batches, schedule, seed, on_round)
            assert isinstance(run.model, DenoisingModel)
            nats = held_out_nats(run.model, judged, seed)
            if best is None or nats > best[0]:
                best = (nats, run)
            if run.history.stopped == "interrupt":
                break
        assert best is not None
        return best[1]

    @property
    def corruption_level_(self) -> float:
        check_is_fitted(self, "model_")
        return float(self.model_.level)

    def denoise(self, X: Any) -> Any:
        """Rows as they would be without corruption, through encoder and decoder, in the container of X.

        What `reconstruct` gives: the network was taught to give back the clean row.
        """
        return self.reconstruct(X)

    def log_density_gradient(self, X: Any) -> np.ndarray:
        """Gradient of log p, read off the residual: (r(x) - x) / σ², (n_rows, n_features), per unit of each column.

        Of a row smoothed by the noise, so best at small levels; with as many components as columns, for a narrow code
        leaves the gradient off its sheet out. nan at gaps. It needs `corruption="gaussian"` and real columns without
        atoms.

        Source: Alain & Bengio 2014, theorem 1, arXiv:1211.4246; Vincent 2011.
        """
        rows = self._encode(X)
        corruption, level = self.model_.corruption, self.corruption_level_
        if corruption != "gaussian" or not level:
            got, want = f"corruption {corruption!r} at level {level:g}", "'gaussian' at a level above 0"
            raise refuse("log_density_gradient", got=got, want=want, fix="Fit anew with such a corruption.")
        places, scales = self.schema_.layout.places, []
        for place in places:
            kind, column = place.kind, self.schema_.columns[place.column]
            if not isinstance(kind, Real) or kind.atoms:
                what, want = f"log_density_gradient, column {column.name!r}", "real columns without atoms"
                raise refuse(what, got=f"kind {kind.name!r}", want=want)
            scales.append(kind.scale)
        residual = passes.means(self.model_, passes.codes(self.model_, rows), rows.given) - rows.values
        out = np.full((len(residual), len(self.schema_.columns)), np.nan)
        for i, (place, scale) in enumerate(zip(places, scales, strict=True)):
            slope = residual[:, place.start] / (level**2 * scale)
            out[:, place.column] = np.where(rows.observed[:, i], slope, np.nan)
        return out


def _at_level(build: Callable[[Array], Model], level: float, key: Array) -> Model:
    return eqx.tree_at(lambda model: model.level, build(key), np.asarray(level, np.float32))
