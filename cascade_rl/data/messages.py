"""Messages and tools in the forms that data sets write them, brought into the one form that templates render.

The form is that of OpenAI's chat API and of Hugging Face templates: ``role`` (``system``, ``user``, ``assistant``,
``tool``) and ``content`` (text); an assistant may also have ``reasoning_content`` (text) and ``tool_calls``
(``{"type": "function", "function": {"name", "arguments"}}`` with the arguments as an object). Other names of the same
things are accepted (the tables below), and keys that are not listed stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from cascade_rl.data import media
from cascade_rl.data.calls import calls_in_text, json_value, normal_calls, normal_tools, one_list_of_calls, tools_of
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
"""Roles of ShareGPT messages that hold calls, as a turn of the assistant's own or as its end."""
OURS = ("system", "user", "assistant", "tool")
REASONING = ("reasoning_content", "reasoning", "thinking", "think", "thought")
"""Keys of an assistant message with the text that stands between ``<think>`` and ``</think>``."""
TEXT_PARTS = ("text", "input_text", "output_text")
THINKING_PARTS = ("thinking", "reasoning")
CALLS = ("tool_calls", "function_call")
TOOLS = ("tools", "functions")
"""Keys of a system message with the tools that the conversation offers."""
RESULT = re.compile("<tool_response>(.*?)</tool_response>", re.DOTALL)
WEIGHTS = ("weight", "train", "training", "loss")
"""Keys of an assistant message (OpenAI, Axolotl, ms-swift) that say whether it is learnt: 1 or true, 0 or false."""
OPEN, CLOSE = "<think>", "</think>"

__all__ = ["is_conversation", "is_trained", "normal_messages", "offered_tools", "role_of", "tools_of"]


def is_conversation(value: Any) -> TypeGuard[Sequence[Message]]:
    """Whether ``value`` is a list of messages with one, whatever its keys are called."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(message, Mapping) and ("role" in message or "from" in message) for message in value)
    )


def role_of(written: str) -> str:
    """The one name of a role; unknown roles stay as they are."""
    lower = written.strip().lower()
    name = ROLES.get(lower, lower)
    return name if name in OURS or name in CALLING else written


def is_trained(message: Message) -> bool:
    """Whether an assistant message is to be learnt, and not only context.

    Raises ValueError for a weight that is neither 0 nor 1: every token of a trained turn weighs the same.
    """
    weights = {name: _weight(message, name) for name in WEIGHTS}
    for name, value in weights.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise ValueError(
                f"has a `{name}` of {value!r:.60}; a turn is trained (1, true) or only context (0, false), not in part"
            )
    return all(weights.values())


def _weight(message: Message, name: str) -> Any:
    """What ``message`` says under one of ``WEIGHTS``; 1 where it says nothing."""
    return 1 if message.get(name) is None else message[name]


def normal_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """``messages`` in the one form. Raises CascadeError naming the message that holds what cannot be rendered."""
    found: list[dict[str, Any]] = []
    for number, given in enumerate(messages):
        try:
            if not isinstance(given, Mapping):
                raise ValueError(f"is {type(given).__name__}, not an object with role and content")
            role, made = _normal(present(given))
            if role in CALLING and found and found[-1]["role"] == "assistant":
                found[-1] = _joined(found[-1], made[0])
            else:
                found.extend(made)
        except ValueError as error:
            raise CascadeError(f"message {number}: {error}") from None
        except RecursionError:
            raise CascadeError(f"message {number}: is nested too deeply") from None
    return tuple(found)


def offered_tools(
    messages: Sequence[Message], tools: tuple[dict[str, Any], ...]
) -> tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]:
    """Normal ``messages`` without the tools in their system message, and the tools of the row: these or ``tools``.

    Raises CascadeError where both are there and differ.
    """
    inside = next((tuple(message["tools"]) for message in messages if message.get("tools")), ())
    if inside and tools and inside != tools:
        raise CascadeError("the row has tools in its column and in its system message, and the two differ")
    bare = tuple({key: value for key, value in message.items() if key != "tools"} for message in messages)
    return bare, tools or inside


def _normal(message: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The role of a message, and what it is in the one form: one message, or one for each result. Raises ValueError."""
    written = message.pop("role", message.pop("from", None))
    if not isinstance(written, str):
        raise ValueError("has no role")
    message.pop("from", None)
    content = message.pop("content", None)
    value = message.pop("value", None)
    content = value if content is None else content
    role = role_of(written)
    for name in media.NAMES:
        held = message.get(name)
        if media.is_media(held) or (held and media.placeholder(name) in str(content)):
            raise ValueError(f"has `{name}`; only text can be rendered")
    tools = [tool for name in TOOLS for tool in normal_tools(message.pop(name, None), nulls=True)]
    if tools and role != "system":
        raise ValueError(f"is of role {written} and has `tools`, which only a system message or a column can have")
    if role in CALLING:
        return role, [_calling(message, content, written)]
    if role == "assistant":
        return role, [_assistant(message, content)]
    if _thoughts(message) or _calls_beside(message):
        raise ValueError(f"is of role {written} and has reasoning or tool_calls, which only an assistant can have")
    if role == "tool":
        return role, [{"role": role, "content": text, **message} for text in _results(content)]
    text = _text(content, written)
    if text is None:
        raise ValueError(f"is of role {written} and has no content")
    return role, [{"role": role, "content": text, **message, **({"tools": tools} if tools else {})}]


