"""What the verbs that learn share: options made into an estimator, columns told, rows set aside."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diabolo.checks import nearest, refuse
from diabolo.cli.inputs import counted, kinds_line
from diabolo.cli.options import FAMILIES

if TYPE_CHECKING:
    import numpy as np

    from diabolo.files import FileTable

__all__ = ["columns_said", "columns_said_already", "learned_columns", "made", "set_aside_rows"]

FEWEST = 30  # of fewer rows none is set aside
SHARE, LEAST, MOST = 0.1, 50, 5000  # of the rows, but at least so many and no more than so many
ASIDE = {"identifier": "mostly different", "constant": "one value"}


def made(family: str, settings: list[str], kinds: list[str], seed: int) -> Any:
    """The estimator that the options describe."""
    by_class = {name.lower(): (module, name) for module, name in FAMILIES.values()}
    place = FAMILIES.get(family) or by_class.get(family.lower().replace("_", ""))
    if place is None:
        raise refuse("--family", got=repr(family), want="a family", fix=nearest(family, FAMILIES))
    module, name = place
    estimator = getattr(importlib.import_module(f"diabolo.families.{module}"), name)
    known = list(inspect.signature(estimator).parameters)
    params: dict[str, Any] = {"random_state": seed}
    for setting in settings:
        key, value = _pair("--set", setting)
        if key not in known:
            raise refuse(
                f"--set {setting}",
                got=f"parameter {key!r}",
                want=f"a parameter of {name}",
                fix=nearest(key, known),
            )
        params[key] = _value(value)
    if kinds:
        params["kinds"] = dict(_pair("--kind", kind) for kind in kinds)
    return estimator(**params)


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        example = "age=count" if option == "--kind" else "n_components=2"
        raise refuse(f"{option} {text}", got=repr(text), want=f"a name and a value, as in {option} {example}")
    return key.strip(), value.strip()


def _value(text: str) -> Any:
    """A Python literal where it is one, else the text itself."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        return text


def learned_columns(estimator: Any, table: FileTable) -> Any:
    """The schema of all rows of a file: read first, so that a refusal names the line of the file."""
    from diabolo.table import Schema

    with columns_said_already():
        params = estimator.get_params(deep=False)
        options = {name: params[name] for name in ("kinds", "given", "image_shape")}
        return Schema.learn(table.data, **options)


@contextlib.contextmanager
def columns_said_already() -> Iterator[None]:
    """What is set aside has a line of its own: no warnings of it here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="columns? .* holds? ")
        yield


def columns_said(schema: Any, table: FileTable) -> str:
    """Rows, kinds counted, what is ignored and why, how the file was read where not the plain way."""
    kinds = ", ".join(part for part in kinds_line(schema).split(", ") if part.split()[1] not in ASIDE)
    if schema.image_shape is not None:
        sizes = " × ".join(map(str, schema.image_shape))
        text = f"{counted(len(table), 'image')} of {sizes} pixels, read as {schema.columns[0].kind.name}"
    else:
        text = f"{counted(len(table), 'row')}, {counted(len(schema.columns), 'column')}: {kinds}"
        ignored = [
            f"{column.name} ({ASIDE[column.kind.name]})"
            for column in schema.columns
            if column.kind.name in ASIDE
        ]
        if ignored:
            more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
            text += f"; ignored: {', '.join(ignored[:5])}{more}"
    return "; ".join([text, *table.notes])


def set_aside_rows(table: FileTable, seed: int) -> tuple[Any, np.ndarray | None]:
    """The rows to learn from, and the positions of those to judge by; None where there are too few to spare any."""
    import numpy as np

    from diabolo.table import rows_at

    n_rows = len(table)
    if n_rows < FEWEST:
        return table.data, None
    n_held = min(max(round(SHARE * n_rows), min(LEAST, n_rows // 5)), MOST)
    order = np.random.default_rng(seed).permutation(n_rows)
    return rows_at(table.data, np.sort(order[n_held:])), np.sort(order[:n_held])
