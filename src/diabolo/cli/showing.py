"""The verbs that show: a page, a comparison, what a model file holds, the demo."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from diabolo import demo as demonstration
from diabolo.cli.console import at_work, say
from diabolo.cli.inputs import (
    apart,
    colored,
    counted,
    loaded,
    model_and_rows,
    must_hold,
    opened,
    told,
)
from diabolo.cli.learning import columns_said, columns_said_already, learned_columns, made, set_aside_rows
from diabolo.cli.options import (
    FAMILIES,
    SHOW,
    Data,
    Exclude,
    Family,
    Index,
    Kinds,
    Missing,
    Model,
    Quiet,
    Seed,
    Settings,
    app,
)

__all__ = ["compare", "demo", "inspect", "report"]

READING = "reading the model: densities, odd cells, maps, draws"
NONE_SPARED = "nothing: too few rows to spare any, so no gain can be told"


@app.command(
    rich_help_panel=SHOW,
    epilog="[dim]Examples:[/dim]  diabolo report yours.csv --color region\n\n"
    "           diabolo report model.safetensors yours.csv -o report.html",
)
def report(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] DATA",
            help="Rows to learn and show; or a model that [bold]fit[/bold] wrote, then rows to show.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The page; without it, named for DATA.", show_default=False
        ),
    ] = None,
    color: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Colours the map of the codes.", show_default=False)
    ] = None,
    no_rows: Annotated[bool, typer.Option("--no-rows", help="Leave the values of rows out.")] = False,
    family: Family = "vae",
    settings: Settings = None,
    kinds: Kinds = None,
    exclude: Exclude = None,
    missing: Missing = None,
    index: Index = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Show what is odd, what it looks like and how it hangs together, on one page (.html).

    Of DATA alone, a model is learned first, and kept beside the page.
    """
    from diabolo.files import check_output
    from diabolo.report import publish, summary, words

    if len(files) > 2:
        raise typer.BadParameter(f"got {len(files)} files; expected DATA, or MODEL and DATA")
    data = files[-1]
    page = output or Path(f"{Path(data).resolve().stem}.html")
    check_output(page, (".html", ".htm"))
    apart(page, data)
    command = shlex.join(["diabolo", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "diabolo" else None
    shown: dict[str, Any] = {"no_rows": no_rows, "command": command}
    if len(files) == 2:
        if settings or kinds or exclude:
            raise typer.BadParameter(
                "--set, --kind and --exclude are for learning, and MODEL is learned already"
            )
        estimator, table = model_and_rows(Path(files[0]), data, missing, index, quiet, kept=color)
        table, colors = colored(table, estimator, color)
        shown |= {"title": table.path.name, "labels": table.labels()}
        with told(table, quiet=quiet), at_work(READING, quiet):
            publish(summary(estimator, table.data, colors, **shown), page)
        if not quiet:
            say("wrote", f"{page}  open it in a browser")
        return
    model = page.with_suffix(".safetensors")
    check_output(model, (".safetensors",))
    estimator = made(family, settings or [], kinds or [], seed)
    table = opened(data, missing, index, quiet=True).without(exclude or [])
    must_hold(table, color)
    with told(table, fitting=True, quiet=True):
        schema = learned_columns(estimator, table)
    if not quiet:
        say(table.path.name, columns_said(schema, table))
    held_out = _learned(estimator, table, model, seed, quiet)
    shown |= {"title": table.path.name, "labels": table.labels()}
    with told(table, quiet=quiet), at_work(READING, quiet):
        facts = summary(estimator, table.data, color, held_out=held_out, **shown)
    if not quiet:
        unseen = words.gained(facts) if held_out is not None else NONE_SPARED
        say("held out", unseen)
        if not estimator.schema_.given_width:  # where it is odd or not depends on the conditions
            say("oddest", words.oddest(facts))
    publish(facts, page)
    if not quiet:
        say(str(page), str(model))
        others = ",".join(dict.fromkeys([family, "vae", "autoencoder"]))
        options = [text for kind in kinds or [] for text in ("--kind", kind)]
        options += [text for name in exclude or [] for text in ("--exclude", name)]
        options += ["--missing", missing] if missing else []
        options += ["--index", index] if index else []
        say("next", shlex.join(["diabolo", "compare", data, "--family", others, *options]))


def _learned(estimator: Any, table: Any, model: Path, seed: int, quiet: bool) -> Any:
    """Fit to most rows, save, and say what was learned; the positions of the other rows, None without any."""
    train, held_out = set_aside_rows(table, seed)
    start = time.perf_counter()
    estimator.set_params(verbose=not quiet and sys.stderr.isatty())
    with told(table, fitting=True, quiet=quiet), columns_said_already():
        estimator.fit(train)
    if not estimator.n_steps_:  # interrupted before the first round
        raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    estimator.set_params(verbose=False)
    estimator.save(model)
    if not quiet:
        _say_learned(estimator, train, seconds)
    return held_out


def _say_learned(estimator: Any, rows: Any, seconds: float) -> None:
    """Family, components and how many of them are in use, steps and seconds."""
    import numpy as np

    from diabolo.report.components import n_active
    from diabolo.table import rows_at

    some = rows_at(rows, np.arange(min(len(rows), 5000)))
    codes = estimator.transform(some)
    components = f"{counted(codes.shape[1], 'component')} ({n_active(codes)} active)"
    steps = estimator.n_steps_
    say(type(estimator).__name__, f"{components}, {steps:,} steps, {seconds:.0f} s")


@app.command(
    rich_help_panel=SHOW,
    epilog="[dim]Example:[/dim]  diabolo compare yours.csv --family vae,autoencoder",
)
def compare(
    data: Data,
    family: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help=f"Some of {', '.join(FAMILIES)}."),
    ] = "vae,autoencoder",
    settings: Settings = None,
    kinds: Kinds = None,
    exclude: Exclude = None,
    missing: Missing = None,
    index: Index = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit several families on the same four fifths of DATA and judge them by the rest.

    Gain: nats per row better than independent columns. Behind: mean difference to the best, row by row.
    """
    from diabolo.comparison import compare as compared

    names = list(dict.fromkeys(name.strip() for name in family.split(",")))
    models = {name: made(name, settings or [], kinds or [], seed) for name in names}
    table = opened(data, missing, index, quiet=True).without(exclude or [])
    first = next(iter(models.values()))
    with told(table, fitting=True, quiet=True):
        schema = learned_columns(first, table)
    if not quiet:
        say(table.path.name, columns_said(schema, table))
    with told(table, fitting=True, quiet=quiet), columns_said_already():
        entries = compared(models, table.data, random_state=seed)
    for entry in entries:
        behind = "best" if not entry.behind else f"{-entry.behind:.2g} ± {entry.behind_error:.1g} behind"
        say(entry.name, f"{entry.gain}; {behind}; {entry.seconds:.0f} s")
    if not quiet:
        say("", f"judged by {counted(entries[0].gain.n_rows, 'row')} that none has seen")


@app.command(rich_help_panel=SHOW, epilog="[dim]Example:[/dim]  diabolo inspect model.safetensors")
def inspect(model: Model) -> None:
    """Show what a model file holds: columns, density, sizes, versions, values of the training rows."""
    from diabolo.cli.held import described

    estimator = loaded(model)
    for subject, text in described(estimator, model):
        say(subject, text)


@app.command(rich_help_panel=SHOW, epilog="[dim]Example:[/dim]  diabolo demo --open")
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where results go.")] = Path("diabolo-demo"),
    open_pages: Annotated[bool, typer.Option("--open", help="Open the reports in a browser.")] = False,
) -> None:
    """Fit penguins and handwritten digits, and report on both."""
    demonstration.run(out, say=say, verbose=sys.stderr.isatty(), open_pages=open_pages)
