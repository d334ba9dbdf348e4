"""`report`, `compare`, `inspect`, `impute`, `outliers`: what they print is true, and what they write is whole."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fitted import PENGUINS
from sklearn.datasets import load_digits
from test_cli import run

import diabolo
from diabolo.cli.learning import set_aside_rows
from diabolo.cli.oddest import oddest
from diabolo.comparison import gain
from diabolo.files import read_table, write_table
from diabolo.table import rows_at

SMALL = ["--set", "max_steps=200", "--set", "hidden_layer_sizes=(16,)", "--set", "n_components=2"]


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A folder with 300 people, as a spreadsheet of a country with decimal commas writes them; one is 203 years old."""
    folder = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    job = generator.choice(3, 300)
    age = np.rint(np.array([22.0, 43.0, 70.0])[job] + 5.0 * generator.normal(size=300))
    frame = pd.DataFrame(
        {
            "id": [f"p{number:03d}" for number in range(300)],
            "age": age,
            "beruf": np.array(["Schüler", "Kontor", "Rente"])[job],
            "income": (1000 + 40 * age + 300 * generator.normal(size=300)).round(1),
            "owner": np.where(generator.random(300) < age / 80, "yes", "no"),
            "country": "CH",
        }
    )
    frame.loc[17, ["age", "beruf", "income"]] = [203.0, "Kontor", 2650.5]
    frame.loc[generator.choice(np.arange(20, 300), 30, replace=False), "income"] = np.nan
    frame.to_csv(folder / "people.csv", index=False, sep=";", decimal=",", encoding="latin-1", na_rep="?")
    return folder


OPTIONS = ["--missing", "?"]


@pytest.fixture(scope="module")
def reported(people):
    """What `report DATA` printed, in a folder that then holds a page and a model."""
    here = pytest.MonkeyPatch()
    here.chdir(people)
    said = run("report", "people.csv", *OPTIONS, *SMALL, "--set", "max_steps=1500", "--color", "beruf")
    here.undo()
    return people, said


def test_report_of_a_file_says_what_it_did(reported):
    folder, said = reported
    lines = dict(re.split(r" {2,}| (?=VAE)", line, maxsplit=1) for line in said.splitlines())
    assert lines["people.csv"].startswith("300 rows, 6 columns: 2 real, 1 categorical, 1 binary; ")
    assert "; ignored: id (mostly different), country (one value); read as LATIN-1" in lines["people.csv"]
    assert "cells separated by ';'" in lines["people.csv"] and "decimal comma" in lines["people.csv"]
    assert re.fullmatch(r"2 components \([12] active\), [\d,]+ steps, \d+ s", lines["VAE"])
    found = re.fullmatch(r"line 19: age = 203 \(expected (\d+) to (\d+)\)", lines["oddest"])
    assert found and 20 < int(found[1]) < 43 < int(found[2]) < 75, said
    assert lines["people.html"] == "people.safetensors"
    assert lines["next"] == "diabolo compare people.csv --family vae,autoencoder --missing '?'"
    assert (folder / "people.html").stat().st_size > 10_000


def test_the_gain_is_of_rows_that_were_neither_trained_nor_stopped_on(reported):
    folder, said = reported
    table = read_table(folder / "people.csv", missing=["?"])
    rows, held_out = set_aside_rows(table, seed=0)
    assert len(held_out) == 50 and len(rows) == 250
    estimator = diabolo.load(folder / "people.safetensors")
    found = gain(estimator, rows_at(table.data, held_out))
    assert f"held out           50 rows: {found}\n" in said and "(lower bound)" in said
    # the model's own columns were learned from the others alone
    income = rows_at(table.data, np.setdiff1d(np.arange(300), held_out))["income"].to_numpy()
    assert estimator.schema_.columns[3].kind.mean == pytest.approx(np.nanmean(income))


def test_few_rows_are_all_learned_from(tmp_path):
    values = np.random.default_rng(0).normal(size=(29, 2))
    np.save(tmp_path / "few.npy", values)
    said = run("report", tmp_path / "few.npy", "-o", tmp_path / "r.html", *SMALL)
    assert "held out           nothing: too few rows to spare any" in said
    assert "oddest             row " in said
    estimator = diabolo.load(tmp_path / "r.safetensors")
    assert estimator.schema_.columns[0].kind.mean == pytest.approx(values[:, 0].mean())


