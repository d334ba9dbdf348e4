"""The command line: the verbs of an estimator on files."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from diabolo.cli.verbs import app

__all__ = ["app", "main"]


def main() -> None:
    """The `diabolo` command."""
    # this process is ours, so it may keep compiled programs for the next: half of a small fit is compiling
    with contextlib.suppress(OSError):
        cache = _cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's remarks on the processor
    app()


def _cache_folder() -> Path:
    """Where this system keeps what can be made again."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "diabolo" / "jax"
