"""Small fitted estimators that the tests of panels, pages and the command line share; each is fitted once."""

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

import diabolo
from diabolo.families.vae import VAE
from diabolo.files import read_table

PENGUINS = Path(diabolo.__file__).parent / "data" / "penguins.csv"
SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "max_steps": 200, "random_state": 0}


@functools.cache
def penguins(n_components: int = 3) -> tuple[VAE, pa.Table]:
    """A VAE of the penguins, as the file gives them."""
    table = read_table(PENGUINS).data
    return VAE(n_components=n_components, **SMALL).fit(table), table


@functools.cache
def digits() -> tuple[VAE, np.ndarray]:
    """A VAE of 300 handwritten digits (n, 8, 8)."""
    images = load_digits().images[:300]
    return VAE(n_components=2, **SMALL).fit(images), images


@functools.cache
def odd_names() -> tuple[VAE, pa.Table]:
    """A table whose names and labels would be markup, formulas and Hangul if they were let."""
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "<b>값</b>": generator.normal(size=80),
            "$x_1$": generator.choice(["<script>", "가", "_c", "a&b"], 80).tolist(),
            "id": [f"<i>{number}</i>" for number in range(80)],
            "same": ["one"] * 80,
            "when": pa.array(np.arange(80).astype("datetime64[D]")),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the identifier and the constant
        return VAE(n_components=1, **SMALL).fit(table), table
