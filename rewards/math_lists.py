"""An answer in several boxes: one list, which is right if it is the reference as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewards.math_boxes import Box
from rewards.math_forms import Equal, assigned, is_union_of_inequalities, list_parts, same_form, tuple_parts
from rewards.math_matching import matched
from rewards.math_spelling import standard

IsNumber = Callable[[str], bool]


def same_list(boxes: Sequence[Box], reference: str, form: str | None, equal: Equal, is_number: IsNumber) -> bool:
    """Whether two or more boxes, taken together, are the reference.

    Boxes that all equal the whole reference repeat it, which is right. Otherwise the boxes are the elements of a list
    (a box may hold several), and they have to be those of the reference: none missing and none left over. So naming
    several candidates is never right. Nothing but ``reference`` and its parts is the second argument of ``equal``.

    ``form`` is that of ``rewards.math_forms`` or None; ``is_number`` says whether a text with a comma is one number.
    Raises ValueError for a reference that has not the form.
    """
    if all(_same_whole(box.text, reference, form, equal) for box in boxes):
        return True
    if form in ("choice", "matrix"):
        return False

    def same(ours: str, theirs: str) -> bool:
        try:
            return equal(ours, theirs)
        except ValueError:  # a part that math-verify cannot read; of a whole reference it is the row's fault
            return False

    if form in (None, "interval") and _same_union(boxes, reference, same):
        return True
    if any(box.conjunction for box in boxes) and is_union_of_inequalities(reference):
        return False  # no number is below 1 and above 2
    if form == "interval" or is_number(reference) or "dots" in standard(reference):
        return False
    parts_of = [_parts(box, is_number) for box in boxes]
    parts = [part for some in parts_of for part in some]
    components = None if form == "set" else tuple_parts(reference, anyway=form == "tuple")
    if components is not None:
        # Values in the order of their names, else in the order of the boxes. "1 or 2" is no point.
        return not any(box.alternative for box in boxes) and _same_in_order(_by_name(parts), components, same)
    if (named := assigned(reference)) is not None:
        values = dict(parts)
        if len(values) == len(parts) and values.keys() == named.keys():
            return all(same(values[name], named[name]) for name in named)
        if not any(name for name, _ in parts):
            return _same_in_order([text for _, text in parts], list(named.values()), same)
    return _same_in_any_order(parts_of, _elements(reference), same)


def _same_whole(text: str, reference: str, form: str | None, equal: Equal) -> bool:
    return equal(text, reference) if form is None else same_form(form, text, reference, equal)


Part = tuple[str, str]
"""A label, which may be empty, and a value."""


_NAMED = re.compile(r"([a-zA-Z])\s*=\s*([^=]+)")


def _parts(box: Box, is_number: IsNumber) -> list[Part]:
    """The elements of the list in one box: most often one."""
    parts: list[Part] = []
    for text in [box.text] if is_number(box.text) else _elements(box.text, braces=False):
        named = _NAMED.fullmatch(text)
        parts.append((named[1], named[2]) if named and not box.label else (box.label, text))
    return parts


def _elements(text: str, braces: bool = True) -> list[str]:
    return [value for part in list_parts(standard(text), braces) for value in _both_signs(part)]


def _both_signs(text: str) -> list[str]:
    r"""``1+\sqrt2`` and ``1-\sqrt2`` for ``1\pm\sqrt2``."""
    pieces = re.split(r"\\pm(?![a-zA-Z])\s*", text)
    if len(pieces) != 2:
        return [text]
    before, after = pieces
    plus = "" if not before.strip() or before.rstrip().endswith(("=", "(")) else "+"
    return [f"{before}{plus}{after}", f"{before}-{after}"]


def _by_name(parts: list[Part]) -> list[str]:
    names = [name for name, _ in parts]
    if all(names) and len(set(names)) == len(names):
        parts = sorted(parts)
    return [text for _, text in parts]


def _same_in_order(ours: list[str], theirs: list[str], equal: Equal) -> bool:
    return len(ours) == len(theirs) and all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_in_any_order(ours: list[list[Part]], theirs: list[str], equal: Equal) -> bool:
    """Whether the boxes are the elements of the reference.

    Each part of a box must be an element, and each element must be in a box. Two boxes may hold the same elements or
    have none in common: "1" and "1, 2" are two candidates for a list.
    """
    named = any("=" in element for element in theirs)
    texts = [[_written(part, named) for part in parts] for parts in ours]
    places = matched([text for some in texts for text in some], theirs, equal)
    if places is None or not all(texts):
        return False
    found = {frozenset[int]().union(*(places[text] for text in some)) for some in texts}
    return sum(map(len, found)) == len(theirs)


def _written(part: Part, named: bool) -> str:
    """A part, with its label where the elements that it is compared with have names too."""
    label, text = part
    return f"{label}={text}" if named and label and "=" not in text else text


def _same_union(boxes: Sequence[Box], reference: str, equal: Equal) -> bool:
    """Whether intervals or inequalities, joined by "or" or a union sign, are the pieces of the reference."""
    intervals = all(box.text.startswith(("(", "[", "\\left")) for box in boxes)
    if not (intervals or any(box.alternative for box in boxes)):
        return False
    try:
        return same_form("interval", " \\cup ".join(box.text for box in boxes), reference, equal)
    except ValueError:
        return False  # the reference is something else
