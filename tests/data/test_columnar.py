"""Batches of Parquet and Arrow files: all rows, each once, however few of them Arrow can convert at a time."""

import random

import pyarrow
import pyarrow.parquet
import pytest

from cascade_rl.data import columnar
from cascade_rl.data.columnar import arrow_batches, parquet_batches, parquet_file, rows_of
from cascade_rl.data.reading import file_rows
from cascade_rl.rows import text_fault
from cascade_rl.types import CascadeError

ROWS = [{"n": i, "messages": [{"role": "user", "content": "x" * (i % 7)}]} for i in range(50)]


class Limited:
    """A Parquet file whose batches hold at most ``limit`` letters, as Arrow's hold 2 GiB of them."""

    def __init__(self, file, limit):
        self._file, self._limit = file, limit
        self.metadata = file.metadata
        self.asked = []

    def iter_batches(self, size, row_groups):
        self.asked.append(size)
        for batch in self._file.iter_batches(size, row_groups=row_groups):
            letters = sum(len(row["messages"][0]["content"]) for row in batch.to_pylist())
            if letters > self._limit:
                raise pyarrow.ArrowNotImplementedError("Nested data conversions not implemented")
            yield batch


@pytest.fixture
def path(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=20)
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize("limit", [6, 20, 60, 1000])
@pytest.mark.parametrize("size", [1, 3, 16, 1024])
def test_every_row_comes_once_whatever_a_batch_can_hold(path, limit, size):
    file = Limited(parquet_file(path), limit)
    assert list(rows_of(parquet_batches(file, path, size))) == ROWS
    assert file.asked[0] == size


def test_large_rows_in_the_middle_of_a_group(tmp_path):
    """A batch that fails after others came: no row is lost, and none comes twice."""
    chooser = random.Random(3)
    for _ in range(20):
        sizes = [chooser.choice((1, 1, 1, 9)) for _ in range(chooser.randrange(1, 60))]
        rows = [{"n": i, "messages": [{"content": "x" * size}]} for i, size in enumerate(sizes)]
        path = tmp_path / "rows.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=chooser.randrange(1, 70))
        file = Limited(parquet_file(path), 20)
        assert list(rows_of(parquet_batches(file, path, 16))) == rows


def test_a_row_that_is_too_large_by_itself_is_named(path):
    with pytest.raises(CascadeError, match=r"row 3 of .*rows\.parquet"):
        list(parquet_batches(Limited(parquet_file(path), 2), path, 16))


def test_no_file_is_read_with_more_rows_at_once(path, monkeypatch):
    monkeypatch.setattr(columnar, "BATCH_ROWS", 7)
    assert max(batch.num_rows for batch in parquet_batches(parquet_file(path), path, columnar.BATCH_ROWS)) == 7


def test_broken_files_are_named(tmp_path, path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CascadeError, match=r"broken\.parquet"):
        parquet_file(broken)
    (tmp_path / "broken.arrow").write_bytes(b"ARROW1 or not")
    with pytest.raises(CascadeError, match=r"broken\.arrow"):
        list(arrow_batches(tmp_path / "broken.arrow"))


@pytest.mark.parametrize("make", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow_files_and_streams(tmp_path, make):
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(tmp_path / "rows.arrow"), "wb") as out, make(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    assert list(file_rows(tmp_path / "rows.arrow")) == ROWS
    assert max(batch.num_rows for batch in arrow_batches(tmp_path / "rows.arrow", 4)) == 4


def not_utf_8(*texts):
    return pyarrow.array(texts, pyarrow.binary()).cast(pyarrow.string(), safe=False)


def test_text_that_is_not_utf_8_spoils_its_own_row(tmp_path):
    texts = not_utf_8(b"a", b"\xed\xa0\xbd", b"c")
    nested = pyarrow.array([[1], None, [3]], pyarrow.list_(pyarrow.int64()))
    table = pyarrow.table({"text": texts, "n": nested})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pyarrow.ipc.new_file(tmp_path / "rows.arrow", table.schema) as file:
        file.write_table(table)
    for name in ("rows.parquet", "rows.arrow"):
        first, odd, last = file_rows(tmp_path / name)
        assert (first, last) == ({"text": "a", "n": [1]}, {"text": "c", "n": [3]})
        assert odd["n"] is None
        assert "`text`" in text_fault(odd)
        assert "0xed" in text_fault(odd)


def test_text_that_is_not_utf_8_inside_other_values():
    bad = not_utf_8(b"\xff", "é".encode())
    bounds = pyarrow.array([0, 2], pyarrow.int32())
    lists = pyarrow.ListArray.from_arrays(bounds, pyarrow.StructArray.from_arrays([bad], ["content"]))
    maps = pyarrow.MapArray.from_arrays(bounds, pyarrow.array(["k", "l"]), bad)
    codes = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0], pyarrow.int32()), bad)
    batch = pyarrow.RecordBatch.from_arrays([lists, maps, codes], ["lists", "maps", "codes"])
    (row,) = rows_of(iter([batch]))
    assert row == {
        "lists": [{"content": "\udcff"}, {"content": "é"}],
        "maps": [("k", "\udcff"), ("l", "é")],
        "codes": "\udcff",
    }


def test_a_value_that_python_cannot_hold_is_its_text():
    """A date in the year 0 or 12000 in some column of meta data ends no reading."""
    seconds = pyarrow.array([0, -(10**11), 10**12], pyarrow.timestamp("s"))
    nested = pyarrow.StructArray.from_arrays([seconds], ["when"])
    first, early, late = rows_of(iter([pyarrow.RecordBatch.from_arrays([seconds, nested], ["when", "meta"])]))
    assert first["when"].year == 1970
    for odd in (early, late):
        assert isinstance(odd["when"], str)
        assert odd["meta"] == {"when": odd["when"]}
