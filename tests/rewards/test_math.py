import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.math import last_boxed, verify

SHARED = Path(os.environ.get("CASCADE_RL_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed {7}", "7"),
        ("\\boxed{3} and \\boxed{unclosed", "3"),
        ("\\boxed{}", ""),
        ("no box", None),
        ("\\boxed{", None),
        ("boxed{1}", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


balanced = st.recursive(
    st.text("ab1+ ", max_size=5), lambda inner: st.tuples(inner, inner).map(lambda p: f"{{{p[0]}}}{p[1]}")
)


@given(balanced, st.text("xyz \\n", max_size=8))
def test_whatever_is_balanced_comes_back_whole(content, tail):
    assert last_boxed(f"\\boxed{{0}} \\boxed{{{content}}}{tail}") == content.strip()


@pytest.mark.parametrize(
    ("boxed", "answer", "value"),
    [
        ("42", "42", 1), ("42.0", "42", 1), ("41", "42", 0), ("1,000", "1000", 1), ("\\frac{1}{2}", "0.5", 1),
        ("\\dfrac{2}{4}", "1/2", 1), ("-\\frac{1}{3}", "-1/3", 1), ("0.333333", "1/3", 1), ("0.33", "1/3", 0),
        ("x^2+2x+1", "(x+1)^2", 1), ("x^2+1", "(x+1)^2", 0), ("\\sqrt{8}", "2\\sqrt{2}", 1), ("$5$", "5", 1),
        ("\\{1,2,3\\}", "\\{3,2,1\\}", 1), ("1,2,\\ldots,n", "1,3,\\ldots,2n-1", 0), ("2^{-99}", "2^{-98}", 0),
        ("", "5", 0),
    ],
)  # fmt: skip
def test_equivalence(boxed, answer, value):
    assert verify(f"so \\boxed{{{boxed}}}", answer=answer).value == value


def test_a_missing_box_is_wrong_not_an_error():
    score = verify("the answer is 42", answer="42")
    assert (score.value, score.error, score.details["how"]) == (0.0, None, "no box")


def test_numbers_as_answers():
    assert verify("\\boxed{7}", answer=7).value == 1.0


@pytest.mark.parametrize(
    "box", ["{" * 100_000, "\\frac{1}{" * 300 + "1" + "}" * 300, "9" * 100_000, "((" * 60 + "))" * 60]
)
def test_monsters_are_wrong_unread(box):
    assert verify(f"\\boxed{{{box}}}", answer="1").value == 0.0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public sets are not beside this checkout")
def test_real_answers_equal_themselves_and_not_their_neighbours():
    rows = [json.loads(line) for line in (SHARED / "gsm8k-test.jsonl").read_text().splitlines()]
    answers = [row["answer"].split("####")[1].strip() for row in rows]
    assert all(verify(f"\\boxed{{{a}}}", answer=a).value == 1.0 for a in answers)
    assert all(verify(f"\\boxed{{{int(a.replace(',', '')) + 1}}}", answer=a).value == 0.0 for a in answers)
