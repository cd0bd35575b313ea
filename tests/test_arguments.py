from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Optional

import pytest

from cascade_rl.arguments import argument_problems, fits, type_problems


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
        ({"rows": "many"}, "`rows` must be a whole number"),
        ({"rows": 3.0}, "`rows` must be a whole number"),
        ({"rows": True}, "`rows` must be a whole number"),
        ({"rows": None}, "`rows` must be a whole number"),
        ({"digits": 3}, "`digits`"),
        ({"digits": [1, 2, 3]}, "`digits`"),
        ({"digits": [1, "2"]}, "`digits`"),
        ({"slip_rate": "0.1"}, "`slip_rate` must be a number"),
        ({"solved": "yes"}, "`solved` must be true or false"),
        ({"solved": 1}, "`solved` must be true or false"),
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


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (tuple[int, int], [1], "a list of 2 whole numbers, not [1]"),
        (tuple[int, float], [1, "x"], 'a list of 2 numbers, not [1, "x"]'),
        (tuple[int, ...], 3, "a list of whole numbers, not 3"),
        (Literal["x", "y"], "z", "one of x or y, not 'z'"),
        (Literal[1, None], 2, "one of 1 or nothing, not 2"),
        (list[str] | None, "a", "a list of text, or nothing, not 'a'"),
        (Optional[int], "3", "a whole number, or nothing, not '3'"),  # noqa: UP045
        (int | str | None, [], "a whole number or text or nothing, not an empty list"),
        (Sequence[float], True, "a list of numbers, not true"),
        (set[int], {"a": 1}, 'a list of whole numbers, not {"a": 1}'),
        (list, None, "a list, not nothing"),
        (dict, [1], "a mapping, not [1]"),
        (dict[str, int], 3, "a mapping whose values are whole numbers, not 3"),
        (Mapping[str, Any], 3, "a mapping, not 3"),
        (Colour, "green", "one of red or blue, not 'green'"),
    ],
)
def test_types_in_the_words_of_a_recipe(annotation, value, words):
    def reward(x): ...

    reward.__annotations__["x"] = annotation
    assert list(argument_problems(reward, {"x": value})) == [f"`x` must be {words}"]


def test_a_default_fits_whatever_its_annotation_says():
    def reward(mode: str = None, n: int = 1.0): ...  # noqa: RUF013

    assert list(type_problems(reward, {"mode": None, "n": 1.0})) == []
    assert len(list(type_problems(reward, {"mode": 1, "n": 2.0}))) == 2


def test_annotations_of_callable_objects_are_those_of_the_call():
    class Reward:
        tol: str

        def __call__(self, tol: float): ...

    assert list(type_problems(Reward(), {"tol": 0.5})) == []
    assert len(list(type_problems(Reward(), {"tol": "a"}))) == 1


def test_no_value_is_held_against_functions_and_unknown_names():
    assert fits("my.module:check", Callable[[str], float])
    assert fits("x", list["NotImported"])  # noqa: F821
    assert not fits("x", list[int])


def test_only_parameters_taken_by_name_are_judged():
    def reward(*options: int, **rest: float): ...

    assert list(type_problems(reward, {"options": "a", "rest": "b"})) == []
