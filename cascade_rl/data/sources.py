"""Rows from files, hubs and generators, and what they become: prompts, conversations, fingerprints."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cascade_rl.arguments import argument_problems
from cascade_rl.data.asking import ASKING as ASKING
from cascade_rl.data.asking import (
    asked_messages,
    check_asks,
    check_parsed,
    check_question,
    formatted,
    is_switch,
    media_fault,
    normal,
    offered_tools,
    thinking_of,
)
from cascade_rl.data.messages import REASONING, is_conversation
from cascade_rl.data.reading import Row, data_files, file_rows, folder_rows, hub_rows
from cascade_rl.data.refusals import OddRow, Refusals, refuse
from cascade_rl.fingerprints import file_hash
from cascade_rl.importing import import_by_path, last_place
from cascade_rl.recipe import DataSource
from cascade_rl.recipe.paths import is_generator, looks_like_path, resolve_path
from cascade_rl.rows import plain_value, present, text_fault
from cascade_rl.source_code import source_fingerprint
from cascade_rl.types import CascadeError, Message, Prompt

Made = TypeVar("Made")


@dataclass(frozen=True)
class Conversation:
    """A row to learn from: messages that end with the assistant's."""

    id: str
    messages: tuple[Message, ...]
    thinking: bool | None
    tools: tuple[Message, ...] = ()


def load_rows(source: DataSource, recipe_path: Path) -> list[Row]:
    """All rows of ``source``, columns mapped, ``keep``, ``limit`` and ``repeat`` applied in this order.

    Raises CascadeError for what is missing or broken, naming file and row.
    """
    rows = list(stream_rows(source, recipe_path))
    if not rows:
        raise CascadeError(no_rows(source))
    return rows * source.repeat


def stream_rows(source: DataSource, recipe_path: Path) -> Iterator[Row]:
    """The same one at a time, each once: ``repeat`` is not applied, and a source may have none."""
    return itertools.islice(_mapped(source, recipe_path), source.limit)


def no_rows(source: DataSource) -> str:
    """What is said of a source without rows."""
    if source.keep is None:
        return f"data source {source.source} has no rows"
    return f"data source {source.source} has no rows, or keep {source.keep} leaves none of them"


def columns_of(source: DataSource, recipe_path: Path, n: int | None = None) -> Iterator[Row] | None:
    """The first ``n`` rows (default: ``LOOKED_THROUGH``) one at a time, for checks before a run.

    None for hub data sets, which are not fetched for that. Raises CascadeError at a row that cannot be read.
    """
    if not is_generator(source.source) and _local(source, recipe_path) is None:
        return None
    return itertools.islice(_mapped(source, recipe_path), LOOKED_THROUGH if n is None else n)


def to_prompts(
    rows: Sequence[Row],
    source: DataSource,
    numbers: Sequence[int] | None = None,
    refusals: Refusals | None = None,
) -> list[Prompt]:
    """Rows as prompts for generation.

    ``numbers``: what their ids count, where some rows between them were left out; default: from 0. A row that brings no
    usable prompt is counted in ``refusals``; without one it raises CascadeError naming it.
    """
    return list(_usable(_prompt, rows, source, numbers, refusals))


def to_conversations(
    rows: Sequence[Row],
    source: DataSource,
    numbers: Sequence[int] | None = None,
    refusals: Refusals | None = None,
) -> Iterator[Conversation]:
    """Rows as conversations for SFT: ``messages`` that end with the assistant, or a prompt and a ``response``.

    ``numbers``, ``refusals``: as for ``to_prompts``.
    """
    return _usable(_conversation, rows, source, numbers, refusals)


def _usable(
    read: Callable[[Row, DataSource, int], Made],
    rows: Sequence[Row],
    source: DataSource,
    numbers: Sequence[int] | None,
    refusals: Refusals | None,
) -> Iterator[Made]:
    for index, row in zip(range(len(rows)) if numbers is None else numbers, rows, strict=True):
        try:
            made = read(row, source, index)
        except CascadeError as fault:
            refuse(fault, refusals)
        else:
            yield made


def _prompt(row: Row, source: DataSource, index: int) -> Prompt:
    check_texts(row, source, index)
    messages = messages_of(row, source, index)
    with _named(source, index):
        check_asks(messages)
        tools = offered_tools(row, source.prompt)
        check_parsed(messages=messages, tools=tools)
        columns = {key: value for key, value in row.items() if key not in ("messages", "thinking")}
        columns |= _own_limit(row)
        return Prompt(f"{source.source}:{index}", messages, columns, thinking_of(row), domain_of(row, source), tools)


