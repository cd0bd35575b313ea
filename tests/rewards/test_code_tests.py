"""Nulls in tests: what Arrow adds to an object is absent, and a value that a function returns is a value."""

import pytest

from rewards.code_tests import read


def test_keys_that_are_null_are_absent():
    plain = {"inputs": ["1\n"], "outputs": ["2\n"]}
    full = {**plain, "input": None, "output": None, "fn_name": None}
    assert read(full) == read(plain)
    single = {"input": ["1\n"], "output": ["2\n"], "inputs": None, "outputs": None}
    assert read(single) == read(plain)
    assert read([{"input": "1", "output": "2", "fn_name": None, "testtype": None}]) == read(
        [{"input": "1", "output": "2"}]
    )


def test_a_function_may_return_none():
    (test,) = read([{"input": [1], "output": None, "fn_name": "f"}])
    assert test.expected is None


@pytest.mark.parametrize("test", [{"input": None, "output": "2"}, {"input": "1", "output": None}])
def test_a_script_is_not_given_the_word_none(test):
    with pytest.raises(ValueError, match="input"):
        read([test])
