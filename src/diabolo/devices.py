"""Where arrays live: on the one device, or on all of them, side by side in one mesh."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = ["everywhere", "shared_out"]

_ROWS = "rows"


def everywhere(tree: Any) -> Any:
    """A whole copy of every array on each device."""
    mesh = _mesh()
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def shared_out(tree: Any, axis: int = 0) -> Any:
    """Every array cut along its axis of rows, a part for each device; whole where it does not divide.

    What follows from rows that are shared out is computed where they are; sums over rows are gathered.
    """
    mesh = _mesh()
    return tree if mesh is None else jax.tree.map(lambda leaf: _cut(leaf, axis, mesh), tree)


def _cut(leaf: Any, axis: int, mesh: Mesh) -> Any:
    axis %= np.ndim(leaf)
    divides = np.shape(leaf)[axis] % mesh.size == 0
    spec = PartitionSpec(*[None] * axis, _ROWS) if divides else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))


def _mesh() -> Mesh | None:
    """All devices of this process in one line; None where there is but one."""
    local = jax.local_devices()
    return Mesh(np.array(local), (_ROWS,)) if len(local) > 1 else None
