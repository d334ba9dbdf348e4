"""The page in a real browser: it opens without a network, a click selects, a click decodes."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from fitted import digits, penguins

import diabolo
from diabolo import report
from diabolo.families.vae import VAE
from diabolo.report import exported
from diabolo.report.subject import Subject

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HELD_OUT = np.arange(0, 344, 10)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a table and of images, written once."""
    folder = tmp_path_factory.mktemp("pages")
    vae, X = penguins(2)
    report.write(vae, X, folder / "table.html", "species", held_out=HELD_OUT)
    vae, images = digits()
    report.write(vae, images, folder / "images.html", {"digit": np.arange(300) % 10})
    return folder


@pytest.fixture
def opened(browser, pages):
    """Opens a page with every way to the network shut, and says what the browser complained of."""
    contexts = []

    def open_page(name, **options):
        context = browser.new_context(offline=True, viewport={"width": 1240, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url),
        )
        page.goto((pages / name).as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=30_000)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def at(page, x, y):
    """Screen coordinates of a place of the map."""
    box = page.evaluate(
        """() => { const b = document.querySelector("#map .role-frame .background").getBoundingClientRect();
        const {low, high} = diabolo.told.maps[0].empty; return [b.left, b.top, b.width, b.height, ...low, ...high]; }"""
    )
    left, top, width, height, x0, y0, x1, y1 = box
    return left + (x - x0) / (x1 - x0) * width, top + (y1 - y) / (y1 - y0) * height


def test_opens_offline_without_a_complaint(opened):
    for name in ("table.html", "images.html"):
        page, complaints = opened(name, color_scheme="dark")
        assert complaints == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _holds(level, cell):
    """Whether a class of numbers, `≤ 3`, `3 – 5` or `> 5`, holds a cell."""
    ends = [float(end.replace(",", "")) for end in level.strip("≤> ").split(" – ")]
    low, high = ends if len(ends) == 2 else (-np.inf, *ends) if level[0] == "≤" else (*ends, np.inf)
    return low < cell <= high


def test_a_click_selects_the_row_everywhere(opened):
    page, complaints = opened("table.html")
    odd = page.locator("table.odd tbody tr").first
    odd.click()
    label = odd.locator("th").inner_text()
    assert page.locator("#about h3").inner_text() == label == page.locator("#chosen strong").inner_text()
    row = int(label.removeprefix("row "))
    vae, X = penguins(2)
    shown = dict(tr.inner_text().split("\t") for tr in page.locator("#about tr").all())
    assert shown["island"] == X.column("island")[row].as_py()
    i = page.evaluate("diabolo.state.row")
    x, y = vae.transform(X)[row]
    assert np.allclose(
        page.evaluate(f"[diabolo.told.maps[0].x[{i}], diabolo.told.maps[0].y[{i}]]"), [x, y], atol=1e-3
    )
    rings = page.evaluate("views.map.data('selected')")
    assert len(rings) == 1 and np.isclose(rings[0]["x"], x, atol=1e-3)
    marked = page.evaluate("views.others.map(([view]) => view.data('selected').length)")
    known = {name: X.column(name)[row].as_py() is not None for name in X.column_names}
    pairs = page.evaluate("diabolo.told.pairs.shown.map((pair) => pair.columns)")
    assert marked[0] == 1 and sum(marked) == 1 + sum(known.values()) + sum(
        known[a] and known[b] for a, b in pairs
    )
    at_pair = page.evaluate("views.others.at(-1)[0].data('selected')")[0]
    for name, level in zip(pairs[-1], (at_pair["a"], at_pair["b"]), strict=True):
        cell = X.column(name)[row].as_py()
        assert level == cell if isinstance(cell, str) else _holds(level, cell), (name, cell, level)
    page.locator("#chosen button").click()
    codes = vae.transform(X)  # a click on a point of the map selects it, and its row of the table
    lonely = int(
        np.argmax(np.min(np.linalg.norm(codes[:, None] - codes[None], axis=2) + 9 * np.eye(344), axis=1))
    )
    page.locator("#map").scroll_into_view_if_needed()
    page.mouse.click(*at(page, *codes[lonely]))
    assert page.locator("#about h3").inner_text() == f"row {lonely}"
    page.get_by_role("tab", name="PCA of the rows").click()
    page.select_option("#color", "body_mass_g")
    page.wait_for_timeout(200)
    assert page.evaluate("views.map.data('selected').length") == 1 and complaints == []


