"""Answers in several boxes: one list, right only as a whole, so that naming candidates earns nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math import verify
from rewards.math_boxes import MAX_BOXES, closing_boxes
from tests.rewards.case_files import cases


@pytest.mark.parametrize(("answer", "response", "right", "options"), [
    pytest.param(*row.values[:3], (row.values[3:] or [{}])[0], id=row.id) for row in cases("math_several_boxes")
])  # fmt: skip
def test_several_boxes(answer, response, right, options):
    score = verify(response, answer=answer, **options)
    assert (score.value, score.error) == (right, None)


joiners = st.sampled_from([", ", " and ", " or ", "; ", " ", "\n", "$, $", " \\quad ", " \\text{ and } ", "\n- "])


@settings(deadline=None)  # the first to need math-verify imports it
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True), st.randoms(), st.data())
def test_a_list_of_numbers_is_right_only_as_a_whole(numbers, random, data):
    shuffled = random.sample(numbers, len(numbers))
    response = f"\\boxed{{{shuffled[0]}}}" + "".join(f"{data.draw(joiners)}\\boxed{{{n}}}" for n in shuffled[1:])
    assert verify(response, answer=", ".join(map(str, numbers))).value == 1
    for answer in (*map(str, numbers), ", ".join(map(str, numbers[1:])), ", ".join(map(str, [*numbers, 99]))):
        assert verify(response, answer=answer).value == 0


def test_a_group_ends_at_other_text():
    boxes = closing_boxes("\\boxed{1}, \\boxed{2}. So $x = \\boxed{3}$ or $y_1 = \\boxed{4}$ holds.")
    assert [(box.label, box.text, box.alternative) for box in boxes] == [("x", "3", False), ("y_1", "4", True)]


def test_an_answer_repeated_without_end_is_one_answer():
    assert {box.text for box in closing_boxes("\\boxed{2}\n" * 1000)} == {"2"}
    assert verify("\\boxed{2}\n" * 1000, answer="2").value == 1


def test_too_many_boxes_are_wrong_unread():
    response = " ".join(f"\\boxed{{{number}}}" for number in range(10_000))
    assert len(closing_boxes(response)) == MAX_BOXES + 1
    assert verify(response, answer="9999").details["how"] == "too long or too deeply nested"


def test_boxes_within_boxes_to_any_depth():
    deep = "\\boxed{1, " * 20_000 + "2" + "}" * 20_000
    assert closing_boxes(deep)[-1].text.endswith("2")


@pytest.mark.parametrize(
    "gap", ["\n" * 199, "~" * 199, "$ " * 99, ", \\text{" + " " * 180, " cm" + "/m" * 90, "(x, " * 49]
)
def test_long_gaps_come_to_an_end(gap):
    assert closing_boxes(f"\\boxed{{1}}{gap}" * 3000 + "\\boxed{2}")[-1].text == "2"


def test_a_group_without_end_is_read_from_its_last_boxes():
    boxes = closing_boxes("\\boxed{1}" + "\n\\boxed{2}" * 5000)
    assert {box.text for box in boxes} == {"2"}
