"""The schema against known tables: containers in and out, gaps, given columns, units, refusals."""

import datetime
import decimal
import json
import warnings

import equinox as eqx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from scipy import stats

from diabolo.checks import InputError, InputTypeError
from diabolo.columns import Binary, Count, Ordinal, Real
from diabolo.table import Schema, Survey, fill, missing

RNG = np.random.default_rng(0)
N = 40


def kinds(schema):
    return [column.kind.name for column in schema.columns]


def again(schema):
    """The schema after a trip through JSON."""
    copy = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert copy == schema
    return copy


def log_density(schema, X):
    """Nats per row in the user's units under the product of the columns' marginal laws."""
    law, rows = schema.likelihood(), schema.encode(X)
    cells = np.asarray(eqx.filter_jit(law.log_prob)(law.initial, rows.values), np.float64)
    return np.where(rows.observed, cells, 0.0).sum(1) + rows.offset


def mixed():
    """A pandas frame with most types that pandas has, gaps in the first row of many."""
    times = pd.date_range("2020-01-01", periods=N, freq="h")
    frame = pd.DataFrame(
        {
            "whole": RNG.integers(0, 1000, N),
            "float": RNG.normal(size=N),
            "single": RNG.normal(size=N).astype("float32"),
            "byte": RNG.integers(0, 200, N).astype("uint8"),
            "flag": RNG.random(N) > 0.5,
            "word": np.resize(["red", "green", "blue"], N),
            "nullable": pd.array([None, *range(N - 1)], dtype="Int64"),
            "boolean": pd.array([None, *np.resize([True, False], N - 1)], dtype="boolean"),
            "string": pd.array([None, *np.resize(["a", "b", "c"], N - 1)], dtype="string"),
            "objects": pd.Series([None, *np.resize(["u", "v", "w"], N - 1)], dtype=object),
            "category": pd.Categorical(np.resize(["x", "y", "z"], N)),
            "codes": pd.Categorical(np.resize([1, 2, 3, 4], N)),
            "ordered": pd.Categorical(np.resize(["lo", "hi"], N), ["lo", "mid", "hi"], ordered=True),
            "hours": pd.Series([pd.NaT, *times[1:]]),
            "days": pd.date_range("2020-01-01", periods=N).astype("datetime64[ns]"),
            "zone": pd.date_range("2020-01-01", periods=N, freq="min", tz="Europe/Zurich"),
            "long": pd.to_timedelta(RNG.integers(0, 500, N), unit="m"),
            "dates": [datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in range(N)],
            "arrow": pd.array([None, *range(100, 99 + N)], dtype="int64[pyarrow]"),
            "spelt": [str(k) for k in RNG.integers(0, 1000, N)],
            "same": 5,
            "empty": None,
        },
        index=[f"row {k}" for k in range(N)],
    )
    frame["hours"] = [pd.NaT, *times[1:]]
    frame["objects"] = pd.Series([None, *np.resize(["u", "v", "w"], N - 1)], dtype=object, index=frame.index)
    return frame


