"""A quiet progress bar: one line on stderr, gone when training ends."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from diabolo.engine import History, OnRound

__all__ = ["bar"]


@contextlib.contextmanager
def bar(name: str, shown: bool) -> Iterator[OnRound | None]:
    """Yield what the engine calls after each round; None where nothing is to be shown."""
    if not shown:
        yield None
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} steps"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown_bar:
        task = shown_bar.add_task(name, total=1, note="")

        def on_round(n_done: int, n_steps: int, history: History) -> None:
            best = history.best
            note = f"loss {history.losses[-1]:.3f}"
            if not math.isnan(best):
                note += f", best held-out loss {-best:.3f}"
            shown_bar.update(task, completed=n_done, total=n_steps, note=note)

        yield on_round
