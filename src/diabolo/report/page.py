"""Render a summary as one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diabolo.files import check_output, replacing
from diabolo.report import words
from diabolo.report.facts import summary
from diabolo.report.figures import heat, picture, sheet

__all__ = ["publish", "render", "write"]

HERE = Path(__file__).parent
SCRIPTS = ("decoder.js", "charts.js", "map.js", "page.js")
VENDORED = ("vega.min.js", "vega-lite.min.js")
SMALL = 64  # an image is shown at least this many screen pixels wide, in whole multiples of its own
# what the scripts read; the rest is set by the template
READ = ("maps", "rows", "columns", "odd", "pairs", "training", "density", "decoder", "draws", "components")


def write(
    estimator: Any,
    X: Any,
    path: str | Path,
    color: Any = None,
    *,
    held_out: Any = None,
    title: str | None = None,
    labels: Sequence[Any] | None = None,
    no_rows: bool = False,
    command: str | None = None,
    json_path: str | Path | None = None,
) -> Path:
    """Write the page of a fitted estimator and some rows: one HTML file that needs no network.

    Parameters
    ----------
    estimator : fitted
    X : rows to look at
    path : ending in .html; written whole or not at all
    color, held_out, title, labels, no_rows, command : as for `summary`
    json_path : ending in .json, the summary goes there as well

    Returns
    -------
    Path : the page. It contains values of some rows of X, unless `no_rows`.
    """
    path = check_output(path, (".html", ".htm"))  # before the work
    if json_path is not None:
        check_output(json_path, (".json",))
    told = summary(
        estimator, X, color, held_out=held_out, title=title, labels=labels, no_rows=no_rows, command=command
    )
    return publish(told, path, json_path)


def publish(told: dict[str, Any], path: str | Path, json_path: str | Path | None = None) -> Path:
    """Write the page of a summary, and with `json_path` the summary itself beside it; whole or not at all."""
    path = check_output(path, (".html", ".htm"))
    beside = None if json_path is None else check_output(json_path, (".json",))
    text = render(told)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    if beside is not None:
        with replacing(beside) as partial:
            partial.write_text(json.dumps(told, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return path


def render(told: dict[str, Any]) -> str:
    """The page of a summary, as HTML text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "nats": words.nats,
        "signed": words.signed,
        "cell": words.cell,
        "picture": picture,
        "heat": heat,
    }
    environment.globals |= {
        "counted": words.counted,
        "claims": words.CLAIMS,
        "tint": _tint,
        "expected": words.expected,
        "why": words.why,
    }
    rows = told["rows"]
    return environment.get_template("page.html").render(
        told=told,
        sentences=words.opening(told),
        point={place: at for at, place in enumerate(rows["places"])},
        zoom=_zoom(told["read"]["image_shape"]),
        facts=Markup(_embedded(told)),
        vendored=[Markup(_vendored(name)) for name in VENDORED],
        scripts=[Markup((HERE / name).read_text(encoding="utf-8")) for name in SCRIPTS],
    )


def _embedded(told: dict[str, Any]) -> str:
    """What the scripts read, as JSON that cannot end its element."""
    facts = {key: told[key] for key in READ}
    facts["rows"] = {**told["rows"], "pictures": None}
    facts["odd"] = {"places": [row["place"] for row in told["odd"]["rows"]]}
    facts["image_shape"] = told["read"]["image_shape"]
    facts["sheet"] = sheet(told["rows"]["pictures"]) if told["rows"]["pictures"] else None
    if told["read"]["image_shape"]:
        facts["plane"] = _plane(told["plane"])
        facts["components"] = {"divergence": told["components"]["divergence"], "traversals": []}
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plane(plane: dict[str, Any]) -> str:
    return sheet(plane["pictures"], plane["n_side"])["address"]


def _vendored(name: str) -> str:
    text = (HERE / "vendor" / name).read_text(encoding="utf-8")
    return text.split("//# sourceMappingURL=")[0]  # a browser's tools would look for a file that is not there


def _zoom(image_shape: list[int] | None) -> int:
    """Screen pixels per pixel."""
    return 1 if not image_shape else -(-SMALL // max(image_shape[:2]))


def _tint(excess: float | None) -> str:
    """The class of a blamed cell: from 20, 150 and 3,000 times less likely than is usual in its column."""
    if excess is None or excess < words.GUILTY:
        return ""
    return "blame-1" if excess < 5 else "blame-2" if excess < 8 else "blame-3"
