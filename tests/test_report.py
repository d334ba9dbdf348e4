"""The summary says what the estimator says; the page shows all of it, escaped, and needs nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fitted import SMALL, digits, odd_names, penguins

from diabolo import report
from diabolo.checks import InputError
from diabolo.families.vae import VAE
from diabolo.report import words


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data):
        self.text.append(data)


def test_summary_is_plain_json_and_the_same_each_time():
    vae, X = penguins()
    told = report.summary(vae, X, "species")
    text = json.dumps(told, allow_nan=False)
    assert json.loads(text) == told
    assert json.dumps(report.summary(vae, X, "species")) == text


def test_summary_of_a_table():
    vae, X = penguins()
    told = report.summary(
        vae, X, "species", title="penguins.csv", labels=[f"line {row}" for row in range(344)]
    )
    read = told["read"]
    assert (read["n_rows"], read["n_columns"], read["n_gaps"], read["n_cells"]) == (344, 7, 19, 2408)
    assert read["kinds"] == {"real": 4, "categorical": 2, "binary": 1}
    bill = read["columns"][2]
    assert bill["name"] == "bill_length_mm" and bill["decimals"] == 1 and bill["span"] == [32.1, 59.6]
    assert read["columns"][0]["levels"] == [["Adelie", 152], ["Gentoo", 124], ["Chinstrap", 68]]
    reading = vae.log_density(X)
    density = told["density"]
    assert density["kind"] == "bound" and density["unit"] == "nats"
    assert np.isclose(density["mean"], reading.values.mean())
    assert np.isclose(density["mean_error"], reading.values.std(ddof=1) / np.sqrt(344))
    worst = int(reading.values.argmin())
    first = density["oddest"][0]
    assert first["label"] == f"line {worst}" and np.isclose(first["log_density"], reading.values[worst])
    assert first["cells"] == [X.column(name)[worst].as_py() for name in X.column_names]
    values = [row["log_density"] for row in density["oddest"]]
    assert values == sorted(values) and len(values) == 10
    assert density["n_complete"] == 333  # rows without a gap, the only ones comparable with draws
    assert told["model"]["n_steps"] == vae.n_steps_ and told["model"]["seed"] == "0"
    changed = {name for name, parameter in told["model"]["parameters"].items() if parameter["changed"]}
    assert changed == {"n_components", "hidden_layer_sizes", "max_steps", "random_state"}


def test_reconstructions_show_gaps_and_changes():
    vae, X = penguins()
    told = report.summary(vae, X)["reconstructions"]
    rows = [int(row["label"].removeprefix("row ")) for row in told["rows"]]
    again = vae.reconstruct(X)
    gaps = 0
    for row, shown in zip(rows, told["rows"], strict=True):
        for name, cell, back, change in zip(
            told["columns"], shown["data"], shown["again"], shown["change"], strict=True
        ):
            assert cell == X.column(name)[row].as_py() and back == again.column(name)[row].as_py()
            if cell is None:
                gaps += 1
                assert change is None and back is not None
            elif isinstance(cell, str):
                assert change == float(cell != back)
            else:
                spread = np.nanstd(np.array(X.column(name).to_pylist(), float))
                assert np.isclose(change, (back - cell) / spread)
    assert gaps >= 3


def test_draws_are_the_estimators_draws():
    vae, X = penguins()
    told = report.summary(vae, X)["draws"]
    drawn = vae.sample(2000, random_state=0)
    assert told["draws"][0] == [drawn.column(name)[0].as_py() for name in told["columns"]]


def test_without_a_colour_the_density_colours():
    vae, X = penguins()
    color = report.summary(vae, X)["map"]["color"]
    assert color["name"] == "log p, nats (bound)"
    assert np.allclose(color["values"], vae.score_samples(X))


def test_many_rows_are_sampled_and_it_is_said(monkeypatch):
    monkeypatch.setattr("diabolo.report.facts.MAX_ROWS", 100)
    monkeypatch.setattr("diabolo.report.facts.MAX_POINTS", 40)
    vae, X = penguins()
    told = report.summary(vae, X, "species")
    assert told["read"]["n_looked_at"] == 100 and len(told["map"]["x"]) == 40
    rows = np.sort(np.random.default_rng(0).choice(344, 100, replace=False))
    points = np.sort(np.random.default_rng(0).choice(100, 40, replace=False))
    assert told["map"]["color"]["values"] == [X.column("species")[row].as_py() for row in rows[points]]
    assert "looks at 100 of them" in words.opening(told)[0]


def test_page_of_a_table(tmp_path):
    vae, X = penguins()
    path = report.write(vae, X, tmp_path / "page.html", "species", title="penguins.csv")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    said = " ".join(" ".join(page.text).split())
    for part in ["344 rows of 7 columns: 4 real, 2 categorical, 1 binary.", "19 of 2,408 cells are gaps",
                 "lower bound", "nats", "Least likely rows", "held out", "principal axis 1", "Gentoo",
                 "random_state", "Learning", "Manifold", "Generator", "Density", "Settings"]:  # fmt: skip
        assert part in said, part
    reading = vae.log_density(X)
    for row in np.argsort(reading.values)[:10]:  # with its kind; with its error where that can be trusted
        error = "" if reading.withheld[row] else f" ± {reading.standard_error[row]:.2f}"
        assert f"≥ −{-reading.values[row]:.2f}{error} " in said
    assert page.tags.count("svg") == 3 + 7  # loss, map, surprise; one per column
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_page_of_images(tmp_path):
    vae, images = digits()
    text = report.render(report.summary(vae, images, {"digit": np.arange(300) % 10}))
    page = Page(text)
    assert page.tags.count("img") == 2 * 12 + 2 * 24 + 12
    assert "300 images of 8 × 8 pixels" in " ".join(page.text)
    assert all(address.startswith(("data:image/png", "#")) for address in page.addresses)


def test_nothing_is_fetched_and_no_id_is_twice():
    text = report.render(report.summary(*penguins(), "species"))
    page = Page(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert "script" not in page.tags and "link" not in page.tags
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = {address[1:] for address in page.addresses} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_both_backgrounds_use_the_same_drawing():
    text = report.render(report.summary(*penguins(), "species"))
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    for color in ("#0072b2", "#d55e00", "#20262d"):  # fixed colours would vanish on one of them
        assert color not in drawings
    assert "var(--ink)" in drawings and "var(--c0)" in drawings and "DejaVu" not in drawings


def test_names_and_values_are_escaped():
    vae, X = odd_names()
    text = report.render(
        report.summary(vae, X, "$x_1$", title="<script>alert(1)</script>", labels=["<u>"] * 80)
    )
    page = Page(text)
    assert not {"script", "b", "u"} & set(page.tags)
    said = "".join(page.text)
    assert "<script>alert(1)</script>" in said and "<b>값</b>" in said and "가" in said and "a&b" in said
    assert "80 different texts, set aside" in said and "one only, not modelled" in said
    assert "1970-01-01 to 1970-03-21" in said


def test_conditional_models_are_drawn_under_the_rows_conditions():
    generator = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 60)
    X = np.column_stack([group, generator.normal(10 * group, 0.5)])
    vae = VAE(n_components=1, given=["x0"], kinds={"x0": "binary"}, **SMALL).fit(X)
    told = report.summary(vae, X)
    assert told["draws"]["columns"] == ["x1"] and told["read"]["columns"][0]["given"]
    assert [one["name"] for one in told["marginals"]] == ["x1"]


def test_paths_are_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"output .*page.pdf: got the ending '.pdf'; expected .html or .htm"):
        report.write(None, None, tmp_path / "page.pdf")


def test_a_failure_leaves_the_old_page(tmp_path):
    vae, X = penguins()
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(InputError, match="column 'speices'"):
        report.write(vae, X, path, "speices")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_words():
    assert words.nats(-16.531, 0.0721, "bound") == "≥ −16.53 ± 0.07"
    assert words.nats(-16.531, None, "exact") == "= −16.53"
    assert words.nats(3.0, 0.5, "estimate") == "≈ 3.00 ± 0.50"
    assert words.nats(None) == "−∞"
    assert [words.counted(n, "row") for n in (0, 1, 1024)] == ["no rows", "1 row", "1,024 rows"]
    assert [words.cell(*pair) for pair in [(2017, 0), (209186.4, 2), (-10_000, 0)]] == [
        "2017", "209,186.40", "\u221210,000"
    ]  # fmt: skip
    assert [words.cell(*pair) for pair in [(None, 2), (1.005, 1), (-3, 0), ("x", None), (True, None)]] == [
        "·", "1.0", "−3", "x", "True"]  # fmt: skip


def test_a_training_loss_that_climbs_is_explained():
    from types import SimpleNamespace

    from diabolo.plot import shown

    curves = [([9.0, 5.0, 4.0], False), ([9.0, 3.0, 5.0, 4.5], True), ([9.0, 5.0, 5.01, 4.9], False)]
    for losses, climbs in curves:
        fitted = SimpleNamespace(loss_curve_=losses, validation_scores_=[-1.0] * len(losses), n_steps_=9)
        assert shown.training(fitted)["climbs"] is climbs
