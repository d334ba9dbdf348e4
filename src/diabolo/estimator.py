"""The scikit-learn face: it stores parameters, has a model, and asks the floors below."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import numpy as np
from jax import Array
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from diabolo import density, devices, engine, passes, progress, restarts, saving
from diabolo.batches import Batch, Batches, Reservoir
from diabolo.checks import InputError, InputTypeError, OneOf, Range, check_params, nearest, refuse
from diabolo.columns import Kind
from diabolo.density import Reading
from diabolo.impute import conditional_draws
from diabolo.keys import key_of, seed_from
from diabolo.making import Making
from diabolo.model import Model
from diabolo.nets import ACTIVATIONS
from diabolo.table import Rows, Schema, centres, fill, missing

__all__ = ["DiaboloEstimator"]

# At 4e-3 the median unseen row of 12 to 14 of 15 tables is likelier than at 2e-3: docs/benchmarks.md.
_LEARNING_RATE = 4e-3
_N_CENTRE = 256  # draws per row behind a filled gap


class DiaboloEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, abc.ABC):
    """One face, four readings. Abstract; a family supplies `__init__` and `build`."""

    _finishes: ClassVar[bool] = False  # is anything of its model fitted to all rows after training?
    _conditions_on_y: ClassVar[bool] = False  # is y a condition of each row?
    _kind_of_y: str | Kind | None = None  # what y then is; None infers it
    _columns: Schema | None = None  # the next fit's, where several estimators share them: their nats compare
    _making: Making | None = None  # what the model was made with
    _seen: Reservoir | None = None
    _training: engine.Training | None = None

    _auto: ClassVar[OneOf] = OneOf("auto")
    _dispersions: ClassVar[list[Any]] = [OneOf("column", "row")]
    _constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [_auto, Range(1, whole=True)],
        "hidden_layer_sizes": [_auto, Range(1, whole=True), tuple, list, np.ndarray],
        "activation": [OneOf(*ACTIVATIONS)],
        "network": [None, callable],
        "batch_size": [_auto, Range(1, whole=True)],
        "learning_rate": [_auto, Range(0.0, open_low=True)],
        "max_steps": [_auto, Range(1, whole=True)],
        "early_stopping": [bool, np.bool_],
        "validation_fraction": [Range(0.0, 1.0, open_low=True, open_high=True)],
        "n_iter_no_change": [Range(1, whole=True)],
        "n_init": [Range(1, whole=True)],
        "warm_start": [bool, np.bool_],
        "verbose": [bool, np.bool_, Range(0, whole=True)],
    }

    @abc.abstractmethod
    def build(self, schema: Schema, key: Array) -> Model:
        """The untrained network for a table."""

    # ---- learning ------------------------------------------------------------------------------------------

    @devices.in_float32
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the columns and train the network.

        Parameters
        ----------
        X : array (n_rows, n_columns), data frame, or images (n_rows, height, width[, channels]); gaps allowed
        y : ignored, but by members that say what it is

        Returns
        -------
        self
        """
        going_on = self.warm_start and hasattr(self, "model_")
        schema, rows, seed = self._learn_columns(X, y, going_on)
        if going_on and self.random_state is not None:
            seed = seed_from(self.random_state)
        fraction = self.validation_fraction if self.early_stopping else 0.0
        batches = Batches.split(
            Batch.of(rows), self._batch_size(rows), fraction, seed, self._scarce(rows.given)
        )
        schedule = engine.Schedule(
            n_steps=self._n_steps(rows),
            learning_rate=self._rate(),
            patience=self.n_iter_no_change if self.early_stopping else None,
            n_averaged=self._n_averaged(),
        )
        with progress.bar(type(self).__name__, bool(self.verbose)) as on_round:
            if going_on:
                model, key = self._resumed(self.model_, rows), key_of(seed, self.n_steps_, 1)
                before = engine.start(model)  # nothing is warmed up a second time
                run = engine.fit(model, batches, schedule, key, training=before, on_round=on_round)
                run = run._replace(model=self._finished(run.model, batches, seed, 1))
            else:
                run = self._trained(functools.partial(self.build, schema), batches, schedule, seed, on_round)
                self._making = Making(type(self), self.get_params(deep=False))
        self._keep(schema, run.history, run.model, seed)
        self._training, self._seen = None, self._sample(rows)
        self._judge(len(rows.values))
        return self

    def _trained(
        self,
        build: Callable[[Array], Model],
        batches: Batches,
        schedule: engine.Schedule,
        seed: int,
        on_round: engine.OnRound | None,
    ) -> engine.Run:
        """The best of `n_init` starts, with what is fitted after training."""
        begun = lambda key: build(key).begin(batches, key)  # noqa: E731
        run = restarts.best_of(self.n_init, begun, batches, schedule, seed, on_round=on_round)
        return run._replace(model=self._finished(run.model, batches, seed, self.n_init))

    def _finished(self, model: Model, batches: Batches, seed: int, n_starts: int) -> Model:
        """The trained model with what is fitted after training."""
        return model.finish(batches, key_of(seed, n_starts))

    def _resumed(self, model: Model, rows: Rows) -> Model:
        """The trained model under parameters that may be set anew, for rows that may have the first gaps."""
        now = self.get_params(deep=False)
        self._making = (self._making or Making(type(self), now)).trained_on(now)
        for name in self._making.kept(now, self.schema_):
            what = f"{name} was set since the model was made, which keeps its own."
            warnings.warn(f"{what} Fit with warm_start=False for a new one.", UserWarning, stacklevel=3)
        model = dataclasses.replace(model, **self._objective())
        return model if rows.observed.all() else model.with_gaps()

    def _objective(self) -> dict[str, Any]:
        """Fields of the model that say what is trained for, by name; they may be set anew between two calls."""
        return {}

    def params_of_model(self) -> dict[str, Any]:
        """The parameters that make this model anew: those of now, but what shapes it as it was when it was made."""
        now = self.get_params(deep=False)
        return now | self._making.kept(now, self.schema_) if self._making else now

    def _judge(self, n_rows: int) -> None:
        """A family's warnings of a fit to so many rows that went wrong."""

    @devices.in_float32
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train on further rows at a constant rate: one pass over them.

        The columns are learned from the first call's rows. What is fitted after training (a prior on the codes, the
        noise) is fitted to at most 10,000 of all rows seen so far; a model from a file remembers none, and keeps its
        own. Returns self.
        """
        first = not hasattr(self, "model_")
        schema, rows, seed = self._learn_columns(X, y, not first)
        n_before = 0 if first else self.n_steps_
        key_weights, key_steps = key_of(seed, n_before, 0), key_of(seed, n_before, 1)
        batches = Batches.split(Batch.of(rows), self._batch_size(rows), 0.0, seed, self._scarce(rows.given))
        if first:
            self._making = Making(type(self), self.get_params(deep=False))
            model, training = self.build(schema, key_weights).begin(batches, key_weights), None
        else:
            model = self._resumed(self.model_, rows)
            training = engine.resume(model, self._training) if self._training else engine.start(model)
        schedule = engine.Schedule(
            n_steps=-(-len(rows.values) // batches.batch_size),
            learning_rate=self._rate(),
            decay="constant",
            n_warm=1,
            n_averaged=self._n_averaged(),
        )
        model, history, training = engine.fit(model, batches, schedule, key_steps, training=training)
        if not first:
            history.losses = self.loss_curve_ + history.losses
            history.n_steps += n_before
        if first or self._seen is not None:
            self._seen = self._sample(rows, None if first else self._seen)
            if self._seen is not None:
                seen = Batches.split(Batch.of(self._seen.rows), batches.batch_size, 0.0, seed)
                model = model.finish(seen, key_steps)
        else:
            model = model.carry_on(key_steps)
        if not self._finishes:
            model = model.finish(batches, key_steps)
        self._keep(schema, history, model, seed)
        self._training = training
        return self

    def _learn_columns(self, X: Any, y: Any, known: bool) -> tuple[Schema, Rows, int]:
        """The columns, learned anew or known from an earlier call, the encoded rows, and the seed."""
        check_params(self.get_params(deep=False), self._constraints)
        devices.make_room()  # for the programs of one more fit
        _look_at_columns(self, X, reset=not known)
        beside = self._beside(y, known) if self._conditions_on_y and y is not None else None
        if known:
            if beside is not None and not self.schema_.beside:
                want = "none, as in the first fit"
                raise refuse("y", got="conditions", want=want, fix="Fit anew, without warm_start.")
            return self.schema_, self.schema_.encode(X, beside=beside), self._seed
        schema = self.columns_of(X, beside) if self._columns is None else self._columns
        self._columns = None  # of this fit alone: the next one may be to another table
        self._look_over(schema)
        return schema, schema.encode(X, beside=beside), seed_from(self.random_state)

    def columns_of(self, X: Any, beside: Any = None) -> Schema:
        """What the columns of rows hold, as this estimator's parameters would have it."""
        return Schema.learn(
            X,
            kinds=self.kinds,
            given=self.given,
            image_shape=self.image_shape,
            beside=beside,
            kind_beside=self._kind_of_y,
        )

    def _beside(self, y: Any, known: bool = True) -> Any:
        """The conditions that y says, None or nan where it says none; of members with `_conditions_on_y`.

        known : whether an earlier call has learned what they are
        """
        return y

    def _look_over(self, schema: Schema) -> None:
        """A family's warnings and refusals of columns, before training."""

    def _admit(self, given: np.ndarray) -> None:
        """A family's refusal of conditions (n_rows, given_width) that it was not taught to read."""

    def _scarce(self, given: np.ndarray) -> np.ndarray | None:
        """(n_rows,) bool, rows that are too few to be left to chance; see `Batches.split`."""
        return None

    def _sample(self, rows: Rows, before: Reservoir | None = None) -> Reservoir | None:
        """What a later `partial_fit` will fit a prior or a noise to; None for a family that fits none."""
        return Reservoir.of(rows, before) if self._finishes else None

    def _keep(self, schema: Schema, history: engine.History, model: Model, seed: int) -> None:
        self.schema_ = schema
        self.n_features_in_ = (
            schema.n_features
        )  # scikit-learn counts the columns of tables only, not of images
        self.model_ = jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, model)
        self.density_kind_ = model.kind_of_whole_rows()
        self.n_iter_ = len(history.losses)
        self.n_steps_ = history.n_steps
        self.loss_curve_ = history.losses
        self.validation_scores_ = history.held_out
        self.best_validation_score_ = history.best
        self._seed = seed

    def _n_steps(self, rows: Rows) -> int:
        """A budget of steps that grows slowly with the rows: 2,000 at a thousand, 8,000 at a hundred thousand."""
        if self.max_steps != "auto":
            return int(self.max_steps)
        return int(np.clip(2000 * (len(rows.values) / 1000) ** 0.3, 1000, 10_000) // 100 * 100)

    def _rate(self) -> float:
        return _LEARNING_RATE if self.learning_rate == "auto" else float(self.learning_rate)

    def _n_averaged(self) -> int:
        """Steps over which the weights that are kept are averaged."""
        return 1

    def _batch_size(self, rows: Rows) -> int:
        return 128 if self.batch_size == "auto" else int(self.batch_size)

    # ---- manifold ------------------------------------------------------------------------------------------

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Codes of rows, deterministic: (n_rows, n_components) float64.

        Here and in all readings y is the condition of each row where `fit` was given one, (n_rows,), None and nan where
        it is not known; without y it is known of no row. Members that are not fitted on y ignore it.
        """
        return passes.codes(self.model_, self._encode(X, y))

    def inverse_transform(self, Z: Any, given: Any = None) -> Any:
        """Codes back to data space, each column's typical value there.

        The mean of real columns (or an atom that holds more than half), the median of positive columns and counts, the
        centre of pixels, the likeliest level of categories.

        Parameters
        ----------
        Z : (n_rows, n_components)
        given : the conditions of each row, where the model has any

        Returns
        -------
        rows in the container of the training data, with its dtypes
        """
        check_is_fitted(self)
        try:
            codes = np.asarray(Z, np.float32)
        except (TypeError, ValueError):
            raise refuse("codes", got="what is no array of numbers", want="numbers") from None
        if codes.ndim != 2 or codes.shape[1] != self._n_features_out or not len(codes):
            want = f"(n_rows, {self._n_features_out})"
            raise refuse("codes", got=f"an array of shape {codes.shape}", want=want)
        if not np.isfinite(codes).all():
            raise refuse("codes", got="numbers that are not finite", want="finite ones")
        conditions = self._conditions(given, len(codes))
        values = passes.means(self.model_, codes, conditions)
        return self.schema_.decode(values, like=Z, given_values=conditions)

    def reconstruct(self, X: Any, y: Any = None) -> Any:
        """Rows through encoder and decoder: what the code keeps of them, in the container of X.

        y as for `transform`.
        """
        rows = self._encode(X, y)
        values = passes.means(self.model_, passes.codes(self.model_, rows), rows.given)
        return self.schema_.decode(values, like=X, given_values=rows.given)

    # ---- generation ----------------------------------------------------------------------------------------

    def sample(self, n_samples: int = 1, *, given: Any = None, random_state: Any = None) -> Any:
        """Draw rows like the training rows: draws, not means.

        Parameters
        ----------
        n_samples : how many
        given : the conditions, where the model has any: one for all or n_samples rows, as a table or by name,
            `{"sex": "MALE"}`
        random_state : seed; None draws anew at every call

        Returns
        -------
        rows in the container of the training data
        """
        check_is_fitted(self)
        if n_samples not in Range(1, whole=True):
            raise refuse("parameter 'n_samples'", got=repr(n_samples), want="a whole number at least 1")
        conditions = self._conditions(given, n_samples)
        values = passes.draws(self.model_, conditions, seed_from(random_state))
        return self.schema_.decode(values, snap=True, given_values=conditions)

    # ---- density -------------------------------------------------------------------------------------------

    def score_samples(self, X: Any, y: Any = None) -> np.ndarray:
        """Log-density of each row's observed cells: (n_rows,) nats, in the user's units; see `density_kind_`.

        y as for `transform`; where it is known, the density is that given y.
        """
        return self.log_density(X, y=y).values

    def log_density(self, X: Any, n_draws: int = density.N_DRAWS, y: Any = None) -> Reading:
        """Log-density with what is claimed of it: kind, standard error, effective sample size.

        Parameters
        ----------
        X : rows
        n_draws : codes drawn per row; the bound tightens and the error falls with more
        y : as for `transform`

        Returns
        -------
        Reading : (n_rows,) nats
        """
        if n_draws not in Range(1, whole=True):
            raise refuse("parameter 'n_draws'", got=repr(n_draws), want="a whole number at least 1")
        rows = self._encode(X, y)
        return density.reading_of(self.model_, rows, n_draws, self._seed)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`: nats per row, larger is better; y as for `transform`."""
        return float(np.mean(self.score_samples(X, y)))

    # ---- gaps ----------------------------------------------------------------------------------------------

    def impute(self, X: Any, n_draws: int | None = None, y: Any = None, *, random_state: Any = None) -> Any:
        """Fill the gaps of X; observed cells are untouched.

        Parameters
        ----------
        X : rows with gaps
        n_draws : None fills with the middle of p(missing | observed): the mean of real columns, the median of
            positive ones and counts, the likeliest level of the others. A number fills with that many draws from it
        y : as for `transform`
        random_state : seed of the draws; None draws anew at every call. Without `n_draws` nothing is random

        Returns
        -------
        X in its own container; with `n_draws` a list of so many
        """
        if n_draws is not None and n_draws not in Range(1, whole=True):
            raise refuse("parameter 'n_draws'", got=repr(n_draws), want="None or a whole number at least 1")
        rows, holes = self._encode(X, y), missing(self.schema_, X)
        some = np.flatnonzero(holes.any(axis=1))
        gappy = Rows(*(part[some] for part in (rows.values, rows.observed, rows.given, rows.offset)))
        seed = self._seed if n_draws is None else seed_from(random_state)
        draws = conditional_draws(self.model_, gappy, n_draws or _N_CENTRE, seed)
        if n_draws is None:
            return fill(self.schema_, X, holes, centres(self.schema_, draws))
        blocks = np.concatenate([np.zeros((0, n_draws, self.schema_.width)), *draws])
        drawn = (self.schema_.layout.decode(blocks[:, i], None, snap=True) for i in range(n_draws))
        return [fill(self.schema_, X, holes, arrays) for arrays in drawn]

    # ---- keeping -------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file; `diabolo.load` reads it."""
        saving.save(self, path)

    # ---- scikit-learn --------------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return self.model_.n_components

    def set_params(self, **params: Any) -> Self:
        """As scikit-learn's; an unknown name is refused with the nearest known one."""
        known = self.get_params(deep=True)
        for name in params:
            if name not in known:
                raise refuse(
                    f"parameter {name!r} of {type(self).__name__}",
                    got="an unknown name (Invalid parameter)",
                    want="one of its parameters",
                    fix=nearest(name, known),
                )
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _encode(self, X: Any, y: Any = None) -> Rows:
        check_is_fitted(self)
        _look_at_columns(self, X, reset=False)
        beside = self._beside(y) if self.schema_.beside and y is not None else None
        rows = self.schema_.encode(X, beside=beside)
        self._admit(rows.given)
        return rows

    def _conditions(self, given: Any, n_rows: int) -> np.ndarray:
        width = self.schema_.given_width
        if not width:
            if given is not None:
                raise refuse(
                    "given", got="conditions", want="none", fix="Fit with given= to condition on columns."
                )
            return np.zeros((n_rows, 0), np.float32)
        if given is None:
            return self._unconditioned(n_rows)
        conditions = self.schema_.encode_given(given)
        self._admit(conditions)
        if len(conditions) == 1:
            conditions = np.repeat(conditions, n_rows, axis=0)
        if len(conditions) != n_rows:
            raise refuse("given", got=f"{len(conditions)} rows", want=f"1 or {n_rows} rows")
        return conditions

    def _unconditioned(self, n_rows: int) -> np.ndarray:
        """Conditions (n_rows, given_width) where none is said; refused by members that were not taught such rows."""
        raise refuse("given", got="nothing", want="a value for each column the model was conditioned on")


def _look_at_columns(estimator: Any, X: Any, *, reset: bool) -> None:
    """scikit-learn's bookkeeping of the number and names of columns, in our words where it refuses."""
    if not hasattr(X, "shape") or len(X.shape) != 2:
        if reset:  # images and lists have no names
            vars(estimator).pop("feature_names_in_", None)
        return
    try:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
    except TypeError as error:  # names of several types
        raise InputTypeError(str(error)) from None
