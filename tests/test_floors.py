"""Imports only go down: the rooms, their floors, and what importing the package may touch."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import diabolo

HOUSE = Path(__file__).resolve().parents[1] / "src" / "diabolo"

# room -> floor; a package is one room, however many files it has
FLOORS = {
    "checks": 0,
    "keys": 0,
    "devices": 0,
    "matrices": 0,
    "nets": 1,
    "flows": 1,
    "likelihoods": 1,
    "columns": 1,
    "masked": 1,
    "table": 2,
    "joint": 2,
    "batches": 2,
    "files": 2,
    "codes": 3,
    "proposals": 3,
    "priors": 3,
    "gaussian": 3,
    "dequantization": 3,
    "objectives": 3,
    "orders": 3,
    "model": 4,
    "deterministic": 4,
    "variational": 4,
    "labels": 4,
    "ladder": 4,
    "boltzmann": 4,
    "kernels": 4,
    "conditionals": 4,
    "wiring": 5,
    "making": 5,
    "engine": 5,
    "restarts": 5,
    "density": 5,
    "impute": 5,
    "passes": 5,
    "progress": 6,
    "pretraining": 6,
    "estimator": 6,
    "deterministic_estimator": 6,
    "variational_estimator": 6,
    "kernel_estimator": 6,
    "saving": 6,
    "families": 7,
    "outliers": 8,
    "classifier": 8,
    "comparison": 8,
    "manifold": 8,
    "codec": 8,
    "scale": 8,
    "plot": 9,
    "report": 9,
    "cli": 10,
    "demo": 10,
    "__main__": 10,
}

# The doors within a floor: (from, to). The other direction stays shut, so no circle can arise.
DOORS = {
    ("keys", "checks"),  # what is no seed is refused
    ("masked", "nets"),  # its layers
    ("restarts", "engine"),
    ("columns", "likelihoods"),  # a kind names the law of its cells
    ("table", "joint"),  # a schema stacks its columns' laws
    ("flows", "nets"),  # activations by name
    ("batches", "joint"),
    ("batches", "table"),
    ("files", "table"),
    ("variational", "model"),
    ("labels", "model"),
    ("kernels", "model"),
    ("boltzmann", "model"),
    ("conditionals", "model"),  # how fast what all rows share moves
    ("ladder", "model"),
    ("ladder", "variational"),  # the same strata of draws
    ("labels", "variational"),  # the same strata of draws
    ("deterministic_estimator", "estimator"),
    ("variational_estimator", "estimator"),
    ("kernel_estimator", "estimator"),
    ("deterministic", "model"),  # an abstract model that several families share
    ("priors", "codes"),
    ("impute", "density"),  # the same weighted codes
    ("estimator", "saving"),  # save() is one of the estimator's verbs
    ("estimator", "progress"),  # fit() may show how far it is
    ("report", "plot"),  # a page is made of panels
    ("cli", "demo"),  # one of the verbs
    ("__main__", "cli"),
}

# third-party packages that only some rooms may import
RESERVED = {"typer": {"cli", "demo"}, "ray": {"scale"}}

# names that say where a thing was dropped instead of what it is
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools"}


def room_of(module: str) -> str:
    """'diabolo.families.vae' -> 'families'."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """The modules a file imports, wherever in the file, absolute names only."""
    package = ("diabolo", *path.relative_to(HOUSE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            if module == "diabolo":  # `from diabolo import plot` opens the room `plot`
                found |= {f"diabolo.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


def complaints(room: str, module: str) -> list[str]:
    """Why `room` may not import `module`; empty where it may."""
    top = module.split(".")[0]
    if top in RESERVED and room not in RESERVED[top]:
        return [f"only {' and '.join(sorted(RESERVED[top]))} may import {top}"]
    if top != "diabolo":
        return []
    other = room_of(module)
    if other not in FLOORS:
        return ["no room imports diabolo itself, only a room in it: from diabolo.checks import refuse"]
    if other == room:
        return []
    if FLOORS[other] > FLOORS[room]:
        return [f"an arrow that runs up: {room} is on floor {FLOORS[room]}, {other} on {FLOORS[other]}"]
    if FLOORS[other] == FLOORS[room] and (room, other) not in DOORS:
        return [f"{room} and {other} share floor {FLOORS[room]} and no door in DOORS joins them this way"]
    return []


def files() -> list[Path]:
    return sorted(p for p in HOUSE.rglob("*.py") if p != HOUSE / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_every_file_has_a_room_and_a_name(path):
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    assert room in FLOORS, f"{name_of(path)}: put the room {room!r} on a floor in FLOORS, as design.md has it"
    assert path.stem not in NAMELESS, f"{name_of(path)}: name the file for the noun it holds"


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_imports_go_down(path):
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if room not in FLOORS:
        pytest.fail(f"{room!r} has no floor")
    wrong = [
        f"{name_of(path)} imports {module}: {reason}"
        for module in sorted(imports(path))
        for reason in complaints(room, module)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_every_program_is_compiled_with_our_options(path):
    """`devices.compiled` says which; plain ones have given wrong numbers on a CPU."""
    if path.stem not in ("devices", "engine"):
        assert "filter_jit" not in path.read_text() and "jax.jit" not in path.read_text()


@pytest.mark.parametrize("path", sorted((HOUSE / "families").glob("*.py")), ids=name_of)
def test_families_never_import_one_another(path):
    others = {m for m in imports(path) if m.startswith("diabolo.families")}
    assert not others, f"{name_of(path)} imports {sorted(others)}: move what both need to a floor below"


@pytest.mark.parametrize(
    ("room", "module", "reason"),
    [
        ("table", "diabolo.engine", "an arrow that runs up"),
        ("nets", "diabolo.columns", "no door"),
        ("likelihoods", "diabolo.columns", "no door"),
        ("engine", "diabolo", "no room imports diabolo itself"),
        ("engine", "diabolo.VAE", "no room imports diabolo itself"),
        ("plot", "typer", "only cli and demo"),
        ("engine", "ray.util", "only scale"),
    ],
)
def test_a_wrong_import_is_found(room, module, reason):
    assert reason in complaints(room, module)[0]


def test_right_imports_pass_and_doors_open_one_way():
    assert complaints("engine", "diabolo.checks") == []
    assert complaints("families", "numpy") == []
    assert complaints("columns", "diabolo.likelihoods") == []
    assert not {(other, room) for room, other in DOORS} & DOORS
    assert all(FLOORS[room] == FLOORS[other] for room, other in DOORS)


def test_imports_are_read_wherever_they_stand(monkeypatch, tmp_path):
    (tmp_path / "families").mkdir()
    path = tmp_path / "families" / "one.py"
    path.write_text(
        "import diabolo.checks\nfrom diabolo import plot\nfrom .two import x\nfrom ..table import y\n"
        "def f():\n    from diabolo.engine import fit\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "HOUSE", tmp_path)
    assert imports(path) == {
        "diabolo.checks",
        "diabolo.plot",
        "diabolo.families.two",
        "diabolo.table",
        "diabolo.engine",
    }


def fresh(code: str) -> dict:
    """Run code that prints one JSON object, in a process that has imported nothing yet."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_importing_the_package_is_lazy():
    loaded = fresh("import sys, json, diabolo; print(json.dumps([m for m in sys.modules if '.' not in m]))")
    heavy = {"jax", "equinox", "optax", "sklearn", "scipy", "numpy", "matplotlib", "pyarrow", "pandas"}
    assert not heavy & set(loaded)