EXPECTED = {
    "whole": "real", "float": "real", "single": "real", "byte": "real", "flag": "binary",
    "word": "categorical", "nullable": "real", "boolean": "binary", "string": "categorical",
    "objects": "categorical", "category": "categorical", "codes": "categorical", "ordered": "ordinal",
    "hours": "real", "days": "real", "zone": "real", "long": "real", "dates": "real", "arrow": "real",
    "spelt": "real", "same": "constant", "empty": "constant",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:columns same, empty")
def test_a_pandas_frame_comes_back_with_its_types_and_index():
    frame = mixed()
    schema = again(Schema.learn(frame))
    assert dict(zip(schema.names, kinds(schema), strict=True)) == EXPECTED
    rows = schema.encode(frame)
    back = schema.decode(rows.values, like=frame)
    assert back.index.equals(frame.index)
    assert back.dtypes.astype(str).to_dict() == frame.dtypes.astype(str).to_dict()
    full = frame.iloc[1:]
    for name in frame:
        if name in ("float", "single"):
            np.testing.assert_allclose(back[name].iloc[1:], full[name], rtol=1e-5, atol=1e-6)
        else:
            same = (back[name].iloc[1:] == full[name]) | full[name].isna()
            assert same.all(), name
    with_gaps = [name for name in frame if frame[name].isna().any() and name != "empty"]
    modelled = [name for name in frame if EXPECTED[name] != "constant"]
    assert [name for name, gap in zip(modelled, schema.gaps, strict=True) if gap] == with_gaps
    assert (~rows.observed[0]).tolist() == schema.gaps.tolist() and rows.observed[1:].all()


def polars_frame():
    start = datetime.datetime(2020, 1, 1)
    times = [None, *(start + datetime.timedelta(hours=k) for k in range(1, N))]
    return pl.DataFrame(
        {
            "whole": [None, *range(N - 1)],
            "float": [None, float("nan"), *RNG.normal(size=N - 2)],
            "flag": [None, *np.resize([True, False], N - 1).tolist()],
            "word": [None, *np.resize(["a", "b", "c"], N - 1).tolist()],
            "category": pl.Series([None, *np.resize(["a", "b", "c"], N - 1)], dtype=pl.Categorical),
            "ordered": pl.Series([None, *np.resize(["lo", "hi"], N - 1)], dtype=pl.Enum(["lo", "mid", "hi"])),
            "date": pl.Series([datetime.date(2020, 1, 1 + k % 28) for k in range(N)]),
            "hours": pl.Series(times, dtype=pl.Datetime("ms")),
            "zone": pl.Series(times, dtype=pl.Datetime("us", "Europe/Zurich")),
            "long": pl.Series([None if t is None else t - start for t in times]),
            "money": pl.Series([decimal.Decimal(f"{k}.25") for k in range(N)], dtype=pl.Decimal(10, 2)),
            "byte": pl.Series(RNG.integers(0, 200, N), dtype=pl.UInt8),
        }
    )


@pytest.mark.parametrize("container", ["polars", "pyarrow"])
def test_polars_and_arrow_come_back_with_their_types(container):
    frame = polars_frame()
    table = frame if container == "polars" else frame.to_arrow()
    schema = again(Schema.learn(table))
    named = dict(zip(schema.names, kinds(schema), strict=True))
    assert [name for name, kind in named.items() if kind == "categorical"] == ["word", "category"]
    assert named["flag"] == "binary" and named["ordered"] == "ordinal"
    assert schema.columns[5].kind.levels == ("lo", "mid", "hi")
    rows = schema.encode(table)
    assert rows.observed[0].tolist() == [False] * 6 + [True, False, False, False, True, True]
    back = schema.decode(rows.values)
    assert type(back) is type(table)
    if container == "polars":
        assert back.schema == table.schema
    else:
        plain = [str(t).replace("large_string", "string") for t in table.schema.types]
        assert [str(t).replace("large_string", "string") for t in back.schema.types] == plain
    filled = pl.from_arrow(back) if container == "pyarrow" else back
    for name in frame.columns:
        here, there = filled[name].to_list(), frame[name].to_list()
        if name == "float":
            np.testing.assert_allclose(here[2:], there[2:], rtol=1e-5, atol=1e-6)
        else:
            assert here[1:] == there[1:], name


def test_a_gap_in_an_integer_column_makes_room_for_itself():
    frame = pd.DataFrame(
        {"a": [1, 2, 30], "b": [True, False, True], "c": ["x", "y", "x"], "z": [0.5, 1.5, 2]}
    )
    schema = Schema.learn(frame, given=["a", "b", "c"])
    back = schema.decode(schema.encode(frame).values)
    assert back.dtypes.astype(str).to_dict() == {"a": "float64", "b": "boolean", "c": "str", "z": "float64"}
    assert back[["a", "b", "c"]].isna().all().all()
    np.testing.assert_allclose(back["z"], frame["z"], rtol=1e-6)


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT, np.datetime64("NaT")], ids=str)
def test_every_sort_of_gap_is_one_in_objects(gap):
    cells = [[1.5, "a"], [gap, gap], [2.5, "b"], [7.0, "c"]]
    schema = Schema.learn(np.array(cells, dtype=object))
    assert kinds(schema) == ["real", "categorical"] and schema.gaps.tolist() == [True, True]
    rows = schema.encode(np.array(cells, dtype=object))
    assert rows.observed.tolist() == [[True, True], [False, False], [True, True], [True, True]]
    assert rows.offset[1] == 0.0 and not rows.values[1].any()
    frame = pd.DataFrame(cells, columns=["number", "word"], dtype=object)
    assert Schema.learn(frame).encode(frame).observed.tolist() == rows.observed.tolist()


def test_masked_cells_are_gaps():
    masked = np.ma.masked_greater(np.arange(12).reshape(6, 2), 9)
    assert Schema.learn(masked).encode(masked).observed.tolist() == [[True, True]] * 5 + [[False, False]]


@pytest.mark.parametrize(
    "X",
    [
        RNG.normal(size=(30, 4)),
        RNG.normal(size=(30, 4)).astype(np.float32),
        np.asfortranarray(RNG.normal(size=(30, 4))),
        RNG.integers(-500, 500, (30, 4)),
        RNG.integers(0, 2**16, (30, 4)).astype(np.uint16),
        RNG.normal(size=(30, 4)) * 1e12,
        RNG.normal(size=(30, 4)) + 1e8,
        RNG.normal(size=(30, 4)).tolist(),
        RNG.normal(size=(30, 4)).astype(object),
    ],
    ids=["float", "single", "fortran", "integers", "unsigned", "huge", "offset", "list", "objects"],
)
def test_arrays_of_any_type_come_back_as_float64(X):
    if isinstance(X, np.ndarray):
        X.setflags(write=False)
    schema = again(Schema.learn(X))
    rows = schema.encode(X)
    assert rows.values.dtype == np.float32 and rows.observed.all()
    numbers = np.asarray(X, np.float64)
    np.testing.assert_allclose(rows.values, (numbers - numbers.mean(0)) / numbers.std(0), atol=1e-5)
    np.testing.assert_allclose(rows.offset, -np.log(numbers.std(0)).sum(), rtol=1e-9)
    back = schema.decode(rows.values)
    assert back.dtype == np.float64
    assert np.abs(back - numbers).max() < 1e-6 * numbers.std()


