"""Run the Python of a page and compare what it prints with what the page says.

`python docs/run.py docs/families/vae.md` fails where a number on the page is not the one that comes out; `--write`
puts in what comes out. The blocks of a page share their names and run from top to bottom; a text block right after one
of them is what it prints. Pictures that they save go to docs/img. `DIABOLO_DATA` is a folder with images/mnist.npz, for
the page that needs it. It is run by hand, because the pages train for minutes.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

PICTURES = Path(__file__).parent / "img"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)


def main() -> None:
    pages = [Path(name).resolve() for name in sys.argv[1:] if not name.startswith("-")]
    matplotlib.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib: the same everywhere
    # the same file each time: the same names inside it, and no date
    matplotlib.rcParams["svg.hashsalt"] = "diabolo"
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    wrong = [page.name for page in pages if not _run(page, write="--write" in sys.argv)]
    sys.exit(f"other output: {', '.join(wrong)}" if wrong else 0)


def _run(page: Path, write: bool) -> bool:
    """Whether a page says what its blocks print."""
    text, names, as_said, start = page.read_text(encoding="utf-8"), {}, True, time.perf_counter()

    def ran(found: re.Match[str]) -> str:
        nonlocal as_said
        printed = _printed(found["code"], names)
        if printed != (found["said"] or ""):
            as_said = False
            print(f"{page.name}: {found['code'].splitlines()[0]} ... printed\n{printed}")
        said = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{found['code']}```\n{said}"

    with tempfile.TemporaryDirectory() as folder:
        if "DIABOLO_DATA" in os.environ:
            Path(folder, "mnist.npz").symlink_to(Path(os.environ["DIABOLO_DATA"], "images", "mnist.npz"))
        with contextlib.chdir(folder):
            again = BLOCK.sub(ran, text)
        for picture in Path(folder).glob("*.svg"):
            shutil.move(picture, PICTURES / picture.name)
        for picture in Path(folder).glob("*.png"):  # 64 colours: a third of the size, and no eye sees it
            Image.open(picture).convert("RGB").quantize(64).save(PICTURES / picture.name, optimize=True)
    if write and again != text:
        page.write_text(again, encoding="utf-8")
    print(f"{page.name}: {time.perf_counter() - start:.0f} s")
    return as_said or write


def _printed(code: str, names: dict[str, Any]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "page", "exec"), names)
    return "".join(f"{line.rstrip()}\n" for line in said.getvalue().splitlines())


if __name__ == "__main__":
    main()
