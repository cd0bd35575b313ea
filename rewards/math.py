"""Maths with a reference answer: the last ``\\boxed{}`` after ``</think>``, compared exactly, then by math-verify.

math-verify is given that one box and nothing else (from a whole text it merges all boxes into one set), reference
first (it is not symmetric), under a limit of our own (one of its alarms may be lost, see ``rewards.limits``), and what
it gets wrong is decided before or after it: see ``_exactly_equal`` and ``rewards.math_difference``.
"""

from __future__ import annotations

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from cascade_rl.types import Score
from rewards import language
from rewards.limits import Budget, OutOfTime, within
from rewards.math_boxes import MAX_BOXES, Box, closing_boxes, nesting
from rewards.math_cases import same_cases
from rewards.math_exact import same_number
from rewards.math_forms import FORMS, list_parts, same_form, same_shape, tuple_parts
from rewards.math_functions import NAMES
from rewards.math_lists import same_list
from rewards.math_matching import matched
from rewards.math_spelling import bare, standard
from rewards.math_units import percent_value, percentage, without_unit

MAX_CHARACTERS = 2000
MAX_NESTING = 50
"""A longer or deeper box is wrong unread: parsing it can take seconds and hundreds of megabytes."""
LIMIT_S = 2.0
"""Of computing, for each of: parsing the reference, parsing the box, comparing, comparing in another way."""
TOTAL_S = 3.0
"""Of computing, for all that one box costs, however many parts and readings it has. The hard deadline is the pool's and
should be longer than the sum of both."""
_BUDGET = Budget(LIMIT_S, TOTAL_S)