def test_plain_floats_are_real_or_zero_and_one():
    X = np.c_[RNG.normal(size=50), np.resize([0.0, 1.0], 50), np.resize([0.0, 2.0], 50), np.resize(5.0, 50)]
    with pytest.warns(UserWarning, match="column x3 holds one value or none"):
        schema = Schema.learn(X)
    assert kinds(schema) == ["real", "binary", "real", "constant"]
    assert (schema.n_features, schema.n_columns, schema.n_counted, schema.width) == (
        4,
        3,
        3,
        5,
    )  # 0 and 2 are atoms
    np.testing.assert_allclose(schema.decode(schema.encode(X).values), X, atol=1e-6)
    assert kinds(Schema.learn(X[:, :3].astype(int) * [1, 1, 3])) == ["categorical", "binary", "binary"]


def test_identifiers_are_set_aside_in_one_line():
    frame = pd.DataFrame({"id": [f"k{i}" for i in range(30)], "x": RNG.normal(size=30)})
    with pytest.warns(UserWarning, match="column id holds mostly distinct text") as caught:
        schema = Schema.learn(frame)
    assert len(caught) == 1 and schema.n_columns == 1
    back = schema.decode(schema.encode(frame).values)
    assert back["id"].isna().all() and back.columns.tolist() == ["id", "x"]


def test_a_rows_bits_do_not_depend_on_its_company():
    X = np.c_[RNG.normal(size=(300, 5)), RNG.integers(0, 2, 300)]
    X[::7, 2] = np.nan
    schema = Schema.learn(X)
    rows = schema.encode(X)
    order = RNG.permutation(300)
    for all_at_once, permuted in zip(rows, schema.encode(X[order]), strict=True):
        assert np.array_equal(all_at_once[order], permuted)
    alone = [schema.encode(X[i : i + 1]) for i in range(0, 300, 11)]
    for j, array in enumerate(rows):
        assert np.array_equal(np.concatenate([row[j] for row in alone]), array[::11])


