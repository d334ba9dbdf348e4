"""Pictures as PNG in the page itself."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np

__all__ = ["heat", "picture", "sheet"]

HOT = np.array([213, 94, 0])  # Okabe & Ito's vermilion
MOST = 4.0  # nats of a pixel, from which it is fully coloured


def picture(pixels: Any) -> str:
    """An image (h, w[, channels]) of bytes as a `data:` address."""
    import PIL.Image

    array = np.asarray(pixels, np.uint8)
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    stream = io.BytesIO()
    PIL.Image.fromarray(array).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def heat(nats: Any, most: float | None = None) -> str:
    """Nats per pixel (h, w) as vermilion of that strength over nothing."""
    values = np.asarray(nats, np.float64)
    most = max(MOST, float(values.max(initial=0.0))) if most is None else most
    alpha = np.rint(255 * np.clip(values / most, 0, 1) ** 0.7).astype(np.uint8)
    return picture(np.concatenate([np.broadcast_to(HOT, (*values.shape, 3)), alpha[..., None]], axis=-1))


def sheet(pictures: Any, n_columns: int | None = None) -> dict[str, Any]:
    """Images (n, h, w[, channels]) of bytes side by side in one: its address and how many stand in a line."""
    array = np.asarray(pictures, np.uint8)
    array = array[..., None] if array.ndim == 3 else array
    n, height, width, depth = array.shape
    n_columns = math.ceil(math.sqrt(n)) if n_columns is None else n_columns
    n_lines = -(-n // n_columns)
    padded = np.zeros((n_lines * n_columns, height, width, depth), np.uint8)
    padded[:n] = array
    lines = padded.reshape(n_lines, n_columns, height, width, depth).transpose(0, 2, 1, 3, 4)
    address = picture(lines.reshape(n_lines * height, n_columns * width, depth))
    return {"address": address, "n_columns": n_columns, "n_lines": n_lines}
