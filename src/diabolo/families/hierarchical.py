"""The hierarchical variational autoencoder, a ladder of codes (Sønderby et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.utils.validation import check_is_fitted

from diabolo import passes
from diabolo.batches import Batch, Batches
from diabolo.checks import Range, refuse
from diabolo.codes import DiagonalGaussian, ExploredStrata, Placed
from diabolo.joint import JointLikelihood
from diabolo.keys import children, host_generator
from diabolo.model import CodeModel, Decoder, Encoder, Loss, State
from diabolo.nets import ACTIVATIONS, MLP
from diabolo.objectives import evidence_bound, importance_bound, weighted_mean
from diabolo.table import Schema
from diabolo.variational import SHARES, WIDTHS, Usage, Weights, gaussian, rows_in_use
from diabolo.variational_estimator import VariationalEstimator
from diabolo.wiring import Parts, layer_sizes, width_of

__all__ = ["HierarchicalVAE"]

_BETWEEN = (64,)  # where level_layer_sizes is "auto"
_N_FEATURES = 64  # that go up from one level to the next

Choose = Callable[[int, DiagonalGaussian], Array]  # a level's place and posterior to its code


class Level(NamedTuple):
    """One level of some rows: p(z_i | z_i+1), q(z_i | z_i+1, x), and a code."""

    prior: DiagonalGaussian
    posterior: DiagonalGaussian
    code: Array


class LadderModel(CodeModel):
    """Levels of codes, each the prior of the one beneath; what x says of a level is multiplied into its prior.

    ```
    x ─▶ encoder ─▶ said of z₁ ──▶ upward ─▶ said of z₂           up: what x says, level by level
                        ▼                        ▼
                    q(z₁ | z₂, x) ◀── p(z₁ | z₂) ◀── q(z₂ | x) ◀── p(z₂)     down: prior times what was said
                        └──────────┬─────────────┘
                                decoder ─▶ parameters ─▶ log p(x | z₁, z₂)
    ```

    The decoder reads all levels, so that every component of the code changes the row.
    """

    density_kind: ClassVar[str] = "bound"
    keeps_best: ClassVar[bool] = True

    likelihood: JointLikelihood
    encoder: Encoder
    decoder: Decoder
    upward: tuple[MLP, ...]
    downward: tuple[MLP, ...]
    weights: Weights
    usage: Usage
    code_widths: tuple[tuple[str, int], ...] = eqx.field(static=True)
    n_draws: int = eqx.field(static=True)

    def fixed(self) -> tuple[Any, ...]:
        return (*super().fixed(), self.weights, self.usage)

    # ---- both ways -----------------------------------------------------------------------------------------

    def evidence(self, batch: Batch) -> tuple[DiagonalGaussian, ...]:
        """What each row says of each level by itself, the lowest first."""
        said, found = self.encoder(self.encoder.embed(batch)), []
        for i, (_, width) in enumerate(self.code_widths):
            found.append(gaussian(said[:, : 2 * width]))
            if i < len(self.upward):
                features = ACTIVATIONS[self.upward[i].activation](said[:, 2 * width :])
                said = jax.vmap(self.upward[i])(features)
        return tuple(found)

    def prior_of(self, level: int, above: Array | None, n_rows: int) -> DiagonalGaussian:
        """p(z_i | z_i+1); of the highest level N(0, 1)."""
        if above is None:
            nothing = jnp.zeros((n_rows, self.code_widths[level][1]))
            return DiagonalGaussian(nothing, nothing)
        return gaussian(jax.vmap(self.downward[level])(above))

    def descend(self, evidence: tuple[DiagonalGaussian, ...], choose: Choose) -> list[Level]:
        """From the highest level down, a code chosen at each; the levels, the lowest first."""
        found: list[Level] = []
        for i in reversed(range(len(evidence))):
            above = found[-1].code if found else None
            prior = self.prior_of(i, above, len(evidence[i].mean))
            posterior = prior.times(evidence[i])
            found.append(Level(prior, posterior, choose(i, posterior)))
        return found[::-1]

    def drawn(self, evidence: tuple[DiagonalGaussian, ...], key: Array) -> list[Level]:
        """A code of every level from its posterior."""
        return self.descend(evidence, lambda i, posterior: posterior.draw_one(jax.random.fold_in(key, i)))

    def named(self, levels: list[Level]) -> dict[str, Array]:
        """The levels' codes as named groups."""
        return {name: level.code for (name, _), level in zip(self.code_widths, levels, strict=True)}

    # ---- training ------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, key: Array, state: State) -> Loss:
        """Negative evidence bound, or importance-weighted bound of several draws."""
        weight = self.weights.at(state)
        if self.n_draws > 1:
            bound = self._weighted_bound(batch, key, weight)
            return Loss(-weighted_mean(bound, batch.weight), {"bound": jnp.mean(bound)}, state)
        log_likelihood, divergence = self._parts(batch, key)
        charge = weight * self.weights.charged(divergence, self.n_components)
        loss = charge - weighted_mean(log_likelihood, batch.weight)
        total = jnp.mean(jnp.sum(divergence, axis=1))
        return Loss(loss, {"log_likelihood": jnp.mean(log_likelihood), "divergence": total}, state)

    def held_out(self, batch: Batch, key: Array) -> Array:
        """The same bound at the divergence's final weight."""
        if self.n_draws > 1:
            return self._weighted_bound(batch, key, self.weights.beta)
        log_likelihood, divergence = self._parts(batch, key)
        return evidence_bound(log_likelihood, self.weights.beta * jnp.sum(divergence, axis=1))

    def _parts(self, batch: Batch, key: Array) -> tuple[Array, Array]:
        """log p(x | z) at one draw, (n_rows,), and the divergence of each component, (n_rows, n_components)."""
        levels = self.drawn(self.evidence(batch), key)
        divergence = [level.posterior.divergence_to(level.prior) for level in levels]
        return self.log_likelihood(batch, self.named(levels)), jnp.concatenate(divergence, axis=1)

    def _weighted_bound(self, batch: Batch, key: Array, weight: Array) -> Array:
        evidence = self.evidence(batch)

        def of_draw(key: Array) -> Array:
            levels = self.drawn(evidence, key)
            ratio = sum(one.prior.log_prob(one.code) - one.posterior.log_prob(one.code) for one in levels)
            return self.log_likelihood(batch, self.named(levels)) + weight * ratio

        return importance_bound(jax.vmap(of_draw, out_axes=1)(jax.random.split(key, self.n_draws)))

    # ---- the contract's readings ---------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, Array]:
        """Posterior means, each given the means above it."""
        return self.named(self.descend(self.evidence(batch), lambda _, posterior: posterior.mean))

    def log_prior(self, codes: dict[str, Array]) -> Array:
        total, above = jnp.zeros(()), None
        for i, (name, _) in reversed(list(enumerate(self.code_widths))):
            total = total + self.prior_of(i, above, len(codes[name])).log_prob(codes[name])
            above = codes[name]
        return total

    def draw_prior(self, key: Array, n: int) -> dict[str, Array]:
        return self.descended({}, n, lambda i, prior: prior.draw_one(jax.random.fold_in(key, i)))

    def descended(self, upper: dict[str, Array], n: int, choose: Choose) -> dict[str, Array]:
        """All levels: the upper ones as they are, those beneath chosen from their priors."""
        codes: dict[str, Array] = {}
        above = None
        for i, (name, _) in reversed(list(enumerate(self.code_widths))):
            above = upper[name] if name in upper else choose(i, self.prior_of(i, above, n))
            codes[name] = above
        return codes

    def proposal(self, batch: Batch) -> ExploredStrata:
        """All posteriors, wider; some draws much wider or from the prior."""
        return ExploredStrata(self, self.evidence(batch), WIDTHS, SHARES)

    def explore(self, evidence: tuple[DiagonalGaussian, ...], key: Array, widths: Array) -> Array:
        def choose(i: int, posterior: DiagonalGaussian) -> Array:
            noise = jax.random.normal(jax.random.fold_in(key, i), posterior.mean.shape)
            return posterior.mean + widths * jnp.exp(posterior.log_scale) * noise

        return self.join(self.named(self.descend(_repeated(evidence, len(widths)), choose)))

    def placed(self, evidence: tuple[DiagonalGaussian, ...], codes: Array) -> Placed:
        groups, names = self.split(codes), [name for name, _ in self.code_widths]
        levels = self.descend(_repeated(evidence, len(codes)), lambda i, _: groups[names[i]])
        code, mean, log_scale = (
            jnp.concatenate(part, axis=1)
            for part in zip(*((x.code, x.posterior.mean, x.posterior.log_scale) for x in levels), strict=True)
        )
        distance, nothing = jnp.sum(((code - mean) * jnp.exp(-log_scale)) ** 2, axis=1), jnp.zeros(())
        log_prior = sum((x.prior.log_prob(x.code) for x in levels), jnp.zeros(()))
        return Placed(distance, jnp.sum(log_scale, axis=1), codes.shape[1], nothing, log_prior, nothing)

    def finish(self, batches: Batches, key: Array) -> Self:
        """See how rows use the code."""
        rows, n = rows_in_use(batches, host_generator(key))
        said = (np.asarray(part, np.float64)[:n] for part in _in_use(self, rows, key))
        mean, divergence, log_q, log_prior = said
        usage = Usage.of(mean, divergence, log_q[:, :n], log_prior)
        return eqx.tree_at(lambda model: model.usage, self, usage)


