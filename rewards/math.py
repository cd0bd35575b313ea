"""Maths with a reference answer: the last ``\\boxed{}`` after ``</think>``, compared exactly, then by math-verify."""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Any

from cascade_rl.rewarding import Score

MAX_CHARACTERS = 2000
MAX_NESTING = 50
"""A longer or deeper box is wrong unread: parsing it can take seconds and hundreds of megabytes."""
PARSE_LIMIT_S = 2
"""math-verify's own alarm; the pool's deadline is the hard one."""


def verify(response: str, *, answer: str) -> Score:
    """1 if the last boxed value equals ``answer``, else 0. No box is wrong, never an error."""
    boxed = last_boxed(response)
    if boxed is None:
        return Score(0.0, {"boxed": None, "how": "no box"})
    gold = str(answer)
    if len(boxed) > MAX_CHARACTERS or _nesting(boxed) > MAX_NESTING:
        return Score(0.0, {"boxed": boxed[:80], "how": "too long or too deeply nested"})
    exact = _exactly_equal(boxed, gold)
    if exact is not None:
        return Score(float(exact), {"boxed": boxed, "how": "exact"})
    return Score(float(_math_verify(boxed, gold)), {"boxed": boxed, "how": "math-verify"})


def last_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` whose braces balance, or None."""
    start = len(text)
    while (start := text.rfind("\\boxed", 0, start)) >= 0:
        opening = re.match(r"\\boxed\s*\{", text[start : start + 64])
        if opening is None:
            continue
        depth, position = 1, start + opening.end()
        begin = position
        while position < len(text) and depth:
            character = text[position]
            if character == "\\":
                position += 2  # an escaped brace is a character of the answer
                continue
            depth += (character == "{") - (character == "}")
            position += 1
        if not depth:
            return text[begin : position - 1].strip()
        if len(text) - start > 4 * MAX_CHARACTERS:
            return None  # unbalanced to the end of a long text: earlier boxes would only repeat the walk
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest


_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}|([-+]?\d+)/(\d+)")


def _exactly_equal(boxed: str, gold: str) -> bool | None:
    """True or False where strings or plain numbers decide; None where mathematics must."""
    ours, theirs = _normalised(boxed), _normalised(gold)
    if ours == theirs:
        return True
    if "\\ldots" in ours + theirs or "\\cdots" in ours + theirs:
        return False  # a parser reads only the first terms of such a sequence
    a, b = _number(ours), _number(theirs)
    if a is not None and b is not None:
        return _close(a, b)
    return None


def _close(a: Fraction, b: Fraction) -> bool:
    """Equal, or off by the rounding of a decimal to six digits (relative, so that tiny numbers stay apart).

    Whole numbers must be equal: 1,000,001 is no rounding of 1,000,000.
    """
    if a.denominator == b.denominator == 1:
        return a == b
    return abs(a - b) <= Fraction(1, 10**6) * abs(b)


def _normalised(text: str) -> str:
    text = text.strip().strip("$").strip()
    for old, new in (("\\!", ""), ("\\,", ""), ("\\;", ""), ("{,}", ""), ("\\$", ""), ("\\left", ""), ("\\right", "")):
        text = text.replace(old, new)
    text = re.sub(r"\s+", "", text)
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    return text.removesuffix(".")


def _number(text: str) -> Fraction | None:
    if len(text) > 60:
        return None
    if _NUMBER.fullmatch(text):
        return Fraction(text.removesuffix("."))
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    sign, top, bottom, plain_top, plain_bottom = found.groups()
    numerator, denominator = int(top or plain_top), int(bottom or plain_bottom)
    if denominator == 0:
        return None
    return Fraction(numerator, denominator) * (-1 if sign == "-" else 1)


@functools.lru_cache(maxsize=4096)
def _parsed_gold(gold: str):
    from math_verify import parse

    return parse(f"\\boxed{{{gold}}}", parsing_timeout=PARSE_LIMIT_S)


def _math_verify(boxed: str, gold: str) -> bool:
    """math-verify on this box alone: given whole texts, it merges all boxes into one set."""
    from math_verify import parse, verify

    prediction = parse(f"\\boxed{{{boxed}}}", parsing_timeout=PARSE_LIMIT_S)
    reference = _parsed_gold(gold)
    if not verify(reference, prediction, timeout_seconds=PARSE_LIMIT_S):
        return False
    return not _differ_as_numbers(reference[0], prediction[0])


def _differ_as_numbers(a: Any, b: Any) -> bool:
    """True for two numbers that math-verify's absolute tolerance has taken for one, as 2^{-99} and 2^{-98}."""
    if not (getattr(a, "is_number", False) and getattr(b, "is_number", False)):
        return False
    left, right = complex(a), complex(b)
    # Percent signs may be read either way, so only numbers too small for the tolerance are looked at again.
    return max(abs(left), abs(right)) < 1e-6 and abs(left - right) > 1e-6 * abs(left)
