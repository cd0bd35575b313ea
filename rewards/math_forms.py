"""Answers with a shape: choices, sets, tuples, intervals, matrices, units, percentages.

math-verify reads most of these, each with a leniency (a pair is an open interval, ``\\{1,2\\}`` equals ``(1,2)``,
units fall away, 10\\% is 10 and 0.1). A row or recipe that knows the shape names it, and it is compared part by part,
each part like any other answer. Of a reference whose shape nobody named, ``same_shape`` decides what its writing alone
makes certain: a ratio of three, a numeral with its base, an interval against an inequality.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from rewards.math_matching import matched
from rewards.math_spelling import DRESS, clean, without_thousands

FORMS = ("choice", "set", "tuple", "interval", "matrix")
Equal = Callable[[str, str], bool]

_MOST_PARTS = 200


def same_form(form: str, boxed: str, reference: str, equal: Equal) -> bool:
    """Whether two texts of one shape agree.

    ``choice``: a letter, however dressed: ``(B)``, ``B.``, ``\\text{B}``, ``B: because``. ``set``: any order, each
    element once. ``tuple``: that order. ``interval``: which ends belong to it counts; unions in any order; also written
    as an inequality. ``matrix``: rows and columns; a vector may be written as a tuple.

    Raises ValueError for a reference that has not the shape: the row is at fault. ``boxed`` without it is wrong.
    """
    theirs = _READ[form](clean(reference))
    if theirs is None:
        raise ValueError(f"the row's answer {reference[:200]!r} is no {form}")
    ours = _READ[form](clean(boxed))
    return ours is not None and _COMPARE[form](ours, theirs, equal)


# --- Choices ---------------------------------------------------------------------------------------------------------

_CHOICE = re.compile(
    r"(?:option|choice|answer)?\s*(?:[\[(]\s*([A-Za-z])\s*[\])](?:[.:]|\s.*|(?=\d).*)?|([A-Za-z])\s*(?:[\])]|[.:)](?:\s.*)?)?)",
    re.IGNORECASE,
)
_ANOTHER_CHOICE = re.compile(r"(?:\(|\b(?:or|and) +\(?)[A-J]\b|\b[A-J]\)")


def _read_choice(text: str) -> str | None:
    plain = DRESS.sub(r"\1", text).strip()
    found = _CHOICE.fullmatch(plain)
    if not found:
        return None
    place = found.end(found.lastindex or 0)
    letter = plain[place - 1].upper()
    others = re.findall("[A-J]", " ".join(_ANOTHER_CHOICE.findall(plain[place + 1 :])))
    return None if set(others) - {letter} else letter


# --- Lists -----------------------------------------------------------------------------------------------------------

_OPEN, _CLOSED = "([{", ")]}"


def split(text: str, separators: str = ",;") -> list[str]:
    """The parts of ``text`` between separators that stand in no brackets. A comma within a number is one of these:
    write ``1000`` or ``1{,}000`` for a thousand."""
    parts, depth, begun, place = [], 0, 0, 0
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 1  # an escaped brace is handled as the brace: what counts is that they pair up
            character = text[place : place + 1]
        if character and character in _OPEN:
            depth += 1
        elif character and character in _CLOSED:
            depth -= 1
        elif character and character in separators and depth == 0 and text[place - 1 : place] != "\\":
            parts.append(text[begun:place].strip())
            begun = place + 1
        place += 1
    return [*parts, text[begun:].strip()]


def _read_set(text: str) -> list[str] | None:
    if text in ("\\emptyset", "\\varnothing", "\\{\\}", "\\{ \\}", "{}"):
        return []
    parts = list_parts(text)
    return parts if len(parts) <= _MOST_PARTS else None


def list_parts(text: str, braces: bool = True) -> list[str]:
    """The elements of a list written with commas, semicolons, "and" or "or", in the braces of a set or without.

    Without ``braces`` a set in braces is one element.
    """
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}| (?:and|or) ", ",", without_thousands(clean(text)))
    inner = _inside(text, ("\\{", "\\}"), ("\\lbrace", "\\rbrace"), ("{", "}")) if braces else None
    return [part for part in split(text if inner is None else inner) if part]


def tuple_parts(text: str, anyway: bool = False) -> list[str] | None:
    """The two or more components of a point or vector, also with its name before it; None for anything else.

    ``anyway`` reads components without brackets around them too.
    """
    text = _NAMED_POINT.sub("", clean(text), count=1)
    if anyway:
        return _read_tuple(text)
    if _inside(text, ("(", ")"), ("\\langle", "\\rangle"), ("<", ">")) is None:
        return None
    return _vector(text)


def _read_tuple(text: str) -> list[str] | None:
    inner = _inside(text, ("(", ")"), ("[", "]"), ("\\langle", "\\rangle"), ("<", ">"))
    parts = split(text if inner is None else inner)
    return parts if all(parts) and len(parts) <= _MOST_PARTS else None


def _inside(text: str, *pairs: tuple[str, str]) -> str | None:
    """What one pair of brackets around all of ``text`` holds."""
    for begin, end in pairs:
        if text.startswith(begin) and text.endswith(end) and len(text) >= len(begin) + len(end):
            inner = text[len(begin) : len(text) - len(end)]
            if _is_balanced(inner):
                return inner.strip()
    return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSED)
        if depth < 0:
            return False
    return depth == 0


def _same_in_any_order(ours: list[str], theirs: list[str], equal: Equal) -> bool:
    return matched(ours, theirs, equal) is not None


def _same_in_order(ours: list[str], theirs: list[str], equal: Equal) -> bool:
    return len(ours) == len(theirs) and all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- Intervals -------------------------------------------------------------------------------------------------------

Interval = tuple[bool, str, str, bool]
"""Whether the lower end belongs to it, the ends, whether the upper end does."""
_LOW, _HIGH = "-\\infty", "\\infty"
_INEQUALITY = {"<": False, "\\lt": False, "\\le": True, "\\leq": True, "≤": True, "\\leqslant": True}
_REVERSED = {">": "<", "\\gt": "<", "\\ge": "\\le", "\\geq": "\\le", "≥": "\\le", "\\geqslant": "\\le"}
_UNION = re.compile(
    r"\\(?:big)?cup(?![a-z])|∪|\\(?:text|mathrm|mbox)\s*\{\s*or\s*\}|(?<=[\s\d])or(?=\s)|\\lor(?![a-z])|\\vee(?![a-z])"
)
_UNEQUAL = re.compile(r"([a-zA-Z])\s*(?:\\neq?(?![a-z])|≠|\\not\s*=)\s*(.+)")
_SIZE = re.compile(r"\|([a-zA-Z])\|\s*(\\leq?|\\geq?|[<>≤≥])\s*([^<>≤≥|]+)")
_RELATION = re.compile(
    r"\\neq?(?![a-z])|≠|\\not\s*=|\\leqslant|\\geqslant|\\leq|\\geq|\\le(?![a-z])|\\ge(?![a-z])|\\lt|\\gt|[<>≤≥]"
)


def _read_intervals(text: str) -> list[Interval] | None:
    found: list[Interval] = []
    for part in _UNION.split(text):
        bare = re.sub(r"^[a-zA-Z]\s*\\in(?![a-z])\s*", "", part.strip())
        some = _read_inequality(bare) if _RELATION.search(bare) else _read_interval(bare)
        if some is None:
            return None
        found += some
    return found


def is_union_of_inequalities(text: str) -> bool:
    """Whether ``text`` is of the kind ``x < 1 \\text{ or } x > 2``."""
    parts = _UNION.split(clean(text))
    return len(parts) > 1 and all(_RELATION.search(part) for part in parts)


def _read_interval(text: str) -> list[Interval] | None:
    if re.fullmatch(r"\\(?:mathbb|mathbf|Bbb)\s*\{?\s*R\s*\}?|\\R", text):
        return [(False, _LOW, _HIGH, False)]
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    ends = split(text[1:-1])
    if len(ends) != 2 or not all(ends):
        return None
    low, high = (_infinity(end) for end in ends)
    return [(text[0] == "[", low, high, text[-1] == "]")]


def _infinity(text: str) -> str:
    plain = text.replace(" ", "").replace("∞", "\\infty")
    return {"+\\infty": _HIGH, "\\infty": _HIGH, "-\\infty": _LOW}.get(plain, text)


def _read_inequality(text: str) -> list[Interval] | None:
    """``x < 2``, ``2 \\le x < 3``, ``x > 2``, ``5 > x``, ``x \\ne 0``: of one letter."""
    if other := _UNEQUAL.fullmatch(text):
        return [(False, _LOW, other[2].strip(), False), (False, other[2].strip(), _HIGH, False)]
    if size := _SIZE.fullmatch(text):
        relation, end = _REVERSED.get(size[2], size[2]), size[3].strip()
        closed_end = _INEQUALITY[relation]
        if relation == size[2]:
            return [(closed_end, f"-({end})", end, closed_end)]
        return [(False, _LOW, f"-({end})", closed_end), (closed_end, end, _HIGH, False)]
    relations, sides = _RELATION.findall(text), [side.strip() for side in _RELATION.split(text)]
    if not 1 <= len(relations) <= 2 or not all(sides):
        return None
    if all(relation in _REVERSED for relation in relations):
        relations, sides = [_REVERSED[relation] for relation in reversed(relations)], sides[::-1]
    if not all(relation in _INEQUALITY for relation in relations):
        return None
    closed = [_INEQUALITY[relation] for relation in relations]
    if len(sides) == 3:
        return [(closed[0], sides[0], sides[2], closed[1])] if _is_variable(sides[1]) else None
    if _is_variable(sides[0]):
        return [(False, _LOW, sides[1], closed[0])]
    return [(closed[0], sides[0], _HIGH, False)] if _is_variable(sides[1]) else None


def _is_variable(text: str) -> bool:
    return re.fullmatch(r"[a-zA-Z]|\\[a-z]+", text) is not None


def _same_intervals(ours: list[Interval], theirs: list[Interval], equal: Equal) -> bool:
    def same(a: Interval, b: Interval) -> bool:
        return (a[0], a[3]) == (b[0], b[3]) and _same_end(a[1], b[1], equal) and _same_end(a[2], b[2], equal)

    return len(ours) == len(theirs) and all(any(same(mine, its) for mine in ours) for its in theirs)


def _same_end(a: str, b: str, equal: Equal) -> bool:
    return a == b if {a, b} & {_LOW, _HIGH} else equal(a, b)


# --- Matrices --------------------------------------------------------------------------------------------------------

_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}")


def _read_matrix(text: str) -> list[list[str]] | None:
    text = re.sub(r"^[\[(]\s*(?=\\begin)|(?<=\})\s*[\])]$", "", text)  # brackets around a bare array
    if found := _MATRIX.fullmatch(text):
        rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-z])", found[2]) if row.strip()]
        matrix = [[cell.strip() for cell in row.split("&")] for row in rows]
    else:
        cells = _read_tuple(text)
        if not cells or len(cells) < 2:
            return None
        matrix = [[cell] for cell in cells]
    if not matrix or len({len(row) for row in matrix}) != 1 or len(matrix) * len(matrix[0]) > _MOST_PARTS:
        return None
    return matrix


def _same_matrix(ours: list[list[str]], theirs: list[list[str]], equal: Equal) -> bool:
    if len(ours) != len(theirs) and 1 in (len(theirs), len(theirs[0])) and 1 in (len(ours), len(ours[0])):
        # A vector, lying or standing, or written as a tuple.
        ours, theirs = ([[cell] for row in side for cell in row] for side in (ours, theirs))
    return len(ours) == len(theirs) and all(_same_in_order(a, b, equal) for a, b in zip(ours, theirs, strict=True))


_READ: dict[str, Callable[[str], object]] = {
    "choice": _read_choice, "set": _read_set, "tuple": _read_tuple, "interval": _read_intervals, "matrix": _read_matrix,
}  # fmt: skip
_COMPARE: dict[str, Callable[..., bool]] = {
    "choice": lambda ours, theirs, equal: ours == theirs,
    "set": _same_in_any_order, "tuple": _same_in_order, "interval": _same_intervals, "matrix": _same_matrix,
}  # fmt: skip


# --- Shapes that nobody named ----------------------------------------------------------------------------------------

_BASE = re.compile(r"([0-9A-Z.]+)_(?:\{?(?:\\text\s*\{)?([0-9]{1,2}|[a-z]+)\}{0,2})")
_BASES = {
    name: str(number)
    for number, name in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)
}
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?){2,}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4}")
_ASSIGNMENT = re.compile(r"([a-zA-Z]|\\[a-z]+)\s*=\s*([^=<>]+)")
_NAMED_POINT = re.compile(r"[A-Z]\s*(?:=\s*)?(?=\()|^\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)\s*=\s*(?=\()")
_BOUND = re.compile(r"\b(?:or (?:more|less|fewer|greater)|at (?:least|most)|(?:more|less|fewer|greater) than|not)\b")
_LETTERS = re.compile(r"\(?[A-J]\)?(?:\s*,\s*\(?[A-J]\)?)+")


def same_shape(boxed: str, reference: str, equal: Equal) -> bool | None:
    """What the writing of the two alone decides; None where it decides nothing."""
    ours, theirs = clean(boxed), clean(reference)
    for decide in (_choices, _relations, _bases, _ratios, _dates, _brackets, _points, _regions):
        verdict = decide(ours, theirs, equal)
        if verdict is not None:
            return verdict
    return None


def _choices(ours: str, theirs: str, equal: Equal) -> bool | None:
    """A capital from A to J is taken for a choice where the box dresses it as one."""
    if _LETTERS.fullmatch(theirs):
        mine = re.sub(r"\band\b|[^A-Za-z]", "", DRESS.sub(r"\1", ours))
        return sorted(mine) == sorted(re.findall("[A-J]", theirs)) or None
    letter = re.fullmatch(r"\(?([A-J])\)?", DRESS.sub(r"\1", theirs).strip())
    if not letter or len(ours) < 2:
        return None
    mine_is = _read_choice(ours)
    return None if mine_is is None else mine_is == letter[1]


def _bases(ours: str, theirs: str, equal: Equal) -> bool | None:
    """Numerals with their bases, as digits: whoever asks for base 8 asks for these. A base left out is no fault."""
    a, b = _BASE.fullmatch(ours), _BASE.fullmatch(theirs)
    if not (a and b):
        return None
    return a[1].lstrip("0") == b[1].lstrip("0") and _BASES.get(a[2], a[2]) == _BASES.get(b[2], b[2])


def _ratios(ours: str, theirs: str, equal: Equal) -> bool | None:
    """Of three or more, which math-verify divides one by another. Of two it does rightly so."""
    if not (_RATIO.fullmatch(ours) and _RATIO.fullmatch(theirs)):
        return None
    a, b = ([Fraction(part.strip()) for part in side.split(":")] for side in (ours, theirs))
    return len(a) == len(b) and all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True)) and any(a) == any(b)


def _dates(ours: str, theirs: str, equal: Equal) -> bool | None:
    """math-verify subtracts and divides them."""
    return ours == theirs if _DATE.fullmatch(theirs) else None


def _brackets(ours: str, theirs: str, equal: Equal) -> bool | None:
    """A set is no pair and no interval, whatever stands in them."""
    for one, other in ((ours, theirs), (theirs, ours)):
        alone = _inside(one, ("\\{", "\\}"))
        if alone and alone.startswith("(") and len(split(alone)) == 1 and other.startswith("("):
            return equal(alone, other) if one is ours else equal(other, alone)  # the one solution, in braces
    kinds = []
    for side in (ours, theirs):
        braced, round_ = _inside(side, ("\\{", "\\}")), _inside(side, ("(", ")"))
        is_set, is_pair = (inner is not None and len(split(inner)) > 1 for inner in (braced, round_))
        kinds.append("set" if is_set else "pair" if is_pair else "")
    return False if set(kinds) == {"set", "pair"} else None


def _points(ours: str, theirs: str, equal: Equal) -> bool | None:
    """Points and vectors in different writings: ``A(1,2)``, ``x=1, y=2``, ``\\langle 1,2 \\rangle``, a column."""
    named = (ours, theirs)
    ours, theirs = (_NAMED_POINT.sub("", side, count=1) for side in named)
    mine, its = assigned(ours), assigned(theirs)
    if mine and its:
        return mine.keys() == its.keys() and all(equal(mine[name], its[name]) for name in its)
    if mine and "=" not in theirs and (parts := _bracketed(theirs)):
        return _same_in_order(list(mine.values()), parts, equal)
    if its and "=" not in ours and (parts := _bracketed(ours)):
        return _same_in_order(parts, list(its.values()), equal)
    a, b = _vector(ours), _vector(theirs)
    if a is None or b is None or (named == (ours, theirs) and _bracket(ours) == _bracket(theirs)):
        return None  # two of one kind are math-verify's
    return _same_in_order(a, b, equal)


def assigned(text: str) -> dict[str, str] | None:
    """Values of ``x=1, y=2`` in the order of their names; None for anything else."""
    parts = [_ASSIGNMENT.fullmatch(part) for part in split(re.sub(r"\\text\s*\{\s*and\s*\}|\band\b", ",", text))]
    if len(parts) < 2 or not all(parts):
        return None
    values = {part[1]: part[2].strip() for part in parts if part}
    return dict(sorted(values.items())) if len(values) == len(parts) else None


def _bracketed(text: str) -> list[str] | None:
    return _read_tuple(text) if text.startswith(("(", "[", "\\langle", "<")) else None


def _bracket(text: str) -> str | None:
    return next((begin for begin in ("(", "[", "\\langle", "<", "\\begin") if text.startswith(begin)), None)


def _vector(text: str) -> list[str] | None:
    """Components of one row or column, or of a tuple."""
    if "\\begin" in text:
        matrix = _read_matrix(text)
        if matrix is None or 1 not in (len(matrix), len(matrix[0])):
            return None
        return [cell for line in matrix for cell in line]
    if not text.startswith(("(", "\\langle", "<")):
        return None
    parts = _read_tuple(text)
    return parts if parts and len(parts) > 1 else None


def _relations(ours: str, theirs: str, equal: Equal) -> bool | None:
    """``\\ne 5`` is not 5, though math-verify reads it so."""
    if _BOUND.search(ours) and not _BOUND.search(theirs) and not _RELATION.search(theirs):
        return False
    begins = re.match(r"\\(?:neq?|not|[lg]eq?|[lg]t|[lg]eqslant)(?![a-z])|[<>≤≥≠]", ours)
    return False if begins and not ours.endswith(">") and not _RELATION.search(theirs) else None


def _regions(ours: str, theirs: str, equal: Equal) -> bool | None:
    """Intervals and inequalities, where math-verify does not see that both are that."""
    if not (_RELATION.search(ours) or _is_region(ours)) or not (_RELATION.search(theirs) or _is_region(theirs)):
        return None
    a, b = _read_intervals(ours), _read_intervals(theirs)
    if a is None or b is None:
        return None
    return _same_intervals(a, b, equal) or None


def _is_region(text: str) -> bool:
    return _bracketed(text) is not None or "\\cup" in text or "mathbb" in text or "\\in" in text
