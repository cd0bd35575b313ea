"""What one row asks, for every reader of rows: stages, benchmarks, exclusions and ``cascade-rl score``.

Faults are raised as CascadeError without the row's name: the caller knows file and row.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from cascade_rl.data import media
from cascade_rl.data.calls import json_value, tools_of
from cascade_rl.data.messages import is_conversation, normal_messages
from cascade_rl.rows import text_fault, without_nulls
from cascade_rl.types import CascadeError, Message

ASKING = ("messages", "prompt", "conversations")
"""Columns with a conversation or a prompt; the first that a row has, and that is not empty messages, counts."""
SYSTEM = "system"
"""Column with the system message of a conversation or prompt (ShareGPT)."""


class _Format(string.Formatter):
    """Python's format strings over the columns of a row; a null at any depth is absent, as a column that is null is."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value, first = super().get_field(field_name, args, kwargs)
        if value is None:
            raise KeyError(field_name)
        return value, first


def formatted(template: str, row: Mapping[str, Any]) -> str:
    """``template`` with the columns of ``row``. Raises KeyError for a column that is absent or null, at any depth, and
    AttributeError, IndexError, TypeError or ValueError for a value that does not fit."""
    return _Format().vformat(template, (), row)


def columns_in(template: str | None) -> set[str]:
    """The columns that a format string names."""
    fields = string.Formatter().parse(template or "")
    return {name.partition(".")[0].partition("[")[0] for _, name, _, _ in fields if name}


def asked_value(row: Mapping[str, Any]) -> Any:
    """The prompt (text) or messages of a row under one of ``ASKING``; None where it has none."""
    for name in ASKING:
        value = row.get(name)
        if name != "prompt" and isinstance(value, str):
            value = _conversation_in(value, name)
        if value is not None and not (isinstance(value, list | tuple) and not value):
            return value
    return None


def _conversation_in(text: str, name: str) -> Any:
    """The messages that ``text`` spells as JSON; any other text as it is. Raises CascadeError for broken messages."""
    if not text.lstrip().startswith("["):
        return text
    try:
        value = json_value(text, f"column `{name}`")
    except ValueError as error:
        if text.lstrip()[1:].lstrip().startswith("{"):
            raise CascadeError(str(error)) from None
        return text
    return value if value == [] or is_conversation(value) else text


def asked_messages(row: Mapping[str, Any]) -> tuple[Message, ...] | None:
    """What ``row`` asks under one of ``ASKING``, as messages in the one form; None for a row without any of these.

    Its column ``system`` comes first as the system message. Raises CascadeError for what cannot be rendered.
    """
    value = asked_value(row)
    if isinstance(value, str):
        messages: tuple[Message, ...] = ({"role": "user", "content": value},)
    elif is_conversation(value):
        messages = normal(value)
    elif value is None:
        return None
    else:
        raise CascadeError("has no usable `messages` or `prompt`: neither a text nor a list of {role, content}")
    return _with_system(messages, row.get(SYSTEM))


def _with_system(messages: tuple[Message, ...], system: Any) -> tuple[Message, ...]:
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise CascadeError(f"column `{SYSTEM}` must be a text, not {type(system).__name__}")
    if messages[0]["role"] != "system":
        return ({"role": "system", "content": system}, *messages)
    if str(messages[0]["content"]).strip() != system.strip():
        raise CascadeError(f"has a system message in its conversation and another one in column `{SYSTEM}`")
    return messages


def normal(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """``messages`` in the one form, without nulls. Raises CascadeError for what cannot be rendered."""
    try:
        return normal_messages(without_nulls(messages))
    except RecursionError:
        raise CascadeError("its messages are nested too deeply") from None


def offered_tools(row: Mapping[str, Any], template: str | None = None) -> tuple[Message, ...]:
    """The tools that a row offers: column ``tools``, or else ``functions`` (OpenAI's older name).

    ``functions`` that the format string ``template`` writes into the prompt are not offered a second time. Raises
    CascadeError for what is no list of tools.
    """
    if row.get("tools") is not None:
        return tools_of(row["tools"])
    if "functions" in columns_in(template):
        return ()
    try:
        return tools_of(row.get("functions"))
    except CascadeError as error:
        raise CascadeError(str(error).replace("`tools`", "`functions`")) from None


def check_asks(messages: Sequence[Message]) -> None:
    """Raises CascadeError where nothing is left to generate, or nothing was asked."""
    if messages[-1]["role"] == "assistant":
        raise CascadeError("ends with an assistant message: nothing is left to generate")
    check_question(messages)


def check_question(messages: Sequence[Message]) -> None:
    """Raises CascadeError where nothing was asked."""
    if not any(m["role"] in ("user", "tool") and str(m.get("content") or "").strip() for m in messages):
        raise CascadeError("asks nothing: no message of the user or of a tool has a text")


def check_parsed(**values: Any) -> None:
    """Raises CascadeError where text that was JSON in the row holds half of a surrogate pair, now that it is parsed."""
    if fault := text_fault(values):
        raise CascadeError(fault)


def media_fault(row: Mapping[str, Any], template: str | None = None) -> str | None:
    """Which column of ``row`` holds images, sound or video, which would be left out of the text; None for none.

    Other text under such a name, a container image say, is harmless, unless the question has a placeholder for it.
    """
    named = columns_in(template)
    for name in media.NAMES:
        value = row.get(name)
        if not value or name in named:
            continue
        mark, asking = media.placeholder(name), [column for column in named or ASKING if column in row]
        if media.is_media(value) or any(mark in str(row[column]) for column in asking):
            return (
                f"has a column `{name}`, and only text can be rendered; if it is no {name.rstrip('s')} to look at or "
                "listen to, give it another name with `columns:`"
            )
    return None


SWITCH = {"on": True, "off": False}
"""How data sets of NVIDIA say whether an answer thinks, in a column ``reasoning``."""


def is_switch(value: Any) -> bool:
    """Whether a value says that there is reasoning, or how much, and is no reasoning itself."""
    return isinstance(value, bool | int | float) or (isinstance(value, str) and value.strip().lower() in SWITCH)


def thinking_of(row: Mapping[str, Any]) -> bool | None:
    """The row's own mode: its column ``thinking``; None where it has none. Raises CascadeError for another value."""
    value = row.get("thinking")
    found = SWITCH.get(value.strip().lower()) if isinstance(value, str) else value
    if (value is None) != (found is None) or not isinstance(found, bool | None):
        raise CascadeError(f"column `thinking` must be true or false (or the text on or off), not {value!r:.80}")
    return found
