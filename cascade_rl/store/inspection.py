"""What is missing or damaged in the folder of a stage. Nothing here raises: it is for showing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cascade_rl.json_lines import text_lines
from cascade_rl.store import checksums
from cascade_rl.store.records import StageFolder
from cascade_rl.store.results import results_in
from cascade_rl.store.rollouts import rollouts_fault


def inventory(folder: StageFolder) -> dict[str, int]:
    """How much a stage has recorded, kept in ``stage.json`` when it is complete: its last step, the steps with metrics,
    the steps with rollouts."""
    steps = metric_steps(folder.metrics)
    return {"last_step": max(steps, default=0), "metrics": len(steps), "rollouts": len(folder.rollout_files())}


def metric_steps(path: Path) -> set[int]:
    """Steps that have a whole line in a ``metrics.jsonl``; none where it cannot be read."""
    found = set()
    try:
        lines = text_lines(path)
    except OSError:
        return set()
    for line in lines:
        try:
            found.add(int(json.loads(line)["step"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # the last line may be half-written
    return found


def stage_faults(folder: StageFolder, *, finished: bool, hashes: bool = False) -> list[str]:
    """What is wrong with a stage, one line each, the gravest first.

    ``finished``: a run has noted that the stage was complete. ``hashes``: read its result whole, not only the sizes.
    """
    found: list[str] = []
    try:
        found.extend(_faults(folder, finished, hashes))
    except OSError as error:  # a folder that may not be entered
        found.append(f"{error.filename or folder.path} cannot be read: {error.strerror}")
    return found


def _faults(folder: StageFolder, finished: bool, hashes: bool) -> Iterator[str]:
    if not folder.path.is_dir():
        if folder.path.exists():
            yield f"{folder.path} is no folder"
        elif folder.superseded.is_dir():
            yield f"its result was set aside to be computed anew (--from); until then it is in {folder.superseded}"
        elif finished:
            yield f"the folder {folder.path} is gone"
        return
    record, fault = folder.look()
    if fault:
        yield fault
    elif not record:
        yield f"{folder.path / 'stage.json'} is missing"
    if record.get("status") == "complete":
        yield from _result_faults(folder, record, hashes)
    yield from _record_faults(folder, record)
    if hashes:
        yield from filter(None, map(rollouts_fault, folder.rollout_files().values()))
    yield from results_in(folder.evals)[1]


def has_result(record: dict[str, Any]) -> bool:
    """Whether the stage of this ``stage.json`` writes a checkpoint: all do but a base model that is not built in."""
    inputs = record.get("inputs")
    return record.get("kind") != "base" or (isinstance(inputs, dict) and "built_in" in inputs)


def _result_faults(folder: StageFolder, record: dict[str, Any], hashes: bool) -> Iterator[str]:
    """What is wrong with the checkpoint of a complete stage and what lies beside it."""
    if not has_result(record):
        return
    if not folder.checkpoint.is_dir():
        yield f"{folder.checkpoint} is missing"
        return
    if not folder.checksums.exists():
        yield from checksums.missing_files(folder)
        return
    yield from checksums.faults(folder, hashes=hashes)
    if hashes:
        extra = checksums.extra_files(folder)
        yield from (checksums.extra_fault(path) for path in extra if path.suffix not in checksums.WEIGHTS)


def _record_faults(folder: StageFolder, record: dict[str, Any]) -> Iterator[str]:
    """Metrics and rollouts of steps that were taken and are not there any more."""
    noted = record.get("inventory")
    noted = noted if isinstance(noted, dict) else {}
    there = metric_steps(folder.metrics)
    last = max(_number(noted.get("last_step")), _saved_step(folder), max(there, default=0))
    if missing := set(range(1, last + 1)) - there:
        yield f"{folder.metrics} lacks {steps_text(missing)} of {last}"
    files = folder.rollout_files()
    wanted = range(1, last + 1) if _number(noted.get("rollouts")) >= last else range(1, max(files, default=0) + 1)
    if gone := set(wanted) - set(files):
        yield f"{folder.rollouts} lacks the rollouts of {steps_text(gone)} of {last}"


def _saved_step(folder: StageFolder) -> int:
    """The newest step whose state is saved: its metrics were written before."""
    names = (entry.name.removeprefix("step-") for entry in folder.state.glob("step-??????"))
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def steps_text(steps: Collection[int]) -> str:
    """``steps 1 to 5 and 7``."""
    ranges: list[list[int]] = []
    for step in sorted(steps):
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
    text = ", ".join(parts[:-1]) + " and " * (len(parts) > 1) + "".join(parts[-1:])
    return f"step{'s' if len(steps) != 1 else ''} {text or '(none)'}"
