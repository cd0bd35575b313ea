"""A thousand answers and what they are worth, judged by mathematics and not by running the code."""

from __future__ import annotations

import pytest

from cascade_rl.rewarding.response import response_text
from rewards.math import verify
from tests.rewards.case_files import cases


def judged(answer: str, boxed: str) -> float:
    return verify(f"So \\boxed{{{boxed}}}.", answer=answer).value


@pytest.mark.parametrize(("answer", "boxed"), cases("math_right"))
def test_right(answer, boxed):
    assert judged(answer, boxed) == 1


@pytest.mark.parametrize(("answer", "boxed"), cases("math_wrong"))
def test_wrong(answer, boxed):
    assert judged(answer, boxed) == 0


@pytest.mark.parametrize(("answer", "completion", "thinking", "instruct"), cases("math_responses"))
def test_where_the_box_must_stand(answer, completion, thinking, instruct):
    for thinks, value in ((True, thinking), (False, instruct)):
        score = verify(response_text(completion, thinks), answer=answer, completion=completion)
        assert (score.value, score.error) == (value, None)


@pytest.mark.parametrize(("answer", "boxed", "value"), cases("math_known_to_be_wrong"))
def test_known_to_be_judged_wrongly(answer, boxed, value):
    assert judged(answer, boxed) != value


@pytest.mark.parametrize(("answer", "boxed", "value"), cases("math_competitions"))
def test_writings_of_competitions(answer, boxed, value):
    assert judged(answer, boxed) == value
