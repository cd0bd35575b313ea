r"""Functions defined piece by piece, in LaTeX's ``cases``. math-verify reads the first piece and no more."""

from __future__ import annotations

import re

from rewards.math_forms import Equal, same_form
from rewards.math_spelling import DRESS, clean

_CASES = re.compile(
    r"(?:[a-zA-Z]\s*\([a-zA-Z]\)\s*=|[a-zA-Z](?:_\{?[a-zA-Z]\}?)?\s*=)?\s*(?:\\\{\s*)?"
    r"\\begin\{(cases|dcases|array)\}(?:\{[lcr| ]*\})?(?P<rows>.*)\\end\{\1\}\s*(?:\.)?"
)
_WORDS = re.compile(r"(?<![a-zA-Z\\])(?:if|for|when|where|is|and)(?![a-zA-Z])|\\quad|(?<!\\)\\[,;:! ]|[\s,.$]")
_OTHERWISE = "otherwise"
_ALSO_OTHERWISE = (_OTHERWISE, "else", "elsewhere")
_MOST_PIECES = 20

Piece = tuple[str, str]
"""A value and the condition under which the function has it."""


def same_cases(boxed: str, reference: str, equal: Equal) -> bool | None:
    """Whether two functions have the same pieces, in any order; None where neither has several pieces."""
    ours, theirs = _pieces(boxed), _pieces(reference)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    left = list(ours)
    # One "otherwise" is what the other pieces leave over, whatever the other side calls that.
    has_rest = [any(condition == _OTHERWISE for _, condition in side) for side in (ours, theirs)]
    for its in theirs:
        mine = next((piece for piece in left if _same(piece, its, equal, any(has_rest) and not all(has_rest))), None)
        if mine is None:
            return False
        left.remove(mine)
    return True


def _pieces(text: str) -> list[Piece] | None:
    found = _CASES.fullmatch(clean(text))
    if not found:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["rows"]) if row.strip()]
    if not 2 <= len(rows) <= _MOST_PIECES or any(len(row) != 2 for row in rows):
        return None
    if found[1] == "array" and not all(_says_when(row[1]) for row in rows):
        return None  # a matrix
    return [(value.strip(" ,"), _condition(condition)) for value, condition in rows]


def _says_when(text: str) -> bool:
    return re.search(r"[<>=]|\\[lg]e|\\ne|\\in(?![a-z])|\b(?:if|for|when|otherwise|else)\b", text) is not None


def _condition(text: str) -> str:
    """Without the words and punctuation around it: ``x<0`` for ``\\text{if } x < 0,``."""
    plain = _WORDS.sub("", DRESS.sub(r"\1", text))
    return _OTHERWISE if plain.casefold() in _ALSO_OTHERWISE else plain


def _same(mine: Piece, its: Piece, equal: Equal, fits_rest: bool) -> bool:
    conditions = (mine[1], its[1])
    try:
        if conditions[0] != conditions[1] and not (fits_rest and _OTHERWISE in conditions):
            return same_form("interval", *conditions, equal) and equal(mine[0], its[0])
        return equal(mine[0], its[0])
    except ValueError:
        return False  # a condition that is no interval, or a value of the reference that math-verify cannot read