def _conversation(row: Row, source: DataSource, index: int) -> Conversation:
    check_texts(row, source, index)
    messages = answered(row, messages_of(row, source, index), source, index, BESIDE)
    with _named(source, index):
        if messages[-1]["role"] != "assistant":
            raise CascadeError(
                "has no assistant message to learn: end `messages` with one, or bring a column `response`"
            )
        check_question(messages)
        tools = offered_tools(row, source.prompt)
        check_parsed(messages=messages, tools=tools)
        return Conversation(f"{source.source}:{index}", messages, thinking_of(row), tools)


def answered(
    row: Row, messages: tuple[Message, ...], source: DataSource, index: int, beside: Sequence[str] = ()
) -> tuple[Message, ...]:
    """``messages`` and, where they lack an answer, the row's ``response`` or ``completion`` (text or messages).

    ``beside``: columns that join an answer that is a text, or that are an answer by themselves where they hold calls.
    Raises CascadeError naming a row whose answer cannot be rendered.
    """
    answer = row.get("response", row.get("completion"))
    if messages[-1]["role"] == "assistant":
        return messages
    joined = {name: row[name] for name in beside if row.get(name) and not (name in REASONING and is_switch(row[name]))}
    if isinstance(answer, str) or (answer is None and any(name in joined for name in CALLS)):
        answer = [{"role": "assistant", "content": answer, **joined}]
    if isinstance(answer, Mapping):
        answer = [answer]
    if not is_conversation(answer):
        return messages
    with _named(source, index):
        return normal((*messages, *answer))


def check_texts(row: Row, source: DataSource, index: int) -> None:
    """Raises CascadeError naming a row that the source's keys do not fit, or with what no tokenizer takes: half of a
    surrogate pair, images, sound."""
    with _named(source, index):
        fault = row.fault if isinstance(row, OddRow) else text_fault(row) or media_fault(row, source.prompt)
        if fault:
            raise CascadeError(fault)


@contextlib.contextmanager
def _named(source: DataSource, index: int) -> Iterator[None]:
    """A CascadeError raised inside names the row."""
    try:
        yield
    except CascadeError as error:
        raise CascadeError(f"row {index} of {source.source}: {error}") from None


def fingerprint(source: DataSource, recipe_path: Path) -> dict[str, Any]:
    """What identifies the rows without reading them all as data: part of a stage's identity.

    Files count by content, not by path; hub data sets by id, configuration, split and revision; generators by source
    code and arguments; ``keep`` by source code.
    """
    shape = source.model_dump(
        mode="json",
        include={"columns", "extract", "prompt", "limit", "repeat", "keep", "domain", "weight"},
        exclude_none=True,
    )
    if source.keep is not None:
        shape["keep_code"] = source_fingerprint(source.keep, _folders(recipe_path))
    if is_generator(source.source):
        what: dict[str, Any] = {
            "generator": source.source,
            "code": source_fingerprint(source.source, _folders(recipe_path)),
            "args": source.args,
            "split": source.split,
        }
    elif path := _local(source, recipe_path):
        files = data_files(path) if path.is_dir() else [path]
        what = {"files": [file_hash(file) for file in files]}
        if path.is_dir():
            what["split"] = source.split
    else:
        what = source.model_dump(mode="json", include={"source", "config", "split", "revision"}, exclude_none=True)
    return {**what, **shape}


def dataset_fingerprint(prompts: Iterable[Prompt]) -> str:
    """Hash of the rows themselves, in order: saved positions are valid for these only."""
    digest = hashlib.sha256()
    for prompt in prompts:
        row = {"id": prompt.id, "messages": prompt.messages, "columns": prompt.columns, "thinking": prompt.thinking}
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def load_keep(source: DataSource, recipe_path: Path) -> Callable[[Row], Any] | None:
    """The function of ``keep``, if there is one. Raises CascadeError when it cannot be had."""
    return None if source.keep is None else import_by_path(source.keep, _folders(recipe_path), "keep")


def _folders(recipe_path: Path) -> list[Path]:
    return [recipe_path.resolve().parent, Path.cwd()]


def _local(source: DataSource, recipe_path: Path) -> Path | None:
    path = resolve_path(source.source, recipe_path)
    if path is None and looks_like_path(source.source):
        raise CascadeError(f"there is no data file {source.source} beside the recipe or in this folder")
    return path


def _mapped(source: DataSource, recipe_path: Path) -> Iterator[Row]:
    """The rows of ``source`` under the recipe's column names, without nulls: all readers of data go through here."""
    patterns = {column: re.compile(pattern) for column, pattern in source.extract.items()}
    keep = load_keep(source, recipe_path)
    for index, raw in enumerate(_with_known_columns(_raw_rows(source, recipe_path), source)):
        row = dict(raw)
        for ours, theirs in source.columns.items():
            row[ours] = raw.get(theirs)
            if theirs not in source.columns:
                row.pop(theirs, None)
        row = present(row)
        for column, pattern in patterns.items():
            if column not in row:
                continue
            found = pattern.search(str(row[column]))
            if found is None or found.group(1) is None:
                fault = f"extract {pattern.pattern!r} finds nothing in column {column} ({str(row[column])[:80]!r})"
                row = OddRow(row, fault)
                break
            row[column] = found.group(1)
        if keep is None or isinstance(row, OddRow) or _stays(row, keep, source, index):
            yield row


