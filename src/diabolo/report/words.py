"""Numbers and counts as words, and the sentences a page opens with."""

from __future__ import annotations

import math
from typing import Any

from diabolo.comparison import Gain, with_error

__all__ = [
    "CLAIMS",
    "MINUS",
    "cell",
    "counted",
    "expected",
    "gained",
    "nats",
    "oddest",
    "opening",
    "signed",
    "why",
]

# what is claimed of a log-density: its sign beside the number, and its name
CLAIMS = {"bound": ("≥", "lower bound"), "estimate": ("≈", "estimate"), "exact": ("=", "exact")}
MINUS, GAP = "\u2212", "·"
GUILTY = 3.0  # nats above the column's usual, from which a cell is blamed: twenty times less likely than is usual there


def counted(n: int, noun: str) -> str:
    """`1 row`, `1,024 rows`, `no rows`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s" if n else f"no {noun}s"


def signed(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign."""
    return "–" if value is None else f"{value:z,.{digits}f}".replace("-", MINUS)


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


def expected(found: dict[str, Any], column: dict[str, Any]) -> str:
    """What a cell was expected to be: a range of numbers, no finer than their spread, or the likeliest level."""
    decimals = column["decimals"] if column.get("coarse") is None else column["coarse"]
    if found["low"] is not None:
        return f"{cell(found['low'], decimals)} to {cell(found['high'], decimals)}"
    return cell(found["expected"], decimals)


def why(row: dict[str, Any], columns: list[dict[str, Any]], n: int = 3) -> list[str]:
    """The cells to blame for an odd row, the guiltiest first; none where only the combination is odd."""
    guilty = [j for j, one in enumerate(row["cells"]) if (one["excess"] or 0.0) >= GUILTY]
    guilty.sort(key=lambda j: -row["cells"][j]["excess"])
    return [_blamed(row["cells"][j], columns[j]) for j in guilty[:n]]


def _blamed(found: dict[str, Any], column: dict[str, Any]) -> str:
    said = "" if found["value"] is None else f" = {cell(found['value'], column['decimals'])}"
    return f"{column['name']}{said} (expected {expected(found, column)})"


def opening(summary: dict[str, Any]) -> list[str]:
    """What was read, how much structure there is, how many rows are odd: a sentence or two each."""
    return [_what_was_read(summary["read"]), _how_much_structure(summary), _how_many_are_odd(summary)]


def _what_was_read(read: dict[str, Any]) -> str:
    if read["image_shape"]:
        height, width = read["image_shape"][:2]
        kind = next(iter(read["kinds"]))
        text = f"{counted(read['n_rows'], 'image')} of {width} × {height} pixels, read as {kind}."
    else:
        kinds = ", ".join(f"{n} {kind}" for kind, n in read["kinds"].items())
        text = f"{counted(read['n_rows'], 'row')} of {counted(read['n_columns'], 'column')}: {kinds}"
        aside = {"identifier": "mostly different texts", "constant": "one value only"}
        ignored = [f"{name} ({aside.get(kind, kind)})" for name, kind in read["ignored"][:4]]
        ignored += [f"{len(read['ignored']) - 4} more"] if len(read["ignored"]) > 4 else []
        text += f"; ignored: {', '.join(ignored)}." if ignored else "."
    whose = ""
    if read["n_looked_at"] < read["n_rows"]:
        extra = read["n_looked_at"] - read["n_drawn"]
        also = f", and at {extra:,} more for being odd" if extra else ""
        text += f" This page looks at {read['n_drawn']:,} of them, drawn at random with a fixed seed{also}."
        whose = "their "
    cell = "pixel" if read["image_shape"] else "cell"
    if not read["n_gaps"]:
        return f"{text} No {cell} is missing."
    return f"{text} {read['n_gaps']:,} of {whose}{read['n_cells']:,} {cell}s are gaps."


def _how_much_structure(summary: dict[str, Any]) -> str:
    density, read = summary["density"], summary["read"]
    gain, claim = density["gain"], CLAIMS[density["kind"]][1]
    thing, parts = ("image", "pixels") if read["image_shape"] else ("row", "columns")
    article = "an" if thing == "image" else "a"
    who = f"The {summary['model']['family']}"
    if density["judged_by"] == "held out":
        where = f"on {counted(gain['n_rows'], thing)} used neither for training nor for stopping"
    else:
        where = f"on the {thing}s given here, which it may have been trained on: on new {thing}s it will do less well"
    if gain["mean"] is None:
        return f"{who} gives none of these {thing}s a density, so its structure cannot be judged."
    mean, error = gain["mean"], gain["standard_error"] or 0.0
    size = f"{with_error(abs(mean), error)} nats per {thing}"
    if mean < -2 * error:
        text = (
            f"{who} describes {article} {thing} {size} worse than independent {parts} do ({claim}), {where}"
        )
        return f"{text}. Do not rely on it."
    text = f"{who} describes {article} {thing} {size} better than independent {parts} do ({claim}), {where}"
    if mean <= 2 * error:
        return f"{text}. That is no clear structure: the {parts} may well be unrelated."
    return f"{text}. Knowing how the {parts} hang together makes a typical {thing} {_times(mean)} likelier."


def _times(gain: float) -> str:
    """exp(gain) in words: `43 times`, `10^21 times`."""
    if gain < math.log(1e4):
        times = math.exp(gain)
        return f"{times:.1f} times" if times < 10 else f"{times:,.0f} times"
    power = str(round(gain / math.log(10))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"some 10{power} times"


def _how_many_are_odd(summary: dict[str, Any]) -> str:
    odd, read = summary["odd"], summary["read"]
    thing = "image" if read["image_shape"] else "row"
    stands = "stands" if odd["n_odd"] == 1 else "stand"
    who = counted(odd["n_odd"], thing)
    if odd["n_odd"] and read["n_drawn"] < read["n_rows"]:
        who = f"{odd['n_odd']:,} of {read['n_drawn']:,} {thing}s"
    text = f"{who.capitalize()} {stands} far out from the others."
    return f"{text} The oddest is {oddest(summary)}." if odd["rows"] else text


def oddest(summary: dict[str, Any]) -> str:
    """The oddest row's name and, where there is one, the cell to blame: `line 12: age = 203 (expected 24 to 61)`."""
    worst = summary["odd"]["rows"][0]
    labels = dict(zip(summary["rows"]["places"], summary["rows"]["labels"], strict=True))
    label = str(labels[worst["place"]])
    size = f"{signed(worst['nats'], 0)} nats of surprise"
    if summary["read"]["image_shape"]:
        return f"{label}: {size}"
    named = why(worst, summary["columns"], 1)
    return f"{label}: {named[0] if named else f'{size}, by no single cell'}"


def gained(summary: dict[str, Any]) -> str:
    """The gain in a line: `812 rows: 4.1 ± 0.1 nats per row better than independent columns (lower bound)`."""
    density, thing = summary["density"], "image" if summary["read"]["image_shape"] else "row"
    mean, error, n_rows = density["gain"].values()
    if mean is None:
        return f"no {thing} has a density"
    found = Gain(mean, math.nan if error is None else error, n_rows, density["n_impossible"], density["kind"])
    outside = f"; {found.n_outside:,} more hold what no training {thing} did" if found.n_outside else ""
    return f"{counted(n_rows, thing)}: {found}{outside}"