def test_a_block_and_its_columns_one_by_one_are_the_same_rows():
    X = np.c_[
        RNG.normal(size=(60, 3)),
        RNG.integers(0, 2, (60, 3)),
        np.where(RNG.random(60) < 0.5, 0.0, RNG.normal(9, 1, 60)),
        np.full(60, 4.0),
    ]
    X[3, 0] = X[5, 4] = X[6, 6] = np.nan
    with pytest.warns(UserWarning, match="column x7 holds one value"):
        schema = Schema.learn(X)
    X[7, 5], X[8, 7] = 3.0, 5.0
    with pytest.warns(UserWarning, match="column 'x5', 'x7': values outside the support"):
        block = schema.encode(X)
    with pytest.warns(UserWarning, match="column 'x5', 'x7': values outside the support"):
        single = schema.encode(X.astype(object))
    for one, other in zip(block, single, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert np.flatnonzero(np.isneginf(block.offset)).tolist() == [7, 8]


def test_long_tables_are_encoded_in_blocks():
    X = np.c_[RNG.normal(size=(2000, 300)), RNG.integers(0, 3, (2000, 1))]
    schema = Schema.learn(X, kinds={300: "categorical"})
    assert schema.layout.block_rows < 2000
    rows = schema.encode(X)
    np.testing.assert_allclose(schema.decode(rows.values), X, atol=1e-5)
    assert rows.observed.all() and np.ptp(rows.offset) == 0.0


def test_a_change_of_unit_moves_the_density_by_its_log_per_cell():
    X = RNG.normal(size=(50, 3))
    X[4, 1] = np.nan
    moved = log_density(Schema.learn(1000 * X), 1000 * X) - log_density(Schema.learn(X), X)
    np.testing.assert_allclose(moved, -np.log(1000) * (~np.isnan(X)).sum(1), atol=1e-4)


def test_the_marginal_laws_add_up_over_mixed_columns():
    frame = pd.DataFrame({"x": RNG.normal(3, 2, 200), "w": np.resize(["a", "b", "b", "c"], 200)})
    expected = stats.norm(frame.x.mean(), frame.x.std(ddof=0)).logpdf(frame.x)
    expected += np.log(frame.w.map({"a": 0.25, "b": 0.5, "c": 0.25}) * 200 / 201)
    np.testing.assert_allclose(log_density(Schema.learn(frame), frame), expected, rtol=1e-4)


def test_an_unseen_level_pays_and_warns_nobody():
    frame = pd.DataFrame({"w": ["a"] * 9 + ["b"] * 9 + ["c", "d"], "x": RNG.normal(size=20)})
    schema = Schema.learn(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen, unseen = (schema.encode(frame.iloc[:1].assign(w=[w])) for w in ("a", "zebra"))
    assert unseen.observed.tolist() == [[False, True]]
    assert unseen.offset - seen.offset == pytest.approx(np.log(0.1))


def test_strange_values_score_minus_infinity_with_one_warning():
    frame = pd.DataFrame({"n": [3, 4, 9, 11], "b": ["no", "yes", "no", "no"]})
    schema = Schema.learn(frame, kinds={"n": Count()})
    strange = pd.DataFrame({"n": [-1, 4, 9], "b": ["no", "maybe", "yes"]})
    with pytest.warns(UserWarning, match="column 'n', 'b': values outside the support") as caught:
        rows = schema.encode(strange)
    assert len(caught) == 1
    assert rows.offset.tolist() == [-np.inf, -np.inf, 0.0]
    assert rows.observed.tolist() == [[False, True], [True, False], [True, True]]


def test_kinds_by_name_position_instance_or_for_all():
    X = np.exp(RNG.normal(size=(30, 3)))
    schema = Schema.learn(X, kinds={"x0": "positive", -1: Real(resolution=0.5)})
    assert kinds(schema) == ["positive", "real", "real"] and schema.columns[2].kind.resolution == 0.5
    whole = np.c_[RNG.integers(0, 3, 30), np.full(30, 7)]
    with pytest.warns(UserWarning, match="column x1 holds one value"):
        assert kinds(Schema.learn(whole, kinds="real")) == ["real", "constant"]
    frame = pd.DataFrame({"s": ["hi", "lo", "mid", "lo"]})
    schema = Schema.learn(frame, kinds={"s": Ordinal(levels=["lo", "mid", "hi"])})
    assert schema.encode(frame).values.argmax(1).tolist() == [2, 0, 1, 0]


def test_text_that_spells_numbers_is_numbers_and_goes_back_as_text():
    frame = pd.DataFrame({"n": ["10", "11", None, "12.5"]})
    schema = Schema.learn(frame)
    assert kinds(schema) == ["real"]
    back = schema.decode(schema.encode(frame).values)
    assert back["n"].tolist()[:2] == ["10", "11"] and back["n"].iloc[3] == "12.5"
    kept = Schema.learn(frame, kinds={"n": "categorical"})
    assert kept.columns[0].kind.levels == ("10", "11", "12.5")


def test_numbers_reach_a_column_of_text_as_written():
    schema = Schema.learn(pd.DataFrame({"w": ["1", "2", "a", "2.5"]}))
    rows = schema.encode(pd.DataFrame({"w": [2, 1, 2.5]}))
    assert [schema.columns[0].kind.levels[k] for k in rows.values.argmax(1)] == ["2", "1", "2.5"]


def test_given_columns_are_conditions_and_have_no_law():
    frame = pd.DataFrame({"x": [1.5, 2.5, 4, 5], "g": ["a", "b", "c", "a"], "t": [10.5, None, 20.5, 30.5]})
    schema = again(Schema.learn(frame, given=["g", "t"]))
    assert (schema.n_columns, schema.width, schema.given_width) == (1, 1, 6)
    rows = schema.encode(frame.assign(g=["a", "zebra", None, "c"]))
    assert rows.given[:, :4].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]]
    z = np.sqrt(1.5)
    np.testing.assert_allclose(rows.given[:, 4:], [[-z, 0], [0, 1], [0, 0], [z, 0]], rtol=1e-6)
    assert rows.offset == pytest.approx(-np.log(frame.x.std(ddof=0)))
    full = schema.encode(frame)
    back = schema.decode(full.values, given_values=full.given)
    assert back["g"].tolist() == ["a", "b", "c", "a"] and back["t"].isna().tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(back["t"], frame["t"], rtol=1e-6)
    assert np.array_equal(schema.encode_given(frame[["g", "t"]]), full.given)
    assert np.array_equal(schema.encode_given(frame), full.given)
    with pytest.raises(InputError, match=r"given: got columns \['x'\]; expected the given columns"):
        schema.encode_given(frame[["x"]])
    assert Schema.learn(np.arange(12.0).reshape(4, 3), given=0).given_width == 2


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (RNG.integers(0, 256, (20, 3, 4)).astype(np.uint8), "pixels"),
        (RNG.integers(0, 256, (20, 3, 4, 3)).astype(np.uint8), "pixels"),
        (RNG.integers(0, 2, (20, 3, 4)).astype(np.uint8), "binary"),
        (RNG.random((20, 3, 4)), "real"),
    ],
)
def test_images_share_one_kind_and_keep_their_shape(images, name):
    images = images.copy()
    images[:, 0, 0] = 0  # a pixel that never changes is still one
    schema = again(Schema.learn(images))
    assert set(kinds(schema)) == {name} and len({column.kind for column in schema.columns}) == 1
    assert schema.names[:2] == (
        ("pixel_0_0", "pixel_0_1") if images.ndim == 3 else ("pixel_0_0_0", "pixel_0_0_1")
    )
    back = schema.decode(schema.encode(images).values)
    assert back.shape == images.shape
    np.testing.assert_allclose(back, images, atol=1e-6)
    flat = images.reshape(20, -1)
    as_rows = Schema.learn(flat, image_shape=images.shape[1:])
    assert [c.kind for c in as_rows.columns] == [c.kind for c in schema.columns]
    assert as_rows.decode(as_rows.encode(flat).values).shape == flat.shape
    np.testing.assert_array_equal(as_rows.encode(images).values, schema.encode(flat).values)


