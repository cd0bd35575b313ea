"""Maths: which answers are right, which inputs are traps. Equal or not is decided by hand, not by running the code."""

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.records import ScoreCall
from rewards import math
from rewards.limits import Budget
from rewards.math import verify
from tests.rewards.case_files import table


def value(boxed, answer):
    score = verify(f"so it is $\\boxed{{{boxed}}}$.", answer=answer)
    assert score.error is None
    assert score.details["boxed"] is not None
    return score.value, score.details["how"]


@pytest.mark.parametrize(("boxed", "answer"), table("math_how")["equal without mathematics"])
def test_equal_without_mathematics(boxed, answer):
    assert value(boxed, answer) == (1.0, "exact")


@pytest.mark.parametrize(("boxed", "answer"), table("math_how")["different without mathematics"])
def test_different_without_mathematics(boxed, answer):
    """math-verify alone calls some of these equal: east and seat (a product of letters), both sequences, 12 345."""
    assert value(boxed, answer) == (0.0, "exact")


@pytest.mark.parametrize(("boxed", "answer"), table("math_how")["equal by mathematics"])
def test_equal_by_mathematics(boxed, answer):
    assert value(boxed, answer)[0] == 1.0


@pytest.mark.parametrize(("boxed", "answer"), table("math_how")["different by mathematics"])
def test_different_by_mathematics(boxed, answer):
    assert value(boxed, answer)[0] == 0.0


@pytest.mark.parametrize("text", ["the answer is 42", "", "boxed{42}", "\\boxed{42", "\\boxed 42", "\\fbox{42}"])
def test_a_missing_box_is_wrong_not_an_error(text):
    score = verify(text, answer="42")
    assert (score.value, score.error, score.details) == (0.0, None, {"boxed": None, "how": "no box"})


def test_only_the_last_box_counts():
    assert verify("\\boxed{42} no, \\boxed{41}", answer="42").value == 0.0
    assert verify("\\boxed{1} then \\boxed{42}", answer="42").value == 1.0  # math-verify alone merges them
    assert verify("\\boxed{x} ... \\boxed{x+1}", answer="x+1").value == 1.0


@pytest.mark.parametrize(
    ("answer", "boxed"),
    [(7, "7"), (-7, "-7"), (2.5, "\\frac{5}{2}"), (5.0, "5"), (1e-07, "0.0000001"), ("\\boxed{9}", "9"), (" 9\n", "9")],
)
def test_columns_of_other_kinds(answer, boxed):
    assert value(boxed, answer)[0] == 1.0


@pytest.mark.parametrize("answer", [None, True, [1], {"a": 1}])
def test_an_answer_of_another_type_is_the_rows_fault(answer):
    with pytest.raises(TypeError, match="answer"):
        verify("\\boxed{1}", answer=answer)


@pytest.mark.parametrize("answer", ["", "  ", "\\boxed{}"])
def test_an_empty_answer_is_the_rows_fault(answer):
    with pytest.raises(ValueError, match="empty"):
        verify("\\boxed{1}", answer=answer)


@pytest.fixture
def short_limits(monkeypatch):
    """A tenth of the limits: what runs into them, runs into the real ones too."""
    monkeypatch.setattr(math, "LIMIT_S", math.LIMIT_S / 10)
    monkeypatch.setattr(math, "_BUDGET", Budget(math.LIMIT_S, math.TOTAL_S / 10))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # alarms that a callback swallows
def test_an_answer_beyond_math_verify_is_the_rows_fault_every_time(short_limits):
    nested = "(" * 5000 + "x" + ")" * 5000  # takes more than 5 s to parse
    for _ in range(2):  # a failure is not remembered as a parsed answer
        with pytest.raises(ValueError, match="answer"):
            verify("\\boxed{x}", answer=nested)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "boxed",
    ["9^{9^{9^9}}", "9^{9^9}", "100000000!", "((9!)!)!", "\\sum_{n=1}^{10^9} n^{n}", "(x+y+z+w)^{200}",
     "\\frac{1}{" * 48 + "1" + "}" * 48, "\\int_0^1 x^{x^{x}} dx"],
)  # fmt: skip
def test_traps_end_by_their_limits(boxed, short_limits):
    assert value(boxed, "x+1") == (0.0, "math-verify")


def test_a_trap_ends_by_the_real_limits_in_a_worker():
    """With a hard deadline so far beyond the soft limits that only a call which ignores them meets it."""
    with RewardPool(RewardConfig(use="rewards.math:verify", timeout_s=120), [], workers=1) as pool:
        score = pool.submit(ScoreCall("\\boxed{9^{9^{9^9}}}", (), False, False, {"answer": "x+1"})).result()
    assert (score.value, score.error, score.details.get("how")) == (0.0, None, "math-verify")


@pytest.mark.parametrize(
    "boxed",
    [
        "{" * 60 + "1" + "}" * 60,
        "(" * 51 + "1" + ")" * 51,
        "\\frac{1}{" * 300 + "1" + "}" * 300,
        "9" * 2001,
        "1+" * 1_000_000 + "1",
        "{}" * 500_000,
    ],
)
def test_monsters_are_wrong_unread(boxed, monkeypatch):
    monkeypatch.setattr(math, "_library", None)
    assert value(boxed, "1") == (0.0, "too long or too deeply nested")


@pytest.mark.parametrize(
    "text",
    ["{" * 1_000_000, "}" * 1_000_000, "\\boxed{" * 150_000, "\\boxed" * 150_000, "\\boxed{" + "{" * 1_000_000,
     "\\" * 1_000_000, "\\boxed" + " " * 1_000_000, "\\boxed{" + "\\" * 999_999],
    ids=["open", "close", "boxes", "names", "box of open", "backslashes", "spaces", "box of backslashes"],
)  # fmt: skip
def test_a_megabyte_without_a_box(text):
    assert verify(text, answer="1").details["how"] == "no box"
    assert verify(f"\\boxed{{1}} {text}", answer="1").value == 1.0


def test_each_part_of_a_list_is_parsed_once(monkeypatch):
    library, parsed = math._library(), []

    class Counting:
        verify = staticmethod(library.verify)

        @staticmethod
        def parse(text, **options):
            parsed.append(text)
            return library.parse(text, **options)

    monkeypatch.setattr(math, "_library", lambda: Counting)
    assert verify("\\boxed{x+7}, \\boxed{x+8}, \\boxed{x+9}", answer="9+x+0, 8+x+0, 7+x+0").value == 1
    assert len(parsed) == len(set(parsed)) > 3
