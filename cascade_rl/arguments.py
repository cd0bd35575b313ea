"""Whether a recipe's ``args`` fit the function that they are handed to, judged before it is called."""

from __future__ import annotations

import difflib
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

_ANYTHING = ConfigDict(arbitrary_types_allowed=True)


def argument_problems(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each argument that ``function`` does not take, lacks, or annotates with another type.

    ``arguments`` are JSON values. A list fits a tuple, a whole number fits a float. What cannot be judged (a function
    without a signature, an annotation that names nothing known here) passes.
    """
    try:
        parameters = inspect.signature(function).parameters
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
    annotations = _annotations(function)
    for name, value in arguments.items():
        if name in named and name in annotations and not fits(value, annotations[name]):
            yield f"`{name}` must be {inspect.formatannotation(annotations[name])}, not {json.dumps(value)[:80]}"


def fits(value: Any, annotation: Any) -> bool:
    """Whether the JSON value has the annotated type; True where that cannot be judged."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_ANYTHING)
    except PydanticUserError:  # a model has a configuration of its own
        adapter = TypeAdapter(annotation)
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        # No JSON value is an instance of a class that pydantic does not know.
        return any(finding["type"] in ("is_instance_of", "needs_python_object") for finding in error.errors())
    return True


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    target = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # a name that only a type checker imports, an object without annotations
        return {}
