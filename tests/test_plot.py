"""Panels: what they draw is what the estimator says, and pyplot stays untouched."""

import sys

import numpy as np
import pandas as pd
import pytest
from fitted import digits, odd_names, penguins
from matplotlib.figure import Figure

from diabolo import plot
from diabolo.checks import InputError
from diabolo.plot import shown
from diabolo.plot.view import View, as_cells, decimals, numbers
from diabolo.table import Schema


def test_no_panel_touches_pyplot():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    vae, X = penguins()
    ax = Figure().subplots()
    assert plot.loss(vae, ax=ax) is ax
    assert plot.map(vae, X).figure is not ax.figure


def test_loss_draws_both_curves_in_steps():
    vae, _ = penguins()
    training, held_out, kept = plot.loss(vae).lines
    assert training.get_ydata().tolist() == vae.loss_curve_
    assert held_out.get_ydata().tolist() == [-score for score in vae.validation_scores_]
    assert training.get_xdata()[-1] == vae.n_steps_
    best = int(np.argmax(vae.validation_scores_))
    assert kept.get_ydata()[0] == -vae.validation_scores_[best]


def test_map_of_two_components_is_the_codes():
    vae, X = penguins(2)
    drawn = plot.map(vae, X).collections[0].get_offsets()
    assert np.allclose(drawn, vae.transform(X))


def test_map_of_more_is_their_principal_plane():
    vae, X = penguins()
    codes = vae.transform(X)
    data = shown.code_map(codes)
    values = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    assert np.isclose(np.var(data["x"], ddof=1), values[0]) and np.isclose(
        np.var(data["y"], ddof=1), values[1]
    )
    assert np.isclose(data["share"], values[:2].sum() / values.sum())


def test_map_colours_by_label_mark_and_number():
    vae, X = penguins()
    labelled = plot.map(vae, X, color="species")
    assert [text.get_text() for text in labelled.get_legend().get_texts()] == [
        "Adelie",
        "Gentoo",
        "Chinstrap",
    ]
    assert [len(points.get_offsets()) for points in labelled.collections] == [152, 124, 68]
    marks = {tuple(map(tuple, points.get_paths()[0].vertices.round(3))) for points in labelled.collections}
    assert len(marks) == 3
    gap, known = plot.map(vae, X, color="body_mass_g").collections[:2]
    assert len(gap.get_offsets()) == 2 and known.get_array().tolist()[:2] == [3750, 3800]


def test_colours_given_per_row():
    schema = Schema.learn(np.random.default_rng(0).normal(size=(40, 2)))
    view = View(np.zeros((40, 2)), schema)
    many = shown.coloring(view, schema, [f"level {row % 20}" for row in range(40)])
    assert len(many["levels"]) == 12 and many["levels"][-1] == "other"
    assert many["values"].count("other") == 40 - 11 * 2
    digit = shown.coloring(view, schema, {"digit": np.arange(40) % 10})
    assert digit["name"] == "digit" and digit["levels"] == [str(level) for level in range(10)]
    number = shown.coloring(view, schema, pd.Series(np.arange(40.0), name="age"))
    assert number["name"] == "age" and number["type"] == "number" and number["values"][3] == 3.0
    with pytest.raises(InputError, match="color: got 3 values; expected one for each of 40 rows"):
        shown.coloring(view, schema, [1, 2, 3])
    with pytest.raises(InputError, match=r"column 'x_1'.*Did you mean 'x1'"):
        shown.coloring(view, schema, "x_1")


def test_histogram_shares_and_steps():
    rows = np.repeat([0.0, 1.0, 2.0, 7.0], [10, 20, 30, 40])
    bins = shown.histogram(rows, np.array([0.0, 99.0]), resolution=1.0)
    assert bins["edges"] == [
        -0.5,
        0.5,
        1.5,
        2.5,
        3.5,
        4.5,
        5.5,
        6.5,
        7.5,
        8.5,
        9.5,
    ]  # a quarter beyond the rows
    assert bins["rows"] == [0.1, 0.2, 0.3, 0, 0, 0, 0, 0.4, 0, 0]
    assert bins["draws"] == [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]  # further ones count in the last bin
    assert shown.histogram(rows, np.array([0.0, 7.0]), resolution=1.0)["edges"][-1] == 7.5
    wide = shown.histogram(np.arange(1000.0), resolution=1.0)
    widths = np.diff(wide["edges"])
    assert np.allclose(widths, widths[0]) and widths[0] == 36.0  # a whole number of steps, at most 28 bins
    assert np.isclose(sum(wide["rows"]), 1.0)


