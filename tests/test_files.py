"""Files: what is read equals what was written, order and index kept; refusals name file, line and column."""

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest

from diabolo.checks import InputError, refuse
from diabolo.files import as_bytes, check_output, read_table, replacing, write_table


def written(tmp_path, text, name="rows.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


# reading text


def test_csv_types_gaps_and_order(tmp_path):
    path = written(tmp_path, 'age,name,when\n3,"Kim, A",2020-01-02\n,NA,\n1,Lee,2020-01-03\n')
    table = read_table(path)
    assert table.form == "CSV" and len(table) == 3 and table.index is None
    assert table.data.column("age").to_pylist() == [3, None, 1]
    assert table.data.column("name").to_pylist() == ["Kim, A", None, "Lee"]
    assert pa.types.is_date32(table.data.schema.field("when").type)


def test_a_column_that_turns_real_late_is_real(tmp_path):
    # pyarrow fixes the types on its first block (1 MB by default): integers there, a fraction after it
    lines = ["1234567"] * 200_000 + ["0.5"]
    table = read_table(written(tmp_path, "x\n" + "\n".join(lines) + "\n"))
    assert table.data.column("x")[-1].as_py() == 0.5


def test_declared_gaps(tmp_path):
    table = read_table(written(tmp_path, "a,b\n1,?\n-,x\n"), missing=["?", "-"])
    assert table.data.to_pydict() == {"a": [1, None], "b": [None, "x"]}


@pytest.mark.parametrize(
    ("encoding", "note"), [("utf-8-sig", None), ("cp949", "CP949"), ("utf-16", "UTF-16"), ("utf-8", None)]
)
def test_encodings(tmp_path, encoding, note):
    table = read_table(written(tmp_path, "이름,나이\n김철수,3\n이영희,4\n", encoding=encoding))
    assert table.data.to_pydict() == {"이름": ["김철수", "이영희"], "나이": [3, 4]}
    assert [note in n for n in table.notes] == ([True] if note else [])


def test_latin_1(tmp_path):
    table = read_table(written(tmp_path, "a,b\ncafé,1\nà,2\n", encoding="latin-1"))
    assert table.data.column("a").to_pylist() == ["café", "à"]


def test_separators_and_decimal_comma(tmp_path):
    table = read_table(written(tmp_path, 'a;"b,c"\n1,5;2\n-0,25;3\n'))
    assert table.data.to_pydict() == {"a": [1.5, -0.25], "b,c": [2, 3]}
    assert table.notes == ("cells separated by ';'", "decimal comma")
    assert read_table(written(tmp_path, "a;b\n1.5;x,y\n", "dot.csv")).data.to_pydict() == {
        "a": [1.5],
        "b": ["x,y"],
    }
    assert read_table(written(tmp_path, "a\tb,c\n1\t2\n", "t.tsv")).data.to_pydict() == {"a": [1], "b,c": [2]}


def test_digits_in_groups_of_three(tmp_path):
    table = read_table(written(tmp_path, 'a,b,c\n"1,234.5",x,"1,2"\n-7,"1,000","3,400"\n,"1,000",5\n'))
    assert table.data.to_pydict() == {
        "a": [1234.5, -7.0, None],
        "b": ["x", "1,000", "1,000"],
        "c": ["1,2", "3,400", "5"],  # 1,2 is no group of three: the column stays text
    }
    assert table.notes == ("digits in groups of three in a",)
    german = read_table(written(tmp_path, "a;b\n1.234,5;1,5\n2.000;2,5\n", "de.csv"))
    assert german.data.to_pydict() == {"a": [1234.5, 2000.0], "b": [1.5, 2.5]}


def test_the_index_pandas_writes_is_set_aside(tmp_path):
    frame = pd.DataFrame({"x": [1.5, 2.5]}, index=["r2", "r1"])
    frame.to_csv(tmp_path / "rows.csv")
    frame.rename_axis("key").to_parquet(tmp_path / "named.parquet")
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.reset_index(drop=True)[1:].to_parquet(tmp_path / "range.parquet")
    for name, index in [
        ("rows.csv", {"": ["r2", "r1"]}),
        ("named.parquet", {"key": ["r2", "r1"]}),
        ("rows.parquet", {"__index_level_0__": ["r2", "r1"]}),
        ("range.parquet", {"__index_level_0__": [1]}),
    ]:
        table = read_table(tmp_path / name)
        assert table.index.to_pydict() == index
        assert table.data.column_names == ["x"]


def test_a_named_index(tmp_path):
    table = read_table(written(tmp_path, "id,x\n7,1\n5,2\n"), index="id")
    assert table.index.to_pydict() == {"id": [7, 5]} and table.data.column_names == ["x"]
    with pytest.raises(
        InputError, match=r"index 'ix': got no such column in rows.csv; .* Did you mean 'x'\?"
    ):
        read_table(tmp_path / "rows.csv", index="ix")


def test_lines_count_quoted_breaks_and_empty_lines(tmp_path):
    table = read_table(written(tmp_path, 'a,b\n1,"two\nlines"\n\n2,x\n'))
    assert len(table) == 2
    assert [table.line(0), table.line(1), table.line(2)] == [2, 5, None]


def test_a_refused_row_is_told_by_its_line(tmp_path):
    table = read_table(written(tmp_path, "a\n1\n2\nx\n"))
    error = refuse("column 'a'", got="'x' in row 2", want="a number")
    assert str(table.locate(error)) == "rows.csv line 4, column 'a': got 'x'; expected a number."
    other = refuse("X", got="3 columns", want="4")
    assert str(table.locate(other)) == "rows.csv: got 3 columns; expected 4."
    table = read_table(written(tmp_path, "a\n1.5\ninf\n-inf\n"))
    infinite = refuse("column 'a'", got="2 infinite values", want="finite numbers")
    assert str(table.locate(infinite)).startswith("rows.csv line 3, column 'a': got 2 infinite values;")


def test_without(tmp_path):
    table = read_table(written(tmp_path, "a,b,c\n1,2,3\n"))
    assert table.without(["b"]).data.column_names == ["a", "c"]
    with pytest.raises(InputError, match="column to exclude 'd'"):
        table.without(["d"])


# refusals


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"rows.csv: got an empty file; expected a header and rows\."),
        ("a,b\n", r"rows.csv: got no rows; expected at least one row\."),
        ("a,b\n1,2\n3\n", r"rows.csv line 3: got 1 cell; expected 2, as in the header\."),
        ('a,b\n"1\n1",2\n3,4,5\n', r"rows.csv line 4: got 3 cells; expected 2, .* Quote cells"),
        ('a,b\n"1,2\n3,4\n', r"rows.csv line 2: got 1 cell; expected 2, .* A quote opens its last cell"),
        ("a,a\n1,2\n", r"rows.csv: got 2 columns named 'a'"),
        ("a\0b", r"rows.csv: got bytes that are no text"),
    ],
)
def test_bad_text(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_table(written(tmp_path, text))


def test_paths_that_do_not_exist_offer_the_nearest(tmp_path):
    written(tmp_path, "a\n1\n", "penguins.csv")
    with pytest.raises(
        InputError, match=r"pengiuns.csv: got no such file; .* Did you mean '.*penguins.csv'\?"
    ):
        read_table(tmp_path / "pengiuns.csv")
    with pytest.raises(InputError, match="got no folder"):
        read_table(tmp_path / "nowhere" / "penguins.csv")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.npy", "rows.npz"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    values = np.arange(4000.0).reshape(1000, 4)
    if name == "rows.npz":
        np.savez_compressed(path, values)
    else:
        write_table(path, values)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"garbage" * 20, b""):
        path.write_bytes(broken)
        with pytest.raises(
            InputError, match=rf"{name}: got a damaged or cut-off file \(.*\); expected a whole"
        ):
            read_table(path)


