"""What a model was made with, and what parameters that are set later mean for it."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import equinox as eqx
import jax
import numpy as np

from diabolo.keys import key_of
from diabolo.table import Schema

__all__ = ["Making"]

#: Parameters that say how to train, and nothing of what is trained.
_OF_TRAINING = {
    "batch_size",
    "learning_rate",
    "max_steps",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "n_init",
    "warm_start",
    "random_state",
    "verbose",
}

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Making:
    """How a model is made anew.

    ```
    set before a fit ─▶ the next model's
    set since        ─▶ of its objective: taken over when it is trained on
                        of its shape:     the next model's only; a file says the old one
    ```

    Attributes
    ----------
    family : the estimator's class
    params : the parameters that the model was made with, those of its objective as they were taken over last
    """

    family: type[Any]
    params: Params

    def trained_on(self, now: Params) -> Self:
        """After training went on under the parameters of now."""
        before = self.family(**self.params)._objective()

        def of_objective(name: str) -> bool:
            return not eqx.tree_equal(self.family(**self.params | {name: now[name]})._objective(), before)

        taken = {name: now[name] for name in self._changed(now) if of_objective(name)}
        return dataclasses.replace(self, params=self.params | taken)

    def kept(self, now: Params, schema: Schema) -> Params:
        """What shapes the model and is another now, as the model has it."""
        changed = self._changed(now)
        made = self._shape(self.params, schema) if changed else None
        shaping = [name for name in changed if self._shape(self.params | {name: now[name]}, schema) != made]
        return {name: self.params[name] for name in shaping}

    def _changed(self, now: Params) -> list[str]:
        names = [name for name in self.params if name not in _OF_TRAINING]
        return [name for name in names if not _same(self.params[name], now[name])]

    def _shape(self, params: Params, schema: Schema) -> Any:
        """A model's structure, under one objective, and the sizes of its arrays."""
        objective = self.family(**self.params)._objective()
        model = dataclasses.replace(self.family(**params).build(schema, key_of(0)), **objective)
        return jax.tree.structure(model), [np.shape(leaf) for leaf in jax.tree.leaves(model)]


def _same(one: Any, other: Any) -> bool:
    """The same object, or plain values that are equal."""
    plain = isinstance(one, (bool, int, float, str, tuple)) and type(one) is type(other)
    return one is other or (plain and bool(one == other))
