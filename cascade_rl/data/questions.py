"""What a row asks, whatever kind of stage learns from it: a prompt, a conversation, a preference pair."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from cascade_rl.data.messages import is_conversation, role_of
from cascade_rl.data.reading import Row
from cascade_rl.data.sources import ASKING, answered, messages_of
from cascade_rl.recipe import DataSource
from cascade_rl.rows import present
from cascade_rl.types import CascadeError, Message


def questions(row: Row, source: DataSource, index: int) -> list[str]:
    """Everything an answer to which is learnt from the row: for each, what the user said up to there.

    A prompt is one question, however many turns it has; a conversation that ends with the assistant asks as often as
    the assistant answers. Raises CascadeError naming a row that asks nothing readable.
    """
    said: list[str] = []
    asked: list[str] = []
    messages = _conversation(row, source, index)
    for message in messages:
        if message["role"] == "user":
            said.append(text_of(message.get("content")))
        elif message["role"] == "assistant" and said:
            asked.append("\n".join(said))
    if messages[-1]["role"] != "assistant":
        asked = ["\n".join(said)] if said else []
    return asked


def own_texts(row: Row, source: DataSource, index: int) -> list[str]:
    """The row's own words in its question: without those that the source's format string adds to every row."""
    if source.prompt is None:
        return [text_of(m.get("content")) for m in _conversation(row, source, index) if m["role"] == "user"]
    messages_of(row, source, index)  # a row that does not fit is named
    formatter = string.Formatter()
    names = [name for _, name, _, _ in formatter.parse(source.prompt) if name]
    return [str(formatter.get_field(name, (), row)[0]) for name in names]


def text_of(content: Any) -> str:
    """A message's text: its content, or the text parts of it."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _conversation(row: Row, source: DataSource, index: int) -> Sequence[Message]:
    if source.prompt is None and not any(name in row for name in ASKING):
        # Preference pairs: HelpSteer3's context, or whole conversations that share all but their ends.
        shared = next((row[key] for key in ("context", "chosen") if isinstance(row.get(key), list | str)), None)
        if shared is not None:
            row = {"messages": shared}
    try:
        return answered(row, messages_of(row, source, index), source, index)
    except CascadeError:
        asked = next((row[name] for name in ASKING if row.get(name) is not None), None)
        if source.prompt is not None or not is_conversation(asked):
            raise
        return [spoken(message) for message in asked]  # an image cannot be rendered; what is said beside it can be read


def spoken(message: Message) -> Message:
    """Role and content of a message that may hold what cannot be rendered, under their usual names."""
    found = present(message)
    role = found.get("role", found.get("from"))
    return {"role": role_of(str(role)), "content": found.get("content", found.get("value"))}