def test_draws_land_on_what_the_columns_hold():
    frame = pd.DataFrame({"a": RNG.integers(0, 90, 50), "b": RNG.normal(size=50).round(1)})
    schema = Schema.learn(frame)
    drawn = schema.decode(RNG.normal(size=(200, 2)), snap=True)
    assert drawn["a"].dtype == np.int64
    assert (drawn["b"] == drawn["b"].round(1)).all()
    block = Schema.learn(frame.to_numpy()).decode(RNG.normal(size=(200, 2)), snap=True)
    assert np.array_equal(block, np.c_[block[:, 0].round(), block[:, 1].round(1)])
    small = Schema.learn(pd.DataFrame({"a": np.arange(200, dtype="uint8")}))
    assert small.decode(np.array([[9.0], [-9.0]]))["a"].tolist() == [255, 0]


def test_surveys_of_two_chunks_make_the_schema_of_one():
    frame = mixed().drop(columns=["same", "empty"])
    whole = Schema.learn(frame)
    merged = Schema.of(Survey.of(frame.iloc[:13]).merge(Survey.of(frame.iloc[13:])))
    assert kinds(merged) == kinds(whole)
    ours, theirs = merged.encode(frame), whole.encode(frame)
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)
    np.testing.assert_allclose(ours.offset, theirs.offset)
    images = RNG.integers(0, 256, (20, 3, 4)).astype(np.uint8)
    parts = Survey.of(images[:5]).merge(Survey.of(images[5:]))
    assert Schema.of(parts).columns[0].kind.scale == pytest.approx(images.std())


def test_one_row_and_no_modelled_column_still_round_trip():
    X = np.array([[1.5, 2.5]])
    with pytest.warns(UserWarning, match="columns x0, x1 hold one value or none"):
        schema = Schema.learn(X)
    assert schema.n_columns == 0 and schema.encode(X).values.shape == (1, 0)
    assert schema.decode(np.zeros((1, 0))).tolist() == X.tolist()


def test_a_frame_and_an_array_of_the_same_columns_are_the_same_rows():
    X = RNG.normal(size=(20, 3))
    frame = pd.DataFrame(X, columns=list("abc"))
    schema = Schema.learn(frame)
    assert np.array_equal(schema.encode(X).values, schema.encode(frame).values)
    assert np.array_equal(schema.encode(pl.from_pandas(frame)).values, schema.encode(frame).values)
    assert np.array_equal(Schema.learn(X).encode(frame).values, schema.encode(frame).values)
    numbered = Schema.learn(pd.DataFrame(X))
    assert again(numbered).names == (0, 1, 2) and numbered.decode(np.zeros((1, 3))).columns.tolist() == [
        0,
        1,
        2,
    ]


def test_describe_names_every_column_and_its_kind():
    frame = pd.DataFrame({"x": [1.5, 2.5, 4.25], "g": ["a", "b", "b"]})
    lines = dict(Schema.learn(frame, given=["g"]).describe())
    assert lines["x"] == "real: resolution 0.01, mean 2.75, scale 1.13652"
    assert lines["g"] == "binary: levels [a, b], share 0.625, given"


