"""Rows as preference pairs: one question, the answer people like better, and the other.

Layouts, told apart by their columns:

``chosen``, ``rejected`` each a conversation (messages that share all but the last), an assistant message, or a text;
                         the latter two with the question in ``prompt`` (text or messages), ``messages``, or the
                         source's format string
HelpSteer3               ``context`` (or ``prompt``), ``response1``, ``response2``, ``overall_preference`` from -3 (the
                         first is much better) to 3 (the second is); 0 is a tie: it teaches nothing, and is left out

A reward model sees answers only: what stands before ``</think>``, and ``reasoning_content``, is cut off. It reads no
tool definitions, so a row with tools is refused. A pair whose
sides are then equal, or one of them empty, would train on noise: a stage drops and counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cascade_rl.data.messages import is_conversation, normal_messages, tools_of
from cascade_rl.data.refusals import Refusals, refuse
from cascade_rl.data.sources import ASKING, Row, check_texts
from cascade_rl.data.sources import messages_of as question_of
from cascade_rl.recipe import DataSource
from cascade_rl.rows import without_nulls
from cascade_rl.types import CascadeError, Message

END_OF_THINKING = "</think>"
HELPSTEER = ("response1", "response2", "overall_preference")
STRONGEST = 3
"""Largest strength of a HelpSteer3 preference."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one question."""

    id: str
    messages: tuple[Message, ...]
    """The question, with the conversation before it."""
    chosen: str
    rejected: str
    category: str = ""

    @property
    def fault(self) -> str | None:
        """Why nothing can be learnt from this pair; None where something can."""
        for side, answer in (("chosen", self.chosen), ("rejected", self.rejected)):
            if not answer.strip():
                return f"the {side} answer is empty (what stands before </think> does not count)"
        if self.chosen == self.rejected:
            return (
                f"the chosen and the rejected answer are equal ({self.chosen[:80]!r}), so there is nothing to prefer; "
                "remove the row, or look at which columns are mapped"
            )
        return None

    def conversation(self, answer: str) -> tuple[Message, ...]:
        """The question and one of the answers."""
        return (*self.messages, {"role": "assistant", "content": answer})


def to_pairs(
    rows: Sequence[Row],
    source: DataSource,
    numbers: Sequence[int] | None = None,
    refusals: Refusals | None = None,
) -> Iterator[Pair | None]:
    """Each row as a pair; None for a tie. ``numbers``: their places in the source, where some were left out.

    A row that is no pair (a missing column, an empty answer, equal answers, conversations that differ before the
    answer) is counted in ``refusals``; without one it raises CascadeError naming source and row.
    """
    return _pairs(rows, source, numbers, refusals, faults=True)


def read_pairs(
    rows: Sequence[Row],
    source: DataSource,
    numbers: Sequence[int] | None = None,
    refusals: Refusals | None = None,
) -> Iterator[Pair | None]:
    """As ``to_pairs``, but pairs may be without use (``Pair.fault``): the caller counts these by itself."""
    return _pairs(rows, source, numbers, refusals, faults=False)


def _pairs(
    rows: Sequence[Row], source: DataSource, numbers: Sequence[int] | None, refusals: Refusals | None, *, faults: bool
) -> Iterator[Pair | None]:
    for index, row in zip(range(len(rows)) if numbers is None else numbers, rows, strict=True):
        try:
            pair = _pair(row, source, index)
            if faults and pair is not None and (fault := pair.fault):
                raise CascadeError(f"row {index} of {source.source}: {fault}")
        except CascadeError as error:
            refuse(error, refusals)
        else:
            yield pair


def _pair(row: Row, source: DataSource, index: int) -> Pair | None:
    where = f"row {index} of {source.source}"
    check_texts(row, source, index)
    _refuse_tools(row, where)
    if "chosen" not in row and "rejected" not in row and set(HELPSTEER) & set(row):
        return _from_scores(row, source, index, where)
    return _from_sides(row, source, index, where)


def answer_of(text: str) -> str:
    """The part of an answer that is judged: after the last ``</think>``; without the tag, all of it.

    The same in RLHF (``cascade_rl.rewarding.response``), so that the reward model scores what it was trained on.
    """
    return text.rsplit(END_OF_THINKING, 1)[1].strip("\n") if END_OF_THINKING in text else text


def _from_scores(row: Row, source: DataSource, index: int, where: str) -> Pair | None:
    """HelpSteer3."""
    for column in HELPSTEER:
        if row.get(column) is None:
            raise CascadeError(_missing(column, row, where))
    strength = row["overall_preference"]
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not -STRONGEST <= strength <= STRONGEST:
        raise CascadeError(
            f"{where}: overall_preference must be a number from -{STRONGEST} to {STRONGEST} (negative: response1 is "
            f"better), not {strength!r}"
        )
    if strength == 0:
        return None
    context = row.get("context")
    question = question_of({"messages": context} if context is not None else row, source, index)
    answers = [_text(row[column], column, where) for column in ("response1", "response2")]
    better, worse = answers if strength < 0 else reversed(answers)
    return Pair(f"{source.source}:{index}", _asked(question, where), better, worse, _category(row))


