"""The verbs and their options.

What takes long to import (jax, pyarrow, matplotlib) is imported by the verb that needs it, so that help is
quick.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from diabolo import demo as demonstration
from diabolo.cli.console import Verbs, say
from diabolo.cli.inputs import (
    apart,
    as_pictures,
    colored,
    column_names,
    counted,
    kinds_line,
    loaded,
    made,
    model_and_rows,
    needs_images,
    opened,
    told,
    wrote,
)

__all__ = ["app"]

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a network to give back its input, and read it in four ways: learn, map, draw, score.",
    epilog="[dim]Start with your own file:[/dim]  diabolo fit yours.csv -o model.safetensors",
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
Output = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="FILE", help="Written whole or not at all.", show_default=False),
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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but refusals.")]
LEARN, READ, SHOW = "Learn", "Read", "Show"


@app.command(
    rich_help_panel=LEARN,
    epilog="[dim]Example:[/dim]  diabolo fit yours.csv -o model.safetensors --kind age=count",
)
def fit(
    data: Data,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="MODEL", help="Where to write the model.", show_default=False),
    ],
    family: Annotated[str, typer.Option(metavar="NAME", help="vae, autoencoder or denoising.")] = "vae",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter: n_components=2.", show_default=False),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="COLUMN=KIND", help="What a column holds: age=count.", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out.", show_default=False)
    ] = None,
    missing: Missing = None,
    index: Index = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Learn a model of DATA."""
    from diabolo.files import check_output

    check_output(output, (".safetensors",))
    estimator = made(family, settings or [], kinds or [], seed)
    table = opened(data, missing, index, quiet).without(exclude or [])
    if not quiet and sys.stderr.isatty():
        estimator.set_params(verbose=True)
    start = time.perf_counter()
    with told(table, fitting=True, quiet=quiet):
        estimator.fit(table.data)
    if not estimator.n_steps_:  # interrupted before the first round: an untrained model is of no use
        raise KeyboardInterrupt
    if not quiet:
        say("columns", kinds_line(estimator.schema_))
        components = estimator.transform(table.data[:1]).shape[1]
        spent = f"{estimator.n_steps_:,} steps, {time.perf_counter() - start:.1f} s"
        say(type(estimator).__name__, f"{counted(components, 'component')}, {spent}")
    estimator.set_params(verbose=False)
    estimator.save(output)
    if not quiet:
        say("wrote", str(output))
        page = output.with_suffix(".html")
        say("next", shlex.join(["diabolo", "report", str(output), data, "-o", str(page)]))


@app.command(
    rich_help_panel=READ,
    epilog="[dim]Example:[/dim]  diabolo transform model.safetensors yours.csv -o codes.csv",
)
def transform(
    model: Model,
    data: Data,
    output: Table,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """Map rows to their codes, few numbers each."""
    from diabolo.files import check_output, write_table

    check_output(output)
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet)
    with told(table, quiet=quiet):
        codes = estimator.transform(table.data)
    write_table(output, codes, index=table.index, names=list(estimator.get_feature_names_out()))
    wrote(output, f"{counted(len(codes), 'row')} of {counted(codes.shape[1], 'component')}", quiet)


@app.command(
    rich_help_panel=READ,
    epilog="[dim]Example:[/dim]  diabolo reconstruct model.safetensors yours.csv -o again.csv",
)
def reconstruct(
    model: Model,
    data: Data,
    output: Table,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """Give rows back as their codes keep them.

    Images go to .npy, or to a folder of PNG files where FILE has no ending.
    """
    from diabolo.files import check_output, write_table

    check_output(output, folder=True)
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet)
    needs_images(estimator, output)
    with told(table, quiet=quiet):
        rows = estimator.reconstruct(table.data)
    write_table(
        output, as_pictures(estimator, rows, output), index=table.index, names=column_names(estimator)
    )
    wrote(output, counted(len(table), "row"), quiet)


@app.command(
    rich_help_panel=READ,
    epilog="[dim]Example:[/dim]  diabolo score model.safetensors yours.csv -o scores.csv",
)
def score(
    model: Model,
    data: Data,
    output: Table,
    draws: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Codes drawn per row; more are tighter.", show_default=False),
    ] = None,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """Say how likely each row is: log p(x) in nats.

    Columns: log_density; standard_error, its Monte Carlo part; kind: exact, bound (from below) or estimate.
    """
    import pyarrow as pa

    from diabolo.files import check_output, write_table

    check_output(output, (".csv", ".tsv", ".parquet"))
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet)
    with told(table, quiet=quiet):
        reading = estimator.log_density(table.data, **({} if draws is None else {"n_draws": draws}))
    scores = {"log_density": reading.values, "standard_error": reading.standard_error, "kind": reading.kind}
    write_table(output, pa.table(scores), index=table.index)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(map(str, reading.kind)).items())
    wrote(output, f"{counted(len(reading), 'row')}, {reading.unit}: {kinds}", quiet)


@app.command(
    rich_help_panel=READ, epilog="[dim]Example:[/dim]  diabolo sample model.safetensors -n 1000 -o new.csv"
)
def sample(
    model: Model,
    n: Annotated[
        int, typer.Option("-n", "--rows", min=1, metavar="N", help="How many rows.", show_default=False)
    ],
    output: Table,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Draw new rows like those that were learned.

    Images go to .npy, or to a folder of PNG files where FILE has no ending.
    """
    from diabolo.files import check_output, write_table

    check_output(output, folder=True)
    estimator = loaded(model)
    needs_images(estimator, output)
    rows = as_pictures(estimator, estimator.sample(n, random_state=seed), output)
    write_table(output, rows, names=column_names(estimator))
    wrote(output, counted(n, "row"), quiet)


@app.command(
    rich_help_panel=SHOW,
    epilog="[dim]Example:[/dim]  diabolo report model.safetensors yours.csv -o report.html --color region",
)
def report(
    model: Model,
    data: Data,
    output: Output,
    color: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Colours the map of the codes.", show_default=False)
    ] = None,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """Show all four readings on one page (.html)."""
    from diabolo.files import check_output
    from diabolo.report import write

    check_output(output, (".html", ".htm"))
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet, kept=color)
    table, colors = colored(table, estimator, color)
    with told(table, quiet=quiet):
        write(estimator, table.data, output, colors, title=table.path.name, labels=table.labels())
    wrote(output, "open it in a browser", quiet)


@app.command(rich_help_panel=SHOW, epilog="[dim]Example:[/dim]  diabolo demo --open")
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where results go.")] = Path("diabolo-demo"),
    open_pages: Annotated[bool, typer.Option("--open", help="Open the reports in a browser.")] = False,
) -> None:
    """Fit penguins and handwritten digits, and report on both."""
    demonstration.run(out, say=say, verbose=sys.stderr.isatty(), open_pages=open_pages)
