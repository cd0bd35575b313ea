"""Elements of lists are matched in few comparisons, so that long lists of roots are judged within the limits."""

import random

import pytest

from rewards import math as maths
from rewards.math import verify
from rewards.math_matching import matched

NUMBERS = (2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19, 21, 22, 23, 26, 29, 30, 31, 33)


class Counted:
    """Equality of numbers modulo ten, which counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, ours, theirs):
        self.asked += 1
        return int(ours) % 10 == int(theirs) % 10


@pytest.mark.parametrize(
    ("ours", "theirs", "places"),
    [
        ("1 2 3", "1 2 3", [{0}, {1}, {2}]),
        ("3 1 2", "1 2 3", [{2}, {0}, {1}]),
        ("11 22 3", "1 2 3", [{0}, {1}, {2}]),
        ("1 11 2", "1 2", [{0}, {0}, {1}]),  # ours repeats an element in another writing
        ("1 2", "1 2 11", [{0, 2}, {1}]),  # theirs does
        ("1 11 2", "1 2 21", [{0}, {2}, {1}]),
        ("", "", []),
    ],
)
def test_each_element_has_its_places(ours, theirs, places):
    assert list((matched(ours.split(), theirs.split(), Counted()) or {}).values()) == places


@pytest.mark.parametrize(("ours", "theirs"), [("1 2", "1 2 3"), ("1 2 3", "1 2"), ("", "1"), ("1", ""), ("1 4", "1 3")])
def test_a_list_that_lacks_an_element_is_another(ours, theirs):
    assert matched(ours.split(), theirs.split(), Counted()) is None


@pytest.mark.parametrize("other", [lambda n: n, lambda n: n + 10, lambda n: 9 - n])
def test_equal_lists_take_few_comparisons(other):
    """In the same order, also in another writing, and in the same writing whatever the order: one for each element."""
    equal = Counted()
    assert matched([str(other(n)) for n in range(10)], [str(n) for n in range(10)], equal) is not None
    assert equal.asked == 10


ROOTS = [f"\\sqrt{{{n}}}+{n % 3}" for n in NUMBERS]
OTHER_WRITINGS = {
    "quotients": [f"{n % 3}+\\frac{{{n}}}{{\\sqrt{{{n}}}}}" for n in NUMBERS],
    "nested": [f"\\sqrt{{{n + (n % 3) ** 2}+{2 * (n % 3)}\\sqrt{{{n}}}}}" for n in NUMBERS],
}


def shuffled(parts):
    return random.Random(1).sample(parts, len(parts))


def boxes(parts):
    return ", ".join(f"$\\boxed{{{part}}}$" for part in parts)


def box(parts):
    return f"$\\boxed{{{', '.join(parts)}}}$"


@pytest.mark.parametrize("written", OTHER_WRITINGS)
@pytest.mark.parametrize("form", [None, "set"])
@pytest.mark.parametrize("response", [box, boxes])
def test_twenty_roots_are_judged_in_time(written, form, response):
    parts = shuffled(OTHER_WRITINGS[written])
    answer = ", ".join(ROOTS)
    assert verify(response(parts), answer=answer, form=form).value == 1
    assert verify(response([*parts[:-1], "\\sqrt{35}"]), answer=answer, form=form).value == 0


def test_a_box_after_another_is_a_repetition_of_the_list_or_wrong():
    answer = "\\sqrt2, \\sqrt3"
    assert verify("\\boxed{\\sqrt3, \\sqrt2} or \\boxed{\\sqrt2, \\frac{3}{\\sqrt3}}", answer=answer).value == 1
    assert verify("\\boxed{\\sqrt3} or \\boxed{\\sqrt2, \\frac{3}{\\sqrt3}}", answer=answer).value == 0


@pytest.mark.parametrize(
    ("answer", "boxed", "value"),
    [
        ("-2", "\\sqrt[3]{-8}", 1),  # a real reading, where sympy has a complex one
        ("0", "\\sqrt6-\\sqrt2\\sqrt3", 1),
        ("\\sqrt{10^{40}+1}", "10^{20}", 0),
        ("\\sqrt{2}", "1.41421356", 1),  # rounded
        ("\\sqrt{2}", "1.42", 0),
        ("10\\sqrt{2}\\%", "\\frac{\\sqrt2}{10}", 1),
    ],
)
def test_only_proven_differences_shorten_the_way(answer, boxed, value):
    assert verify(f"\\boxed{{{boxed}}}", answer=answer).value == value


def test_the_reference_is_parsed_on_nobody_s_budget(monkeypatch):
    """By a clock of processor time on which the reference takes far longer to parse than an answer may compute."""
    clock = [0.0]
    monkeypatch.setattr("rewards.limits.time.process_time", lambda: clock[0])
    parse = maths._library().parse

    def slow(text, **options):
        clock[0] += 1000 * maths.TOTAL_S if "17" in text else 0.0
        return parse(text, **options)

    monkeypatch.setattr(maths._library(), "parse", slow)
    maths._parsed_reference.cache_clear()
    assert verify("\\boxed{\\sqrt{3}(\\sqrt{3}+1)}", answer="3+\\sqrt{3}+17-17").value == 1
    assert clock[0] > maths.TOTAL_S, "the reference was parsed"
    maths._parsed_reference.cache_clear()
    assert verify("\\boxed{\\sqrt{3}(\\sqrt{3}+1)+17-17}", answer="3+\\sqrt{3}").value == 0, (
        "an answer that takes as long"
    )


def test_a_piece_that_cannot_be_read_is_wrong_not_an_error():
    answer = "\\begin{cases} \\text{undefined} & x = 0 \\\\ 1/x & x \\ne 0 \\end{cases}"
    score = verify("\\boxed{\\begin{cases} 0 & x = 0 \\\\ 1/x & x \\ne 0 \\end{cases}}", answer=answer)
    assert (score.value, score.error) == (0, None)
    assert verify(f"\\boxed{{{answer}}}", answer=answer).value == 1
