"""Conversations as the token ids that SFT trains on: one row per trained turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow

from cascade_rl.data.exclusion import SourceRows, load_stage_rows
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import load_rows, to_conversations
from cascade_rl.data.template import Template, TrainingRow
from cascade_rl.recipe import SftStage
from cascade_rl.stages.context import Context
from cascade_rl.types import CascadeError

_IDS = pyarrow.list_(pyarrow.int32())
SCHEMA = pyarrow.schema(
    [("prompt_ids", _IDS), ("completion_ids", _IDS), ("conversation", pyarrow.int64()), ("key", pyarrow.string())]
)
"""``conversation``: its number; ``key``: equal for conversations of equal tokens, wherever they come from."""


def training_rows(context: Context, config: SftStage, template: Template) -> Iterator[dict[str, Any]]:
    """Every trained turn of the stage's data within ``max_length``; the log says how many were not.

    Rows that cannot be read or rendered are left out and named in the log. Raises CascadeError when all are.
    """
    parts = load_stage_rows(config, context.job.recipe_path, context.job.stages_data, context.say)
    yield from _rows_of(parts, context, config, template, "training rows")


def held_out_rows(context: Context, config: SftStage, template: Template) -> Iterator[dict[str, Any]]:
    """The same of the sources that ``held_out`` names."""
    loaded = ((source, load_rows(source, context.job.recipe_path)) for source in config.held_out_sources)
    parts = (SourceRows(source, rows, list(range(len(rows)))) for source, rows in loaded)
    yield from _rows_of(parts, context, config, template, "held-out rows")


def _rows_of(
    parts: Iterable[SourceRows], context: Context, config: SftStage, template: Template, what: str
) -> Iterator[dict[str, Any]]:
    kept = long = total = conversation = 0
    refusals = Refusals()
    for part in parts:
        total += len(part.rows)
        for turns in _rendered(part, config, template, refusals):
            key = _key(turns)
            for turn in turns:
                prompt, completion = turn.prompt_ids, turn.completion_ids
                if len(prompt) + len(completion) > config.max_length:
                    long += 1
                    if config.overlong == "drop" or len(prompt) >= config.max_length:
                        continue
                    completion = completion[: config.max_length - len(prompt)]
                kept += 1
                yield {"prompt_ids": prompt, "completion_ids": completion, "conversation": conversation, "key": key}
            conversation += 1
    refusals.report(context.say, total)
    refusals.refuse_all(total)
    if long:
        fate = "dropped" if config.overlong == "drop" else "cut"
        context.say(f"{long} of {kept + long} {what} are longer than {config.max_length} tokens and were {fate}")


def _rendered(
    part: SourceRows, config: SftStage, template: Template, refusals: Refusals
) -> Iterator[list[TrainingRow]]:
    """The trained turns of each of a source's rows; a row is left out where one of its turns is refused."""
    for conversation in to_conversations(part.rows, part.source, part.numbers, refusals):
        try:
            rows = template.training_rows(
                conversation.messages, conversation.thinking, config.turns, conversation.tools
            )
        except CascadeError as fault:
            refusals.add(CascadeError(f"row {conversation.id}: {fault}"))
        else:
            yield list(rows)


def _key(turns: Iterable[TrainingRow]) -> str:
    ids = [(list(turn.prompt_ids), list(turn.completion_ids)) for turn in turns]
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
