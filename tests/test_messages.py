"""The checks of messages themselves: they must be able to fail."""

from __future__ import annotations

import pytest

from tests.messages import mentions, says, says_each

FOUND = "r.yaml:9: stages.a.steps: must be at least 10, not 0.1 (see `init` of sft-1)"


@pytest.mark.parametrize("word", ["10", "0.1", "`init`", "init", "sft-1", "least"])
def test_words_in_a_message(word):
    assert mentions(FOUND, word)


@pytest.mark.parametrize("word", ["1", "0", "sft", "leas", "east", "sft-10", "most"])
def test_parts_of_words_do_not_count(word):
    assert not mentions(FOUND, word)


@pytest.mark.parametrize(
    ("place", "word"),
    [("r.yaml:9: stages.a.steps", "most"), ("r.yaml:9: stages.a", "least"), ("r.yaml:8: stages.a.steps", "least")],
)
def test_another_message_or_place_fails(place, word):
    with pytest.raises(AssertionError):
        says(FOUND, place, word)


def test_one_problem_too_many_or_in_another_order_fails():
    other = FOUND.replace("steps", "seed")
    first, second = (("r.yaml:9: stages.a.steps", "10"), ("r.yaml:9: stages.a.seed", "10"))
    says_each([FOUND, other], first, second)
    for found in ([FOUND], [other, FOUND], [FOUND, other, other]):
        with pytest.raises(AssertionError):
            says_each(found, first, second)