def test_report_of_images(tmp_path):
    write_table(tmp_path / "digits", (load_digits().images[:60] * 15).astype(np.uint8))
    said = run("report", tmp_path / "digits", "-o", tmp_path / "d.html", *SMALL)
    assert "60 images of 8 × 8 pixels, read as pixels" in said
    assert re.search(r"oddest +\d\d\.png: −?\d+ nats of surprise", said), said
    assert (tmp_path / "d.html").exists() and (tmp_path / "d.safetensors").exists()


def test_report_without_rows_passes_that_on(reported, tmp_path):
    folder, _ = reported
    run(
        "report",
        folder / "people.safetensors",
        folder / "people.csv",
        "-o",
        tmp_path / "r.html",
        *OPTIONS,
        "--no-rows",
    )
    assert ">203<" not in (tmp_path / "r.html").read_text()


@pytest.mark.filterwarnings("ignore:columns? .* holds?")
def test_compare_prints_gains_and_paired_differences(people):
    said = run("compare", people / "people.csv", *OPTIONS, *SMALL, "--family", "vae,autoencoder")
    lines = said.splitlines()
    assert lines[0].startswith("people.csv         300 rows, 6 columns")
    gained = r"[\d.]+ ± [\d.]+ nats per row (?:better|worse) than independent columns \(lower bound\); "
    shown = r"(?:vae|autoencoder) +" + gained
    assert re.fullmatch(shown + r"best; \d+ s", lines[1])
    assert re.fullmatch(shown + r"[\d.]+ ± [\d.]+ behind; \d+ s", lines[2])
    assert lines[3].strip() == "judged by 60 rows that none has seen"
    table = read_table(people / "people.csv", missing=["?"]).data
    few = {"max_steps": 200, "hidden_layer_sizes": (16,), "n_components": 2, "random_state": 0}
    best, other = diabolo.compare(
        {"vae": diabolo.VAE(**few), "autoencoder": diabolo.Autoencoder(**few)}, table
    )
    assert lines[1].startswith(f"{best.name:<18} {best.gain}; best")
    assert f"{-other.behind:.2g} ± {other.behind_error:.1g} behind" in lines[2]


def test_inspect_shows_what_a_file_holds(reported):
    folder, _ = reported
    said = run("inspect", folder / "people.safetensors")
    estimator = diabolo.load(folder / "people.safetensors")
    assert "people.safetensors VAE, " in said and " kB" in said
    assert "columns            6: 2 real, 1 identifier, 1 categorical, 1 binary, 1 constant\n" in said
    for name, facts in estimator.schema_.describe():
        assert f"  {name:<16} {facts}" in said
    assert "density            bound, nats" in said and "code 2" in said
    assert "hidden_layer_sizes=(16,)" in said and "random_state=0" in said
    assert f"numpy {np.__version__}" in said
    held = said.splitlines()[-1]
    assert "no row" in held and "levels of beruf (3), owner (2)" in held and "one value of country" in held


def test_impute_fills_gaps_and_keeps_the_rest(reported, tmp_path):
    folder, _ = reported
    table = read_table(folder / "people.csv", missing=["?"]).data.to_pandas()
    said = run(
        "impute", folder / "people.safetensors", folder / "people.csv", "-o", tmp_path / "w.csv", *OPTIONS
    )
    assert "300 rows, 30 of 30 gaps filled" in said
    whole = pd.read_csv(tmp_path / "w.csv")
    assert list(whole.columns) == list(table.columns) and whole.notna().all().all()
    seen = table["income"].notna()
    assert np.array_equal(whole["income"][seen], table["income"][seen])
    assert whole.drop(columns="income").equals(
        table.drop(columns="income").astype(whole.drop(columns="income").dtypes)
    )
    told = 1000 + 40 * table["age"][~seen]
    assert np.sqrt(np.mean((whole["income"][~seen] - told) ** 2)) < 400  # spread of income: 850


