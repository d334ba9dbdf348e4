"""Test nats of MADE on small binary sets, beside what was to be reached.

    python benchmarks/small_sets.py                  the sets and their state
    python benchmarks/small_sets.py nltcs networks   one set under one setting; what is done is not done again
    python benchmarks/small_sets.py --table          the table of docs/results.md

The data folder is named by DIABOLO_DATA. Of a set's settings the one that its validation rows find likeliest is shown;
test rows choose nothing. Numbers are kept, one file per set and setting, under benchmarks/published/small/.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diabolo import MADE

FOLDER = Path(os.environ.get("DIABOLO_DATA", "data"))
HERE = Path(__file__).parent
NUMBERS, PAGE = HERE / "published" / "small", HERE.parent / "docs" / "results.md"
# mean test nats to reach
TARGETS = {
    "nltcs": -5.99,
    "plants": -12.3,
    "baudio": -38.6,
    "jester": -51.5,
    "nips": -272.5,
    "dna": -81.2,
    "mushrooms": -9.68,
}
# No rows held out: all are learned from, and the number of steps is part of the setting. No order drawn afresh: all
# rows are whole.
WHOLE = {"early_stopping": False, "agnostic": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "few orders": {**WHOLE, "max_steps": 8000, "n_orders": 4, "dropout": 0.1},
    "half dropped": {**WHOLE, "max_steps": 5000, "dropout": 0.5, "n_orders": 16},
    "networks": {**WHOLE, "max_steps": 5000, "n_networks": 8, "n_orders": 4},
    "networks, little dropped": {
        **WHOLE,
        "max_steps": 8000,
        "n_networks": 8,
        "n_orders": 4,
        "dropout": 0.1,
    },
    "networks of one order": {
        **WHOLE,
        "max_steps": 8000,
        "n_networks": 16,
        "n_orders": 1,
        "dropout": 0.1,
    },
    "networks, fast": {**WHOLE, "max_steps": 5000, "n_networks": 8, "n_orders": 4, "learning_rate": 0.01},
    "networks, half dropped": {**WHOLE, "max_steps": 6000, "n_networks": 8, "n_orders": 16, "dropout": 0.5},
    "networks, two layers": {
        **WHOLE,
        "hidden_layer_sizes": (500, 500),
        "max_steps": 2500,
        "n_networks": 8,
        "n_orders": 2,
        "learning_rate": 3e-3,
        "weight_decay": 10.0,
    },
    "networks, two narrow layers": {
        **WHOLE,
        "hidden_layer_sizes": (200, 200),
        "max_steps": 8000,
        "n_networks": 16,
        "n_orders": 2,
        "dropout": 0.05,
        "direct": False,
        "weight_decay": 3.0,
    },
    "networks, slow": {
        **WHOLE,
        "max_steps": 1000,
        "n_networks": 8,
        "n_orders": 32,
        "learning_rate": 1e-3,
        "dropout": 0.5,
        "direct": False,
        "weight_decay": 5.0,
    },
}
SETTINGS |= {
    "many networks, two layers": SETTINGS["networks, two layers"] | {"n_networks": 24, "n_orders": 1},
    "48 networks, two layers": SETTINGS["networks, two layers"] | {"n_networks": 48, "n_orders": 1},
    "many networks, two narrow layers": SETTINGS["networks, two narrow layers"]
    | {
        "hidden_layer_sizes": (300, 300),
        "learning_rate": 3e-3,
        "max_steps": 3000,
        "n_networks": 24,
        "n_orders": 1,
        "weight_decay": 15.0,
    },
    "many networks, little dropped": SETTINGS["networks, little dropped"] | {"n_networks": 24, "n_orders": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=list(TARGETS))
    parser.add_argument("setting", nargs="?", choices=list(SETTINGS), default="default")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.name is None:
        if not asked.table:
            return print("\n".join(path.stem for path in sorted(NUMBERS.glob("*.json"))))
        before, rest = PAGE.read_text().split("<!-- small -->")
        after = rest.split("<!-- end small -->")[1]
        PAGE.write_text(f"{before}<!-- small -->\n{table()}\n<!-- end small -->{after}")
        return
    path = NUMBERS / f"{asked.name}-{asked.setting.replace(', ', '-').replace(' ', '-')}.json"
    if path.exists():
        print(f"{path} is there already")
        return
    found = run(asked.name, asked.setting)
    NUMBERS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found)


def run(name: str, setting: str) -> dict[str, Any]:
    """Fit one set under one setting and read its validation and test rows."""
    with np.load(FOLDER / "density" / f"{name}.npz") as file:
        parts = [file[f"x_{part}"] for part in ("train", "valid", "test")]
    columns = [f"x{i}" for i in range(parts[0].shape[1])]
    train, valid, test = (pd.DataFrame(part, columns=columns) for part in parts)
    # named one by one, so that a column of one value in training keeps a law
    made = MADE(kinds=dict.fromkeys(columns, "binary"), random_state=0, **SETTINGS[setting])
    begun, worked = time.perf_counter(), time.process_time()
    made.fit(train)
    seconds, processor = time.perf_counter() - begun, time.process_time() - worked
    nats = made.score_samples(test)
    return {
        "set": name,
        "setting": setting,
        "valid": round(made.score(valid), 4),
        "test": round(float(nats.mean()), 4),
        "test_error": round(float(nats.std() / len(nats) ** 0.5), 4),
        "n_steps": made.n_steps_,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
    }


def table() -> str:
    """Markdown: the default and the chosen setting of each set."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(NUMBERS.glob("*.json"))]
    lines = [
        "| set | to reach | default | chosen on validation rows | its setting | seconds of processor |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for name, target in TARGETS.items():
        rows = [row for row in found if row["set"] == name]
        if not rows:
            continue
        best = max(rows, key=lambda row: row["valid"])
        default = next((f"{row['test']:.3f}" for row in rows if row["setting"] == "default"), "not run")
        short = "" if best["test"] >= target else ", short"
        lines.append(
            f"| {name} | {target} | {default} | {best['test']:.3f} ± {best['test_error']:.3f}{short} "
            f"| {best['setting']} | {best['processor_seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