def test_a_click_decodes_what_inverse_transform_gives(opened):
    page, complaints = opened("table.html")
    vae, _ = penguins(2)
    low, high = page.evaluate("[diabolo.told.maps[0].empty.low, diabolo.told.maps[0].empty.high]")
    page.locator("#map").scroll_into_view_if_needed()
    page.mouse.click(*at(page, *(np.array(low) * 0.97 + np.array(high) * 0.03)))
    place = page.evaluate("diabolo.state.place")
    assert np.allclose(place, np.array(low) * 0.97 + np.array(high) * 0.03, atol=0.01 * (high[0] - low[0]))
    again = vae.inverse_transform(np.array([place]))
    shown = dict(tr.inner_text().split("\t") for tr in page.locator("#about tr").all())
    assert shown["species"] == again.column("species")[0].as_py()
    assert shown["bill_length_mm"] == f"{again.column('bill_length_mm')[0].as_py():.1f}"
    assert "No row is near" in page.locator("#about").inner_text() and complaints == []


KINDS = {"a": "real", "b": "positive", "c": "count", "d": "ordinal", "e": "categorical", "f": "binary"}


@pytest.mark.parametrize("member", ["VAE", "Autoencoder"])
def test_every_kind_of_column_is_decoded_alike(opened, member):
    generator = np.random.default_rng(0)
    t = generator.normal(size=200)
    table = pa.table(
        {
            "a": np.where(t > 0.5, 0.0, t.round(2)),  # an atom
            "b": np.exp(t + 0.1 * generator.normal(size=200)),
            "c": generator.poisson(np.exp(1 + t)),
            "d": np.clip(np.rint(2 + t), 0, 4),
            "e": np.array(["x", "y", "z"])[np.digitize(t, [-0.5, 0.5])].tolist(),
            "f": (t > 0).astype(int),
        }
    )
    few = {"n_components": 2, "hidden_layer_sizes": (16, 16, 16), "max_steps": 300, "random_state": 0}
    fitted = getattr(diabolo, member)(kinds=KINDS, activation="gelu", **few).fit(table)
    told = exported.decoder(Subject.of(fitted, table, None, None, True))
    page, _ = opened("table.html")
    codes = generator.normal(scale=1.5, size=(40, 2)).round(3)
    found = page.evaluate(
        "([told, codes]) => { const d = unpacked(told); return codes.map((z) => [decoded(d, z), logPrior(d, z)]); }",
        [told, codes.tolist()],
    )
    again = fitted.inverse_transform(codes)
    log_prior = fitted.model_.log_prior(fitted.model_.split(np.asarray(codes, np.float32)))
    for i, (cells, density) in enumerate(found):
        assert np.isclose(density, log_prior[i], atol=1e-3)
        for cell in cells:
            name = again.column_names[cell["column"]]
            value = again.column(name)[i].as_py()
            # 303.5, told twice in single precision, may be either whole number
            near = value if name != "c" else np.clip(cell["value"], value - 1 - value // 1e3, value + 1)
            assert cell["value"] == value or np.isclose(cell["value"], near, rtol=1e-3, atol=1e-3), (
                name,
                cell,
                value,
            )


def test_images_are_selected_and_decoded(opened):
    page, complaints = opened("images.html")
    item = page.locator("#odd li").first
    item.click()
    assert page.locator("#about h3").inner_text() in item.inner_text()
    assert page.locator("#about .thumb").count() == 1 and complaints == []
    vae, _ = digits()
    values = page.evaluate("diabolo.decodeAt(0.5, -0.5).map((cell) => cell.value)")
    assert np.allclose(values, vae.inverse_transform(np.array([[0.5, -0.5]])).ravel(), atol=1e-3)


def test_convolutions_are_decoded_alike(opened):
    """Sides that do not halve evenly, and three channels."""
    images = np.random.default_rng(0).integers(0, 256, size=(60, 18, 15, 3), dtype=np.uint8)
    fitted = VAE(n_components=3, max_steps=100, activation="silu", random_state=0).fit(images)
    told = exported.decoder(Subject.of(fitted, images, None, None, True))
    assert len(told["convolutions"]) == 2
    page, _ = opened("images.html")
    codes = np.random.default_rng(1).normal(scale=1.5, size=(5, 3)).round(3)
    found = page.evaluate(
        "([told, codes]) => { const d = unpacked(told); return codes.map((z) => decoded(d, z).map((c) => c.value)); }",
        [told, codes.tolist()],
    )
    again = fitted.inverse_transform(codes).reshape(5, -1)
    assert np.abs(np.array(found) - again).max() <= 1.0  # a value at half a step may be rounded either way
    assert np.mean(np.array(found) == again) > 0.99


def test_conditional_members_say_why_they_are_not_decoded():
    generator = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 60)
    X = np.column_stack([group, generator.normal(10 * group, 0.5)])
    few = {"n_components": 1, "hidden_layer_sizes": (16,), "max_steps": 200, "random_state": 0}
    vae = VAE(given=["x0"], kinds={"x0": "binary"}, **few).fit(X)
    told = report.summary(vae, X)
    assert "conditional" in told["decoder"]["why_not"]
    assert told["draws"]["columns"] == [1] and told["columns"][0]["given"]
    assert "does not run in the page: the model is conditional" in " ".join(
        report.render(told).split()
    ).replace("this page", "the page")
