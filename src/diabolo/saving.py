"""A fitted estimator in one safetensors file: arrays, and a JSON header that says what they belong to."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pkgutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from diabolo.checks import InputTypeError, refuse
from diabolo.columns import Kind
from diabolo.keys import key_of
from diabolo.making import Making
from diabolo.nets import NetworkFactory
from diabolo.table import Schema

__all__ = ["load", "save"]

_FORMAT = "diabolo-2"
_FITTED = ("n_iter_", "n_steps_", "loss_curve_", "validation_scores_", "best_validation_score_", "_seed")


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; beside the target first, then renamed, so that nothing is half-written.

    The file holds the parameters, the columns (their levels and moments, not the rows), the weights and versions; of
    models whose kernels are training rows, these rows. A `network` factory is code and is not kept:
    `load(path, network=factory)` wants it again. Parameters set since the last fit that would shape another model are
    kept as they were when this one was made.
    """
    _must_be_path(path)
    check_is_fitted(estimator)
    given = estimator.params_of_model()
    params = {name: _plain(value) for name, value in given.items() if name != "network"}
    params["random_state"] = params["random_state"] if isinstance(params["random_state"], int) else None
    params["kinds"] = _kinds(params["kinds"], given["kinds"])
    header = {
        "format": _FORMAT,
        "family": type(estimator).__name__,
        "params": params,
        "needs_network": given.get("network") is not None,
        "schema": estimator.schema_.to_json(),
        "fitted": {name: _plain(getattr(estimator, name)) for name in _FITTED},
        "features": [int(estimator.n_features_in_), _plain(getattr(estimator, "feature_names_in_", None))],
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "equinox", "numpy")},
    }
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _named_arrays(estimator.model_)}
    content = to_bytes(arrays, {"diabolo": json.dumps(header, allow_nan=True)})
    target = Path(path)
    if not target.parent.is_dir():
        raise refuse(str(path), got="a folder that does not exist", want="a path in an existing folder")
    if target.is_dir():
        raise refuse(str(path), got="a folder", want="the path of a file")
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def load(path: str | os.PathLike[str], *, network: NetworkFactory | None = None) -> Any:
    """Read a fitted estimator that `save` wrote; no code is run from the file.

    Parameters
    ----------
    path : the file
    network : the factory that the estimator was made with, if it was made with one

    Returns
    -------
    the estimator, as fitted
    """
    _must_be_path(path)
    what = str(path)
    if Path(path).is_dir():
        raise refuse(what, got="a folder", want="a model file")
    if not Path(path).is_file():
        from diabolo.files import nearest_file  # pyarrow comes with it, and only this sentence needs it

        raise refuse(what, got="no such file", want="a model file", fix=nearest_file(Path(path)))
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("diabolo", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise refuse(
            what,
            got=f"a damaged or foreign file ({str(error).splitlines()[0]})",
            want="a model written by diabolo",
            fix="Fit and save it again.",
        ) from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        got = "another program's safetensors file" if header is None else f"format {header.get('format')!r}"
        raise refuse(what, got=got, want=f"a model of format {_FORMAT!r}", fix="Fit and save it again.")
    if header["needs_network"] and network is None:
        raise refuse(
            what,
            got="a model made with network=",
            want="that factory",
            fix="Call load(path, network=factory).",
        )
    family = dict(_families()).get(header["family"])
    if family is None:
        raise refuse(what, got=f"family {header['family']!r}", want="a known one", fix="Update diabolo.")
    return _rebuilt(family, header, arrays, network, what)


def _rebuilt(
    family: type[Any],
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    network: NetworkFactory | None,
    what: str,
) -> Any:
    if network is not None and "network" not in family().get_params():
        want = f"none: {header['family']} takes no network"
        raise refuse(what, got="a network factory", want=want, fix="Call load(path).")
    code = {} if network is None else {"network": network}
    estimator = family(**_as_given({**header["params"], **code}))
    schema = Schema.from_json(header["schema"])
    model = estimator.build(schema, key_of(0))
    wanted = {name: leaf.shape for name, leaf in _named_arrays(model)}
    found = {name: array.shape for name, array in arrays.items()}
    for name in [*wanted, *found]:
        if not _fits(wanted.get(name), found.get(name), model.sized_by_rows):
            got = f"{name} of shape {found[name]}" if name in found else f"no array {name!r}"
            want = f"shape {wanted[name]}" if name in wanted else "no such array"
            fix = "Pass the factory that it was fitted with." if network is not None else ""
            raise refuse(what, got=got, want=want, fix=fix)
    leaves, structure = jax.tree.flatten(model)
    names = iter(name for name, _ in _named_arrays(model))
    filled = [arrays[next(names)] if _is_array(leaf) else leaf for leaf in leaves]
    estimator.schema_, estimator.model_ = schema, jax.tree.unflatten(structure, filled)
    estimator.density_kind_ = model.kind_of_whole_rows()
    for name, value in header["fitted"].items():
        setattr(estimator, name, value)
    estimator.n_features_in_, feature_names = header["features"]
    estimator._making = Making(family, estimator.get_params(deep=False))
    if feature_names is not None:
        estimator.feature_names_in_ = np.asarray(feature_names, object)
    return estimator


def _families() -> Iterator[tuple[str, type[Any]]]:
    """Every estimator class of the floor above, found by looking, so that no room imports upwards."""
    package = importlib.import_module("diabolo.families")
    for found in pkgutil.iter_modules(package.__path__, "diabolo.families."):
        module = importlib.import_module(found.name)
        for name in module.__all__:
            yield name, getattr(module, name)


def _fits(wanted: tuple[int, ...] | None, found: tuple[int, ...] | None, sized_by_rows: bool) -> bool:
    """Is an array of the file what the model has in this place?"""
    if sized_by_rows and wanted is not None and found is not None:
        return len(wanted) == len(found)
    return wanted == found


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, (np.ndarray, np.generic))


def _named_arrays(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if _is_array(leaf):
            yield jax.tree_util.keystr(path), np.asarray(leaf)


def _must_be_path(path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise refuse("path", got=repr(path), want="the path of a model file", error=InputTypeError)


def _plain(value: Any) -> Any:
    """Numbers, names and lists as JSON has them."""
    if hasattr(value, "tolist"):  # of NumPy or pandas
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (int, float, str, bool, dict, type(None))) else None


def _kinds(plain: Any, kinds: Any) -> Any:
    """The parameter as it was given, instances of kinds as JSON."""
    if isinstance(kinds, Kind):
        return kinds.to_json()
    if isinstance(kinds, type) and issubclass(kinds, Kind):  # `Real` for "real"
        return kinds.name
    if isinstance(kinds, Mapping):
        named = {k: _kinds(v, v) for k, v in kinds.items()}
        # JSON's names are text: a column's place is kept beside it
        return {"by_column": [[k if isinstance(k, str) else int(k), v] for k, v in named.items()]}
    return plain


def _kinds_given(stored: Any) -> Any:
    """The inverse of `_kinds`."""
    if isinstance(stored, dict) and "by_column" in stored:
        return {k: _kinds_given(v) for k, v in stored["by_column"]}
    return Kind.from_json(stored) if isinstance(stored, dict) else stored


def _as_given(params: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists back to the tuples that scikit-learn's clone compares."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    return given | {"kinds": _kinds_given(params["kinds"])}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