@eqx.filter_jit
def _in_use(model: LadderModel, batch: Batch, key: Array) -> tuple[Array, ...]:
    """Means and divergences, (n_rows, n_components); log q of code i given row j, (n_rows, n_rows), and its log p."""
    evidence = model.evidence(batch)
    levels = model.drawn(evidence, key)
    mean = model.join(model.encode(batch))
    divergence = jnp.concatenate([one.posterior.divergence_to(one.prior) for one in levels], axis=1)

    def by_row(said: tuple[DiagonalGaussian, ...]) -> Array:
        each = [
            level.prior.times(of_row).log_prob(level.code) for level, of_row in zip(levels, said, strict=True)
        ]
        return jnp.sum(jnp.stack(each), axis=0)

    log_q = jax.vmap(by_row, out_axes=1)(evidence)
    return mean, divergence, log_q, model.log_prior(model.named(levels))


def _repeated(evidence: tuple[DiagonalGaussian, ...], n: int) -> tuple[DiagonalGaussian, ...]:
    """One row's, n times."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), evidence)


class HierarchicalVAE(VariationalEstimator):
    """Variational autoencoder with levels of codes: the higher say what the lower have in common.

    ```
    x ─▶ encoder ─▶ said of z₁ ─▶ said of z₂          q(z₂ | x) ∝ p(z₂) · said of z₂,     p(z₂) = N(0, I)
                        z₁, z₂ ─▶ decoder ─▶ p(x | z₁, z₂)      q(z₁ | z₂, x) ∝ p(z₁ | z₂) · said of z₁
    ```

    Parameters
    ----------
    n_components : width of the lowest level, each higher one half as wide; "auto" is half the encoded width, between 2
        and 16. Several numbers are the widths of all levels, the lowest first
    n_levels : levels, where `n_components` does not list them
    hidden_layer_sizes : widths of the encoder's hidden layers, the decoder's in reverse; "auto" suits the data
    level_layer_sizes : widths of the hidden layers between two levels, up and down; "auto" is one of 64
    activation : "relu", "gelu", "silu", "tanh", "softplus", "sigmoid" or "identity"
    kinds : column kinds by name, `{"age": "count"}`, or one for all, `"real"`; what is not named is inferred
    given : names of columns that are conditions: every density is then log p(rest | given)
    image_shape : (height, width[, channels]) of rows that are flattened images
    network : factory `(n_inputs, n_outputs, key) -> eqx.Module` used for encoder and decoder
    dispersion : "column" learns one scale per real column; "row" lets the decoder say it for each row
    n_draws : codes per row in the training bound; above 1 it is importance-weighted (Burda et al. 2016)
    beta : weight of the divergence, where n_draws is 1
    free_bits : nats per component that the divergence may have at no cost, where n_draws is 1
    warm_up : share of the steps over which the divergence's weight grows from 0; without it the upper levels are
        seldom used (Sønderby et al. 2016, section 3)
    batch_size, learning_rate, max_steps : of training; "auto" suits the data
    early_stopping : stop when the held-out bound has not risen for `n_iter_no_change` rounds of 100 steps
    validation_fraction : share of the rows held out for that
    n_init : independent starts; the best held-out bound wins
    warm_start : go on from the last fit
    random_state : seed of weights, batches and noise
    verbose : show progress

    Attributes
    ----------
    model_, schema_ : the trained network, the columns
    level_widths_ : components of each level, the lowest first; `transform` gives them side by side
    n_features_in_, feature_names_in_ : of the training data
    n_iter_, n_steps_ : rounds and steps trained
    loss_curve_, validation_scores_, best_validation_score_ : per round, nats per row of the encoded cells
    density_kind_ : "bound": `score_samples` lies below log p(x) in expectation
    divergence_ : (n_components,) mean KL of each component's posterior to its prior given the level above, nats
    active_components_ : (n_components,) bool, whether its mean varies from row to row by more than 0.01
    prior_gap_ : low and high, nats, between which the KL of the aggregate posterior to the prior lies

    References
    ----------
    Sønderby, Raiko, Maaløe, Sønderby & Winther 2016, Ladder variational autoencoders, arXiv:1602.02282. Departures: the
    highest level has a prior to be multiplied with as well, and the decoder reads all levels, not the lowest alone, as
    the skip connections of Maaløe et al. 2019, arXiv:1902.02102, do. Density: Burda, Grosse & Salakhutdinov 2016,
    eq. 8, arXiv:1509.00519.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from diabolo import HierarchicalVAE
    >>> X = load_iris().data
    >>> ladder = HierarchicalVAE(n_components=2, max_steps=200, random_state=0).fit(X)
    >>> ladder.level_widths_, [level.shape for level in ladder.transform_levels(X)]
    ((2, 1), [(150, 2), (150, 1)])
    """

    _constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: rules
            for name, rules in VariationalEstimator._constraints.items()
            if name not in ("prior", "n_prior", "posterior")
        },
        "n_components": [VariationalEstimator._auto, Range(1, whole=True), tuple, list, np.ndarray],
        "n_levels": [Range(1, whole=True)],
        "level_layer_sizes": VariationalEstimator._constraints["hidden_layer_sizes"],
        "n_draws": [Range(1, whole=True)],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        n_levels=2,
        hidden_layer_sizes="auto",
        level_layer_sizes="auto",
        activation="silu",
        kinds=None,
        given=(),
        image_shape=None,
        network=None,
        dispersion="column",
        n_draws=1,
        beta=1.0,
        free_bits=0.0,
        warm_up=0.2,
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
        self.n_levels = n_levels
        self.hidden_layer_sizes = hidden_layer_sizes
        self.level_layer_sizes = level_layer_sizes
        self.activation = activation
        self.kinds = kinds
        self.given = given
        self.image_shape = image_shape
        self.network = network
        self.dispersion = dispersion
        self.n_draws = n_draws
        self.beta = beta
        self.free_bits = free_bits
        self.warm_up = warm_up
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

    def build(self, schema: Schema, key: Array) -> LadderModel:
        """The untrained network for a table."""
        widths = self._widths(schema)
        between = layer_sizes(self.level_layer_sizes, _BETWEEN, "level_layer_sizes")
        key_parts, *keys = children(key, 2 * len(widths) - 1)
        said = [2 * width + _N_FEATURES for width in widths[:-1]] + [2 * widths[-1]]
        names = tuple((f"level_{i + 1}", width) for i, width in enumerate(widths))
        parts = Parts.of(self, schema, key_parts, lambda _: said[0], names)
        upward = [
            MLP(_N_FEATURES, said[i + 1], between, self.activation, keys[2 * i])
            for i in range(len(widths) - 1)
        ]
        downward = [
            MLP(widths[i + 1], 2 * widths[i], between[::-1], self.activation, keys[2 * i + 1])
            for i in range(len(widths) - 1)
        ]
        return LadderModel(
            **parts.fields(),
            upward=tuple(upward),
            downward=tuple(downward),
            weights=Weights.of(self.beta, self.free_bits, self.warm_up),
            usage=Usage.unknown(parts.n_components),
            n_draws=int(self.n_draws),
        )

    def _widths(self, schema: Schema) -> tuple[int, ...]:
        if isinstance(self.n_components, (tuple, list, np.ndarray)):
            if not len(self.n_components):
                raise refuse("parameter 'n_components'", got="no level", want="a width for each level")
            return layer_sizes(self.n_components, (), "n_components", "a level")
        width = width_of(self.n_components, schema.width)
        return tuple(max(-(-width // 2**i), 1) for i in range(int(self.n_levels)))

    @property
    def level_widths_(self) -> tuple[int, ...]:
        """Components of each level, the lowest first."""
        check_is_fitted(self, "model_")
        return tuple(width for _, width in self.model_.code_widths)

    def transform_levels(self, X: Any) -> tuple[np.ndarray, ...]:
        """Codes of rows level by level, the lowest first: (n_rows, width) float64 each."""
        codes = self.transform(X)
        return tuple(np.split(codes, np.cumsum(self.level_widths_)[:-1], axis=1))

    def reconstruct_from(self, X: Any, level: int) -> Any:
        """Rows as the code's levels from `level` up remember them, those beneath put to the mean of their prior.

        Parameters
        ----------
        X : rows
        level : 1 is the lowest, and keeps all that `reconstruct` keeps

        Returns
        -------
        rows in the container of X
        """
        rows = self._encode(X)
        names = [name for name, _ in self.model_.code_widths]
        if level not in Range(1, whole=True) or level > len(names):
            want = f"a whole number from 1 to {len(names)}"
            raise refuse("parameter 'level'", got=repr(level), want=want)
        codes = self.model_.split(jnp.asarray(passes.codes(self.model_, rows), jnp.float32))
        upper = {name: codes[name] for name in names[level - 1 :]}
        kept = self.model_.join(self.model_.descended(upper, len(rows.values), lambda _, prior: prior.mean))
        values = passes.means(self.model_, np.asarray(kept), rows.given)
        return self.schema_.decode(values, like=X, given_values=rows.given)
