"""Tool calls and tool definitions, in the forms that data sets write them."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cascade_rl.rows import present, text_fault, without_nulls
from cascade_rl.types import CascadeError

ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Keys of a call that hold its arguments: an object, or JSON text of one."""
ASIDE = ("id", "type", "index", "result", "call_id", "tool_call_id", "status")
"""Keys of a call that hold nothing of what the model writes."""
OPEN, CLOSE = "<tool_call>", "</tool_call>"
END_OF_THINKING = "</think>"
FENCE = "```"


def json_value(value: Any, what: str) -> Any:
    """``value``; where it is text, the JSON or the Python literal in it. Raises ValueError naming ``what``.

    Strings in the JSON may hold raw line breaks. Escapes that spell half of a surrogate pair are refused here, since
    checks of the row itself see the escape only.
    """
    if not isinstance(value, str):
        return value
    parsed = _parsed(value, what)
    if text_fault({"value": parsed}):
        raise ValueError(f"{what}: its JSON holds half of a surrogate pair, or is nested too deeply")
    return parsed


def _parsed(text: str, what: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, strict=False)
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text.strip())
    raise ValueError(f"{what} is text, but not JSON: {text[:80]!r}")


def normal_calls(value: Any) -> list[dict[str, Any]]:
    """Calls as ``{"type": "function", "function": {"name", "arguments"}}``. Raises ValueError for what is no call.

    None, an empty list or object, and JSON text of these mean that there is no call. So does an object of nulls, which
    Arrow writes where other rows have a call.
    """
    value = json_value(value, "`tool_calls`") if not isinstance(value, str) or value.strip() else ()
    calls = [value] if isinstance(value, Mapping) else value or ()
    if not isinstance(calls, list | tuple):
        raise ValueError(f"tool calls must be a list, not {type(calls).__name__}")
    given = [json_value(call, "a tool call") for call in calls]
    return [_call(call) for call in given if not _says_nothing(call)]