X = RNG.normal(size=(10, 3))
ALMOST = pd.DataFrame({"age": [*map(str, range(30)), "?", "31"]})
REFUSED = {
    "sparse": (scipy.sparse.csr_array(X), {}, InputTypeError, "Sparse data was passed.*dense data is req"),
    "complex": (X + 1j, {}, InputError, "Complex data not supported"),
    "complex objects": ((X + 1j).astype(object), {}, InputError, "Complex data not supported"),
    "1-d": (X[0], {}, InputError, "Expected 2D array, got 1D array instead.*Reshape your data"),
    "series": (pd.Series(X[0]), {}, InputError, "Expected 2D array, got 1D array instead.*Reshape your data"),
    "scalar": (3.0, {}, InputError, "Expected 2D array, got scalar array instead"),
    "no rows": (X[:0], {}, InputError, r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required"),
    "no columns": (X[:, :0], {}, InputError, r"0 feature\(s\) \(shape=\(10, 0\)\) while a minimum of 1"),
    "no rows in a frame": (pd.DataFrame(X[:0]), {}, InputError, r"0 sample\(s\)"),
    "infinite": (np.where(X > 1, np.inf, X), {}, InputError, r"'x\d': got \d infinite values? \(infinity"),
    "infinite in a frame": (pd.DataFrame({"a": [1, np.inf]}), {}, InputError, "'a': got 1 infinite value "),
    "infinite object": (np.array([[1, -np.inf]], object), {}, InputError, "'x1': got 1 infinite value "),
    "dict": (np.array([[{"a": 1}]], object), {}, InputTypeError, "dict in row 0: argument must be a string"),
    "lists": (pl.DataFrame({"a": [[1], [2]]}), {}, InputTypeError, r"got cells of type List\(Int64\)"),
    "a path": ("rows.csv", {}, InputError, "got the text 'rows.csv'.*Read the file first"),
    "columns by name": ({"a": [1, 2]}, {}, InputError, "got a dict.*Make it a frame"),
    "ragged": ([[1, 2], [3]], {}, InputError, "a list that is no table"),
    "lazy": (pl.LazyFrame({"a": [1]}), {}, InputTypeError, r"a lazy frame.*Call '.collect\(\)' first"),
    "twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, InputError, "expected one name per column"),
    "five axes": (np.zeros((2, 2, 2, 2, 2)), {}, InputError, "an array with 5 axes"),
    "almost numbers": (ALMOST, {}, InputError, r"column 'age': got the text '\?' in row 30 among 31 numbers; "
                       r"expected numbers only. Make it a gap, or use kinds=\{'age': 'categorical'\}"),
    "unknown kind": (X, {"kinds": {"x0": "cuont"}}, InputError, r"kinds\['x0'\]: got 'cuont'.*mean 'count'"),
    "unknown column": (X, {"kinds": {"x9": "real"}}, InputError, "kinds: got 'x9'; expected the name"),
    "wrong kind": (X, {"kinds": {"x1": "count"}}, InputError, "column 'x1': got .* expected 0, 1, 2, ..."),
    "unknown given": (X, {"given": ["y"]}, InputError, "given: got 'y'; expected the name or position"),
    "all given": (X, {"given": [0, 1, 2]}, InputError, "given: got every column"),
    "no such images": (X, {"image_shape": (2, 2)}, InputError, r"3 columns; expected 4 for image_shape"),
    "kinds of pixels": (X.reshape(10, 3, 1), {"kinds": {0: "real"}}, InputError, "one kind for all pixels"),
    "given pixels": (X.reshape(10, 3, 1), {"given": [0]}, InputError, "given: got pixels"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_is_refused_in_one_sentence(case):
    table, options, error, sentence = REFUSED[case]
    with pytest.raises(error, match=sentence):
        Schema.learn(table, **options)


FRAME = pd.DataFrame({"a": [1.5, 2.5, 3.25], "w": ["x", "y", "z"]})
OTHERS = {
    "fewer": (np.zeros((2, 1)), "X: got 1 columns; expected 2, as in training"),
    "renamed": (FRAME.rename(columns={"w": "v"}), "got no column 'w' and an unknown column 'v'"),
    "reordered": (FRAME[["w", "a"]], "got the columns in another order"),
    "text for numbers": (FRAME.assign(a=["u", "v", "w"]), "column 'a': got text; expected numbers, as"),
    "dates for numbers": (FRAME.assign(a=pd.Timestamp("2020")), "column 'a': got dates; expected numbers"),
    "dates for text": (FRAME.assign(w=pd.Timestamp("2020")), "got dates; expected text.*or learn again"),
    "infinite": (FRAME.assign(a=np.inf), "column 'a': got 3 infinite values"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_a_table_unlike_the_training_table_is_refused(case):
    table, sentence = OTHERS[case]
    with pytest.raises(InputError, match=sentence):
        Schema.learn(FRAME).encode(table)


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"images of shape \(3, 2\); expected shape \(2, 3\)"):
        Schema.learn(RNG.random((5, 2, 3))).encode(RNG.random((5, 3, 2)))


def test_a_binary_array_column_takes_gaps_and_booleans():
    flags = RNG.random((20, 2)) > 0.5
    schema = Schema.learn(flags)
    assert schema.columns[0].kind == Binary(levels=(0.0, 1.0), share=schema.columns[0].kind.share)
    gaps = flags.astype(float)
    gaps[0, 0] = np.nan
    assert schema.encode(gaps).observed[0].tolist() == [False, True]


@pytest.mark.parametrize("edges", [[0, 1, 2, 3], [0.0, 1.5, 2.5, 3.0]])
@pytest.mark.parametrize("ordered", [True, False])
def test_intervals_of_pandas_are_levels_beside_a_gap(edges, ordered):
    """Beside a gap pandas lists the interval (0, 1] as (0.0, 1.0]."""
    cut = pd.Categorical(pd.cut(RNG.integers(1, 4, N), edges), ordered=ordered)
    frame = pd.DataFrame({"cut": cut, "x": RNG.normal(size=N)})
    frame.loc[3, "cut"] = None
    schema = Schema.learn(frame)
    assert list(schema.columns[0].kind.levels) == list(map(str, cut.categories))
    holes = missing(schema, frame)
    filled = fill(schema, frame, holes, [np.array([str(cut.categories[1])], object), np.zeros(1)])
    assert filled["cut"].dtype == frame["cut"].dtype and filled["cut"][3] == cut.categories[1]
    assert filled["cut"].drop(3).equals(frame["cut"].drop(3))


def test_a_category_of_truth_values_comes_back():
    flags = pd.Categorical(np.arange(N) % 3 == 0)
    frame = pd.DataFrame({"flag": flags, "x": RNG.normal(size=N)})
    schema = Schema.learn(frame)
    back = schema.decode(schema.encode(frame).values)
    assert back["flag"].dtype == frame["flag"].dtype and back["flag"].tolist() == frame["flag"].tolist()


def test_arrow_dictionaries_keep_their_order():
    cells = pa.array(["lo", "hi", "lo", None]).dictionary_encode()
    ordered = pa.DictionaryArray.from_arrays(cells.indices, pa.array(["lo", "hi", "top"]), ordered=True)
    table = pa.table({"o": ordered})
    schema = Schema.learn(table)
    assert kinds(schema) == ["ordinal"] and schema.columns[0].kind.levels == ("lo", "hi", "top")
    back = schema.decode(schema.encode(table).values)
    assert back["o"].type.ordered and back["o"].to_pylist()[:3] == ["lo", "hi", "lo"]


# ---- beside the table ------------------------------------------------------------------------------------------


SEXES = ["f", "m", None, "m"]
BESIDE = {
    "list": lambda cells: cells,
    "array": lambda cells: np.array(cells, object),
    "column": lambda cells: np.array(cells, object)[:, None],
    "pandas": lambda cells: pd.Series(cells, name="y", index=range(5, 5 + len(cells))),
    "category": lambda cells: pd.Series(cells, dtype="category"),
    "polars": lambda cells: pl.Series("y", cells),
    "polars frame": lambda cells: pl.DataFrame({"y": cells}),
    "pyarrow": lambda cells: pa.chunked_array([cells]),
}


@pytest.mark.parametrize("form", BESIDE)
def test_what_is_beside_the_table_is_a_condition_with_a_flag_of_its_gap(form):
    X, y = np.arange(8.0).reshape(4, 2), BESIDE[form](SEXES)
    plain = Schema.learn(X)
    schema = again(plain.with_beside(y))
    # two labels have two cells: one of 0 would be next to none
    assert (schema.given_width, schema.layout.given_width, plain.given_width) == (3, 0, 0)
    assert schema.beside[0].name == "y" and schema.beside[0].gaps and schema.columns == plain.columns
    rows = schema.encode(X, beside=y)
    assert rows.given.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert np.array_equal(rows.values, plain.encode(X).values)
    assert schema.encode(X).given.tolist() == schema.unknown(4).tolist() == [[0, 0, 1]] * 4
    assert np.array_equal(schema.encode_given(y), rows.given)
    assert schema.encode_given("m").tolist() == [[0, 1, 0]]
    assert schema.encode_given(X).tolist() == [[0, 0, 1]] * 4  # the whole table, and nothing beside it
    np.testing.assert_allclose(schema.decode(rows.values, given_values=rows.given), X, atol=1e-5)


def test_conditions_of_the_table_come_before_those_beside_it():
    frame = pd.DataFrame({"x": [1.0, 2.5, 3.0, 4.0], "g": ["a", "b", "a", "b"]})
    year = pd.Series([1.5, 2.5, 3.5, 4.5], name="year")
    schema = again(Schema.learn(frame, given=["g"], beside=year))
    assert [column.name for column in schema.beside] == ["year"] and schema.beside[0].kind.name == "real"
    rows, z = schema.encode(frame, beside=year), np.sqrt(1.8)
    np.testing.assert_allclose(rows.given[:, 2], [-z, -z / 3, z / 3, z], rtol=1e-6)
    assert rows.given[:, [0, 1, 3]].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    both = pd.DataFrame({"g": frame["g"], "year": year})
    assert np.array_equal(schema.encode_given(both), rows.given)
    assert np.array_equal(schema.encode_given(frame.assign(year=year)), rows.given)
    assert schema.encode_given(frame[["g"]])[:, 2:].tolist() == [[0, 1]] * 4
    assert np.array_equal(schema.encode_given(both.to_numpy(object)), rows.given)
    back = schema.decode(rows.values, given_values=rows.given)
    assert back["g"].tolist() == ["a", "b", "a", "b"] and list(back.columns) == ["x", "g"]
    with pytest.raises(
        InputError, match=r"given: got columns \['year'\]; expected the given columns \['g', 'year'\]"
    ):
        schema.encode_given(both[["year"]])


def test_images_may_have_something_beside_them_and_older_files_do_not():
    images = np.random.default_rng(0).integers(0, 255, (6, 3, 3), dtype=np.uint8)
    schema = again(Schema.learn(images, beside=np.array([0, 1, 2, 0, 1, 2])))
    assert schema.beside[0].kind.levels == (0.0, 1.0, 2.0)
    rows = schema.encode(images, beside=[2, 1, 0, 2, 1, 0])
    assert rows.given[:2].tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert np.array_equal(schema.decode(rows.values, given_values=rows.given), images)
    record = schema.to_json()
    del record["beside"]
    assert Schema.from_json(record) == Schema.learn(images)


def test_whole_numbers_with_a_gap_are_levels_unless_a_kind_is_declared():
    X, y = np.arange(12.0).reshape(6, 2), np.array([0.0, 1.0, 2.0, np.nan, 1.0, 0.0])
    assert Schema.learn(X, beside=y).beside[0].kind.name == "categorical"
    assert Schema.learn(X, beside=y, kinds={"y": "real"}).beside[0].kind.name == "real"
    assert Schema.learn(X, beside=y, kinds={"x0": "count"}).beside[0].kind.name == "categorical"


def test_what_cannot_stand_beside_the_table_is_refused():
    X = np.arange(80.0).reshape(40, 2)
    y = np.arange(40) % 3
    schema = Schema.learn(X, beside=y)
    with pytest.raises(
        InputError, match=r"y: got 39 values; expected 40, one for each row of X\. Pass X and y of"
    ):
        schema.encode(X, beside=y[1:])
    with pytest.raises(
        InputError, match=r"given column 'y': got 7\.0, which no training row held; expected a level"
    ):
        schema.encode(X, beside=np.where(y == 1, 7, y))
    with pytest.raises(InputError, match=r"given column 'y': got 3\.0, which no training row held"):
        schema.encode_given(3)
    with pytest.raises(InputError, match=r"y: got an array of shape \(40, 2\); expected one column"):
        Schema.learn(X, beside=X)
    with pytest.raises(InputError, match="y: got no values; expected one per row"):
        Schema.learn(X, beside=[])
    with pytest.raises(
        InputError, match="y, column 'y': got 40 different texts in 40 rows; expected labels that"
    ):
        Schema.learn(X, beside=[f"row {i}" for i in range(40)])
    with pytest.raises(
        InputError, match=r"y: got the name 'x1', which a column of X has; .* Drop that column of X"
    ):
        Schema.learn(X, beside=pd.Series(y, name="x1"))
    with pytest.raises(
        InputError, match="y: got conditions; expected none: the columns were learned without"
    ):
        Schema.learn(X).encode(X, beside=y)


def test_a_huge_number_is_refused_in_any_company():
    """One of the other sign makes their sum small."""
    for block in ([[1e200, 0.0]], [[1e200, 0.0], [-1e200, 1.0]]):
        with pytest.raises(InputError, match="expected numbers up to 1e"):
            Schema.learn(np.array(block * 3))


def test_text_that_reads_like_dates_is_said():
    days = pd.date_range("2020-01-31", periods=40)
    frame = pd.DataFrame({"day": days, "joined": days.astype(str), "at": days.strftime("%Y-%m-01T10:30:00")})
    frame["bill"] = frame["joined"] + "-17"
    with pytest.warns(UserWarning, match="columns joined, at hold text that reads like dates.*parse_dates="):
        schema = Schema.learn(frame)
    with pytest.raises(InputError, match=r"'day': got text; expected dates, .* by pd\.to_datetime"):
        schema.encode(frame.assign(day=frame["joined"]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Schema.learn(frame[["at"]], kinds={"at": "categorical"})
    assert not said


@pytest.mark.parametrize("other", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("learned", ["pandas", "polars", "pyarrow"])
def test_an_answer_to_rows_is_a_frame_of_their_library(learned, other):
    days = pd.date_range("2020-01-01", periods=6)
    frame = pd.DataFrame({"a": np.arange(6) / 7, "w": list("xyxyzz"), "d": days, "b": [True, False] * 3})
    frame["c"] = pd.Categorical(list("pqpqpp"))
    frames = {"pandas": frame, "polars": pl.from_pandas(frame), "pyarrow": pa.Table.from_pandas(frame)}
    schema = Schema.learn(frames[learned], kinds={"w": "categorical", "d": "real"})
    again = schema.decode(schema.encode(frames[other]).values, like=frames[other])
    assert type(again) is type(frames[other])
    back = again.to_pandas() if other != "pandas" else again
    np.testing.assert_allclose(back["a"], frame["a"], atol=1e-6)
    for name in "wdbc":
        assert back[name].astype(str).tolist() == frame[name].astype(str).tolist()
    codes = pd.DataFrame(np.zeros((6, 2)))  # no rows of the table: the answer is as learned
    assert type(schema.decode(schema.encode(frame).values, like=codes)) is type(frames[learned])
