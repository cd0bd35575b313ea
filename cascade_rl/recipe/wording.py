"""What a value of a recipe should have been, and how to write it instead, in plain words."""

from __future__ import annotations

import re
import typing
from typing import Any

from cascade_rl.recipe.problems import nearest
from cascade_rl.type_words import NAME_RULE, NOUNS, bounds, expected, required_type, shown

OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def mismatch(annotation: Any, constraints: list[Any], value: Any, kind: str) -> str:
    """What to say of a value that does not fit its field; ``kind`` is pydantic's word for the fault."""
    if kind in OUT_OF_BOUNDS:
        wanted = "".join(bounds(constraints))
    elif kind in ("string_pattern_mismatch", "string_too_long"):
        return unfit_name(value)
    elif required_type(annotation) in NOUNS:
        wanted = expected(annotation, [each for each in constraints if getattr(each, "pattern", None)])
    else:
        wanted = expected(annotation, constraints)
    return f"must be {wanted}, not {shown(value)}{hint(annotation, value)}"


def unfit_name(value: Any) -> str:
    """What to say of a name that breaks the rule."""
    return f"{shown(value)} will not do as a name: {NAME_RULE}"


def hint(annotation: Any, value: Any) -> str:
    """How to write it instead, where that can be guessed; begins with a semicolon or is empty."""
    annotation = required_type(annotation)
    if annotation is str and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if annotation is bool and isinstance(value, str) and value.lower() in ("yes", "on", "no", "off"):
        return f"; write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    if annotation in (int, float) and isinstance(value, str) and re.fullmatch(r"[-+]?[\d_,.eE+-]*\d", value):
        digits = value.replace("_", "").replace(",", "")
        return f"; write {digits} without quotes" if digits == value else f"; write {digits}"
    if typing.get_origin(annotation) is typing.Literal and isinstance(value, str):
        near = nearest(value, map(str, typing.get_args(annotation)))
        return f"; did you mean {near}?" if near else ""
    if typing.get_origin(annotation) is list and isinstance(value, dict | str):
        return "; begin each entry with a dash"
    return ""
