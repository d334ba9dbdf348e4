"""The summary says what the estimator says; the page shows all of it, escaped, and needs nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from fitted import SMALL, digits, odd_names, penguins

from diabolo import report
from diabolo.checks import InputError
from diabolo.comparison import gain, independent_columns
from diabolo.families.vae import VAE
from diabolo.report import words

HELD_OUT = np.arange(0, 344, 10)


class Page(HTMLParser):
    """Tags, addresses and text of a page, without what its scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []
        self.feed(re.sub(r"(<script[^>]*>).*?</script>", r"\1</script>", text, flags=re.DOTALL))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data):
        self.text.append(data)

    @property
    def said(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def told():
    """The penguins, judged by rows that are called held out."""
    vae, X = penguins()
    labels = [f"line {row}" for row in range(344)]
    return report.summary(vae, X, "species", held_out=HELD_OUT, title="penguins.csv", labels=labels)


def test_summary_is_plain_json_and_the_same_each_time():
    vae, X = penguins()
    told = report.summary(vae, X.slice(0, 60), "species")
    text = json.dumps(told, allow_nan=False)
    assert json.loads(text) == told
    assert json.dumps(report.summary(vae, X.slice(0, 60), "species")) == text


def test_what_was_read(told):
    read = told["read"]
    assert (read["n_rows"], read["n_columns"], read["n_gaps"], read["n_cells"]) == (344, 7, 19, 2408)
    assert read["kinds"] == {"real": 4, "categorical": 2, "binary": 1} and read["n_held_out"] == 35
    bill = told["columns"][2]
    assert bill["name"] == "bill_length_mm" and bill["decimals"] == 1 and bill["span"] == [32.1, 59.6]
    assert told["columns"][0]["levels"] == [["Adelie", 152], ["Gentoo", 124], ["Chinstrap", 68]]
    changed = {name for name, parameter in told["model"]["parameters"].items() if parameter["changed"]}
    assert changed == {"n_components", "hidden_layer_sizes", "max_steps", "random_state"}


def test_structure_is_the_gain_on_held_out_rows(told):
    vae, X = penguins()
    unseen = X.take(HELD_OUT)
    expected, density = gain(vae, unseen), told["density"]
    assert density["kind"] == "bound" and density["judged_by"] == "held out"
    assert np.isclose(density["gain"]["mean"], expected.mean)
    assert np.isclose(density["gain"]["standard_error"], expected.standard_error)
    assert np.isclose(density["log_density"]["mean"], vae.score(unseen))
    sentence = words.opening(told)[1]
    assert f"{expected.mean:.1f} ± {expected.standard_error:.1f} nats per row better" in sentence
    assert "35 rows used neither for training nor for stopping" in sentence and "(lower bound)" in sentence
    given = report.summary(vae, X.slice(0, 60))
    assert given["density"]["judged_by"] == "rows"
    assert "on the rows given here, which it may have been trained on" in words.opening(given)[1]


def test_held_out_rows_come_as_rows_or_as_positions():
    vae, X = penguins()
    some, unseen = X.slice(0, 80), X.take([3, 9, 27, 40, 71])
    by_rows = report.summary(vae, some, held_out=unseen)["density"]
    by_positions = report.summary(vae, some, held_out=np.array([3, 9, 27, 40, 71]))["density"]
    assert by_rows == by_positions and by_rows["n_rows"] == 5


def test_columns_say_how_much_the_others_tell():
    generator = np.random.default_rng(0)
    t = generator.normal(size=600)
    X = pd.DataFrame({"a": t, "b": t + 0.5 * generator.normal(size=600), "alone": generator.normal(size=600)})
    vae = VAE(n_components=2, hidden_layer_sizes=(32,), max_steps=1500, random_state=0).fit(X)
    told = report.summary(vae, X, held_out=np.arange(0, 600, 3))
    gains = {column["name"]: column["gain"]["mean"] for column in told["columns"]}
    truth = np.log(np.sqrt(1.25) / 0.5)  # of Gaussians: half the log of the ratio of variances
    assert 0.6 * truth < gains["b"] < 1.1 * truth
    assert abs(gains["alone"]) < 0.1


@pytest.fixture(scope="module")
def customers():
    """A mixed table of 400 people between 18 and 84, one of whom is 203."""
    generator = np.random.default_rng(5)
    age = generator.integers(18, 85, 400).astype(float)
    work = np.where(age > 65, "retired", generator.choice(["office", "shop", "school"], 400))
    income = np.exp(9 + 0.01 * age + 0.3 * generator.normal(size=400)).round()
    frame = pd.DataFrame({"age": age, "income": income, "work": work, "member": generator.random(400) < 0.4})
    frame.loc[123, "age"] = 203.0
    return VAE(random_state=0, max_steps=800).fit(frame), frame


def test_an_age_of_203_comes_first(customers):
    vae, frame = customers
    told = report.summary(vae, frame)
    first = told["odd"]["rows"][0]
    assert first["place"] == 123 and first["guilty"] == 0 and told["odd"]["n_odd"] >= 1
    age = first["cells"][0]
    assert age["value"] == 203 and age["excess"] > 8 and age["high"] < 110
    said = words.opening(told)[2]
    assert "The oddest is row 123: age = 203 (expected " in said


def test_an_odd_row_is_found_in_a_large_table(customers, monkeypatch):
    vae, frame = customers
    monkeypatch.setattr("diabolo.report.oddities.MAX_HIDDEN", 100)
    monkeypatch.setattr("diabolo.report.oddities.N_CANDIDATES", 30)
    told = report.summary(vae, frame)
    assert told["odd"]["rows"][0]["place"] == 123 and told["odd"]["n_hidden"] < 60
    assert "were hidden one by one" in Page(report.render(told)).said


def test_a_constant_that_is_broken_is_named():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"a": generator.normal(size=80), "b": generator.normal(size=80), "site": 7.0})
    with pytest.warns(UserWarning, match="one value"):
        vae = VAE(n_components=1, **SMALL).fit(frame)
    frame.loc[5, "site"] = 9.0
    with pytest.warns(UserWarning, match="outside the support"):
        told = report.summary(vae, frame)
    assert told["odd"]["rows"][0]["place"] == 5 and told["density"]["n_impossible"] == 1
    assert "row 5: site = 9 (expected 7)" in words.opening(told)[2]


