"""Finds what a model's own chat template leaves out of a conversation.

Names and short texts occur by chance ("search" in "search for cats"), so their presence in the rendered text proves
nothing. The conversation is rendered once more with a mark in each thing that must be there, and the marks are looked
for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cascade_rl.data.defusing import CLOSE, OPEN
from cascade_rl.types import Message

Render = Callable[[Sequence[Message], Sequence[Mapping[str, Any]]], str]


class _Marks:
    """Words that a rendered text does not have, and what each was put into."""

    def __init__(self, text: str) -> None:
        self._stem = "mark"
        while self._stem in text:
            self._stem += "x"
        self._names: dict[str, str] = {}

    def new(self, name: str) -> str:
        mark = f"{self._stem}{len(self._names)}e"
        self._names[mark] = name
        return mark

    def missing(self, text: str) -> str | None:
        return next((name for mark, name in self._names.items() if mark not in text), None)


def left_out_of_prompt(
    render: Render, text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> str | None:
    """The first tool, call or tool result that is not in ``text``, the rendering of both; None where all are.

    Reasoning of earlier turns may be missing: many templates leave it out on purpose.
    """
    if not tools and not any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
        return None
    marks = _Marks(text)
    marked_tools = [_with_name(tool, marks, "tool") for tool in tools]
    marked = [_with_marked_calls(message, marks) for message in messages]
    return marks.missing(render(marked, marked_tools))


def left_out_of_answer(
    render: Render, text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> str | None:
    """The part of the last message (reasoning, answer, a call) that is not in ``text``; None where all are."""
    marks = _Marks(text)
    last = _with_marked_calls(messages[-1], marks)
    if last.get("reasoning_content"):
        last["reasoning_content"] = f"{last['reasoning_content'].rstrip()} {marks.new('the reasoning')}"
    thinking, close, answer = (last.get("content") or "").rpartition(CLOSE)
    if thinking.strip().removeprefix(OPEN).strip():  # an empty one may be left out
        thinking = f"{thinking.rstrip()} {marks.new('the thinking')}\n"
    if answer.strip():
        answer = f"{answer.rstrip()} {marks.new('the answer')}"
    last["content"] = thinking + close + answer
    return marks.missing(render([*messages[:-1], last], tools))


def _with_name(used: Mapping[str, Any], marks: _Marks, kind: str) -> dict[str, Any]:
    """A tool or a call with a mark at the end of its name, and one in arguments that are not empty."""
    function = dict(used["function"])
    what = f"the {kind} {function['name']!r}"
    function["name"] += marks.new(what)
    if function.get("arguments"):
        mark = marks.new(f"the arguments of {what}")
        function["arguments"] = {**function["arguments"], mark: mark}
    return {**used, "function": function}


def _with_marked_calls(message: Message, marks: _Marks) -> dict[str, Any]:
    found = dict(message)
    if message.get("tool_calls"):
        found["tool_calls"] = [_with_name(call, marks, "call") for call in message["tool_calls"]]
    if message["role"] == "tool":
        found["content"] = f"{message['content']} {marks.new('the result of a tool')}"
    return found