def one_list_of_calls(*lists: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The calls of a message that has them in several places. Raises ValueError where two places differ."""
    given = [calls for calls in lists if calls]
    if len({_spelt([call["function"] for call in calls]) for calls in given}) > 1:
        raise ValueError("has tool calls in two places (content, `tool_calls`, `function_call`), and the two differ")
    return list(given[0]) if given else []


def _call(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError("a tool call needs a `name`")
    outer = present(given)
    inner = outer.pop("function", None)
    if isinstance(inner, str) and inner.lstrip().startswith("{"):
        inner = json_value(inner, "`function` of a tool call")
    if isinstance(inner, str):  # {"function": "name", "arguments": ...}
        inner = {"name": inner}
    layers = [outer] if inner is None else [present(inner) if isinstance(inner, Mapping) else {}, outer]
    names = [layer["name"] for layer in layers if "name" in layer]
    name = names[0] if names else None
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a tool call needs a `name`")
    if any(other != name for other in names):
        raise ValueError(f"a tool call has two names, {name} and {names[1]}")
    values = [_arguments(layer[key], name) for layer in layers for key in ARGUMENTS if key in layer]
    values = [value for value in values if value]
    if len({_spelt(value) for value in values}) > 1:
        raise ValueError(f"a call of {name} has its arguments twice, and the two differ ({', '.join(ARGUMENTS)})")
    unknown = sorted({str(key) for layer in layers for key in layer} - {"name", *ARGUMENTS, *ASIDE})
    if unknown and (inner is None or not values):
        raise ValueError(f"a call of {name} has keys that a call does not have: {', '.join(unknown)}")
    own = {"id": given["id"]} if given.get("id") is not None else {}
    return {**own, "type": "function", "function": {"name": name, "arguments": values[0] if values else {}}}


def _arguments(value: Any, name: str) -> dict[str, Any]:
    """The arguments of a call as an object; text may be JSON of JSON text."""
    while isinstance(value, str) and value.strip():
        value = json_value(value, f"the arguments of {name}")
    if value is None or value in ("", [], ()) or isinstance(value, str):
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"the arguments of {name} must be an object, not {type(value).__name__}")
    _check_json(value, f"the arguments of {name}")
    return dict(value)


def _check_json(value: Any, what: str) -> None:
    """Raises ValueError for what JSON cannot write, such as NaN."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from None


def _spelt(value: Any) -> str:
    """JSON of ``value`` with its keys in order: equal for equal values, and different for 1, 1.0 and true."""
    return json.dumps(json.loads(json.dumps(value)), sort_keys=True)  # first all keys become texts, which have an order


def _says_nothing(value: Any) -> bool:
    """Whether a call or a tool is null, or an object of nulls."""
    return value is None or (
        isinstance(value, Mapping)
        and all(item is None or (key == "function" and _says_nothing(item)) for key, item in value.items())
    )


def calls_in_text(text: str) -> tuple[str, list[dict[str, Any]]]:
    """An answer that ends in ``<tool_call>`` blocks, without them, and their calls; any other text as it is.

    Raises ValueError for a block at the end that holds no call, and for a call that other text follows: a template
    renders calls at the end of a turn only.
    """
    calls: list[dict[str, Any]] = []
    thought = text.rfind(END_OF_THINKING)
    rest = text.rstrip()
    while rest.endswith(CLOSE) and (start := rest.rfind(OPEN)) > thought:
        found = normal_calls(json_value(rest[start + len(OPEN) : -len(CLOSE)], "a <tool_call> block"))
        if not found:
            raise ValueError("a <tool_call> block holds no call with a `name`")
        calls = [*found, *calls]
        rest = rest[:start].rstrip()
    unfinished = thought < 0 and rest.lstrip().startswith("<think>")
    if not unfinished and _has_call(rest[thought + 1 :]):
        raise ValueError("has a <tool_call> block with text after it, or without its end; calls must close the turn")
    return (rest, calls) if calls else (text, calls)


def _has_call(text: str) -> bool:
    """Whether a ``<tool_call>`` tag in ``text``, outside code, is followed by a call (as JSON) and its end."""
    at = 0
    for block in text.split(CLOSE):
        before, tag, inside = block.rpartition(OPEN)
        with contextlib.suppress(ValueError, RecursionError):
            if tag and normal_calls(json_value(inside, "a block")):
                ahead = text[: at + len(before)]
                if ahead.count(FENCE) % 2 == 0 and not ahead.endswith("`"):
                    return True
        at += len(block) + len(CLOSE)
    return False


def tools_of(value: Any, *, nulls: bool = False) -> tuple[dict[str, Any], ...]:
    """Tools as ``{"type": "function", "function": {...}}``, given as such or bare, as a list or as JSON text of it.

    JSON text may also hold one tool a line. Nulls in JSON text stay; in objects only with ``nulls``, since Arrow gives
    every object the keys of all. Raises CascadeError for what is no list of tools.
    """
    try:
        return normal_tools(value, nulls=nulls)
    except (ValueError, RecursionError) as error:
        raise CascadeError(
            f"column `tools` is no list of tools with a name each ({error}); give another column of this name another "
            "one with `columns:`"
        ) from None


def normal_tools(value: Any, *, nulls: bool = False) -> tuple[dict[str, Any], ...]:
    """As ``tools_of``, but raises ValueError."""
    if isinstance(value, str):
        nulls, value = True, _tools_in(value)
    tools = [value] if isinstance(value, Mapping) else value or ()
    if not isinstance(tools, list | tuple):
        raise ValueError(f"it is {type(tools).__name__}")
    return tuple(
        _tool(json_value(tool, "a tool"), nulls=nulls or isinstance(tool, str))
        for tool in tools
        if not _says_nothing(without_nulls(tool))
    )


def _tools_in(text: str) -> Any:
    """The value of JSON text; a list where every line is JSON of its own."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        return json_value(text, "it") if lines else None
    except ValueError:
        if len(lines) < 2:
            raise
        return [json_value(line, "a line of it") for line in lines]


def _tool(given: Any, *, nulls: bool) -> dict[str, Any]:
    tool = given if nulls else without_nulls(given)
    inner = tool.get("function") if isinstance(tool, Mapping) else None
    bare = inner is None
    inner = tool if bare else inner
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise ValueError("a tool has no name")
    function = dict(inner)
    if isinstance(function.get("parameters"), str):
        function["parameters"] = json_value(function["parameters"], f"`parameters` of {function['name']}")
    if bare:
        function.pop("type", None)
        function.pop("function", None)
        tool = {}
    _check_json(function, f"tool {function['name']}")
    return {"type": "function", **present(tool), "function": function}
