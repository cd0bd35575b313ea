"""Answers with a shape, named by the row or recipe. Verdicts are those of a person who knows the shape."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math import verify
from rewards.math_forms import FORMS, split
from tests.rewards.case_files import cases


def value(boxed, answer, **options) -> float:
    return verify(f"So \\boxed{{{boxed}}}.", answer=answer, **options).value


@pytest.mark.parametrize(("form", "answer", "boxed", "right"), cases("math_forms"))
def test_shapes(form, answer, boxed, right):
    assert value(boxed, answer, form=form) == right


@pytest.mark.parametrize(
    ("form", "answer"),
    [("choice", "twelve"), ("interval", "5"), ("matrix", "7"), ("tuple", "(1,,2)")],
)
def test_a_reference_of_another_shape_is_the_rows_fault(form, answer):
    with pytest.raises(ValueError, match=form):
        value("1", answer, form=form)


@pytest.mark.parametrize(("answer", "boxed", "right"), cases("math_units"))
def test_units_where_they_count(answer, boxed, right):
    assert value(boxed, answer, units="same") == right


def test_units_where_they_do_not():
    assert value("5\\text{ m}", "5\\text{ cm}") == value("5", "5\\text{ cm}") == 1


@pytest.mark.parametrize(("answer", "boxed", "either", "exact"), cases("math_percent"))
def test_percentages(answer, boxed, either, exact):
    assert value(boxed, answer, percent="exact") == exact
    assert value(boxed, answer) == either


def test_leaving_the_prompts_language_overrides_a_right_answer():
    thoughts = "<think>\n我们 compute.\n</think>\n\\boxed{2}"
    given = {"answer": "2", "completion": thoughts, "prompt": "What is 1 + 1?"}
    assert verify("\\boxed{2}", **given).value == -1
    assert verify("no box", **given).value == -1
    assert verify("\\boxed{2}", **given, mixed_language=0).value == 0
    assert verify("\\boxed{2}", **given, mixed_language=None).value == 1
    assert verify("\\boxed{2}", answer="2", completion="\\boxed{2}", prompt="1+1?").value == 1


@pytest.mark.parametrize(
    ("thoughts", "worth"),
    [
        ("We add them.", 1),
        ("我们把它们相加。", 1),
        ("We add them 然后 it is done.", -1),
        ("因为 the sum of the two is 2，所以", -1),
    ],
)
def test_without_a_prompt_the_completion_is_compared_with_itself(thoughts, worth):
    completion = f"<think>\n{thoughts}\n</think>\n\\boxed{{2}}"
    assert verify("\\boxed{2}", answer="2", completion=completion).value == worth


def test_languages_of_one_script_and_the_detector():
    thoughts = "<think>Entonces la suma de los dos números es igual a dos, que es el resultado.</think>\\boxed{2}"
    given = {"answer": "2", "completion": thoughts, "prompt": "What is the sum of 1 and 1?"}
    assert verify("\\boxed{2}", **given).value == -1
    assert verify("\\boxed{2}", **given, detector="script").value == 1


@pytest.mark.parametrize("option", [{"form": "list"}, {"units": "strip"}, {"percent": "maybe"}])
def test_unknown_options_are_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        value("1", "1", **option)


@settings(deadline=None)  # the first to need math-verify imports it
@given(st.sampled_from(FORMS), st.text(alphabet="()[]{}\\,;<>=& 12xAB\\le", max_size=60))
def test_any_text_in_the_box_is_judged(form, text):
    answer = {"choice": "B", "set": "1,2", "tuple": "(1,2)", "interval": "(1,2)", "matrix": "(1,2)"}[form]
    assert value(text, answer, form=form) in (0, 1)


@given(st.lists(st.integers(), min_size=1, max_size=6), st.randoms())
def test_order_counts_in_tuples_and_not_in_sets(numbers, random):
    shuffled = random.sample(numbers, len(numbers))
    listed, other = (", ".join(map(str, part)) for part in (numbers, shuffled))
    assert value(f"\\{{{other}\\}}", listed, form="set") == 1
    assert value(f"({other})", f"({listed})", form="tuple") == (numbers == shuffled)


def test_splitting_leaves_brackets_whole():
    assert split("(1,2), [3;4], \\{5,6\\}, f(x, y)") == ["(1,2)", "[3;4]", "\\{5,6\\}", "f(x, y)"]
