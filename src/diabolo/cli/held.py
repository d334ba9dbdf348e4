"""What a model file holds, said in lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diabolo.cli.inputs import counted, kinds_line

__all__ = ["described"]

MAX_COLUMNS = 60  # lines of columns; images have one per pixel


def described(estimator: Any, path: Path) -> Iterator[tuple[str, str]]:
    """Subject and text of every line: family, columns, density, sizes, training, versions, values held."""
    schema = estimator.schema_
    yield path.name, f"{type(estimator).__name__}, {path.stat().st_size / 1024:,.0f} kB"
    sizes = f"images of {' × '.join(map(str, schema.image_shape))} pixels: " if schema.image_shape else ""
    yield "columns", f"{len(schema.columns):,}: {sizes}{kinds_line(schema)}"
    if schema.image_shape is None:
        for name, facts in schema.describe()[:MAX_COLUMNS]:
            yield f"  {name}", facts
        if len(schema.columns) > MAX_COLUMNS:
            yield "", f"and {len(schema.columns) - MAX_COLUMNS:,} more"
    yield "density", f"{estimator.density_kind_}, nats in the columns' own units"
    n_weights, n_arrays = _sizes(estimator.model_)
    widths = ", ".join(f"{name} {width}" for name, width in estimator.model_.code_widths)
    yield "code", widths
    yield "weights", f"{n_weights:,} numbers in {counted(n_arrays, 'array')}"
    best = estimator.best_validation_score_
    judged = "" if best is None else f", best held-out score {best:.4g} nats per row of the scaled cells"
    yield "training", f"{estimator.n_steps_:,} steps{judged}"
    changed = {k: v for k, v in estimator.get_params(deep=False).items() if v != _default(estimator, k)}
    yield "parameters", ", ".join(f"{k}={v!r}" for k, v in changed.items()) or "all as by default"
    yield "written with", ", ".join(f"{name} {number}" for name, number in _versions(path).items())
    yield "holds of the rows", _held(schema, estimator.model_)


def _sizes(model: Any) -> tuple[int, int]:
    """Numbers and arrays of a model's weights."""
    import equinox as eqx
    import jax

    leaves = [leaf for leaf in jax.tree.leaves(model) if eqx.is_array_like(leaf) and hasattr(leaf, "size")]
    return sum(int(leaf.size) for leaf in leaves), len(leaves)


def _default(estimator: Any, name: str) -> Any:
    import inspect

    return inspect.signature(type(estimator)).parameters[name].default


def _versions(path: Path) -> dict[str, str]:
    """Packages and their versions when the file was written."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {})["diabolo"])["versions"]


def _held(schema: Any, model: Any) -> str:
    """Which values of single rows, or shared by some, stand in the file."""
    from diabolo.priors import PseudoInputs

    prior = getattr(model, "code_prior", None)
    begun = len(prior.inputs) if isinstance(prior, PseudoInputs) else 0
    levels = [c for c in schema.columns if getattr(c.kind, "levels", None) and c.role == "text"]
    said = [f"{begun:,} pseudo-inputs, which began at training rows" if begun else "no row"]
    if model.sized_by_rows:
        said = ["every training row: each is a kernel"]
    if levels:
        names = [f"{column.name} ({len(column.kind.levels):,})" for column in levels]
        more = f" and {len(names) - 8} more columns" if len(names) > 8 else ""
        said.append(f"the levels of {', '.join(names[:8])}{more}")
    atoms = [str(c.name) for c in schema.columns if getattr(c.kind, "atoms", None)]
    if atoms:
        said.append(f"values that many rows share of {', '.join(atoms[:8])}")
    constants = [str(c.name) for c in schema.columns if c.kind.name == "constant"]
    if constants:
        said.append(f"the one value of {', '.join(constants[:8])}")
    lows = [str(c.name) for c in schema.columns if getattr(c.kind, "low", None) is not None]
    if lows:
        said.append(f"the smallest value of {', '.join(lows[:8])}")
    numbers = any(c.kind.name in {"real", "positive", "count", "pixels"} for c in schema.columns)
    return "; ".join(said + ["means and spreads of numbers"] * numbers)
