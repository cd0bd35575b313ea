from collections.abc import Iterator
from typing import Any, Literal

import pytest

from cascade_rl.arguments import argument_problems, fits


def generate(*, split: str, rows: int, digits: tuple[int, int] = (1, 2), slip_rate: float = 0.0, solved: bool = False):
    """A generator of the usual form."""


def problems(**arguments) -> str:
    return "; ".join(argument_problems(generate, {"split": "train", "rows": 3, **arguments}))


@pytest.mark.parametrize(
    "arguments",
    [{}, {"digits": [1, 3]}, {"slip_rate": 1}, {"slip_rate": 0.5, "solved": True}, {"rows": 10**12}],
)
def test_values_of_the_annotated_type_pass(arguments):
    assert problems(**arguments) == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rows": "many"}, "`rows` must be int"),
        ({"rows": 3.0}, "`rows` must be int"),
        ({"rows": True}, "`rows` must be int"),
        ({"rows": None}, "`rows` must be int"),
        ({"digits": 3}, "`digits`"),
        ({"digits": [1, 2, 3]}, "`digits`"),
        ({"digits": [1, "2"]}, "`digits`"),
        ({"slip_rate": "0.1"}, "`slip_rate` must be float"),
        ({"solved": "yes"}, "`solved` must be bool"),
        ({"solved": 1}, "`solved` must be bool"),
        ({"rowss": 3}, "did you mean rows?"),
    ],
)
def test_others_are_named(arguments, named):
    assert named in problems(**arguments)


def test_what_is_missing_is_named():
    assert list(argument_problems(generate, {"split": "train"})) == ["needs `rows`"]


def test_what_cannot_be_judged_passes():
    def of_anything(rows, *, other: "NotImported", **rest) -> Iterator[dict]:  # noqa: F821
        yield {}

    class Opaque:
        pass

    assert list(argument_problems(of_anything, {"rows": "x", "other": 1, "further": None})) == []
    assert list(argument_problems(dict, {"a": 1})) == []
    assert fits(3, Opaque)
    assert fits({"a": [1]}, dict[str, Any])
    assert not fits("c", Literal["a", "b"])
    assert fits(None, int | None)
