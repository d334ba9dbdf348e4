"""Numbers and counts as words, and the sentences a page opens with."""

from __future__ import annotations

from typing import Any

__all__ = ["CLAIMS", "cell", "counted", "nats", "opening", "signed"]

# what is claimed of a log-density: its sign beside the number, and its name
CLAIMS = {"bound": ("≥", "lower bound"), "estimate": ("≈", "estimate"), "exact": ("=", "exact")}
MINUS, GAP = "\u2212", "·"


def counted(n: int, noun: str) -> str:
    """`1 row`, `1,024 rows`, `no rows`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s" if n else f"no {noun}s"


def signed(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def nats(value: float | None, error: float | None = None, kind: str | None = None) -> str:
    """A log-density with its error, and the sign of its claim in front; its unit is said beside it."""
    if value is None:
        return f"{MINUS}∞"
    digits = 2 if abs(value) < 1000 else 1
    text = signed(value, digits)
    if error is not None:
        text += f" ± {error:,.{digits}f}"
    return f"{CLAIMS[kind][0]} {text}" if kind in CLAIMS else text


def cell(value: Any, decimals: int | None) -> str:
    """A cell as a reader would type it; a dot for a gap."""
    if value is None:
        return GAP
    if isinstance(value, float) and decimals is None:
        return f"{value:.6g}".replace("-", MINUS)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and decimals is not None:
        grouped = "," if abs(value) >= 10_000 else ""  # a year is no sum
        return f"{value:{grouped}.{decimals}f}".replace("-", MINUS)
    return str(value)


def opening(summary: dict[str, Any]) -> list[str]:
    """What was read, how the model describes it, what is least likely: a sentence each."""
    read, model, density = summary["read"], summary["model"], summary["density"]
    thing = "an image" if read["image_shape"] else "a row"
    return [_what_was_read(read), _how_it_fits(model, density, thing), _what_is_odd(read, density)]


def _what_was_read(read: dict[str, Any]) -> str:
    if read["image_shape"]:
        height, width = read["image_shape"][:2]
        kind = next(iter(read["kinds"]))
        text = f"{counted(read['n_rows'], 'image')} of {width} × {height} pixels, read as {kind}."
    else:
        kinds = ", ".join(f"{n} {kind}" for kind, n in read["kinds"].items())
        text = f"{counted(read['n_rows'], 'row')} of {counted(read['n_columns'], 'column')}: {kinds}."
    whose = ""
    if read["n_looked_at"] < read["n_rows"]:
        text += f" This page looks at {read['n_looked_at']:,} of them, drawn at random with a fixed seed."
        whose = "their "
    cell = "pixel" if read["image_shape"] else "cell"
    if not read["n_gaps"]:
        return f"{text} No {cell} is missing."
    return f"{text} {read['n_gaps']:,} of {whose}{read['n_cells']:,} {cell}s are gaps."


def _how_it_fits(model: dict[str, Any], density: dict[str, Any], thing: str) -> str:
    active, components = model["n_active"], counted(model["n_components"], "component")
    use = "all in use" if active == model["n_components"] else f"{active} in use"
    if model["n_components"] == 1:
        use = "in use"
    text = f"A {model['family']} with {components}, {use}, trained for {model['n_steps']:,} steps"
    value = nats(density["mean"], density["mean_error"])
    claim = CLAIMS[density["kind"]][1]
    article = "an" if claim[0] in "ae" else "a"
    return f"{text}, gives {thing} a log-density of {value} nats on average ({article} {claim})."


def _what_is_odd(read: dict[str, Any], density: dict[str, Any]) -> str:
    worst = density["oddest"][0]
    among = "" if read["n_looked_at"] == read["n_rows"] else " of these"
    value = nats(worst["log_density"], worst["standard_error"])
    text = f"Least likely{among} is {worst['label']}, at {value} nats."
    if density["n_impossible"]:
        impossible = counted(density["n_impossible"], "row")
        text += f" Outside what a column can hold, and left out of the mean: {impossible}."
    return text