def test_no_rows_leaves_every_value_of_a_row_out(tmp_path):
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"secret": (1000 * generator.normal(size=200)).round(3), "group": generator.choice(["p", "q"], 200)}
    )
    vae = VAE(n_components=2, **SMALL).fit(frame)
    path = report.write(
        vae, frame, tmp_path / "page.html", "group", no_rows=True, json_path=tmp_path / "told.json"
    )
    text, told = path.read_text(encoding="utf-8"), (tmp_path / "told.json").read_text(encoding="utf-8")
    for value in frame["secret"]:
        assert f"{value:.3f}" not in text and repr(float(value)) not in told
    assert "Values of single rows are left out" in text
    assert json.loads(told)["rows"]["cells"] is None


def test_rows_tell_density_beside_gain(told):
    vae, X = penguins()
    rows = told["rows"]
    values = vae.score_samples(X)
    assert np.allclose(rows["log_density"], values[rows["places"]])
    assert np.allclose(rows["gain"], (values - independent_columns(vae.schema_, X))[rows["places"]])
    assert rows["labels"][3] == f"line {rows['places'][3]}" and told["rows"]["color"] == "species"
    assert rows["cells"][0][3] == X.column("species")[rows["places"][3]].as_py()


def test_maps_can_be_trusted_as_scikit_learn_says(told):
    from sklearn.manifold import trustworthiness

    vae, X = penguins()
    assert [one["key"] for one in told["maps"]] == ["codes", "tsne", "pca"]
    plane = told["maps"][0]
    assert np.allclose(
        np.array(plane["centre"]) + np.column_stack([plane["x"], plane["y"]]) @ np.array(plane["axes"]),
        vae.transform(X),
        atol=2.5,
    )
    values = np.clip(vae.schema_.encode(X).values, -5, 5)
    for place in vae.schema_.layout.places:
        if place.kind.name == "categorical":
            values[:, place.start : place.stop] /= np.sqrt(2)
    expected = trustworthiness(values, np.column_stack([plane["x"], plane["y"]]), n_neighbors=10)
    assert np.isclose(plane["trustworthiness"], expected, atol=0.005)
    assert told["maps"][1]["trustworthiness"] > 0.9


def test_pairs_that_disagree_come_first():
    generator = np.random.default_rng(0)
    X = pd.DataFrame({name: generator.normal(size=800) for name in "abc"})
    vae = VAE(n_components=1, **SMALL).fit(X)
    X["b"] = X["a"] + 0.1 * generator.normal(size=800)  # what the model never saw
    pairs = report.summary(vae, X)["pairs"]
    assert pairs["n_pairs"] == 3 and pairs["shown"][0]["columns"] == ["a", "b"]
    assert pairs["shown"][0]["apart"] > 0.5 > 2 * pairs["shown"][1]["apart"]
    assert np.isclose(np.sum(pairs["shown"][0]["draws"]), 1.0)


def test_copies_are_called_copies(monkeypatch):
    vae, X = penguins()
    some = X.slice(0, 100)
    assert "Draws are no copies" in Page(report.render(report.summary(vae, some))).said
    monkeypatch.setattr(VAE, "sample", lambda self, n, **_: some.take(np.arange(n) % 100))
    assert "Some draws are copies: 500 of 500" in Page(report.render(report.summary(vae, some))).said


