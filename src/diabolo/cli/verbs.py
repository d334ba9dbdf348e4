"""The verbs that learn and read, rows in and rows out.

What takes long to import (jax, pyarrow, matplotlib) is imported by the verb that needs it, so that help is
quick.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from diabolo.cli.console import say
from diabolo.cli.inputs import (
    apart,
    as_pictures,
    column_names,
    counted,
    kinds_line,
    loaded,
    model_and_rows,
    needs_images,
    one_below_the_other,
    opened,
    told,
    wrote,
)
from diabolo.cli.learning import made
from diabolo.cli.options import (
    LEARN,
    READ,
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
    Table,
    app,
)

__all__ = ["fit", "impute", "outliers", "reconstruct", "sample", "score", "transform"]


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
    family: Family = "vae",
    settings: Settings = None,
    kinds: Kinds = None,
    exclude: Exclude = None,
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
    rich_help_panel=READ,
    epilog="[dim]Example:[/dim]  diabolo impute model.safetensors yours.csv -o whole.csv",
)
def impute(
    model: Model,
    data: Data,
    output: Table,
    n: Annotated[
        int | None,
        typer.Option(
            "-n", "--draws", min=1, metavar="N", help="Draw N fillings of each gap.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """Fill the gaps of DATA; what was observed is written as it was.

    Each gap gets the middle of what it may have been: mean, median or likeliest level. With -n all rows are written
    N times, with a column `draw` in front that counts from 1, and each gap gets a draw.
    """
    from diabolo.files import check_output, write_table
    from diabolo.table import missing as gaps_of

    check_output(output, folder=n is None)
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet)
    needs_images(estimator, output)
    with told(table, quiet=quiet):
        holes = gaps_of(estimator.schema_, table.data)
        rows = estimator.impute(table.data, n, random_state=seed)
    left = gaps_of(estimator.schema_, rows if n is None else rows[0])
    labels = table.index
    if n is not None:
        rows, labels = one_below_the_other(rows, labels, column_names(estimator))
    write_table(output, as_pictures(estimator, rows, output), index=labels, names=column_names(estimator))
    said = f"{holes.sum() - left.sum():,} of {counted(int(holes.sum()), 'gap')} filled"
    wrote(output, f"{counted(len(rows), 'row')}, {said}", quiet)


@app.command(
    rich_help_panel=READ,
    epilog="[dim]Example:[/dim]  diabolo outliers model.safetensors yours.csv -o odd.csv",
)
def outliers(
    model: Model,
    data: Data,
    output: Table,
    n: Annotated[int, typer.Option("-n", "--rows", min=1, metavar="N", help="How many rows.")] = 20,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Rows the model never saw: percentiles are of these, not of DATA.",
            show_default=False,
        ),
    ] = None,
    missing: Missing = None,
    index: Index = None,
    quiet: Quiet = False,
) -> None:
    """List the N oddest rows, the cell to blame in each, and what was expected there.

    Columns: row (its line, name or number); surprise, nats above what is usual, of the row or of its oddest cell;
    oddness, how far out that is, 3 being Tukey's outer fence; percentile, of rows that surprise less as a whole;
    column, value, expected; low and high, which hold 90 % of what was expected of a number.
    """
    import pyarrow as pa

    from diabolo.cli.oddest import oddest
    from diabolo.files import check_output, write_table

    check_output(output, (".csv", ".tsv", ".parquet"))
    apart(output, data)
    estimator, table = model_and_rows(model, data, missing, index, quiet)
    unseen = None
    if held_out is not None:
        other = model_and_rows(model, held_out, missing, index, quiet=True)[1]
        with told(other, quiet=True):
            estimator.schema_.encode(other.data)  # what cannot be read is said of the file that holds it
        unseen = other.data
    with told(table, quiet=quiet):
        found = oddest(estimator, table, n, held_out=unseen)
    write_table(output, pa.Table.from_pylist([row.record() for row in found]))
    wrote(output, f"{counted(len(found), 'row')} of {len(table):,}; oddest: {found[0]}", quiet)