def _from_sides(row: Row, source: DataSource, index: int, where: str) -> Pair:
    for column in ("chosen", "rejected"):
        if row.get(column) is None:
            raise CascadeError(_missing(column, row, where))
    befores, answers = [], []
    for column in ("chosen", "rejected"):
        before, answer = _split(row[column], column, where)
        befores.append(before)
        answers.append(answer)
    if _read(befores[0]) != _read(befores[1]):
        raise CascadeError(f"{where}: chosen and rejected answer different conversations: {_difference(*befores)}")
    messages = befores[0]
    if not messages or messages[0]["role"] == "assistant":  # the conversation goes on from a prompt
        if source.prompt is None and all(row.get(name) is None for name in ASKING):
            raise CascadeError(
                f"{where}: chosen and rejected are answers only, so a column `prompt` (text or messages), or the "
                f"source's `prompt:` as a format string, must bring the question; it has {', '.join(sorted(row))}"
            )
        messages = (*question_of(row, source, index), *messages)
    elif isinstance(row.get("prompt"), str) and not _asks(messages, row["prompt"]):
        raise CascadeError(f"{where}: its `prompt` is not what chosen and rejected answer: {row['prompt'][:80]!r}")
    return Pair(f"{source.source}:{index}", _asked(messages, where), answers[0], answers[1], _category(row))


def _refuse_tools(row: Row, where: str) -> None:
    """Raises CascadeError for a row with a column of tools."""
    try:
        tools = tools_of(row.get("tools", row.get("functions") if "messages" in row else None))
    except CascadeError as error:
        raise CascadeError(f"{where}: {error}") from None
    if tools:
        raise CascadeError(f"{where} has `tools`; a reward model reads conversations without tools")


def _read(messages: Sequence[Message]) -> list[Any]:
    """The parts of shared messages that a reward model reads: not ids, and not the reasoning of earlier turns."""
    return [
        (
            message["role"],
            answer_of(message["content"]) if message["role"] == "assistant" else message["content"],
            [call["function"] for call in message.get("tool_calls", ())],
        )
        for message in messages
    ]


def _split(side: Any, column: str, where: str) -> tuple[tuple[Message, ...], str]:
    """What one side shares with the other, and its answer."""
    if isinstance(side, Mapping):
        side = [side]
    if not isinstance(side, list):
        return (), _text(side, column, where)
    if not is_conversation(side):
        raise CascadeError(f"{where}: {column} is neither a text nor a list of messages with role and content")
    try:
        messages = normal_messages(without_nulls(side))
    except (CascadeError, RecursionError) as error:
        raise CascadeError(f"{where}: {column} has no text that can be rendered: {error}") from None
    last = messages[-1]
    if last["role"] != "assistant":
        raise CascadeError(f"{where}: {column} must end with the assistant's message, not the {last['role']}'s")
    if last.get("tool_calls"):
        raise CascadeError(f"{where}: {column} ends in a tool call; a reward model reads texts alone")
    answer = _text(last["content"], column, where)
    return messages[:-1], answer.strip("\n") if last.get("reasoning_content") else answer


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        what = "has no text" if value is None else f"must be a text or a list of messages, not {type(value).__name__}"
        raise CascadeError(f"{where}: {column} {what}")
    return answer_of(value)


def _asked(messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    if any(message.get("tools") for message in messages):
        raise CascadeError(f"{where} has `tools` in a message; a reward model reads conversations without tools")
    if messages[-1]["role"] == "assistant":
        raise CascadeError(f"{where}: the message before the answer is the assistant's too: nothing is answered")
    return messages


def _asks(messages: Sequence[Message], prompt: str) -> bool:
    """Whether the conversation's user says ``prompt``; data sets differ in which turn, and in spaces."""
    said = [message.get("content") for message in messages if message["role"] == "user"]
    return any(isinstance(text, str) and text.split() == prompt.split() for text in said)


def _category(row: Row) -> str:
    return str(row.get("category") or "")


def _missing(column: str, row: Row, where: str) -> str:
    return (
        f"{where} has no `{column}`; it has {', '.join(sorted(row))}. Pairs have `chosen` and `rejected` (map them "
        f"with `columns:`), or HelpSteer3's {', '.join(HELPSTEER)}"
    )


def _difference(first: Sequence[Message], second: Sequence[Message]) -> str:
    differ = [one != other for one, other in zip(_read(first), _read(second), strict=False)]
    if True in differ:
        number = differ.index(True)
        return f"message {number} is {_shown(first[number])} before one, {_shown(second[number])} before the other"
    return f"{len(first)} messages before one, {len(second)} before the other"


def _shown(message: Message) -> str:
    return f"{message['role']}: {str(message.get('content'))[:60]!r}"
