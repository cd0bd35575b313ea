"""What the schema expects and what a recipe holds, in plain words."""

from __future__ import annotations

import re
import types
import typing
from typing import Any

from cascade_rl.recipe.problems import nearest
from cascade_rl.recipe.sections import is_model, required_type

NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
NAME_RULE = "lower-case letters, digits, dots, dashes and underscores, at most 64"
OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def mismatch(annotation: Any, constraints: list[Any], value: Any, kind: str) -> str:
    """What to say of a value that does not fit its field; ``kind`` is pydantic's word for the fault."""
    if kind in OUT_OF_BOUNDS:
        wanted = "".join(_bounds(constraints))
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


def expected(annotation: Any, constraints: list[Any]) -> str:
    """``a whole number, at least 2``: what a field takes."""
    annotation = required_type(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in NOUNS:
        if annotation is str and any(getattr(constraint, "pattern", None) for constraint in constraints):
            return f"a name ({NAME_RULE})"
        return ", ".join([NOUNS[annotation], *_bounds(constraints)])
    if origin is typing.Literal:
        return f"one of {_listed(arguments)}" if len(arguments) > 1 else str(arguments[0])
    if is_model(annotation):
        required = [name for name, info in annotation.model_fields.items() if info.is_required()]
        keys = required or list(annotation.model_fields)[:3]
        return f"a mapping with {'' if required else 'keys such as '}{', '.join(keys)}"
    if origin is list:
        least = next((constraint.min_length for constraint in constraints if hasattr(constraint, "min_length")), 0)
        return "a list" + (f" of at least {least} entr{'y' if least == 1 else 'ies'}" if least else "")
    if origin is tuple:
        return f"a list of {len(arguments)} {'numbers' if set(arguments) <= {int, float} else 'values'}"
    if origin is dict:
        inner = f" whose values are {NOUNS[arguments[1]]}" if arguments[1] in NOUNS else ""
        return f"a mapping{inner}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(expected(each, []) for each in arguments)
    return "another value"


def _listed(choices: tuple[Any, ...]) -> str:
    """``a, b or c``."""
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def _bounds(constraints: list[Any]) -> list[str]:
    limits = [(word, getattr(each, name)) for name, word in BOUNDS for each in constraints if hasattr(each, name)]
    found = [f"{word} {limit if isinstance(limit, int) else f'{limit:g}'}" for word, limit in limits]
    return [" and ".join(found)] if found else []


def shown(value: Any) -> str:
    """``'ten'``, ``a list of 2``: what was found, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(list(value)[:3])}" if value else "an empty mapping"
    return repr(value)


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
