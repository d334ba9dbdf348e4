"""What the command line prints."""

from __future__ import annotations

import warnings
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from diabolo.checks import InputError

__all__ = ["Verbs", "say"]

WRONG_INPUT, INTERRUPTED = 2, 130


class Verbs(typer.core.TyperGroup):
    """The verbs, and the one place where what went wrong becomes a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = note
                return super().invoke(ctx)
        except InputError as error:
            message, code = str(error), WRONG_INPUT
        except OSError as error:  # a full disk, a file without permission
            message, code = f"{error.filename or 'file'}: {error.strerror or error}", WRONG_INPUT
        except KeyboardInterrupt:
            message, code = "Interrupted; nothing is half-written.", INTERRUPTED
        errors().print(Text(message, style="red"), soft_wrap=True)
        raise typer.Exit(code)


def errors() -> Console:
    """Made anew each time: a test may have put another stream in the place of stderr."""
    return Console(stderr=True, highlight=False)


def note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as a remark, without the line of code that gave it."""
    errors().print(Text(f"note: {message}", style="yellow"), soft_wrap=True)


def say(subject: str, text: str) -> None:
    """One line of what was done: its subject, then the facts in a column."""
    shown = Text.assemble((f"{subject:<18}", "bold"), " ", text)
    Console(highlight=False).print(shown, soft_wrap=True)
