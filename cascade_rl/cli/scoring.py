"""`cascade-rl score`: a reward tried on rows of a file, or on rollouts that a stage has stored."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from cascade_rl.json_lines import line_of
from cascade_rl.processes import cores
from cascade_rl.recipe import RewardConfig
from cascade_rl.recipe.problems import RecipeError
from cascade_rl.recipe.reading import parse
from cascade_rl.recipe.wording import mismatch
from cascade_rl.rewarding import Scorer, load_reward
from cascade_rl.rewarding.binding import check_binding
from cascade_rl.rewarding.rows import OURS, MalformedRow, RowScore, raw_row, score_lines
from cascade_rl.rows import UNDECODABLE
from cascade_rl.types import CascadeError

MODES = {"thinking": True, "instruct": False}
PEEK = 1000
"""Rows looked at, at most, to see whether the reward finds its columns at all."""


def reward_config(use: str, settings: Sequence[str], workers: int | None) -> tuple[RewardConfig, bool]:
    """The reward with its keys, and whether responses were asked to think (``--set mode=instruct``: not).

    Raises CascadeError for a setting that is no ``key=value`` or does not fit.
    """
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise CascadeError(f"--set {text}: must look like --set timeout_s=5: a key, = and a value")
        try:
            values[key.strip()] = parse(value, "--set", lines=False)
        except RecipeError as error:
            raise CascadeError(f"--set {text}: {error.problems[0].message}") from None
    mode = values.pop("mode", "thinking")
    if mode not in MODES:
        raise CascadeError(f"--set mode={mode}: must be thinking or instruct")
    if "use" in values:
        raise CascadeError("--set use: the reward is the command's first argument")
    if workers is not None:
        values["workers"] = workers
    try:
        return RewardConfig.model_validate({**values, "use": use}), MODES[mode]
    except ValidationError as error:
        fault = error.errors()[0]
        key = str(fault["loc"][0])
        field = RewardConfig.model_fields[key]
        text = mismatch(field.annotation, list(field.metadata), fault["input"], fault["type"])
        raise CascadeError(f"--set {key}: {text}") from None


def score_file(config: RewardConfig, thinking: bool, path: str, out: TextIO, err: TextIO) -> int:
    """Score the rows of a .jsonl file (``-``: standard input); one JSON line each to ``out``, the summary to ``err``.

    Raises CascadeError when the file cannot be read or the reward finds no row to go by. Returns the exit code.
    """
    counts: Counter[str] = Counter()
    total = 0.0
    with contextlib.ExitStack() as closing:
        lines: Iterator[str] = sys.stdin
        if path != "-":
            lines = closing.enter_context(_opened(path))
        elif isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors=UNDECODABLE, newline="\n")  # as a file is read
        search = [Path.cwd(), *([Path(path).resolve().parent] if path != "-" else [])]
        first = _peeked(config, search, lines)
        scorer = closing.enter_context(Scorer(config, search, config.workers or cores(), thinking))
        for result in _watched(score_lines(scorer, itertools.chain(first, lines)), err):
            out.write(_line(result))
            out.flush()
            if result.malformed:
                counts["malformed"] += 1
                print(f"{path}:{result.line}: {str(result.error).partition(': ')[2]}", file=err)
            elif result.error is not None:
                counts["errors"] += 1
            else:
                counts["scored"] += 1
                total += result.value or 0.0
        counts.update({key: n for key, n in scorer.summary().items() if key in ("timeouts", "crashes")})
    mean = f", mean {total / counts['scored']:.4f}" if counts["scored"] else ""
    rest = "".join(f", {counts[key]} {key}" for key in ("malformed", "errors", "timeouts", "crashes") if counts[key])
    print(f"{config.use}: {counts['scored']} rows scored{mean}{rest}", file=err)
    return 0


def _opened(path: str) -> TextIO:
    try:
        return open(path, encoding="utf-8-sig", errors=UNDECODABLE, newline="\n")
    except OSError as error:
        raise CascadeError(f"{path}: {error.strerror}") from None


def _peeked(config: RewardConfig, search: Sequence[Path], lines: Iterator[str]) -> list[str]:
    """The first of ``lines``, read until each parameter of the reward has a column, and ``PEEK`` of them at most.

    Raises CascadeError where a parameter has none: that is a slip of the command, not of a thousand rows. A column that
    is null counts, since it may hold values further on.
    """
    reward = load_reward(config, search)
    columns: set[str] = set()
    problems: list[str] = []
    first: list[str] = []
    for line in itertools.islice(lines, PEEK):
        first.append(line)
        before = len(columns)
        with contextlib.suppress(MalformedRow):
            columns |= raw_row(line).keys() - set(OURS)
        if len(columns) > before or len(first) == 1:
            problems = check_binding(reward, columns)
        if not problems:
            break
    if columns and problems:
        raise CascadeError("; ".join(problems))
    return first


def refuse_unbound(config: RewardConfig, search: Sequence[Path], columns: set[str]) -> None:
    """Raises CascadeError naming each parameter of the reward that ``columns`` and its keys leave open."""
    if problems := check_binding(load_reward(config, search), columns):
        raise CascadeError("; ".join(problems))


def _watched(results: Iterator[RowScore], err: TextIO) -> Iterator[RowScore]:
    """``results``, counted on a terminal."""
    if not err.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    shown = TextColumn("scored {task.completed} rows")
    with Progress(shown, TimeElapsedColumn(), console=Console(file=err), transient=True) as progress:
        task = progress.add_task("", total=None)
        for result in results:
            progress.advance(task)
            yield result


def _line(result: RowScore) -> str:
    facts = {"id": result.id, "value": result.value, "details": dict(result.details), "error": result.error}
    return line_of(facts)