def verify(
    response: str,
    *,
    answer: str | int | float,
    completion: str = "",
    prompt: str = "",
    form: str | None = None,
    units: str = "ignore",
    percent: str = "either",
    mixed_language: float | None = -1.0,
    detector: str = "words",
) -> Score:
    """1 if the last boxed value equals ``answer``, else 0. No box, or one that cannot be read, is wrong.

    Several boxes with nothing but commas, "and", "or", line breaks, list marks, labels or units between them are one
    list, which is right if it is the answer as a whole. An ``answer`` that is itself in boxes means what is in them.

    ``form`` says what the answer is (``choice``, ``set``, ``tuple``, ``interval``, ``matrix``), to be compared part by
    part. ``units: same`` asks for the reference's unit too; ``percent: exact`` does not take 10 for 10\\%.
    ``mixed_language``: the value of a completion that leaves its prompt's language, right or wrong (-1 as published;
    None: not looked at), by ``detector`` of ``rewards.language`` (without a prompt the completion is compared with
    most of itself).

    Raises TypeError or ValueError for a reference answer that is empty, of another type or shape, or beyond
    math-verify, and for an unknown option: these are faults of the row or recipe, not of the response.
    """
    reference = _reference(answer)
    for name, value, allowed in (
        ("form", form, (None, *FORMS)), ("units", units, ("ignore", "same")), ("percent", percent, ("either", "exact"))
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
    if (switched := language.mixed(completion, prompt, mixed_language, {}, detector)) is not None:
        return switched
    boxes = closing_boxes(response)
    if not boxes:
        return Score(0.0, {"boxed": None, "how": "no box"})
    boxed = ", ".join(box.text for box in boxes)
    if len(boxes) > MAX_BOXES or len(boxed) > MAX_CHARACTERS or nesting(boxed) > MAX_NESTING:
        return Score(0.0, {"boxed": boxed[:80], "how": "too long or too deeply nested"})
    _BUDGET.begin()
    _predictions.clear()
    equal, how = _worth(boxes, reference, form, units, percent)
    return Score(float(equal), {"boxed": boxed, "how": how})


def _worth(boxes: list[Box], reference: str, form: str | None, units: str, percent: str) -> tuple[bool, str]:
    """Whether the boxes are right, and what decided it."""
    if len(boxes) > 1:

        def same(ours: str, theirs: str) -> bool:
            return _compared(ours, theirs, units, percent)[0]

        return same_list(boxes, reference, form, same if form is None else _equal, _is_number), "list"
    if form is not None:
        return same_form(form, boxes[0].text, reference, _equal), form
    return _compared(boxes[0].text, reference, units, percent)


def _compared(ours: str, theirs: str, units: str, percent: str) -> tuple[bool, str]:
    if units == "same":
        (ours, our_unit), (theirs, their_unit) = without_unit(ours), without_unit(theirs)
        if our_unit != their_unit:
            return False, "unit"
    if percent == "exact" and percentage(ours)[1] != percentage(theirs)[1]:
        return percent_value(ours, _number) == percent_value(theirs, _number), "percent"
    return _judged(ours, theirs)


def _equal(ours: str, theirs: str) -> bool:
    return _judged(ours, theirs)[0]


def _judged(boxed: str, reference: str) -> tuple[bool, str]:
    """Whether they are equal, and what decided it: the cheap and certain first."""
    ours, theirs = standard(boxed), standard(reference)
    if (exact := _exactly_equal(ours, theirs)) is not None:
        return exact, "exact"
    if (shape := same_shape(ours, theirs, _equal)) is not None:
        return shape, "shape"
    if (pieces := same_cases(ours, theirs, _equal)) is not None:
        return pieces, "pieces"
    if (same := same_number(ours, theirs)) is not None:
        return same, "exact"
    try:
        if _are_far_apart(ours, theirs):
            return _equal_otherwise(ours, theirs), "math-verify"
        # math-verify may spend all of its time on the simplification of roots, and compares lists element by element.
        equal = (
            _agree_where_real(ours, theirs)
            or _equal_by_parts(ours, theirs) is True
            or _math_verify(ours, theirs)
            or _equal_otherwise(ours, theirs)
        )
        return equal, "math-verify"
    except OutOfTime:
        return False, "math-verify"  # and no second reading, which would cost as much again


def _equal_otherwise(ours: str, theirs: str) -> bool:
    """Second readings of what math-verify takes for different. Each is shorter, so that this comes to an end."""
    (a, a_percent), (b, b_percent) = percentage(ours), percentage(theirs)
    # The reference stays the second argument: only its faults are the row's.
    hundredths = [f"\\frac{{{side}}}{{100}}" if cut else side for side, cut in ((a, a_percent), (b, b_percent))]
    if a_percent != b_percent and _math_verify(*hundredths):
        return True
    a, b = bare(a), bare(b)
    if a and b and len(a) + len(b) < len(ours) + len(theirs):
        return _judged(a, b)[0]
    return _equal_as_functions(ours, theirs)


def _reference(answer: Any) -> str:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise TypeError(f"the row's answer must be text or a number, not {type(answer).__name__}")
    text = str(answer).strip()
    if boxes := closing_boxes(text):  # some data sets box their references
        labels = all(box.label for box in boxes) and len(boxes) > 1
        text = ", ".join(f"{box.label} = {box.text}" if labels else box.text for box in boxes)
    if not text:
        raise ValueError("the row's answer is empty")
    return text


# --- What needs no mathematics ---------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[-+]?\d+")
_DECIMAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d{1,3})?")
_SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)(?:\\times|\\cdot|\*) ?10\^(?:\{([-+]?\d{1,3})\}|(\d))")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}|([-+]?\d+)/(\d+)")
_MIXED = re.compile(r"([-+]?)(\d+) (\d+)/(\d+)")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(,\d{3})+|( \d{3})+)(\.\d+)?")
_ELLIPSIS = re.compile(r"\\(?:[lc]?dots|dots[bcimo])(?![a-zA-Z])|\.\.\.|…")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
_LETTERS = re.compile(r"[A-Za-z](?:[A-Za-z' -]*[A-Za-z])?")
_WORD = re.compile(r"[A-Za-z]{4,}|[A-Z]{3,}|.*[A-Za-z]{4,} .*|.* [A-Za-z]{4,}.*")
_SYNONYMS = {"does not exist": "dne"}


def _exactly_equal(boxed: str, reference: str) -> bool | None:
    """True or False where strings or whole numbers and fractions decide; None where mathematics must."""
    ours, theirs = _normalised(boxed), _normalised(reference)
    if ours == theirs:
        return True
    if "\\ldots" in ours or "\\ldots" in theirs:
        return False  # a parser reads only the first terms of such a sequence
    if (
        _LETTERS.fullmatch(ours)
        and _LETTERS.fullmatch(theirs)
        and (_is_word(boxed, ours) or _is_word(reference, theirs))
    ):
        if len(theirs) == 1:
            return None  # a choice, or a variable
        return _word(ours) == _word(theirs)  # as a product of letters, "east" would equal "seat"
    a, b = _number(ours), _number(theirs)
    if a is None or b is None:
        return None
    if a == b:
        return True
    # Where one is a decimal it may be a rounding of the other; how many digits are enough is math-verify's to say.
    rounded = any(_DECIMAL.fullmatch(side) or _SCIENTIFIC.fullmatch(side) for side in (ours, theirs))
    return None if rounded else False


