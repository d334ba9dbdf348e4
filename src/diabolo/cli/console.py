"""What the command line prints."""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from diabolo.checks import InputError
from diabolo.cli import INTERRUPTED

__all__ = ["Verbs", "at_work", "say"]

WRONG_INPUT = 2
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer may bring a click of its own


class Verbs(typer.core.TyperGroup):
    """The verbs, and the one place where what went wrong becomes a sentence and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except UsageError as error:
            complain(usage(error))
        raise typer.Exit(WRONG_INPUT)

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = note
                return super().invoke(ctx)
        except UsageError as error:
            message, code = usage(error), WRONG_INPUT
        except InputError as error:
            message, code = str(error), WRONG_INPUT
        except OSError as error:  # a full disk, a file without permission
            message, code = f"{error.filename or 'file'}: {error.strerror or error}", WRONG_INPUT
        except KeyboardInterrupt:
            message, code = "Interrupted; nothing is half-written.", INTERRUPTED
        complain(message)
        raise typer.Exit(code)


def usage(error: Any) -> str:
    """What was wrong with the options, in one sentence, and where they are listed."""
    said = str(error.format_message()).rstrip(".")
    said = re.sub(r": Input should be (?:a valid )?(.*?)(?:, unable to parse.*)?$", r": expected \1", said)
    said = said.replace("greater than or equal to", "at least").replace(
        "expected integer", "expected a whole number"
    )
    said = re.sub(r" \(Possible options?: (.*)\)$", r". Did you mean \1", said)
    where = error.ctx.command_path if error.ctx is not None else "diabolo"
    return f"{said}{'' if said.endswith('?') else '?' if 'Did you mean' in said else '.'} See {where} --help."


def complain(message: str) -> None:
    errors().print(Text(message, style="red"), soft_wrap=True)


def errors() -> Console:
    """Made anew each time: a test may have put another stream in the place of stderr."""
    return Console(stderr=True, highlight=False)


def note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as a remark, without the line of code that gave it."""
    errors().print(Text(f"note: {message}", style="yellow"), soft_wrap=True)


def at_work(text: str, quiet: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Say on a terminal what is being done, while it is."""
    console = errors()
    return contextlib.nullcontext() if quiet or not console.is_terminal else console.status(text)


def say(subject: str, text: str) -> None:
    """One line of what was done: its subject, then the facts in a column."""
    shown = Text.assemble((f"{subject:<18}", "bold"), " ", text)
    Console(highlight=False).print(shown, soft_wrap=True)
