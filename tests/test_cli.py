"""The command line: results land in files, in order and beside their index; refusals are one sentence."""

import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fitted import PENGUINS
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import diabolo
from diabolo.cli import app
from diabolo.cli.learning import made
from diabolo.files import read_table, write_table
from diabolo.outliers import surprise

SMALL = ["--set", "max_steps=200", "--set", "hidden_layer_sizes=(16,)"]


def run(*args: object, code: int = 0) -> str:
    """What a command prints, stdout and stderr together."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with the penguins, a model of them, and an index in front of their rows in another order."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(PENGUINS, folder / "penguins.csv")
    frame = pd.read_csv(PENGUINS)
    frame.index = [f"bird {number}" for number in range(len(frame))]
    frame[::-1].to_csv(folder / "reversed.csv")
    frame[::-1].to_parquet(folder / "reversed.parquet")
    said = run(
        "fit", folder / "penguins.csv", "-o", folder / "m.safetensors", "--set", "n_components=2", *SMALL
    )
    assert "penguins.csv       344 rows of 7 columns" in said
    assert "4 real, 2 categorical, 1 binary" in said and "2 components, 200 steps" in said
    assert f"diabolo report {folder}/m.safetensors {folder}/penguins.csv -o {folder}/m.html" in said
    return folder


def test_fit_passes_its_options_on(tmp_path):
    model = tmp_path / "m.safetensors"
    options = ["--kind", "body_mass_g=count", "--exclude", "island", "--family", "denoising", "--seed", 7]
    said = run("fit", PENGUINS, "-o", model, *SMALL, *options, "--set", "activation=tanh")
    assert "1 count" in said and "DenoisingAutoencoder" in said
    estimator = diabolo.load(model)
    assert type(estimator).__name__ == "DenoisingAutoencoder"
    kinds = {column.name: column.kind.name for column in estimator.schema_.columns}
    assert kinds["body_mass_g"] == "count" and "island" not in kinds
    params = estimator.get_params()
    assert (params["activation"], params["hidden_layer_sizes"], params["random_state"]) == ("tanh", (16,), 7)


def test_the_same_seed_writes_the_same_model(fitted, tmp_path):
    run(
        "fit",
        fitted / "penguins.csv",
        "-o",
        tmp_path / "m.safetensors",
        "--set",
        "n_components=2",
        *SMALL,
        "-q",
    )
    assert (tmp_path / "m.safetensors").read_bytes() == (fitted / "m.safetensors").read_bytes()


def test_transform_keeps_order_and_index(fitted):
    estimator = diabolo.load(fitted / "m.safetensors")
    codes = estimator.transform(read_table(PENGUINS).data)
    said = run("transform", fitted / "m.safetensors", fitted / "reversed.csv", "-o", fitted / "codes.csv")
    assert "the first column, which has no name, is the index" in said and "344 rows of 2 components" in said
    found = pd.read_csv(fitted / "codes.csv", index_col=0)
    assert found.index[0] == "bird 343" and list(found.columns) == ["vae0", "vae1"]
    assert np.allclose(found.to_numpy()[::-1], codes, atol=1e-6)
    run(
        "transform",
        fitted / "m.safetensors",
        fitted / "reversed.parquet",
        "-o",
        fitted / "codes.parquet",
        "-q",
    )
    pd.testing.assert_frame_equal(pd.read_parquet(fitted / "codes.parquet"), found, check_names=False)
    run("transform", fitted / "m.safetensors", fitted / "penguins.csv", "-o", fitted / "codes.npy")
    assert np.array_equal(np.load(fitted / "codes.npy"), codes)


def test_score_says_what_the_numbers_are(fitted):
    said = run("score", fitted / "m.safetensors", fitted / "penguins.csv", "-o", fitted / "s.parquet")
    assert "344 rows, nats: 344 bound" in said
    found = pd.read_parquet(fitted / "s.parquet")
    reading = diabolo.load(fitted / "m.safetensors").log_density(read_table(PENGUINS).data)
    assert np.array_equal(found["log_density"], reading.values)
    assert np.array_equal(found["standard_error"], reading.standard_error)
    assert set(found["kind"]) == {"bound"}
    run(
        "score",
        fitted / "m.safetensors",
        fitted / "penguins.csv",
        "-o",
        fitted / "s.csv",
        "--draws",
        16,
        "-q",
    )
    few = diabolo.load(fitted / "m.safetensors").log_density(read_table(PENGUINS).data, n_draws=16)
    assert np.allclose(pd.read_csv(fitted / "s.csv")["log_density"], few.values)


def test_reconstruct_and_sample_write_rows(fitted):
    estimator = diabolo.load(fitted / "m.safetensors")
    run("reconstruct", fitted / "m.safetensors", fitted / "penguins.csv", "-o", fitted / "r.csv")
    again = estimator.reconstruct(read_table(PENGUINS).data).to_pandas()
    pd.testing.assert_frame_equal(pd.read_csv(fitted / "r.csv"), again, check_dtype=False)
    run("sample", fitted / "m.safetensors", "-n", 5, "-o", fitted / "new.csv", "--seed", 3)
    drawn = estimator.sample(5, random_state=3).to_pandas()
    pd.testing.assert_frame_equal(pd.read_csv(fitted / "new.csv"), drawn, check_dtype=False)


def test_columns_the_model_does_not_know_are_left_out(fitted, tmp_path):
    frame = pd.read_csv(PENGUINS).assign(note="x")
    frame[frame.columns[::-1]].to_csv(tmp_path / "more.csv", index=False)  # in another order, too
    said = run("transform", fitted / "m.safetensors", tmp_path / "more.csv", "-o", tmp_path / "codes.npy")
    assert "left out           note: not in the model" in said
    expected = diabolo.load(fitted / "m.safetensors").transform(read_table(PENGUINS).data)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), expected)


def test_rows_are_known_by_a_column_that_the_model_set_aside(tmp_path):
    frame = pd.read_csv(PENGUINS)
    frame.insert(0, "ring", [f"r{number:03d}" for number in range(len(frame))])
    frame.to_csv(tmp_path / "rings.csv", index=False)
    model, rings = tmp_path / "m.safetensors", tmp_path / "rings.csv"
    said = run("fit", rings, "-o", model, *SMALL)
    assert "1 identifier" in said
    assert "note" not in run("fit", rings, "-o", model, *SMALL, "-q")
    run("score", model, rings, "-o", tmp_path / "s.csv", "--index", "ring")
    scores = pd.read_csv(tmp_path / "s.csv")
    assert list(scores["ring"]) == list(frame["ring"])
    run("reconstruct", model, rings, "-o", tmp_path / "r.csv", "--index", "ring")
    again = pd.read_csv(tmp_path / "r.csv")
    assert list(again.columns) == list(frame.columns) and list(again["ring"]) == list(frame["ring"])
    run("score", model, PENGUINS, "-o", tmp_path / "without.csv")  # rows of a file without that column
    assert np.array_equal(pd.read_csv(tmp_path / "without.csv")["log_density"], scores["log_density"])


def test_an_array_is_taken_in_the_order_of_the_model(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 2))
    pd.DataFrame(values, columns=["a", "b"]).to_csv(tmp_path / "rows.csv", index=False)
    np.save(tmp_path / "rows.npy", values)
    run("fit", tmp_path / "rows.csv", "-o", tmp_path / "m.safetensors", *SMALL, "-q")
    for name in ("rows.csv", "rows.npy"):
        said = run(
            "transform", tmp_path / "m.safetensors", tmp_path / name, "-o", tmp_path / f"{name}.parquet"
        )
        assert ("without names: taken in the model's order" in said) == name.endswith("npy")
        assert "note" not in said
    codes = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("rows.csv", "rows.npy")]
    pd.testing.assert_frame_equal(*codes)


def test_report_names_lines_and_colours_by_any_column(fitted, tmp_path):
    frame = pd.read_csv(PENGUINS).assign(colony=["north", "south"] * 172)
    frame.to_csv(tmp_path / "more.csv", index=False)
    run(
        "report",
        fitted / "m.safetensors",
        tmp_path / "more.csv",
        "-o",
        tmp_path / "r.html",
        "--color",
        "colony",
    )
    text = (tmp_path / "r.html").read_text()
    odd = surprise(diabolo.load(fitted / "m.safetensors"), read_table(PENGUINS).data)
    assert f"line {odd.argmax() + 2}" in text
    assert "north" in text and "<title>more.csv" in text


def test_images_as_array_and_as_folder(tmp_path):
    images = (load_digits().images[:60] * 15).astype(np.uint8)
    write_table(tmp_path / "digits", images)
    said = run(
        "fit", tmp_path / "digits", "-o", tmp_path / "m.safetensors", *SMALL, "--set", "n_components=2"
    )
    assert "60 rows of 8 × 8 pixels" in said and "64 pixels" in said
    run("reconstruct", tmp_path / "m.safetensors", tmp_path / "digits", "-o", tmp_path / "again", "-q")
    run("reconstruct", tmp_path / "m.safetensors", tmp_path / "digits", "-o", tmp_path / "again.npy", "-q")
    values = np.load(tmp_path / "again.npy")
    assert values.shape == (60, 8, 8) and np.array_equal(read_table(tmp_path / "again").data, np.rint(values))
    run("sample", tmp_path / "m.safetensors", "-n", 3, "-o", tmp_path / "new", "-q")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["1.png", "2.png", "3.png"]
    run("score", tmp_path / "m.safetensors", tmp_path / "digits", "-o", tmp_path / "s.csv", "-q")
    assert list(pd.read_csv(tmp_path / "s.csv")["file"][:2]) == ["01.png", "02.png"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            "fit pengiuns.csv -o m2.safetensors",
            "no such file; expected a file that exists. Did you mean 'penguins.csv'?",
        ),
        ("fit penguins.csv -o m2.bin", "output m2.bin: got the ending '.bin'; expected .safetensors."),
        ("fit penguins.csv -o no/m.safetensors", "output no/m.safetensors: got no folder 'no';"),
        ("fit penguins.csv -o m2.safetensors --set n_component=2", "of VAE. Did you mean 'n_components'?"),
        ("fit penguins.csv -o m2.safetensors --set n_components", "as in --set n_components=2."),
        ("fit penguins.csv -o m2.safetensors --set n_components=0", "--set n_components: got 0;"),
        (
            "fit penguins.csv -o m2.safetensors --family vea",
            "--family: got 'vea'; expected a family. Did you mean 'vae'?",
        ),
        ("fit penguins.csv -o m2.safetensors --exclude ilsand", "Did you mean 'island'?"),
        ("transform penguins.csv m.safetensors -o c.csv", "The model comes first, then the data."),
        (
            "transform m.safetensors m.safetensors -o c.csv",
            "m.safetensors: got a fitted model where rows are wanted;",
        ),
        ("transform cut.safetensors penguins.csv -o c.csv", "cut.safetensors: got a damaged or foreign file"),
        ("transform m.safetensors renamed.csv -o c.csv", "renamed.csv: got no column 'sex';"),
        (
            "transform m.safetensors text.csv -o c.csv",
            "text.csv line 51, column 'flipper_length_mm': got 'oops'; expected a number. Add --missing oops.",
        ),
        ("fit text.csv -o m2.safetensors", "or --kind flipper_length_mm=categorical."),
        (
            "fit infinite.csv -o m2.safetensors",
            "infinite.csv line 52, column 'body_mass_g': got 1 infinite value",
        ),
        (
            "report m.safetensors penguins.csv -o r2.html --color ilsand",
            "of penguins.csv. Did you mean 'island'?",
        ),
        ("score m.safetensors penguins.csv -o s.npy", "output s.npy: got the ending '.npy'; expected .csv"),
        ("sample m.safetensors -n 3 -o pictures", "output pictures: got no ending;"),
        (
            "score m.safetensors cut.parquet -o s2.csv",
            "cut.parquet: got a damaged or cut-off file (Could not open Parquet input source 'cut.parquet': ",
        ),
        ("fit penguins.csv -o m2.safetensors --kind ilsand=count", "--kind: got 'ilsand'; expected the name"),
        ("fit penguins.csv -o m2.safetensors --kind island=cuont", "--kind island: got 'cuont'; expected a"),
        ("score m.safetensors penguins.csv -o penguins.csv", "results never replace rows."),
        (
            "score m.safetensors wide.npy -o s2.csv",
            "wide.npy: got an array of 9 columns; expected 7 columns,",
        ),
        ("score m.safetensors images.npy -o s2.csv", "images.npy: got images of 7 × 1 pixels; expected 7"),
        (
            "score none.safetensors penguins.csv -o s2.csv",
            "none.safetensors: got no such file; expected a model",
        ),
        ("fit penguins.csv", "Missing option '-o' / '--output'. See "),
        ("fit penguins.csv -o m2.safetensors --famly vae", "--famly. Did you mean --family? See "),
        ("fit penguins.csv -o m2.safetensors --seed x", "'--seed': expected a whole number. See "),
        ("sample m.safetensors -n 0 -o s2.csv", "expected at least 1. See "),
        ("ft penguins.csv", "No such command 'ft'. Did you mean 'fit'? See "),
    ],
)
def test_refusals(fitted, monkeypatch, args, sentence):
    lines = PENGUINS.read_text().splitlines()
    broken = {
        "text.csv": [*lines[:50], "Adelie,Dream,39,18,oops,3000,MALE", *lines[51:]],
        "infinite.csv": [*lines[:51], "Adelie,Dream,39,18,181,inf,MALE", *lines[52:]],
        "renamed.csv": [lines[0].replace("sex", "sexe"), *lines[1:]],
    }
    for name, changed in broken.items():
        (fitted / name).write_text("\n".join(changed) + "\n")
    np.save(fitted / "wide.npy", np.zeros((2, 9)))
    np.save(fitted / "images.npy", np.zeros((2, 7, 1)))
    (fitted / "cut.safetensors").write_bytes((fitted / "m.safetensors").read_bytes()[:5000])
    (fitted / "cut.parquet").write_bytes((fitted / "reversed.parquet").read_bytes()[:3000])
    before = sorted(fitted.iterdir())
    monkeypatch.chdir(fitted)
    said = run(*args.split(), code=2)
    assert sentence in said.splitlines()[-1], said
    assert "Traceback" not in said
    assert sorted(fitted.iterdir()) == before  # nothing half-written


def test_missing_and_index_options(fitted, tmp_path):
    text = PENGUINS.read_text().replace(",,", ",?,").replace("species,", "id,species,", 1)
    rows = text.splitlines()
    (tmp_path / "q.csv").write_text(
        "\n".join([rows[0], *(f"{k},{row}" for k, row in enumerate(rows[1:]))]) + "\n"
    )
    options = ["--missing", "?,-", "--index", "id", "-q"]
    run("score", fitted / "m.safetensors", tmp_path / "q.csv", "-o", tmp_path / "s.csv", *options)
    found = pd.read_csv(tmp_path / "s.csv")
    assert list(found.columns) == ["id", "log_density", "standard_error", "kind"]
    assert list(found["id"]) == list(range(344))
    expected = diabolo.load(fitted / "m.safetensors").score_samples(read_table(PENGUINS).data)
    assert np.allclose(found["log_density"], expected)


def test_what_is_advised_for_a_number_with_a_comma_works(tmp_path):
    rows = [f'{k},"{k // 10},{k % 10}"' if k == 30 else f"{k},{k / 7}" for k in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    fit = ("fit", tmp_path / "x.csv", "-o", tmp_path / "m.safetensors", *SMALL)
    said = run(*fit, code=2)
    advised = shlex.split(re.search(r"Add (--missing \S+), or", said).group(1))
    assert advised == ["--missing", '"3,0"']
    run(*fit, *advised)


def test_warnings_are_remarks(tmp_path):
    frame = pd.DataFrame({"x": np.arange(40) / 7, "same": 1})
    frame.to_csv(tmp_path / "x.csv", index=False)
    said = run("fit", tmp_path / "x.csv", "-o", tmp_path / "m.safetensors", *SMALL)
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    assert any("same" in note for note in notes) and ".py" not in said


def test_help_reads_well():
    said = run("--help")
    read = ["transform", "reconstruct", "score", "sample", "impute", "outliers"]
    for verb in ["fit", *read, "report", "compare", "inspect", "demo"]:
        assert verb in said
        assert f"diabolo {verb} " in run(verb, "--help") and "Example" in run(verb, "--help")
    assert run("--version").strip() == f"diabolo {diabolo.__version__}"
    assert "Missing option" in run("fit", "x.csv", code=2)


def environment(tmp_path: Path) -> dict[str, str]:
    """A process's surroundings with a cache of its own."""
    source = str(Path(diabolo.__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return {**kept, "PYTHONPATH": source, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_process_keeps_its_compiled_programs_and_its_manners(fitted, tmp_path):
    command = [sys.executable, "-m", "diabolo"]
    done = subprocess.run(
        [*command, "sample", fitted / "m.safetensors", "-n", "4", "-o", tmp_path / "new.csv"],
        env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "" and done.stdout.split() == ["wrote", str(tmp_path / "new.csv"), "4", "rows"]
    assert (tmp_path / "cache" / "diabolo" / "jax").is_dir() or sys.platform != "linux"
    refused = subprocess.run(
        [*command, "fit", "data.parquet", "-o", "m.safetensors"],
        env=environment(tmp_path), capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == "data.parquet: got no such file; expected a file that exists.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
def test_an_interrupted_verb_says_so_and_leaves_nothing(fitted, tmp_path):
    command = [sys.executable, "-m", "diabolo", "sample", fitted / "m.safetensors", "-n", "50000000"]
    heard = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
    running = subprocess.Popen([*command, "-o", tmp_path / "new.csv"], env=environment(tmp_path),
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 60  # a busy machine imports for long
    while not list(tmp_path.glob("*new.csv*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "Interrupted; nothing is half-written." in said
    assert "Traceback" not in said and not list(tmp_path.glob("*new.csv*"))


def test_an_interrupted_fit_keeps_what_it_learned_and_no_untrained_model(tmp_path, monkeypatch):
    from diabolo import engine
    from diabolo.families.vae import VAE

    rounds, compiled = [0, 2], engine._compiled_round

    def interrupting(*how):
        step = compiled(*how)

        def one(*args):
            rounds[0] += 1
            if rounds[0] > rounds[1]:
                raise KeyboardInterrupt
            return step(*args)

        return one

    monkeypatch.setattr(engine, "_compiled_round", interrupting)
    model = tmp_path / "m.safetensors"
    said = run("fit", PENGUINS, "-o", model, *SMALL, "--set", "max_steps=1000")
    assert "note: Interrupted after" in said and isinstance(diabolo.load(model), VAE)
    model.unlink()
    rounds[:] = [0, 0]
    said = run("fit", PENGUINS, "-o", model, *SMALL, code=130)
    assert "Interrupted; nothing is half-written." in said and not list(tmp_path.iterdir())


@pytest.fixture
def again(monkeypatch):
    """Set once an interrupt was put off and has come again."""
    from diabolo import cli

    came = threading.Event()
    monkeypatch.setattr(cli._thread, "interrupt_main", came.set)
    return came


def test_an_interrupt_that_python_could_not_raise_comes_again(again):
    from types import SimpleNamespace

    from diabolo import cli

    cli._unraisable(SimpleNamespace(exc_value=KeyboardInterrupt()))
    assert again.wait(10)


def test_an_interrupt_waits_for_an_import_that_is_under_way(again, tmp_path, monkeypatch):
    from diabolo import cli

    (tmp_path / "half_imported.py").write_text(
        "import sys\nfrom diabolo import cli\ncli._interrupt(2, sys._getframe())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("half_imported")
    assert again.wait(10)
    with pytest.raises(KeyboardInterrupt):
        cli._interrupt(signal.SIGINT, sys._getframe())


def test_help_imports_nothing_slow():
    code = (
        "import sys, json\nfrom typer.testing import CliRunner\nfrom diabolo.cli import app\n"
        "CliRunner().invoke(app, ['--help'])\nprint(json.dumps(list(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "pyarrow", "sklearn", "matplotlib"} & set(json.loads(run.stdout))


def test_demo_writes_four_readings_of_each_set(tmp_path, monkeypatch):
    from diabolo.families.vae import VAE

    kept = VAE._n_steps
    monkeypatch.setattr(VAE, "_n_steps", lambda self, rows: min(kept(self, rows), 100))
    said = run("demo", "--out", tmp_path / "demo")
    assert said.count("held out") == said.count("oddest") == 2 and "better than independent" in said
    names = {p.name for p in (tmp_path / "demo").iterdir()}
    for name in ("penguins", "digits"):
        assert {
            f"{name}.safetensors",
            f"{name}-codes.csv",
            f"{name}-samples.csv",
            f"{name}-scores.csv",
        } <= names
        assert (tmp_path / "demo" / f"{name}.html").stat().st_size > 10_000
    assert said.rstrip().endswith("diabolo report yours.csv")  # the next step, on the user's own file
    assert len(pd.read_csv(tmp_path / "demo" / "digits-scores.csv")) == 1797
    assert list(pd.read_csv(tmp_path / "demo" / "digits-samples.csv").columns)[:2] == [
        "pixel_0_0",
        "pixel_0_1",
    ]


def test_main_in_a_thread_leaves_signals_alone():
    code = (
        "import signal, sys, threading\nfrom diabolo import cli\nsys.argv = ['diabolo', '--version']\n"
        "heard = lambda: (signal.getsignal(signal.SIGINT), sys.unraisablehook)\nbefore = heard()\n"
        "thread = threading.Thread(target=cli.main)\nthread.start()\nthread.join()\nassert heard() == before\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "diabolo" in ran.stdout and not ran.stderr


@pytest.mark.parametrize(
    "name", ["normalizing_flow", "NormalizingFlow", "normalizingflow", "GSN", "gsn", "Vae"]
)
def test_a_family_goes_by_its_class_too(name):
    assert type(made(name, [], [], 0)).__name__.lower() == name.replace("_", "").lower()