def _is_word(written: str, letters: str) -> bool:
    """Not a product: ``ab`` is one, ``\\text{ab}``, ``ABC``, ``able`` and the name of a function are not."""
    return (
        letters in NAMES
        or bool(_WORD.fullmatch(letters))
        or (len(letters) > 1 and _TEXT.fullmatch(written.strip()) is not None)
    )


def _word(text: str) -> str:
    word = re.sub(r"^(?:an?|the) (?=..)", "", text.casefold())
    return _SYNONYMS.get(word, word)


def _normalised(text: str) -> str:
    """``text`` without what changes no meaning: spacing, dollar signs, thousands separators, a full stop."""
    text = re.sub(r"(?<!\\)\\[!,$]|(?<!\\)\\(left|right)(?![a-zA-Z])|\{,\}", "", text)
    text = re.sub(r"(?<!\\)\\[;: ]|~", " ", text.strip().strip("$")).replace("\N{MINUS SIGN}", "-")
    text = _ELLIPSIS.sub(r"\\ldots ", text)
    text = _TEXT.sub(r"\1", text)
    # A space between two letters or digits means something: "1 1/2" is not "11/2".
    text = re.sub(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])", "", re.sub(r"\s+", " ", text))
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    return text if text.endswith("\\ldots") else text.removesuffix(".")


def _is_number(text: str) -> bool:
    """Whether ``text`` is one number: the comma of ``1,000`` separates no elements."""
    return _number(_normalised(text)) is not None


def _number(text: str) -> Fraction | None:
    if len(text) > 200:
        return None
    if _INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text):
        return Fraction(text)
    if found := _SCIENTIFIC.fullmatch(text):
        return Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3])
    whole = 0
    if found := _FRACTION.fullmatch(text):
        sign, top, bottom, plain_top, plain_bottom = found.groups()
        numerator, denominator = int(top or plain_top), int(bottom or plain_bottom)
    elif found := _MIXED.fullmatch(text):  # math-verify reads 1 from "1 1/2"
        sign = found[1]
        whole, numerator, denominator = (int(part) for part in found.groups()[1:])
    else:
        return None
    if denominator == 0:
        return None
    return (whole + Fraction(numerator, denominator)) * (-1 if sign == "-" else 1)


# --- What does ------------------------------------------------------------------------------------------------------


@functools.cache
def _library() -> Any:
    return _BUDGET.uncounted(_load)  # or the first answer of a worker would have less time than later ones


def _load() -> Any:
    import math_verify  # a third of a second, and rows that match exactly never need it

    # It warns of having no time limit: ours is around it.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    math_verify.parse("\\boxed{\\frac{1}{2}}", parsing_timeout=None)  # loads what the library itself loads late
    return math_verify


@functools.lru_cache(maxsize=4096)
def _parsed_reference(reference: str) -> list[Any]:
    """Cached, since every rollout of a prompt needs it. A failure raises, so that it is never remembered.

    Its time is not the response's, or the first rollout of a prompt would have less than the others.
    """
    parse = _library().parse
    try:
        parsed = _BUDGET.uncounted(
            lambda: within(LIMIT_S, parse, _boxed(reference), parsing_timeout=None, raise_on_error=True)
        )
    except (Exception, OutOfTime) as error:
        raise ValueError(f"math-verify cannot read the row's answer {reference[:200]!r}: {error}"[:500]) from None
    if not parsed:
        raise ValueError(f"math-verify finds nothing in the row's answer {reference[:200]!r}")
    return parsed


_predictions: dict[str, list[Any]] = {}
"""Of the parts of one response: a list compares each of them with several elements."""


def _parsed_prediction(boxed: str) -> list[Any]:
    if boxed not in _predictions:
        _predictions[boxed] = _BUDGET.run(_library().parse, _boxed(boxed), parsing_timeout=None)
    return _predictions[boxed]