def test_components_are_moved_one_by_one(told):
    vae, X = penguins()
    codes = vae.transform(X)
    first = told["components"]["traversals"][0]
    k = first["component"] - 1
    code = np.median(codes, axis=0)
    code[k] += 2 * codes[:, k].std()
    again = vae.inverse_transform(code[None])
    changed = first["columns"][0]
    name = told["columns"][changed["column"]]["name"]
    assert changed["cells"][-1] == pytest.approx(again.column(name)[0].as_py())
    assert len(told["components"]["divergence"]) == 3 and max(told["components"]["divergence"]) > 0.5


def test_many_rows_are_sampled_and_it_is_said(monkeypatch):
    monkeypatch.setattr("diabolo.report.subject.MAX_ROWS", 100)
    monkeypatch.setattr("diabolo.report.maps.MAX_POINTS", 40)
    vae, X = penguins()
    told = report.summary(vae, X, {"kept": np.arange(344) % 7})
    read = told["read"]
    assert read["n_drawn"] == 100 < read["n_looked_at"] <= 160 and 40 <= len(told["rows"]["places"]) <= 60
    kept = told["rows"]["colors"][0]
    assert kept["name"] == "kept"
    assert kept["values"] == [str(int(label.removeprefix("row ")) % 7) for label in told["rows"]["labels"]]
    assert (
        f"looks at 100 of them, drawn at random with a fixed seed, and at {read['n_looked_at'] - 100} more"
        in (words.opening(told)[0])
    )


def test_the_oddest_of_many_rows_is_found_outside_the_sample(monkeypatch):
    monkeypatch.setattr("diabolo.report.subject.MAX_ROWS", 100)
    vae, X = penguins()
    drawn = np.random.default_rng(0).choice(344, 100, replace=False)
    outside = int(np.setdiff1d(np.arange(344), drawn)[7])
    X = X.to_pandas()
    X.loc[outside, "body_mass_g"] = 20_000.0
    told = report.summary(vae, X)
    assert words.oddest(told).startswith(f"row {outside}: body_mass_g = 20,000 (expected ")
    # but how many are odd is counted among the rows drawn at random
    assert " of 100 rows stand" in words.opening(told)[2] or "No rows stand" in words.opening(told)[2]


def test_page_of_a_table(told, tmp_path):
    text = report.render({**told, "command": "diabolo report penguins.csv --color species"})
    page = Page(text)
    for part in ["344 rows of 7 columns: 4 real, 2 categorical, 1 binary.", "19 of 2,408 cells are gaps",
                 "lower bound", "Odd rows", "more than independent columns give", "Draws are no copies",
                 "diabolo report penguins.csv --color species", "random_state", "share it as you would share those",
                 "Columns", "Map", "Pairs", "Components", "Draws", "Training"]:  # fmt: skip
        assert part in page.said, part
    first = told["odd"]["rows"][0]
    assert page.said.count(words.why(first, told["columns"])[0]) == 2  # in the opening, and in the table
    assert len(text) < 5_000_000


def test_page_of_images():
    vae, images = digits()
    told = report.summary(vae, images, {"digit": np.arange(300) % 10})
    page = Page(report.render(told))
    assert page.tags.count("img") == 2 * 12 + 2 * 12 + 2 * 2 * 9 + 3 * 8
    assert (
        "300 images of 8 × 8 pixels" in page.said
        and "nats per image better than independent pixels" in page.said
    )
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    line = {one["name"]: one["errors"] for one in told["reconstructions"]}
    assert max(line["best"]) <= min(line["median"]) <= max(line["median"]) <= min(line["worst"])
    oddest = told["odd"]["rows"][0]["place"]
    assert oddest == int(np.argmin(vae.score_samples(images)))


def test_nothing_is_fetched_and_no_id_is_twice(told):
    text = report.render(told)
    page = Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = {address[1:] for address in page.addresses if address.startswith("#")}
    assert used <= set(ids) and "sourceMappingURL" not in text


def test_names_and_values_are_escaped():
    vae, X = odd_names()
    labels = ["</script><u>"] * 80
    text = report.render(report.summary(vae, X, "$x_1$", title="<script>alert(1)</script>", labels=labels))
    page = Page(text)
    assert not {"b", "u"} & set(page.tags) and page.tags.count("script") == 1 + 2 + 4
    said = "".join(page.text)
    assert "<script>alert(1)</script>" in said and "<b>값</b>" in said and "</script><u>" in said
    assert "80 different texts, set aside" in said and "one only, not modelled" in said
    assert "1970-01-01 to 1970-03-21" in said


def test_paths_are_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"output .*page.pdf: got the ending '.pdf'; expected .html or .htm"):
        report.write(None, None, tmp_path / "page.pdf")


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    vae, X = penguins()
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(report.facts.oddities, "with_the_oddest", None)  # refused before the work
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
