"""Units and percent signs after a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from rewards.math_spelling import clean

_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|textrm|mbox)\s*\{\s*([^{}]*?)\s*\}|(?<=[\d}\s])\s*([a-zA-Zµ°]+(?:\s*/\s*[a-zA-Z]+)*))"
    r"\s*(\^\{?-?\d\}?)?\s*$"
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*$|°\s*$|\\degree\s*$")


def without_unit(text: str) -> tuple[str, str]:
    """A quantity's number and unit (empty where it has none): ``3.5\\text{ cm}^2``, ``90^\\circ``, ``5 km/h``."""
    text = clean(text)
    if found := _DEGREES.search(text):
        return text[: found.start()].strip(), "degrees"
    if found := _UNIT.search(text):
        power = (found[3] or "").strip("^{}")
        unit = re.sub(r"\s+", "", found[1] or found[2] or "") + power
        if unit and text[: found.start()].strip():
            return text[: found.start()].strip(), {"degree": "degrees"}.get(unit, unit)
    return text, ""


def percentage(text: str) -> tuple[str, bool]:
    """The number and whether a percent sign (or word) followed it."""
    text = clean(text)
    bare = re.sub(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|\\?%)\s*\}|percent)\s*$", "", text)
    return bare, bare != text


def percent_value(text: str, number: Callable[[str], Fraction | None]) -> Fraction | None:
    """The exact value of ``text``, a hundredth of its number where it is a percentage."""
    bare, is_percent = percentage(text)
    value = number(bare)
    return None if value is None else value / 100 if is_percent else value
