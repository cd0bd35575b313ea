"""Annotations and values in plain words, for messages: ``a list of 2 whole numbers``, not ``tuple[int, int]``."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from typing import Any

from pydantic import BaseModel

NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "nothing"}
SEVERAL = {int: "whole numbers", float: "numbers", bool: "true or false", str: "text"}
BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
NAME_RULE = "lower-case letters, digits, dots, dashes and underscores, at most 64"


def required_type(annotation: Any) -> Any:
    """``X`` for ``X | None``; anything else as it is."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def expected(annotation: Any, constraints: list[Any]) -> str:
    """``a whole number, at least 2``: what a field takes. That it may be left out (``X | None``) is not said."""
    annotation = required_type(annotation)
    arguments = typing.get_args(annotation)
    if annotation in NOUNS:
        if annotation is str and any(getattr(constraint, "pattern", None) for constraint in constraints):
            return f"a name ({NAME_RULE})"
        return ", ".join([NOUNS[annotation], *bounds(constraints)])
    if typing.get_origin(annotation) is typing.Literal:
        return _one_of(arguments)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return " or ".join(expected(each, []) for each in arguments)
    if is_model(annotation):
        required = [name for name, info in annotation.model_fields.items() if info.is_required()]
        keys = required or list(annotation.model_fields)[:3]
        return f"a mapping with {'' if required else 'keys such as '}{', '.join(keys)}"
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return f"a value of type {inspect.formatannotation(annotation)}"
    if issubclass(kind, enum.Enum):
        return _one_of(tuple(member.value for member in kind))
    if issubclass(kind, collections.abc.Mapping):
        values = SEVERAL.get(arguments[1]) if len(arguments) == 2 else None
        return f"a mapping whose values are {values}" if values else "a mapping"
    if issubclass(kind, collections.abc.Iterable) and kind is not bytes:
        return _list(kind, arguments, constraints)
    return f"a value of type {inspect.formatannotation(annotation)}"


def _list(kind: type, arguments: tuple[Any, ...], constraints: list[Any]) -> str:
    """What is said of lists, tuples and sets."""
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        noun = "values"
        if set(arguments) <= {int, float}:
            noun = SEVERAL[int if set(arguments) == {int} else float]
        return f"a list of {len(arguments)} {noun}"
    least = next((constraint.min_length for constraint in constraints if hasattr(constraint, "min_length")), 0)
    if least:
        return f"a list of at least {least} entr{'y' if least == 1 else 'ies'}"
    entries = SEVERAL.get(arguments[0]) if arguments else None
    return f"a list of {entries}" if entries else "a list"


def _one_of(choices: tuple[Any, ...]) -> str:
    """``one of a, b or c``; a single choice by itself."""
    words = [choice if isinstance(choice, str) else shown(choice) for choice in choices]
    return f"one of {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def bounds(constraints: list[Any]) -> list[str]:
    """``at least 1 and at most 8`` as a list of one; an empty list where there is no bound."""
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