def test_impute_draws_below_each_other(reported, tmp_path):
    folder, _ = reported
    options = [*OPTIONS, "-n", 3, "--index", "id", "--seed", 5, "-o", tmp_path / "w.parquet"]
    run("impute", folder / "people.safetensors", folder / "people.csv", *options)
    whole = pd.read_parquet(tmp_path / "w.parquet").reset_index()
    assert len(whole) == 900 and list(whole["draw"]) == [1] * 300 + [2] * 300 + [3] * 300
    table = read_table(folder / "people.csv", missing=["?"])
    assert list(whole["id"][:300]) == table.data["id"].to_pylist()
    estimator = diabolo.load(folder / "people.safetensors")
    drawn = estimator.impute(table.data, 3, random_state=5)
    assert np.array_equal(whole["income"], np.concatenate([one["income"].to_numpy() for one in drawn]))


def test_outliers_names_rows_cells_and_what_was_expected(reported, tmp_path):
    folder, said_before = reported
    options = [*OPTIONS, "-n", 5, "-o", tmp_path / "odd.csv"]
    said = run("outliers", folder / "people.safetensors", folder / "people.csv", *options)
    found = pd.read_csv(tmp_path / "odd.csv")
    names = ["row", "surprise", "oddness", "percentile", "column", "value", "expected", "low", "high"]
    assert list(found.columns) == names and found["percentile"].between(0, 100).all()
    assert len(found) == 5 and found["oddness"].is_monotonic_decreasing
    first = found.iloc[0]
    assert (first["row"], first["column"], float(first["value"])) == ("line 19", "age", 203.0)
    assert float(first["low"]) < float(first["expected"]) < float(first["high"]) < 100
    assert (
        "oddest: line 19: age = 203 (expected " in said and said.split("oddest: ")[1].strip() in said_before
    )
    # percentiles of fifteen other rows are multiples of a fifteenth
    lines = (folder / "people.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "other.csv").write_bytes(b"".join(lines[:16]))
    run("outliers", folder / "people.safetensors", folder / "people.csv", *options,
        "--held-out", tmp_path / "other.csv")  # fmt: skip
    again = pd.read_csv(tmp_path / "odd.csv")
    assert again["row"].tolist() == found["row"].tolist()
    fifteenths = again["percentile"] * 0.15
    np.testing.assert_allclose(fifteenths, np.round(fifteenths), atol=1e-6)


def test_odd_values_are_written_as_people_write_them():
    table = read_table(PENGUINS)
    estimator = diabolo.VAE(n_components=2, hidden_layer_sizes=(16,), max_steps=200, random_state=0).fit(
        table.data
    )
    for row in oddest(estimator, table, 40):
        record = row.record()
        assert record["row"].startswith("line ")
        if record["column"] is None:  # no single cell is to blame
            assert record["value"] is record["low"] is None
            continue
        line = PENGUINS.read_text().splitlines()[int(record["row"][5:].replace(",", "")) - 1]
        assert record["value"].replace(",", "") in line
        assert (record["low"] is None) == (record["column"] in {"species", "island", "sex"})


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("report people.csv --color brf", "--color brf: got no such column; expected one of people.csv."),
        ("report people.csv -o r.pdf", "output r.pdf: got the ending '.pdf'; expected .html"),
        ("report a b c", "got 3 files; expected DATA, or MODEL and DATA. See "),
        ("report people.safetensors people.csv --kind age=count", "MODEL is learned already. See "),
        (
            "compare people.csv --family vae,vea",
            "--family: got 'vea'; expected a family. Did you mean 'vae'?",
        ),
        ("inspect people.csv", "people.csv: got a file that is no model; expected a .safetensors file."),
        ("impute people.safetensors people.csv -o people.csv", "results never replace rows."),
        ("outliers people.safetensors people.csv -o odd.npy", "output odd.npy: got the ending '.npy';"),
        (
            "report strange.csv",
            "strange.csv line 12, column 'income': got 'unknown'; expected a number. "
            "Add --missing unknown, or --kind income=categorical.",
        ),
    ],
)
def test_refusals(reported, monkeypatch, args, sentence):
    folder, _ = reported
    monkeypatch.chdir(folder)
    lines = ["age,income", *(f"{20 + n % 50},{1000 + 7 * n}" for n in range(60))]
    lines[11] = "30,unknown"
    Path("strange.csv").write_text("\n".join(lines) + "\n")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    said = run(*args.split(), code=2)
    assert sentence in said.splitlines()[-1], said
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
