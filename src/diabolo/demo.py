"""The main job on real data, the package's penguins and scikit-learn's digits: fit, write the four readings, report."""

from __future__ import annotations

import shlex
import time
import webbrowser
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from diabolo.checks import refuse

__all__ = ["run"]

Say = Callable[[str, str], None]


def run(out: Path, *, say: Say, verbose: bool = False, open_pages: bool = False) -> None:
    """Fit a VAE to penguins and to handwritten digits, and write codes, draws, scores and a page of each.

    Parameters
    ----------
    out : folder for the results; made if it is not there
    say : takes a subject and a line about it
    verbose : show progress bars
    open_pages : open the pages in a browser
    """
    from sklearn.datasets import load_digits

    from diabolo.files import read_table

    start = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise refuse(f"--out {out}", got="a file", want="a folder")
    out.mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("diabolo") / "data" / "penguins.csv") as path:
        penguins = read_table(path)
        labels = penguins.labels()
    digits = load_digits()
    pages = [
        _read("penguins", penguins.data, "species", labels, out, say, verbose),
        _read("digits", digits.images, {"digit": digits.target}, None, out, say, verbose),
    ]
    say("done", f"{time.perf_counter() - start:.0f} s; look at {' and '.join(map(str, pages))}")
    say("your own file", "diabolo report yours.csv")
    if open_pages:
        for page in pages:
            webbrowser.open(page.resolve().as_uri())


def _read(
    name: str, X: Any, color: Any, labels: list[str] | None, out: Path, say: Say, verbose: bool
) -> Path:
    """Fit to most rows, judge by the others, and write the four readings of all of them."""
    import numpy as np
    import pyarrow as pa

    from diabolo.families.vae import VAE
    from diabolo.files import write_table
    from diabolo.report import publish, summary, words
    from diabolo.table import rows_at

    start = time.perf_counter()
    sizes = X.shape[1:]
    what = f"{sizes[0]} columns" if len(sizes) == 1 else f"{sizes[1]} × {sizes[0]} pixels"
    say(name, f"{len(X):,} rows of {what}")
    order = np.random.default_rng(0).permutation(len(X))
    n_held = max(len(X) // 10, 50)
    held_out, learned = np.sort(order[:n_held]), np.sort(order[n_held:])
    vae = VAE(random_state=0, verbose=verbose).fit(rows_at(X, learned))
    codes, reading = vae.transform(X), vae.log_density(X)
    say("VAE", f"{codes.shape[1]} components, {vae.n_steps_:,} steps, {time.perf_counter() - start:.1f} s")
    vae.set_params(verbose=False).save(out / f"{name}.safetensors")
    names = [str(column.name) for column in vae.schema_.columns]
    write_table(out / f"{name}-codes.csv", codes, names=list(vae.get_feature_names_out()))
    write_table(out / f"{name}-samples.csv", vae.sample(200, random_state=0), names=names)
    scores = {"log_density": reading.values, "standard_error": reading.standard_error, "kind": reading.kind}
    write_table(out / f"{name}-scores.csv", pa.table(scores))
    shown: dict[str, Any] = {
        "title": name,
        "labels": labels,
        "command": f"diabolo demo --out {shlex.quote(str(out))}",
    }
    facts = summary(vae, X, color, held_out=held_out, **shown)
    say("held out", words.gained(facts))
    say("oddest", words.oddest(facts))
    page = publish(facts, out / f"{name}.html")
    say("wrote", f"{out / name}.safetensors, -codes.csv, -samples.csv, -scores.csv, .html")
    return page
