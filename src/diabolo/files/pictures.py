"""A folder of images as one array, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diabolo.checks import refuse

__all__ = ["as_bytes", "read_images", "write_images"]

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def read_images(folder: Path) -> tuple[np.ndarray, list[str], tuple[str, ...]]:
    """Read every image of a folder, in the order of their names.

    Returns
    -------
    images : (n, height, width) uint8, or (n, height, width, 3) where one of them is in colour
    names : the files' names
    notes : what was left out
    """
    import PIL.Image

    entries = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    paths = [p for p in entries if p.suffix.lower() in ENDINGS]
    if not paths:
        others = [p.name for p in entries]
        fix = f"It holds {others[0]!r}: name a file to read that." if others else ""
        raise refuse(f"folder {folder}", got="no image in it", want="PNG, JPEG or similar files", fix=fix)
    pictures: list[PIL.Image.Image] = []
    for path in paths:
        try:
            with PIL.Image.open(path) as image:
                mode = image.mode
                picture = image.convert("L" if mode in {"1", "L", "LA"} else "RGB")
        except Exception as error:  # each of pillow's decoders raises its own on a damaged image
            got = f"a damaged image ({type(error).__name__})"
            raise refuse(
                str(path), got=got, want="a whole image", fix="Copy it again or take it out."
            ) from None
        if mode.startswith(("I", "F")):
            raise refuse(str(path), got=f"deep pixels (mode {mode})", want="8 bits per channel")
        if pictures and picture.size != pictures[0].size:
            want = f"{_size(pictures[0])} as {paths[0].name}, the first"
            raise refuse(str(path), got=_size(picture), want=want, fix="Crop or scale to one size.")
        pictures.append(picture)
    mode = "RGB" if any(picture.mode == "RGB" for picture in pictures) else "L"
    images = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    n_others = len(entries) - len(paths)
    notes = (f"files that are no images, left out: {n_others:,}",) if n_others else ()
    return images, [p.name for p in paths], notes


def _size(picture: Any) -> str:
    return f"{picture.width} x {picture.height} pixels"


def write_images(folder: Path, images: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Write a new folder of PNG files, named as given or counted from 1."""
    import PIL.Image

    folder.mkdir()
    digits = len(str(len(images)))
    for number, image in enumerate(as_bytes(images)):
        stem = Path(names[number]).stem if names is not None else f"{number + 1:0{digits}d}"
        picture = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        PIL.Image.fromarray(picture).save(folder / f"{stem}.png")


def as_bytes(images: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Pixels as bytes for the eye: `low` to black and `high` to white.

    Without them, unsigned bytes stay as they are and any other range is stretched onto 0 to 255.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8 and low is None and high is None:
        return images
    low = float(np.nanmin(images)) if low is None else low
    high = float(np.nanmax(images)) if high is None else high
    shown = (images.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return np.clip(np.nan_to_num(np.rint(shown)), 0, 255).astype(np.uint8)