def _calling(message: dict[str, Any], content: Any, written: str) -> dict[str, Any]:
    """A message whose role says that it is a call: JSON, or ``<tool_call>`` blocks, perhaps after thinking."""
    said = _text(content, written) if _all_text(content) else content
    thoughts = ""
    if isinstance(said, str):
        thinking, close, rest = said.rpartition(CLOSE)
        if close and thinking.lstrip().startswith(OPEN):
            thoughts, said = thinking + close, rest
        text, calls = calls_in_text(said)
        said = calls if calls and not text else said
    calls = one_list_of_calls(normal_calls(json_value(said, f"a message of role {written}")), _calls_beside(message))
    if not calls:
        raise ValueError(f"is of role {written} and has no call")
    return _assistant({**message, "tool_calls": calls}, thoughts)


def _joined(message: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """An assistant's message with the calls of the message after it."""
    if any(_weight(message, name) != _weight(more, name) for name in WEIGHTS):
        raise ValueError(
            f"goes on with the turn before it and has another {', '.join(WEIGHTS)}: a turn is trained whole"
        )
    if more["content"] or more.get("reasoning_content"):
        raise ValueError("has thinking in the middle of an assistant's turn, after its text or a call")
    content = _before_calls(message["content"], has_reasoning="reasoning_content" in message)
    return {**message, "content": content, "tool_calls": [*message.get("tool_calls", ()), *more["tool_calls"]]}


def _assistant(message: dict[str, Any], content: Any) -> dict[str, Any]:
    content, thoughts = _without_thoughts(content)
    text = _text(content, "assistant") or ""
    reasoning = _reasoning(message, thoughts)
    beside = _calls_beside(message)
    text, written = calls_in_text(text)
    calls = one_list_of_calls(beside, written)
    if reasoning and CLOSE in text and text.lstrip().startswith(OPEN):
        inside = text.lstrip().removeprefix(OPEN).rpartition(CLOSE)[0]
        if inside.strip() != reasoning.strip():
            raise ValueError("has its reasoning twice, in the content and beside it, and the two differ")
        reasoning = ""
    if content is None and not reasoning and not calls:
        raise ValueError("is of role assistant and has neither content, reasoning nor tool calls")
    if reasoning:  # line breaks after the reasoning are the template's, in this turn and in history
        text = text.lstrip("\n")
    if calls:
        text = _before_calls(text, has_reasoning=bool(reasoning))
    return {
        "role": "assistant",
        "content": text,
        **message,
        **({"reasoning_content": reasoning} if reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _calls_beside(message: dict[str, Any]) -> list[Any]:
    """The calls beside a content, whose keys are taken out of ``message``. Raises ValueError."""
    return one_list_of_calls(*[normal_calls(message.pop(name, None)) for name in CALLS])


def _before_calls(text: str, *, has_reasoning: bool) -> str:
    """A content that calls follow: without white space at its end, but with an empty line after its own thinking.

    Where the same turn has its reasoning beside the content, the template writes that empty line.
    """
    text = text.rstrip()
    thinks = text.endswith(CLOSE) and (OPEN not in text or text.lstrip().startswith(OPEN))
    return text + "\n\n" if thinks and not has_reasoning else text


def _reasoning(message: dict[str, Any], thoughts: str) -> str:
    """The text of the reasoning, whose keys are taken out of ``message``. Raises ValueError."""
    texts = [_unwrapped(text) for text in (thoughts, *_thoughts(message))]
    texts = [text for text in texts if text.strip()]
    if any(text.strip() != texts[0].strip() for text in texts[1:]):
        raise ValueError(f"has several different texts of reasoning (keys {', '.join(REASONING)})")
    return texts[0] if texts else ""


def _thoughts(message: dict[str, Any]) -> list[str]:
    """The values of the keys for reasoning that say something; the keys are taken out of ``message``."""
    values = {name: message.pop(name, None) for name in REASONING}
    for name, value in values.items():
        if value and not isinstance(value, str):
            raise ValueError(f"has a `{name}` that is {type(value).__name__}, not text")
    return [value for value in values.values() if value and value.strip()]


def _unwrapped(reasoning: str) -> str:
    """``reasoning`` without tags of its own around it; other text stays byte for byte."""
    text = reasoning.strip()
    if not text.startswith(OPEN) and not text.endswith(CLOSE):
        return reasoning
    return text.removeprefix(OPEN).removesuffix(CLOSE).strip("\n")


def _without_thoughts(content: Any) -> tuple[Any, str]:
    """``content`` without its parts of reasoning, and their text. Raises ValueError for one without text."""
    if not isinstance(content, list):
        return content, ""
    thoughts = [part for part in content if isinstance(part, Mapping) and part.get("type") in THINKING_PARTS]
    rest = [part for part in content if part not in thoughts]
    return rest, "\n".join(_thought(part) for part in thoughts)


def _thought(part: Mapping[str, Any]) -> str:
    """The text of a part of type ``thinking`` or ``reasoning``: a key of that name, ``text``, or a list of texts."""
    for name in (str(part["type"]), "text", "content", "summary"):
        value = part.get(name)
        if isinstance(value, list | tuple):
            texts = [item.get("text") if isinstance(item, Mapping) else item for item in value]
            readable = [text for text in texts if isinstance(text, str)]
            if len(readable) < len(texts):
                raise ValueError(f"has a part of type {part['type']} whose `{name}` has no text")
            value = "\n\n".join(readable)
        if isinstance(value, str) and value.strip():
            return value
    hidden = sorted(
        str(key) for key, value in part.items() if value and key not in ("type", "id", "status", "signature")
    )
    if hidden:
        raise ValueError(f"has a part of type {part['type']} without text that can be read (keys {', '.join(hidden)})")
    return ""


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


def _results(content: Any) -> list[str]:
    """The results in a tool's message as texts: one, or one for each of its ``<tool_response>`` blocks."""
    if content is None:
        raise ValueError("is a tool's result and has no content")
    text = content if isinstance(content, str) else _value_text(content)
    blocks = RESULT.findall(text)
    if len(blocks) > 1 and not RESULT.sub("", text).strip():
        return [block.strip("\n") for block in blocks]
    inside = text.strip()
    if inside.startswith("<tool_response>") and inside.endswith("</tool_response>"):  # the template wraps it again
        text = inside.removeprefix("<tool_response>").removesuffix("</tool_response>").strip("\n")
    return [text]


def _value_text(content: Any) -> str:
    """A result that is no text: its text parts one after another where all are typed as text, else its JSON."""
    if _all_text(content):
        return _text(content, "tool") or ""
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is a tool's result that cannot be written as JSON: {error}") from None


def _all_text(content: Any) -> bool:
    """Whether ``content`` is a list of parts that all say of themselves that they are text."""
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(part, Mapping) and part.get("type") in TEXT_PARTS for part in content)