def _math_verify(boxed: str, reference: str) -> bool:
    """Raises OutOfTime; ValueError for a reference that it cannot read."""
    gold = _parsed_reference(reference)
    prediction = _parsed_prediction(boxed)
    if not _BUDGET.run(_library().verify, gold, prediction, timeout_seconds=None):
        return False
    from rewards.math_difference import differ

    try:
        return not _BUDGET.run(differ, gold[0], prediction[0])
    except Exception:
        return True  # not comparable as numbers: math-verify's verdict stands


_LOGARITHM = re.compile(r"\\log(?![a-zA-Z_]| _)")
_LOG_OR_I = re.compile(r"\\(?:ln|log)(?![a-zA-Z])|(?<![a-zA-Z\\])i(?![a-zA-Z])")
_REAL = re.compile(r"\\sqrt|\^\s*\{[^{}]*(?:/|\\[dt]?frac)|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-zA-Z])")


def _equal_as_functions(ours: str, theirs: str) -> bool:
    """Whether they are equal where math-verify sees no equality.

    ``\\log`` beside a ``\\ln`` is a natural logarithm, a logarithm of a product is a sum, ``i`` is the imaginary unit,
    and roots and angles are compared where both sides are real.
    Symbols under a logarithm are taken to be positive, those under a root to be such that it is real. Raises OutOfTime.
    """
    logarithms, real = (bool(kind.search(ours) or kind.search(theirs)) for kind in (_LOG_OR_I, _REAL))
    if not (logarithms or real):
        return False
    written = (ours, theirs)
    if "\\ln" in ours + theirs:
        ours, theirs = (_LOGARITHM.sub(r"\\ln", side) for side in written)
    if (parts := _equal_by_parts(ours, theirs)) is not None:
        return parts
    gold, prediction = _parsed_reference(theirs), _parsed_prediction(ours)
    if not prediction:
        return False
    try:
        if logarithms and _BUDGET.run(_no_difference, gold[0], prediction[0]):
            return True
    except Exception:
        pass  # not of the kind that can be subtracted
    return (ours, theirs) != written and _agree_where_real(ours, theirs)


def _agree_where_real(ours: str, theirs: str) -> bool:
    """Whether two expressions with roots, angles or the like agree where both are real. Raises OutOfTime."""
    return _compared_as_reals(ours, theirs, far_apart=False)


def _are_far_apart(ours: str, theirs: str) -> bool:
    """Whether both are numbers with roots, angles or the like, and no rounding makes them equal. Raises OutOfTime."""
    return _compared_as_reals(ours, theirs, far_apart=True)


def _compared_as_reals(ours: str, theirs: str, *, far_apart: bool) -> bool:
    """Whether two expressions, one of which at least has roots, angles or the like, are far apart, or else equal where
    both are real. False for what cannot be evaluated. Raises OutOfTime."""
    if not (_REAL.search(ours) or _REAL.search(theirs)):
        return False
    gold, prediction = _parsed_reference(theirs), _parsed_prediction(ours)
    if not prediction:
        return False
    from rewards.math_difference import are_far_apart, equal_where_real

    try:
        return _BUDGET.run(are_far_apart if far_apart else equal_where_real, gold[0], prediction[0])
    except Exception:
        return False  # not of the kind that can be subtracted


def _equal_by_parts(ours: str, theirs: str) -> bool | None:
    """Points in order, lists in any order; None for what is neither."""
    mine, its = tuple_parts(ours), tuple_parts(theirs)
    ordered = mine is not None and its is not None
    if not ordered:
        mine, its = list_parts(ours), list_parts(theirs)
    if not mine or not its or max(len(mine), len(its)) < 2 or _is_number(ours) or _is_number(theirs):
        return None
    if len(mine) != len(its):
        return False
    try:
        if ordered:
            return all(_equal(a, b) for a, b in zip(mine, its, strict=True))
        return matched(mine, its, _equal) is not None
    except ValueError:
        return False  # math-verify reads the whole and not the part


def _no_difference(gold: Any, prediction: Any) -> bool:
    import sympy

    from rewards.math_difference import is_zero_function

    if not all(isinstance(side, sympy.Expr) for side in (gold, prediction)):
        return False
    difference = gold - prediction
    # math-verify makes of one letter a real symbol here and an unreal one there; of "i" too.
    names = {symbol: sympy.Symbol(symbol.name) for symbol in difference.free_symbols}
    return is_zero_function(
        difference.subs({symbol: sympy.I if symbol.name == "i" else plain for symbol, plain in names.items()})
    )


def _boxed(text: str) -> str:
    return f"\\boxed{{{text}}}"