def test_importing_every_room_changes_no_setting():
    changed = fresh(
        "import json, random, warnings, jax, numpy, diabolo\n"
        "import sklearn.mixture, equinox, optax, pyarrow, narwhals, matplotlib.figure, jinja2, typer, rich\n"
        "def settings():\n"
        "    return {**{k: repr(v) for k, v in jax.config.values.items()},\n"
        "            'warnings': repr(warnings.filters), 'numpy errors': repr(numpy.geterr()),\n"
        "            'numpy draws': repr(numpy.random.get_state()), 'draws': repr(random.getstate())}\n"
        "before = settings()\n"
        "for name in diabolo.__all__: getattr(diabolo, name)\n"
        "after = settings()\n"
        "print(json.dumps([name for name in before if before[name] != after[name]]))"
    )
    assert changed == []


def test_every_exported_name_is_its_owners():
    rooms = {"plot", "report", "__version__"}
    assert set(diabolo.__all__) == set(diabolo._OWNERS) | rooms
    assert set(diabolo.__all__) <= set(dir(diabolo))
    for name, owner in diabolo._OWNERS.items():
        assert getattr(diabolo, name) is getattr(sys.modules[f"diabolo.{owner}"], name)
    with pytest.raises(AttributeError, match="has no attribute 'VEA'"):
        _ = diabolo.VEA


def test_the_version_is_said_once():
    assert importlib.metadata.version("diabolo") == diabolo.__version__
