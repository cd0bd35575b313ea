"""A reward over rows of a file: no run, no model. What ``cascade-rl score`` is made of."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cascade_rl.data.asking import asked_messages, check_asks, check_parsed, media_fault, thinking_of
from cascade_rl.rewarding.scorer import Scorer
from cascade_rl.rows import present, text_fault
from cascade_rl.types import CascadeError, Message, Prompt, Rollout, Score, Stop

AHEAD = 1024
"""Rows handed to the workers before the first of them is waited for: enough to keep them busy, in bounded memory."""
OURS = ("response", "messages", "truncated", "thinking")
"""Columns that say what the rollout was; the others, ``prompt`` too, are the reward's."""


@dataclass(frozen=True)
class RowScore:
    """What became of one line. ``value`` is None where the row could not be scored; ``error`` then says why."""

    line: int
    id: Any
    value: float | None
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    malformed: bool = False
    """The row is at fault, not the reward."""


class MalformedRow(ValueError):
    """A line that is no row to score."""


def parse_row(line: str) -> dict[str, Any]:
    """One line of JSON as a row, without nulls. Raises MalformedRow, also for a text that cannot be written."""
    return present(raw_row(line))


def raw_row(line: str) -> dict[str, Any]:
    """One line of JSON as a row, nulls included. Raises MalformedRow as ``parse_row``."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedRow(f"not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise MalformedRow(f"a row must be an object, this is {type(row).__name__}")
    if fault := text_fault(row):
        raise MalformedRow(fault)
    return row


def rollout_of(row: Mapping[str, Any], id_: str) -> tuple[Prompt, Rollout]:
    """A row as what a stage would score: ``response`` is the whole text of the model. Raises MalformedRow."""
    response = row.get("response")
    if not isinstance(response, str):
        found = "there is none" if "response" not in row else f"it is {type(response).__name__}"
        raise MalformedRow(f"needs a text column `response`, the model's whole answer; {found}")
    if not isinstance(row.get("truncated", False), bool):
        raise MalformedRow(f"column `truncated` must be true or false, not {row['truncated']!r}")
    messages, thinking = _question(row)
    columns = {key: value for key, value in row.items() if key not in OURS}
    stop = Stop.LENGTH if row.get("truncated") else Stop.EOS
    return Prompt(id_, messages, columns, thinking), Rollout(id_, 0, (), (), response, stop, 0)


def _question(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], bool | None]:
    """What the row asks, read as RL and evaluation read it, and its own mode; no messages for a row without a question.
    Raises MalformedRow."""
    try:
        if fault := media_fault(row):
            raise CascadeError(fault)
        thinking = thinking_of(row)
        messages = asked_messages(row)
        if messages is None:
            return (), thinking
        check_asks(messages)
        check_parsed(messages=messages)
    except CascadeError as error:
        raise MalformedRow(str(error)) from None
    return messages, thinking


def score_lines(scorer: Scorer, lines: Iterable[str], ahead: int = AHEAD) -> Iterator[RowScore]:
    """The verdict on each line that is not blank, in order, while later ones are being scored.

    A malformed line has its verdict like any other. Raises RewardError when no worker can be started.
    """
    waiting: deque[RowScore | tuple[int, Any, Future[Score]]] = deque()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            waiting.append(_started(scorer, number, line))
        while len(waiting) > ahead:
            yield _settled(waiting.popleft())
    while waiting:
        yield _settled(waiting.popleft())


def _started(scorer: Scorer, number: int, line: str) -> RowScore | tuple[int, Any, Future[Score]]:
    name: Any = number
    try:
        row = parse_row(line)
        name = row.get("id", number)
        return number, name, scorer.submit(*rollout_of(row, str(name)))
    except MalformedRow as error:
        return RowScore(number, name, None, error=f"line {number}: {error}", malformed=True)


def _settled(entry: RowScore | tuple[int, Any, Future[Score]]) -> RowScore:
    if isinstance(entry, RowScore):
        return entry
    number, name, future = entry
    score = future.result()
    return RowScore(number, name, None if score.error else float(score.value), score.details, score.error)
