"""Text of a row that spells a control token, broken up by a space: it cannot pose as a turn, a call or thinking.

A tokenizer turns ``<|im_end|>`` within a text into the token itself, so a question that quotes it would end its turn,
and an answer that quotes it would teach the model to end there and go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascade_rl.types import Message

END_OF_TURN = "<|im_end|>"
CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
OPEN, CLOSE = "<think>", "</think>"
RESULT_TAGS = ("<tool_response>", "</tool_response>")
ANSWER_TAGS = (OPEN, CLOSE, "<tool_call>", "</tool_call>", *RESULT_TAGS)
"""Tags with a meaning in an assistant's turn: the template writes them around its thinking and its calls."""
_BY_THEMSELVES = ("content", "reasoning_content", "tool_calls")
"""Keys of a message that are broken up each in its own way."""


def broken_up(text: str, tokens: Sequence[str]) -> str:
    """``text`` with a space after the first character of each of ``tokens`` in it."""
    for token in tokens:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def defused(message: Message, control: Sequence[str] = CONTROL_TOKENS) -> dict[str, Any]:
    """A message in the one form of ``data.messages`` whose texts spell no control token, in whatever key they stand:
    templates of other makers write names and roles too.

    An assistant's text keeps the ``<think>`` and ``</think>`` around its own thinking, and no other tag.
    """
    content = broken_up(message["content"], control)
    found = {key: value if key in _BY_THEMSELVES else defused_value(value, control) for key, value in message.items()}
    found["content"] = broken_up(content, RESULT_TAGS) if message["role"] == "tool" else content
    if message["role"] != "assistant":
        return found
    if reasoning := message.get("reasoning_content"):
        found["reasoning_content"] = broken_up(reasoning, (*control, *ANSWER_TAGS))
        found["content"] = broken_up(content, ANSWER_TAGS)
    else:
        found["content"] = _own_thinking(content)
    if calls := message.get("tool_calls"):
        found["tool_calls"] = [defused_value(call, (*control, *ANSWER_TAGS)) for call in calls]
    return found


def defused_value(value: Any, tokens: Sequence[str]) -> Any:
    """``value`` with every text in it, keys of objects too, broken up."""
    if isinstance(value, str):
        return broken_up(value, tokens)
    if isinstance(value, Mapping):
        return {broken_up(str(key), tokens): defused_value(item, tokens) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [defused_value(item, tokens) for item in value]
    return value


def _own_thinking(content: str) -> str:
    """An answer with thinking inside: ``<think>`` at its start and the last ``</think>`` stay.

    Some teachers' answers begin within the thinking, so that only ``</think>`` is there; others were cut off before it.
    Where ``<think>`` stands in the middle, the text is about the tags.
    """
    before, close, after = content.rpartition(CLOSE)
    if not close:
        before, after = content, ""
    start, opened, inside = before.partition(OPEN)
    if opened and start.strip():
        return broken_up(content, ANSWER_TAGS)
    if not opened and not close:
        return broken_up(content, ANSWER_TAGS)
    thinking = inside if opened else start
    return (start + opened if opened else "") + broken_up(thinking, ANSWER_TAGS) + close + broken_up(after, ANSWER_TAGS)
