"""Is this output what was expected? Decided outside of the sandbox, on bytes and JSON that a program cannot influence
but by printing or returning them.

- ``lines``: as many lines, leaving out blank ones at both ends; in each line the same words, or numbers of the same
  value (``007`` is a word: it may be the digits that were asked for). Where the expected word has a decimal point,
  numbers may differ by 1e-6 (absolutely or relatively).
- ``livecodebench``: as many lines after stripping; each the same, or all of it numbers of the same value, without any
  tolerance; returned floats as ``numpy.allclose`` has it.
- ``exact``: the same text but for one line break at the end; the same value.
- ``unordered``: ``lines``, in any order of the lines; a returned list (or set) in any order.

``float_tolerance`` is the allowed difference (absolute or relative) of numbers that are expected as floats: with a
decimal point or an exponent in a text, as a float in a value. It replaces what the comparison has (1e-6 in ``lines``
and ``unordered``, none in ``exact``, as said above in ``livecodebench``); integers stay exact. ``tolerance`` holds for
all numbers, integers too, and replaces ``float_tolerance``. ``checker``: ``module:function`` of yours, called with the
keywords ``given``, ``expected`` and ``got`` (texts for programs, values for functions); it decides alone.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cascade_rl.importing import import_by_path
from cascade_rl.rewarding.sandbox import Outcome
from rewards.code_tests import Test, any_integer, loads

Comparison = Callable[[Test, Outcome], bool]
COMPARISONS = ("lines", "livecodebench", "exact", "unordered")
TOLERANCE = 1e-6
_MOST_DIGITS = 100_000
_PADDED = re.compile(r"[-+]?0[0-9]")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")


@dataclass(frozen=True)
class Tolerance:
    """By how much numbers may differ, absolutely or relatively. None: as the comparison has it."""

    floats: float | None = None
    """Of numbers that are expected as floats."""
    all: float | None = None
    """Of all numbers; replaces ``floats``."""

    def of(self, is_float: bool, otherwise: float = 0.0) -> float:
        """The tolerance for one number; ``otherwise``: what the comparison itself allows floats."""
        if self.all is not None:
            return self.all
        if not is_float:
            return 0.0
        return otherwise if self.floats is None else self.floats


def comparison(
    compare: str, tolerance: float | None, checker: str | None, float_tolerance: float | None = None
) -> Comparison:
    """A function of one test and its outcome. Raises ValueError for an unknown name or a tolerance below 0."""
    if checker is not None:
        return functools.partial(_checked, _checker(checker))
    if compare not in COMPARISONS:
        raise ValueError(f"compare must be one of {', '.join(COMPARISONS)}, not {compare!r}")

    for name, value in (("tolerance", tolerance), ("float_tolerance", float_tolerance)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0 on, not {value}")
    allowed = Tolerance(float_tolerance, tolerance)

    def compared(test: Test, outcome: Outcome) -> bool:
        if not test.function:
            return same_text(outcome.stdout.decode("utf-8", "replace"), test.expected, compare, allowed)
        try:
            value = loads(outcome.value)
        except (ValueError, RecursionError):
            return False
        return any(same_value(value, expected, compare, allowed) for expected in (test.expected, *test.also))

    return compared


@functools.cache
def _checker(path: str) -> Callable[..., Any]:
    found: Callable[..., Any] = import_by_path(path, (), "checker")
    return found


def _checked(checker: Callable[..., Any], test: Test, outcome: Outcome) -> bool:
    if not test.function:
        got = outcome.stdout.decode("utf-8", "replace")
        return bool(checker(given=test.given, expected=test.expected, got=got))
    try:
        value = loads(outcome.value)
    except (ValueError, RecursionError):
        return False
    with any_integer():
        given = json.loads(test.given)
    return bool(checker(given=given, expected=test.expected, got=value))


# --- Printed texts ---------------------------------------------------------------------------------------------------


def same_text(got: str, expected: str, compare: str, tolerance: Tolerance) -> bool:
    """Whether a printed text is the expected one by the comparison ``compare``."""
    if compare == "exact":
        return got.removesuffix("\n") == expected.removesuffix("\n")
    if compare == "livecodebench":
        return _same_as_livecodebench(got, expected, tolerance)
    ours, theirs = _lines(got), _lines(expected)
    if ours == theirs:
        return True
    if compare == "unordered":
        return _same_lines(sorted(ours), sorted(theirs), tolerance)
    return _same_lines(ours, theirs, tolerance)


def _lines(text: str) -> list[list[str]]:
    """The words of each line, without blank lines at the ends: published outputs often begin with one."""
    return [line.split() for line in text.strip().split("\n")]


def _same_as_livecodebench(got: str, expected: str, tolerance: Tolerance) -> bool:
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (got, expected))
    return len(ours) == len(theirs) and all(
        mine == its or _same_numbers(mine.split(), its.split(), tolerance)
        for mine, its in zip(ours, theirs, strict=True)
    )


def _same_numbers(ours: Sequence[str], theirs: Sequence[str], tolerance: Tolerance) -> bool:
    if len(ours) != len(theirs):
        return False
    for mine, its in zip(ours, theirs, strict=True):
        a, b = _number(mine), _number(its)
        if a is None or b is None or not (a == b or _close(a, b, tolerance.of(_is_float(its)))):
            return False
    return True


def _same_lines(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], tolerance: Tolerance) -> bool:
    return len(ours) == len(theirs) and all(
        len(mine) == len(its) and all(_same_word(a, b, tolerance) for a, b in zip(mine, its, strict=True))
        for mine, its in zip(ours, theirs, strict=True)
    )


def _same_word(got: str, expected: str, tolerance: Tolerance) -> bool:
    if got == expected:
        return True
    if _PADDED.match(got) or _PADDED.match(expected):
        return False
    a, b = _number(got), _number(expected)
    if a is None or b is None:
        return False
    return a == b or _close(a, b, tolerance.of(_is_float(expected), TOLERANCE))


def _is_float(word: str) -> bool:
    return "." in word or "e" in word.lower()


def _number(word: str) -> Decimal | None:
    # No "nan", "inf" or "1_000", which are words here.
    return Decimal(word) if len(word) < _MOST_DIGITS and _NUMBER.fullmatch(word) else None


def _close(a: Decimal, b: Decimal, tolerance: float) -> bool:
    """As ``math.isclose`` with both of its tolerances, for numbers that a float may not hold: 1e400 is not 1e401."""
    return tolerance > 0 and abs(a - b) <= Decimal(tolerance) * max(Decimal(1), abs(a), abs(b))


# --- Returned values -------------------------------------------------------------------------------------------------


def same_value(got: Any, expected: Any, compare: str, tolerance: Tolerance) -> bool:
    """Values made of JSON's types, and Decimals for long integers. Integers are exact but for ``tolerance.all``."""
    if isinstance(got, dict) and set(got) == {"set"}:  # a returned set, which has no order to be right or wrong
        if compare != "unordered":
            return False
        got = got["set"]
    if compare == "exact" and (isinstance(expected, bool) or isinstance(got, bool)):
        return got is expected
    if isinstance(expected, int | float | Decimal) and isinstance(got, int | float | Decimal):
        return _same_number(got, expected, compare, tolerance)
    if isinstance(expected, list) and isinstance(got, list):
        if len(got) != len(expected):
            return False
        if compare == "unordered":
            got, expected = (sorted(side, key=_order) for side in (got, expected))
        # Only the outermost list is unordered: [[1, 2]] is not [[2, 1]].
        inner = "lines" if compare == "unordered" else compare
        return all(same_value(a, b, inner, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(expected, dict) and isinstance(got, dict):
        return got.keys() == expected.keys() and all(
            same_value(got[key], expected[key], compare, tolerance) for key in expected
        )
    return type(got) is type(expected) and got == expected


def _same_number(got: float | Decimal, expected: float | Decimal, compare: str, tolerance: Tolerance) -> bool:
    if got == expected or (got != got and expected != expected):  # NaN is what was asked for
        return True
    is_float = isinstance(expected, float) or isinstance(got, float)
    try:
        ours, theirs = float(got), float(expected)
    except OverflowError:  # a long integer is equal or it is not
        return False
    if not math.isfinite(ours) or not math.isfinite(theirs):
        return False
    if compare == "livecodebench" and is_float and tolerance == Tolerance():
        return abs(ours - theirs) <= 1e-8 + 1e-5 * abs(theirs)
    allowed = tolerance.of(is_float, 0.0 if compare == "exact" else TOLERANCE)
    return allowed > 0 and math.isclose(ours, theirs, rel_tol=allowed, abs_tol=allowed)


def _order(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