def test_marginals_are_shares_of_data_and_draws():
    vae, X = penguins()
    axes = plot.marginals(vae, X, columns=["species", "bill_length_mm"])
    assert [ax.get_title(loc="left") for ax in axes] == ["species", "bill_length_mm"]
    bars = [patch.get_width() for patch in axes[0].patches]
    assert np.allclose(bars, np.array([152, 124, 68]) / 344)
    drawn = vae.sample(2000, random_state=0).column("species").to_pylist()
    marks = axes[0].lines[0].get_xdata()
    assert np.allclose(marks, [drawn.count(level) / 2000 for level in ["Adelie", "Gentoo", "Chinstrap"]])


def test_surprise_is_minus_the_log_density():
    vae, X = penguins()
    values = shown.surprises(np.array([-1.0, -3.0, -np.inf]), None, "bound")
    assert values["n_impossible"] == 1 and values["kind"] == "bound"
    assert values["edges"][0] < 1.01 and values["edges"][-1] > 2.99
    assert plot.surprise(vae, X, n_draws=50).get_xlabel() == "surprise -log p(x), nats (bound)"


def test_images_and_their_reconstructions():
    vae, images = digits()
    sheet = plot.reconstructions(vae, images, n=4).images[0].get_array()
    assert sheet.shape == (2 * 8 + 1, 4 * 9 - 1, 4)
    rows = np.sort(np.random.default_rng(0).permutation(300)[:4])
    assert np.array_equal(sheet[:8, :8, 0], np.rint(images[rows[0]] * 255 / 16))
    again = np.clip(vae.reconstruct(images[rows]), 0, 16)
    assert np.array_equal(sheet[9:, :8, 0], np.rint(again[0] * 255 / 16))
    assert sheet[8].max() == 0  # the gap is transparent
    assert plot.samples(vae, n=6, n_columns=3).images[0].get_array().shape == (17, 26, 4)


def test_pictures_of_tables_are_refused():
    vae, X = penguins()
    with pytest.raises(InputError, match="X: got a table; expected images"):
        plot.reconstructions(vae, X)
    with pytest.raises(InputError, match="estimator: got one fitted on a table"):
        plot.samples(vae)
    with pytest.raises(InputError, match="X: got images; expected a table"):
        plot.marginals(*digits())


@pytest.mark.filterwarnings("ignore:Glyph")  # this machine may have no Hangul font
def test_names_are_no_formulas():
    vae, X = odd_names()
    ax = plot.map(vae, X, color="$x_1$")
    ax.figure.savefig("/dev/null", format="svg")
    texts = {text.get_text() for text in ax.get_legend().get_texts()}
    assert (
        texts == {"<script>", "가", "\u200b_c", "a&b"}
        and ax.get_legend().get_title().get_text() == r"\$x_1\$"
    )


def test_cells_and_decimals():
    frame = pd.DataFrame({"a": [1, None], "b": ["x", pd.NA], "c": pd.to_datetime(["2020-01-02", None])})
    assert [as_cells(frame[name]) for name in "abc"] == [[1.0, None], ["x", None], ["2020-01-02", None]]
    assert numbers(["1970-01-03", None, 2]).tolist()[::2] == [2.0, 2.0]
    assert [decimals(0.1, 5.0), decimals(1.0, 900.0), decimals(None, 5.0), decimals(0.0, 0.02)] == [
        1,
        0,
        2,
        4,
    ]


def test_view_keeps_container_and_labels():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=["u", "v", "w"])
    view = View(frame, Schema.learn(frame)).part(np.array([2, 0]))
    assert view.labels == ["w", "u"] and view.column("a") == [3.0, 1.0]
    assert list(view.X.index) == ["w", "u"]
