"""The command line: the verbs of an estimator on files."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["app", "main"]

INTERRUPTED = 130


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from diabolo.cli import showing, verbs  # each hangs its verbs on the app

    assert showing and verbs
    from diabolo.cli.options import app

    return app


def main() -> None:
    """The `diabolo` command."""
    # this process is ours, so it may keep compiled programs for the next: half of a small fit is compiling
    with contextlib.suppress(OSError):
        cache = _cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's remarks on the processor
    if threading.current_thread() is not threading.main_thread():  # of a program that hears its own signals
        return __getattr__("app")()
    sys.unraisablehook = _unraisable
    # another handler wants this one unheard
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        __getattr__("app")()  # imported here, so that an interrupted import is no traceback either
    except KeyboardInterrupt:
        print("Interrupted; nothing is half-written.", file=sys.stderr)
        _leave(INTERRUPTED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _leave(INTERRUPTED)
        raise


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """Ctrl-C, heard once no import is under way: a module broken off half-made fails as something else."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return _interrupt_again()
        frame = frame.f_back
    raise KeyboardInterrupt


def _unraisable(met: Any) -> None:
    """A Ctrl-C that came where Python can raise nothing, as in jax's callback of the collector: again."""
    if isinstance(met.exc_value, KeyboardInterrupt):
        _interrupt_again()
    else:
        sys.__unraisablehook__(met)


def _interrupt_again() -> None:
    """Ctrl-C once more in a moment: raised here and now it would go where the first one went."""
    moment = threading.Timer(0.05, _thread.interrupt_main)
    moment.daemon = True
    moment.start()


def _leave(code: int) -> None:
    """End without tidying: XLA's compiler, interrupted, may crash a process that waits for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _cache_folder() -> Path:
    """Where this system keeps what can be made again."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "diabolo" / "jax"
