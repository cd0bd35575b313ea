"""Exact numbers: equal or not whatever their size, with the cost of a refusal bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.math import verify
from rewards.math_exact import same_number
from tests.rewards.case_files import cases


@pytest.mark.parametrize(("ours", "theirs", "same"), cases("math_whole_numbers"))
def test_expressions_of_whole_numbers(ours, theirs, same):
    assert same_number(ours, theirs) is same
    assert same_number(theirs, ours) is same


@pytest.mark.parametrize(("answer", "boxed", "right"), cases("math_close_numbers"))
def test_numbers_too_close_for_floats(answer, boxed, right):
    assert verify(f"So \\boxed{{{boxed}}}.", answer=answer).value == right


expressions = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), n)),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (f"({t[0][0]}{t[1]}{t[2][0]})", {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[t[1]](t[0][1], t[2][1]))
    ),
    max_leaves=8,
)  # fmt: skip


@given(expressions, st.integers(0, 3))
def test_values_are_those_of_integer_arithmetic(expression, distance):
    text, value = expression
    assert same_number(text, f"{value}") is True
    assert same_number(f"\\frac{{{text}+{distance}}}{{7}}", f"{value}/7") is (distance == 0)


@given(st.integers(2, 99), st.integers(10**5, 10**7), st.integers(-2, 2))
def test_differences_of_huge_powers(base, exponent, distance):
    """The numbers have up to 20 million digits: only their remainders are ever computed."""
    power = f"{base}^{{{exponent}}}"
    assert same_number(f"{power}+{distance}", power) is (distance == 0)
    assert same_number(f"{base}\\cdot{base}^{{{exponent - 1}}}", power) is True
    assert same_number(f"\\frac{{{power}+{distance}}}{{{power}}}", "1") is (distance == 0)


@pytest.mark.parametrize("text", ["1+" * 240 + "1", "-" * 400 + "1", "2^{19999}+" * 120 + "3^{9999}", "(" * 50 + "1" + ")" * 50,
                                  "\\frac{2^{19999}}{3^{12000}}+" * 40 + "5^{8^{8}}", "2^{" * 49 + "2" + "}" * 49])  # fmt: skip
def test_long_expressions_come_to_an_end(text):
    assert same_number(text, text) in (True, None)
    assert same_number(text, f"{text}+1") in (False, None)
