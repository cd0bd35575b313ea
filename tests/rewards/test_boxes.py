"""Finding the last balanced box, against a slow reader that is right by inspection."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rewards.math_boxes import last_boxed, nesting
from tests.rewards.case_files import cases


@pytest.mark.parametrize(("text", "expected"), cases("boxes"))
def test_by_hand(text, expected):
    assert last_boxed(text) == expected


def slow_last_boxed(text):
    """Every box in turn, each walked brace by brace: quadratic, and plain."""
    for start in range(len(text) - 1, -1, -1):
        if not text.startswith("\\boxed{", start):
            continue
        depth, position = 1, start + len("\\boxed{")
        while position < len(text) and depth:
            escaped = text[position] == "\\" and text[position + 1 : position + 2] in ("{", "}")
            depth += 0 if escaped else (text[position] == "{") - (text[position] == "}")
            position += 2 if escaped else 1
        if depth == 0:
            return text[start + len("\\boxed{") : position - 1].strip()
    return None


pieces = st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\{", "\\}", "a", " ", "1", "\\frac"]), max_size=30).map(
    "".join
)


@given(pieces)
@example("\\boxed{\\boxed{}")
def test_the_same_as_a_slow_reader(text):
    assert last_boxed(text) == slow_last_boxed(text)


balanced = st.recursive(
    st.text("ab1+ ", max_size=5), lambda inner: st.tuples(inner, inner).map(lambda p: f"{{{p[0]}}}{p[1]}\\}}")
)


@given(pieces, balanced, st.text("xyz }\n", max_size=8))
def test_whatever_is_balanced_comes_back_whole(before, content, after):
    assert last_boxed(f"{before} \\boxed{{{content}}}{after}") == content.strip()


@pytest.mark.parametrize(("text", "depth"), [("", 0), ("a", 0), ("{[(1)]}", 3), ("(1)(2)", 1), (")))((", 0), ("((", 2)])
def test_nesting(text, depth):
    assert nesting(text) == depth
