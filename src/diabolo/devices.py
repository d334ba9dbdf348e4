"""Where arrays live, on one device or on all of them in one mesh; how programs are compiled and run side by side."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice, starmap
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = ["ahead", "compiled", "compiler_options", "everywhere", "in_float32", "make_room", "shared_out"]

Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")

_AHEAD = (
    8  # programs on their way while the oldest answer is taken: they and their work are all that memory holds
)
_ROWS = "rows"
_IN_TURN = threading.RLock()

#: What a CPU's YNNPACK may do, in jaxlib's names: nothing, or products. jaxlib 0.10.2 gives it reductions too, which
#: read transposed and broadcast operands as plain ones: half of the cells of 64 rows, 128 draws and 8 columns of levels
#: had another cell's nats. Its products are right; XLA's own are faster where they are small or few.
_YNNPACK = ("",)
_YNNPACK_OF_PRODUCTS = ("LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "")


def compiler_options(backend: str, *, mostly_products: bool = False, **more: Any) -> dict[str, Any] | None:
    """What every program of ours is compiled with; `more` are a CPU's, too, unless XLA_FLAGS says them itself.

    mostly_products : is the program little else than products of wide matrices?
    """
    if backend != "cpu":
        return None
    said = os.environ.get("XLA_FLAGS", "")
    more = {name: value for name, value in more.items() if f"--{name}=" not in said}
    return {**_known_option(_YNNPACK_OF_PRODUCTS if mostly_products else _YNNPACK), **more}


@functools.cache
def _known_option(values: tuple[str, ...]) -> dict[str, str]:
    """The first value that this jaxlib knows, or none of them: the option's name says that it is an experiment."""
    for value in values:
        option = {"xla_cpu_experimental_ynn_fusion_type": value}
        try:
            jax.jit(lambda x: x, compiler_options=option).lower(np.float32(0.0)).compile()
        except jax.errors.JaxRuntimeError:
            continue
        return option
    return {}


def compiled(function: Function) -> Function:
    """`eqx.filter_jit` with our options, which only the first call can know; within another program, part of it.

    Threads may call it side by side; where devices share a program they run it in turn, as its parts wait for each
    other.
    """

    @functools.cache
    def on(backend: str) -> Callable[..., Any]:
        return eqx.filter_jit(function, compiler_options=compiler_options(backend))  # type: ignore[call-overload]

    @functools.wraps(function)
    def call(*operands: Any, **options: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((operands, options))):
            return function(*operands, **options)
        program = on(jax.default_backend())
        if _mesh() is None:
            return program(*operands, **options)
        with _IN_TURN:
            return program(*operands, **options)

    return in_float32(call)  # type: ignore[return-value]


def in_float32(function: Function) -> Function:
    """`function` in single precision, also where the user's own programs have JAX_ENABLE_X64."""

    @functools.wraps(function)
    def call(*operands: Any, **options: Any) -> Any:
        with jax.enable_x64(False):
            return function(*operands, **options)

    return call  # type: ignore[return-value]


def ahead(function: Callable[..., T], operands: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """`function(*each)` of the operands in their order, later ones under way while the oldest is taken.

    The first one is alone, as it may compile. The others have a thread for each core, up to eight: cores share small
    steps better by programs than within each step; an accelerator has two, so that it need not wait for the host. Under
    settings of the calling thread alone, as `with jax.default_device(...)`, one follows the other.
    """
    rest, waiting = iter(operands), deque[Future[T]]()
    yield from starmap(function, islice(rest, 1))
    pool = ThreadPoolExecutor(_n_programs())
    try:
        if pool.submit(_settings).result() != _settings():
            yield from starmap(function, rest)
        for each in rest:
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
            waiting.append(pool.submit(copy_context().run, function, *each))
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _n_programs() -> int:
    """How many to run side by side: one for each core that this process may use; two on an accelerator."""
    if jax.default_backend() != "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _AHEAD)


def _settings() -> list[str]:
    """What JAX is told in this thread: a setting by `with` is that of one thread."""
    return [repr(getattr(jax.config, name, None)) for name in jax.config.values]


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


def make_room(share: float = 0.7, process: Path = Path("/proc/self/maps")) -> bool:
    """Forget all compiled programs once they hold most of the memory maps that a process may have; whether it did so.

    Each program of XLA's CPU compiler takes hundreds, Linux grants 65,530, and the process is aborted beyond: a search
    over some 140 differently shaped nets would end there. What is needed again is compiled again.
    """
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        with process.open("rb") as maps:
            n_maps = sum(1 for _ in maps)
    except (OSError, ValueError):  # no Linux, or not to be read: nothing is known of a limit
        return False
    full = n_maps > share * most
    if full:
        jax.clear_caches()
    return full


def _cut(leaf: Any, axis: int, mesh: Mesh) -> Any:
    axis %= np.ndim(leaf)
    divides = np.shape(leaf)[axis] % mesh.size == 0
    spec = PartitionSpec(*[None] * axis, _ROWS) if divides else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))


def _mesh() -> Mesh | None:
    """All devices of this process in one line; None where there is but one."""
    local = jax.local_devices()
    return Mesh(np.array(local), (_ROWS,)) if len(local) > 1 else None