LOOKED_THROUGH = 1000
"""First rows among which every column that a source names must occur: later rows may lack it, but a column that none
of these has is misspelt."""


def _with_known_columns(rows: Iterator[Row], source: DataSource) -> Iterator[Row]:
    """``rows``, once each column of ``columns`` and ``extract`` was seen. Raises CascadeError for one that was not."""
    wanted = {*source.columns.values(), *(set(source.extract) - set(source.columns))}
    first: list[Row] = []
    while wanted and len(first) < LOOKED_THROUGH and (row := next(rows, None)) is not None:
        first.append(row)
        wanted -= row.keys()
    if wanted and first:
        raise CascadeError(_no_column(min(wanted), {name: None for row in first for name in row}, source, 0))
    yield from first
    yield from rows


def _stays(row: Row, keep: Callable[[Row], Any], source: DataSource, index: int) -> bool:
    where = f"row {index} of {source.source}: keep {source.keep}"
    try:
        answer = keep(dict(row))  # a copy: a filter that changes its row would change the data unseen
    except CascadeError as error:
        raise CascadeError(f"{where}: {error}") from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        absent = "; a column that is null is absent, so use row.get" if isinstance(error, KeyError) else ""
        raise CascadeError(f"{where} failed: {what} (the row has {', '.join(sorted(row))}{absent})") from error
    if not isinstance(answer, bool):
        raise CascadeError(f"{where} must return True or False, not {str(answer)[:80]!r}")
    return answer


def _no_column(name: str, row: Row, source: DataSource, index: int) -> str:
    near = difflib.get_close_matches(name, list(row), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"row {index} of {source.source} has no column {name!r} (it has {', '.join(sorted(row))}){hint}"


def _raw_rows(source: DataSource, recipe_path: Path) -> Iterator[Row]:
    if is_generator(source.source):
        yield from _generated(source, recipe_path)
        return
    path = _local(source, recipe_path)
    if path is None:
        yield from hub_rows(source)
    elif path.is_dir():
        yield from folder_rows(path, source.split)
    else:
        yield from file_rows(path)


def _generated(source: DataSource, recipe_path: Path) -> Iterator[Row]:
    """The rows of a generator. Raises CascadeError for whatever it raises, and for a row that is no mapping."""
    generate = import_by_path(source.source, _folders(recipe_path), "data source")
    if wrong := list(argument_problems(generate, {"split": source.split, **source.args})):
        raise CascadeError(f"data source {source.source}: args: {'; '.join(wrong)}")
    try:
        for index, row in enumerate(generate(split=source.split, **source.args)):
            if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
                raise CascadeError(f"row {index} must be a mapping of column names to values, not {row!r:.80}")
            yield {name: plain_value(value) for name, value in row.items()}
    except CascadeError as error:
        raise CascadeError(f"data source {source.source}: {error}") from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}{last_place(error)}"
        raise CascadeError(f"data source {source.source} failed: {what}") from error


def messages_of(row: Row, source: DataSource, index: int) -> tuple[Message, ...]:
    """What a row asks, as messages in the one form. Raises CascadeError naming a row that asks nothing readable."""
    if source.prompt is not None:
        try:
            return ({"role": "user", "content": formatted(source.prompt, row)},)
        except KeyError as error:
            raise CascadeError(_no_column(str(error.args[0]), row, source, index)) from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise CascadeError(f"row {index} of {source.source} does not fit `prompt`: {error}") from None
    with _named(source, index):
        if messages := asked_messages(row):
            return messages
        raise CascadeError(
            "has no usable `messages` or `prompt`; give `prompt:` as a format string over its columns "
            f"({', '.join(sorted(row))})"
        )


CALLS = ("tool_calls", "function_call")
BESIDE = (*(name for name in REASONING if name != "thinking"), *CALLS)
"""Columns with what an answer in ``response`` is joined by. ``thinking`` says whether a row asks for it."""
ANSWERING = ("messages", "conversations", "response", "completion", *CALLS)
"""Columns that can bring an answer."""


def domain_of(row: Row, source: DataSource) -> str:
    """The domain of a row: its source's, or else its column ``domain``; empty where neither says one."""
    return source.domain or str(row.get("domain") or "")


def _own_limit(row: Row) -> dict[str, int]:
    """The row's own limit of tokens per completion, if it has one. Tables with nulls store it as a float."""
    value = row.get("max_new_tokens")
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        raise CascadeError(f"column `max_new_tokens` must be a whole number from 1 up, or empty, not {value!r}")
    return {"max_new_tokens": int(value)}
