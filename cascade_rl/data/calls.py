"""Tool calls and tool definitions, in the forms that data sets write them."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from cascade_rl.rows import without_nulls
from cascade_rl.types import CascadeError

ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Keys of a call that hold its arguments: an object, or JSON text of one."""
OPEN, CLOSE = "<tool_call>", "</tool_call>"


def json_value(value: Any, what: str) -> Any:
    """``value``; where it is text, the JSON or the Python literal in it. Raises ValueError naming ``what``."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(value)
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(value.strip())
    raise ValueError(f"{what} is text, but not JSON: {value[:80]!r}")


def normal_calls(value: Any) -> list[dict[str, Any]]:
    """Calls as ``{"type": "function", "function": {"name", "arguments"}}``. Raises ValueError for what is no call."""
    value = json_value(value, "`tool_calls`")
    calls = [value] if isinstance(value, Mapping) else value
    if not isinstance(calls, list | tuple):
        raise ValueError(f"tool calls must be a list, not {type(calls).__name__}")
    return [_call(json_value(call, "a tool call")) for call in calls if call is not None]


def _call(given: Any) -> dict[str, Any]:
    inner = given.get("function", given) if isinstance(given, Mapping) else None
    if isinstance(inner, str):  # {"function": "name", "arguments": ...}
        inner = {**given, "name": inner}
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name.strip():
        raise ValueError("a tool call needs a `name`")
    key = next((key for key in ARGUMENTS if inner.get(key) is not None), None)
    arguments = inner[key] if key else {}
    if isinstance(arguments, str):
        arguments = json_value(arguments, f"the arguments of {name}") if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of {name} must be an object, not {type(arguments).__name__}")
    try:
        json.dumps(arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of {name} are no JSON: {error}") from None
    own = {"id": given["id"]} if given.get("id") is not None else {}
    return {**own, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def calls_in_text(text: str) -> tuple[str, list[dict[str, Any]]]:
    """An answer that ends in ``<tool_call>`` blocks, without them, and their calls; any other text as it is.

    Raises ValueError for a block at the end that holds no call.
    """
    calls: list[dict[str, Any]] = []
    thought = text.rfind("</think>")
    rest = text.rstrip()
    while rest.endswith(CLOSE) and (start := rest.rfind(OPEN)) > thought:
        block = rest[start + len(OPEN) : -len(CLOSE)]
        calls = [*normal_calls(json_value(block, "a <tool_call> block")), *calls]
        rest = rest[:start].rstrip()
    return (rest, calls) if calls else (text, calls)


def tools_of(value: Any) -> tuple[dict[str, Any], ...]:
    """Tools as ``{"type": "function", "function": {...}}``, given as such or bare, as a list or as JSON text of it.

    Raises CascadeError for what is no list of tools.
    """
    try:
        tools = json_value(value, "it") if not isinstance(value, str) or value.strip() else ()
        tools = [tools] if isinstance(tools, Mapping) else tools or ()
        if not isinstance(tools, list | tuple):
            raise ValueError(f"it is {type(tools).__name__}")
        return tuple(_tool(json_value(tool, "a tool")) for tool in tools if tool is not None)
    except (ValueError, RecursionError) as error:
        raise CascadeError(
            f"column `tools` is no list of tools with a name each ({error}); give another column of this name another "
            "one with `columns:`"
        ) from None


def _tool(given: Any) -> dict[str, Any]:
    tool = without_nulls(given)
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise ValueError("a tool has no name")
    function = dict(inner)
    if isinstance(function.get("parameters"), str):
        function["parameters"] = json_value(function["parameters"], f"`parameters` of {function['name']}")
    if inner is tool:
        function.pop("type", None)
        return {"type": "function", "function": function}
    return {"type": "function", **tool, "function": function}