def test_no_pickle_is_opened(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="got pickled Python objects"):
        read_table(tmp_path / "rows.npy")


def test_endings(tmp_path):
    for name, sentence in [
        ("m.safetensors", "got a fitted model where rows are wanted"),
        ("a.xlsx", "got a file ending in '.xlsx'; expected CSV"),
        ("a", "got a file without an ending"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read_table(written(tmp_path, "x", name))


# arrays and images


def test_npz_by_key(tmp_path):
    np.savez(tmp_path / "one.npz", X=np.eye(3))
    np.savez(tmp_path / "two.npz", X=np.eye(3), y=np.arange(3))
    assert np.array_equal(read_table(tmp_path / "one.npz").data, np.eye(3))
    assert np.array_equal(read_table(f"{tmp_path}/two.npz:y").data, np.arange(3))
    with pytest.raises(InputError, match=r"got 2 arrays \(X, y\); expected one array. Name one: .*two.npz:X"):
        read_table(tmp_path / "two.npz")
    with pytest.raises(InputError, match=r"got no array 'x'"):
        read_table(f"{tmp_path}/two.npz:x")


def test_images_round_trip_in_the_order_of_names(tmp_path):
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    write_table(tmp_path / "out", images, index=pa.table({"file": ["b.jpg", "a.jpg", "c.jpg"]}))
    table = read_table(tmp_path / "out")
    assert table.index.column("file").to_pylist() == ["a.png", "b.png", "c.png"]
    assert np.array_equal(table.data, images[[1, 0, 2]])
    PIL.Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "out" / "d.png")
    colour = read_table(tmp_path / "out").data
    assert colour.shape == (4, 4, 5, 3) and colour[3, 0, 0].tolist() == [1, 2, 3]


def test_images_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="got no image in it"):
        read_table(tmp_path)
    PIL.Image.new("L", (5, 4)).save(tmp_path / "a.png")
    PIL.Image.new("L", (5, 5)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b.png: got 5 x 5 pixels; expected 5 x 4 pixels as a.png"):
        read_table(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b.png: got a damaged image"):
        read_table(tmp_path)
    PIL.Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b.png: got deep pixels"):
        read_table(tmp_path)


def test_pixels_for_the_eye():
    assert as_bytes(np.array([0.0, 8.0, 16.0])).tolist() == [0, 128, 255]
    assert as_bytes(np.array([-4.0, 8.0, 99.0]), 0, 16).tolist() == [0, 128, 255]
    assert as_bytes(np.array([7, 9], np.uint8)).tolist() == [7, 9]


# writing


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_results_keep_order_and_index(tmp_path, name):
    index = pa.table({"": ["r2", "r1"]})
    write_table(tmp_path / name, np.array([[1.5, 0.1], [np.nan, 1e-20]]), index=index, names=["a", "b"])
    frame = (
        pd.read_csv(tmp_path / name, index_col=0)
        if name.endswith("csv")
        else pd.read_parquet(tmp_path / name)
    )
    expected = pd.DataFrame({"a": [1.5, np.nan], "b": [0.1, 1e-20]}, index=["r2", "r1"])
    pd.testing.assert_frame_equal(frame, expected, check_names=False)
    again = read_table(tmp_path / name)
    assert again.index.columns[0].to_pylist() == ["r2", "r1"] and again.data.column_names == ["a", "b"]


def test_text_output_is_plain(tmp_path):
    table = pa.table({"k": pa.array(["x", None]).dictionary_encode(), "v": [float("nan"), 2.0]})
    path = write_table(tmp_path / "out.csv", table, index=pa.table({"v": [7, 8]}))
    assert path.read_text() == '"v_index","k","v"\n7,"x",\n8,,2\n'


def test_text_has_no_more_digits_than_the_numbers(tmp_path):
    single = np.array([0.1, 2.5], np.float32).astype(np.float64)
    path = write_table(tmp_path / "out.csv", pa.table({"single": single, "double": [0.1, 2.5]}))
    assert path.read_text() == '"single","double"\n0.1,0.1\n2.5,2.5\n'


def test_an_empty_column_gives_its_place_to_the_index(tmp_path):
    rows = pa.table({"id": pa.nulls(2, pa.string()), "x": [1, 2]})
    path = write_table(tmp_path / "out.csv", rows, index=pa.table({"id": ["p", "q"]}))
    assert path.read_text() == '"id","x"\n"p",1\n"q",2\n'


def test_frames_and_arrays(tmp_path):
    frame = pd.DataFrame({"a": [1, 2]})
    assert np.array_equal(np.load(write_table(tmp_path / "a.npy", frame)), [[1], [2]])
    with pytest.raises(InputError, match="got columns that are no numbers"):
        write_table(tmp_path / "b.npy", pd.DataFrame({"a": ["x"]}))
    assert not (tmp_path / "b.npy").exists()


def test_nothing_half_written(tmp_path):
    path = tmp_path / "kept.csv"
    path.write_text("before")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["kept.csv"] and path.read_text() == "before"


def test_outputs_are_refused_before_the_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(InputError, match=r"got the ending '.xls'; expected .csv or"):
        check_output(tmp_path / "out.xls")
    with pytest.raises(InputError, match="got no folder"):
        check_output(tmp_path / "none" / "out.csv")
    with pytest.raises(InputError, match="got no ending"):
        check_output(tmp_path / "out")
    with pytest.raises(InputError, match="got a folder that is not empty"):
        check_output(tmp_path / "full", folder=True)
    assert check_output(tmp_path / "new", folder=True) == tmp_path / "new"
