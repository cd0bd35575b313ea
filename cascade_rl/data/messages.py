"""Messages and tools in the forms that data sets write them, brought into the one form that templates render.

The form is that of OpenAI's chat API and of Hugging Face templates: ``role`` (``system``, ``user``, ``assistant``,
``tool``) and ``content`` (text); an assistant may also have ``reasoning_content`` (text) and ``tool_calls``
(``{"type": "function", "function": {"name", "arguments"}}`` with the arguments as an object). Other names of the same
things are accepted (the tables below), and keys that are not listed stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from cascade_rl.data.calls import calls_in_text, json_value, normal_calls, tools_of
from cascade_rl.rows import present
from cascade_rl.types import CascadeError, Message

ROLES = {
    "human": "user",
    "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "developer": "system",
    "function": "tool", "ipython": "tool", "observation": "tool", "tool_response": "tool", "function_response": "tool",
}  # fmt: skip
"""Other names of roles (ShareGPT, OpenAI, Llama, Gemini, GLM)."""
CALLING = ("function_call", "tool_call", "tool_calls")
"""Roles of ShareGPT messages that hold calls as JSON, as a turn of the assistant's own or as its end."""
REASONING = ("reasoning_content", "reasoning", "thinking", "think", "thought")
"""Keys of an assistant message with the text that stands between ``<think>`` and ``</think>``."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
TEXT_PARTS = ("text", "input_text", "output_text")

__all__ = ["is_conversation", "normal_messages", "tools_of"]


def is_conversation(value: Any) -> TypeGuard[Sequence[Message]]:
    """Whether ``value`` is a list of messages with one, whatever its keys are called."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(message, Mapping) and ("role" in message or "from" in message) for message in value)
    )


def normal_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """``messages`` in the one form. Raises CascadeError naming the message that holds what cannot be rendered."""
    found: list[dict[str, Any]] = []
    for number, given in enumerate(messages):
        try:
            if not isinstance(given, Mapping):
                raise ValueError(f"is {type(given).__name__}, not an object with role and content")
            role, message = _normal(present(given))
            joins = role in CALLING and found and found[-1]["role"] == "assistant"
            if joins:
                calls = [*found[-1].get("tool_calls", ()), *message["tool_calls"]]
                found[-1] = {**found[-1], "tool_calls": calls}
            else:
                found.append(message)
        except ValueError as error:
            raise CascadeError(f"message {number}: {error}") from None
        except RecursionError:
            raise CascadeError(f"message {number}: is nested too deeply") from None
    return tuple(found)


def _normal(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The role as it was written, and the message in the one form. Raises ValueError."""
    written = message.pop("role", message.pop("from", None))
    if not isinstance(written, str):
        raise ValueError("has no role")
    message.pop("from", None)
    content = message.pop("content", None)
    value = message.pop("value", None)
    content = value if content is None else content
    for name in MEDIA:
        if message.get(name):
            raise ValueError(f"has `{name}`; only text can be rendered")
    if written in CALLING:
        calls = normal_calls(json_value(content, f"a message of role {written}"))
        return written, {"role": "assistant", "content": "", **message, "tool_calls": calls}
    role = ROLES.get(written, written)
    if role == "assistant":
        return written, _assistant(message, content)
    for name in (*REASONING, "tool_calls", "function_call"):
        if message.get(name):
            raise ValueError(f"is of role {written} and has `{name}`, which only an assistant can have")
    if role == "tool":
        return written, {"role": role, "content": _result(content), **message}
    text = _text(content, written)
    if text is None:
        raise ValueError(f"is of role {written} and has no content")
    return written, {"role": role, "content": text, **message}


def _assistant(message: dict[str, Any], content: Any) -> dict[str, Any]:
    content, thoughts = _without_thoughts(content)
    text = _text(content, "assistant") or ""
    reasoning = _reasoning(message, thoughts)
    one = message.pop("function_call", None)
    calls = normal_calls(message.pop("tool_calls", None) or one or ())
    text, written = calls_in_text(text)
    if calls and written and [call["function"] for call in calls] != [call["function"] for call in written]:
        raise ValueError("has tool calls in its content and beside it, and the two differ")
    calls = calls or written
    if reasoning and "</think>" in text and text.lstrip().startswith("<think>"):
        inside = text.lstrip().removeprefix("<think>").rpartition("</think>")[0]
        if inside.strip() != reasoning.strip():
            raise ValueError("has its reasoning twice, in the content and beside it, and the two differ")
        reasoning = ""
    if content is None and not reasoning and not calls:
        raise ValueError("is of role assistant and has neither content, reasoning nor tool calls")
    return {
        "role": "assistant",
        "content": text,
        **message,
        **({"reasoning_content": reasoning} if reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _reasoning(message: dict[str, Any], thoughts: str) -> str:
    """The text of the reasoning, whose keys are taken out of ``message``. Raises ValueError."""
    texts = [thoughts] if thoughts else []
    for name in REASONING:
        value = message.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"has a `{name}` that is {type(value).__name__}, not text")
        if value:
            texts.append(value)
    if any(text.strip() != texts[0].strip() for text in texts[1:]):
        raise ValueError(f"has several different texts of reasoning (keys {', '.join(REASONING)})")
    return texts[0] if texts else ""


def _without_thoughts(content: Any) -> tuple[Any, str]:
    """``content`` without its parts of type ``thinking``, and their text."""
    if not isinstance(content, list):
        return content, ""
    names = ("thinking", "reasoning")
    thoughts = [part for part in content if isinstance(part, Mapping) and part.get("type") in names]
    texts = [str(part.get(str(part["type"])) or part.get("text") or "") for part in thoughts]
    return [part for part in content if part not in thoughts], "\n".join(texts)


def _text(content: Any, role: str) -> str | None:
    """The text of a content: itself, or its text parts one after another. None where there is none."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"is of role {role} and has a content that is {type(content).__name__}, not text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise ValueError(f"has a part of type {kind} in its content; only text can be rendered")
        texts.append(part["text"])
    return "".join(texts)


def _result(content: Any) -> str:
    """A tool's result as text: values that are no text as JSON."""
    if content is None:
        raise ValueError("is a tool's result and has no content")
    try:
        text = _text(content, "tool") or ""
    except ValueError:
        return json.dumps(content, ensure_ascii=False)
    inside = text.strip()
    if inside.startswith("<tool_response>") and inside.endswith("</tool_response>"):  # the template wraps it again
        text = inside.removeprefix("<tool_response>").removesuffix("</tool_response>").strip("\n")
    return text
