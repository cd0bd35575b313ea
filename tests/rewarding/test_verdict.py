import numpy
import pytest

from cascade_rl.rewarding.verdict import as_score, plain
from cascade_rl.types import Score


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType"),
        ("1", "str"),
        ([1], "list"),
        (1j, "complex"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (10**400, "int"),
        (numpy.zeros(2), "ndarray"),
        (Score(float("nan")), "nan"),
        (Score("1"), "str"),
        (Score(1.0, ["a"]), "details .*list"),
    ],
)
def test_what_is_no_score(value, message):
    with pytest.raises((TypeError, ValueError), match=rf"r:f .*(?<!\w){message}\b"):
        as_score(value, "r:f")


def test_a_forgotten_await_is_named():
    async def f():
        return 1.0

    coroutine = f()
    with pytest.raises(TypeError, match="await"):
        as_score(coroutine, "r:f")
    coroutine.close()


@pytest.mark.parametrize("value", [True, 1, 1.0, numpy.float32(1), numpy.array(1.0), Score(1), Score(True)])
def test_numbers(value):
    score = as_score(value, "r")
    assert score == Score(1.0)
    assert type(score.value) is float


def test_details_become_plain():
    class Odd:
        def __repr__(self):
            return "<odd>"

    details = {1: (1, 2), "s": {"b", "a"}, "n": numpy.arange(2), "f": numpy.float64(0.5), "o": Odd(), "d": {"x": None}}
    assert plain(details) == {"1": [1, 2], "s": ["a", "b"], "n": [0, 1], "f": 0.5, "o": "<odd>", "d": {"x": None}}


def test_an_error_of_the_rewards_own_making_stays():
    assert as_score(Score(0.0, {}, "the judge is down"), "r").error == "the judge is down"
