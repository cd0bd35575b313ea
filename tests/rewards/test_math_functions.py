"""Functions, constants and roots in different writings, and the words that look like functions."""

import pytest

from rewards.math import verify
from rewards.math_functions import with_commands
from tests.rewards.case_files import cases


@pytest.mark.parametrize(("answer", "boxed", "right"), cases("math_functions"))
def test_functions_constants_and_roots(answer, boxed, right):
    assert verify(f"So \\boxed{{{boxed}}}.", answer=answer).value == right


@pytest.mark.parametrize("text", ["sin", "min", "east", "5 sec", "3 min 5 sec", "max", "log in", "tank", "cost", "2x"])
def test_words_and_units_are_left_alone(text):
    assert with_commands(text) == text


def test_a_thousand_calls_end():
    assert with_commands("sqrt(" * 1000 + "2" + ")" * 1000).endswith("2" + ")" * 940 + "}" * 60)
