"""`cascade-rl score REWARD --run RUN --stage STAGE`: what another reward would have said of a stage's rollouts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cascade_rl.cli.scoring import refuse_unbound
from cascade_rl.recipe import RewardConfig, load_recipe
from cascade_rl.rewarding import Scorer
from cascade_rl.rows import present
from cascade_rl.store import Store
from cascade_rl.store.rollouts import read_rollouts
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score, Stop

LINES = 10
"""Lines of the table: steps are put together to so many."""
EXAMPLES = 3


@dataclass(frozen=True)
class Step:
    """A step's groups twice: as they were scored, and as they would be."""

    number: int
    before: list[Group]
    after: list[Group]


def rescore(store: Store, run: str, stage: str, config: RewardConfig, workers: int) -> list[Step]:
    """Every stored step of ``stage`` under the reward of ``config``. Token ids were not stored: only their number is
    right. Steps whose file is damaged are left out with a warning.

    Raises CascadeError where there is no such stage, no rollout, or no column the reward needs."""
    stored = _readable(store.rollouts_of(run, stage))
    first = next(stored)
    template = load_recipe(store.run_folder(run) / "recipe.yaml").recipe.template
    record = store.read_run(run) or {}
    search = [Path(record["recipe_path"]).resolve().parent, Path.cwd()]
    overlong = (store.stage_of(run, stage).read() or {}).get("config", {}).get("overlong", "penalise")
    steps: list[Step] = []
    refuse_unbound(config, search, set().union(*(group.prompt.columns for group in first[1])))
    with Scorer(config, search, workers, template.mode == "thinking") as scorer:
        for number, before in itertools.chain([first], stored):
            waiting = [
                [scorer.submit_whole(group.prompt, rollout, overlong) for rollout in group.rollouts] for group in before
            ]
            after = [
                dataclasses.replace(group, scores=[future.result() for future in futures])
                for group, futures in zip(before, waiting, strict=True)
            ]
            steps.append(Step(number, before, scorer.combine(after)))
    return steps


def show(store: Store, run: str, stage: str, use: str, steps: Sequence[Step]) -> None:
    """Print the means and the groups without variance, before and after, and the rollouts that changed most."""
    ran = (store.stage_of(run, stage).read() or {}).get("config", {})
    truncated_out = ran.get("overlong") == "filter"
    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("steps", "rollouts", "mean", "", "no variance", "", "changed", "errors"):
        table.add_column(column, justify="right" if column != "steps" else "left")
    size = -(-len(steps) // LINES)
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        name = f"{part[0].number}-{part[-1].number}" if len(part) > 1 else str(part[0].number)
        table.add_row(name, *_numbers(part, truncated_out))
    if len(steps) > 1:
        table.add_row("all", *_numbers(steps, truncated_out), style="bold")
    console.print(f"stage {stage}, scored by {use}", markup=False)
    console.print(table)
    pairs = [
        (abs(new.value - old.value), step.number, group.prompt.id, rollout, old, new)
        for step in steps
        for group, redone in zip(step.before, step.after, strict=True)
        for rollout, old, new in zip(group.rollouts, group.scores, redone.scores, strict=True)
        if old.error is None and new.error is None and old.value != new.value
    ]
    for _, number, prompt, rollout, old, new in sorted(pairs, key=lambda pair: -pair[0])[:EXAMPLES]:
        text = rollout.text if len(rollout.text) <= 300 else f"...{rollout.text[-300:]}"
        print(f"\n{old.value:g} -> {new.value:g}  step {number}, {prompt} #{rollout.index}\n{text}")


def _numbers(steps: Sequence[Step], truncated_out: bool) -> list[str]:
    """Cells of a line: rollouts, mean before and after, groups without variance before and after, changed, errors."""
    before = [group for step in steps for group in step.before]
    after = [group for step in steps for group in step.after]
    olds = [score for group in before for score in group.scores]
    news = [score for group in after for score in group.scores]
    changed = sum(old.value != new.value for old, new in zip(olds, news, strict=True) if not (old.error or new.error))
    return [
        str(len(olds)),
        _mean(olds),
        f"-> {_mean(news)}",
        f"{_flat(before, truncated_out):.0%}",
        f"-> {_flat(after, truncated_out):.0%}",
        f"{changed / len(olds):.1%}",
        str(sum(score.error is not None for score in news)),
    ]


def _mean(scores: Sequence[Score]) -> str:
    values = [score.value for score in scores if score.error is None]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _flat(groups: Sequence[Group], truncated_out: bool) -> float:
    """Share of groups that teach nothing: all that count have one value."""
    return sum(group.is_flat(truncated_out) for group in groups) / max(1, len(groups))


def _readable(files: Mapping[int, Path]) -> Iterator[tuple[int, list[Group]]]:
    """Steps and their groups, without those whose files are damaged, which are named on standard error. Raises
    CascadeError where no step is left."""
    count = 0
    for number, file in files.items():
        try:
            groups = _groups(file)
        except CascadeError as error:
            print(f"WARNING: step {number} is left out: {error}", file=sys.stderr)
            continue
        count += 1
        yield number, groups
    if not count:
        raise CascadeError("none of the stored steps can be read")


def _groups(file: Path) -> list[Group]:
    """Raises CascadeError for a file that is damaged, or holds something else."""
    groups: list[list[dict[str, Any]]] = []
    rows = read_rollouts(file)
    last = None
    try:
        for row in rows:
            # Not by prompt: a step may draw one twice. Files of older versions do not number the groups.
            number = row.get("group")
            if not groups or (row["index"] == 0 if number is None else number != last):
                groups.append([])
            last = number
            groups[-1].append(row)
        found = [_group(rows) for rows in groups]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
        raise CascadeError(
            f"{file} does not hold rollouts as they are stored: {type(error).__name__} {error}"
        ) from None
    if not found:
        raise CascadeError(f"{file} holds no rollouts")
    return found


def _group(rows: Sequence[dict[str, Any]]) -> Group:
    first = rows[0]
    messages = tuple(json.loads(first["messages"]))
    prompt = Prompt(first["prompt_id"], messages, present(json.loads(first["columns"])), first["thinking"])
    rollouts = [
        Rollout(
            row["prompt_id"], row["index"], (0,) * row["length"], (0.0,) * row["length"], row["completion"],
            Stop(row["stop"]), row["version"],
        )
        for row in rows
    ]  # fmt: skip
    scores = [Score(row["value"], json.loads(row["details"]), row["error"]) for row in rows]
    return Group(prompt, (), rollouts, scores)
