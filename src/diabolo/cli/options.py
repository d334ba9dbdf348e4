"""The app, and the options that several verbs take."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated

import typer

from diabolo.cli.console import Verbs

__all__ = [
    "FAMILIES",
    "LEARN",
    "READ",
    "SHOW",
    "Data",
    "Exclude",
    "Family",
    "Index",
    "Kinds",
    "Missing",
    "Model",
    "Quiet",
    "Seed",
    "Settings",
    "Table",
    "app",
]

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a network to give back its input, and read it in four ways: learn, map, draw, score.",
    epilog="[dim]Start with your own file:[/dim]  diabolo report yours.csv",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"diabolo {importlib.metadata.version('diabolo')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None: ...


Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model that [bold]fit[/bold] wrote.", show_default=False)
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="CSV, TSV, Parquet, npy, npz (file.npz:key) or a folder of images.",
        show_default=False,
    ),
]
Table = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help=".csv, .tsv, .parquet or .npy, by its ending.",
        show_default=False,
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(metavar="'?,-'", help="Further spellings of a gap in text files.", show_default=False),
]
Index = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column to set aside and write beside results.", show_default=False),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter: n_components=2.", show_default=False),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="COLUMN=KIND", help="What a column holds: age=count.", show_default=False),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out.", show_default=False)
]
# A family's module under `diabolo.families` and its name there; imported when it is asked for.
FAMILIES = {
    "vae": ("vae", "VAE"),
    "iwae": ("iwae", "IWAE"),
    "hierarchical": ("hierarchical", "HierarchicalVAE"),
    "conditional": ("conditional", "ConditionalVAE"),
    "autoencoder": ("autoencoder", "Autoencoder"),
    "denoising": ("denoising", "DenoisingAutoencoder"),
    "flow": ("normalizing_flow", "NormalizingFlow"),
    "made": ("made", "MADE"),
    "parzen": ("parzen", "ParzenWindow"),
    "manifold_parzen": ("parzen", "ManifoldParzen"),
    "nonlocal_parzen": ("nonlocal_parzen", "NonlocalManifoldParzen"),
    "rbm": ("rbm", "RBM"),
    "gsn": ("gsn", "GSN"),
}
Family = Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(FAMILIES)}.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but refusals.")]
LEARN, READ, SHOW = "Learn", "Read", "Show"
