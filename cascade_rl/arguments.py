"""Whether a recipe's ``args`` fit the function that they are handed to, judged before it is called."""

from __future__ import annotations

import difflib
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from cascade_rl.type_words import expected, required_type, shown

_ANYTHING = ConfigDict(arbitrary_types_allowed=True)
_NO_JSON = ("is_instance_of", "is_subclass_of", "callable_type", "needs_python_object")
"""Findings about classes, functions and objects, which no JSON value is: nothing can be said against the value."""


def argument_problems(
    function: Callable[..., Any], arguments: Mapping[str, Any], handed_over: int = 0
) -> Iterator[str]:
    """Yield one sentence for each argument that ``function`` does not take, lacks, or annotates with another type.

    ``handed_over``: so many of its first parameters are given by position, and are none of ``arguments``.

    ``arguments`` are JSON values. A list fits a tuple, a whole number fits a float. What cannot be judged (a function
    without a signature, an annotation that names nothing known here) passes.
    """
    try:
        parameters = dict(list(inspect.signature(function).parameters.items())[handed_over:])
    except (TypeError, ValueError):
        return
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in arguments.keys() - named.keys() if not takes_all else ():
        near = difflib.get_close_matches(name, named, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(named) or 'none'}"
        yield f"takes no `{name}`; {hint}"
    for name, parameter in named.items():
        if name not in arguments and parameter.default is parameter.empty:
            yield f"needs `{name}`"
    yield from type_problems(function, arguments)


def type_problems(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each of ``arguments`` that a parameter takes by name and annotates with another type.

    The parameter's own default always fits, whatever the annotation says.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    annotations = _annotations(function)
    for name, value in arguments.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        is_default = type(value) is type(parameter.default) and value == parameter.default
        if name in annotations and not is_default and not fits(value, annotations[name]):
            yield f"`{name}` must be {_wanted(annotations[name])}, not {_found(value)}"


def _wanted(annotation: Any) -> str:
    """What an argument may be; ``X | None`` is ``..., or nothing``."""
    return expected(annotation, []) + (", or nothing" if required_type(annotation) is not annotation else "")


def _found(value: Any) -> str:
    """The value itself, lists and mappings too, since it may be one of their entries that does not fit."""
    return json.dumps(value)[:80] if value and isinstance(value, list | dict) else shown(value)


def fits(value: Any, annotation: Any) -> bool:
    """Whether the JSON value has the annotated type; True where that cannot be judged."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_ANYTHING)
    except PydanticUserError:  # a model has a configuration of its own
        adapter = TypeAdapter(annotation)
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return any(finding["type"] in _NO_JSON for finding in error.errors())
    except PydanticUserError:  # a name in the annotation that only a type checker knows
        return True
    return True


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function
    if inspect.isclass(function):
        target = function.__init__  # type: ignore[misc]
    elif not inspect.isroutine(function):
        target = type(function).__call__
    try:
        return typing.get_type_hints(target)
    except Exception:  # a name that only a type checker imports, an object without annotations
        return {}
