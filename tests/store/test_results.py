import json

import pytest

from cascade_rl.store.results import read_result, result_fault, results_in

GOOD = {"benchmark": "m", "value": 0.5, "stderr": 0.1, "ci95": [0.3, 0.7], "rows": 4, "samples": 1}


def test_a_whole_result_is_read(tmp_path):
    path = tmp_path / "m-1.json"
    assert read_result(path) is None
    assert result_fault(path) is None
    path.write_text(json.dumps(GOOD))
    assert read_result(path) == GOOD
    assert result_fault(path) is None


def test_a_result_without_any_graded_row_is_whole(tmp_path):
    """The mean of nothing is no number, and measuring again would not make it one."""
    path = tmp_path / "m-1.json"
    nan = float("nan")
    path.write_text(json.dumps({**GOOD, "value": nan, "stderr": nan, "ci95": [nan, nan], "rows": 0}))
    assert read_result(path)["rows"] == 0


WHOLE = json.dumps(GOOD)


@pytest.mark.parametrize(
    "content",
    [
        *(WHOLE[:length].encode() for length in range(0, len(WHOLE), 7)),
        b"\x00" * 40,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"[" * 100_000,
        *(json.dumps({**GOOD, key: bad}).encode() for key in GOOD if key != "benchmark" for bad in (None, "x", True)),
        json.dumps({**GOOD, "ci95": [0.1]}).encode(),
        json.dumps({**GOOD, "ci95": ["a", "b"]}).encode(),
    ],
)  # fmt: skip
def test_anything_else_is_damaged(tmp_path, content):
    path = tmp_path / "m-1.json"
    path.write_bytes(content)
    assert read_result(path) is None
    assert str(path) in result_fault(path)


def test_a_folder_in_place_of_a_result(tmp_path):
    (tmp_path / "m-1.json").mkdir()
    (tmp_path / "n-1.json").write_text(json.dumps({**GOOD, "benchmark": "n"}))
    results, faults = results_in(tmp_path)
    assert [result["benchmark"] for result in results] == ["n"]
    assert len(faults) == 1
    assert "m-1.json" in faults[0]
    assert results_in(tmp_path / "nothing") == ([], [])
