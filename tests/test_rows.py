"""Nulls and texts: what all readers of rows agree on."""

import json

import pytest

from cascade_rl.json_lines import json_text
from cascade_rl.rows import present, text_fault, without_nulls, writable

HALF = "\ud83d"


def test_a_null_is_an_absent_column():
    assert present({"a": None, "b": 0, "c": "", "d": [None], "e": {"f": None}, "g": False}) == {
        "b": 0, "c": "", "d": [None], "e": {"f": None}, "g": False,
    }  # fmt: skip


def test_nulls_within_objects_are_absent_and_items_of_lists_stay():
    assert without_nulls([{"a": None, "b": {"c": None, "d": [None, {"e": None}]}}]) == [{"b": {"d": [None, {}]}}]


@pytest.mark.parametrize("value", ["x", "\U0001f600", "\x00\u2028", None, 3.5, [], {"a": ["x", {"b": 1}]}])
def test_a_text_that_can_be_written_has_no_fault(value):
    assert text_fault({"column": value}) is None


@pytest.mark.parametrize("half", [HALF, "x\udfff"])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [1, t], lambda t: {"a": {"b": [t]}}, lambda t: {t: 1}])
def test_half_a_pair_is_found_and_its_column_named(half, wrap):
    fault = text_fault({"fine": "x", "column": wrap(half)})
    assert "column" in fault
    assert f"{ord(half[-1]):04x}" in fault
    fault.encode()


def test_a_column_whose_name_is_no_text_is_found():
    text_fault({HALF: 1}).encode()


@pytest.mark.parametrize("text", ["", "abc", "\ufffd", "\U0001f600", f"a{HALF}b", "\ud83d\ude00", f"{HALF}{HALF}"])
def test_writable_text_and_json_can_be_encoded(text):
    writable(text).encode()
    assert (writable(text) == text) == (text_fault({"text": text}) is None)
    written = json_text({"a": text, "b": {1, 2}})
    written.encode()
    if text != "\ud83d\ude00":  # JSON reads two halves as the one character that they are
        assert json.loads(written)["a"] == text


def test_a_value_nested_too_deeply_is_a_fault_of_its_row():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert "column" in text_fault({"fine": "x", "column": deep})
