"""What is missing or damaged in the folder of a stage. Nothing here raises: it is for showing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade_rl.json_lines import records
from cascade_rl.store import checksums
from cascade_rl.store.records import StageFolder
from cascade_rl.store.results import results_in, whole_results
from cascade_rl.store.rollouts import rollouts_fault

LAST_STEP = 999_999
"""The highest number of a step: names of files have six digits. A line with a higher one is damaged."""


def inventory(folder: StageFolder) -> dict[str, int]:
    """How much a stage has recorded, kept in ``stage.json`` when it is complete: its last step, the steps with metrics,
    the steps with rollouts."""
    steps = metric_steps(folder.metrics)
    return {"last_step": max(steps, default=0), "metrics": len(steps), "rollouts": len(folder.rollout_files())}


def noted_results(record: Mapping[str, Any]) -> set[str]:
    """Names of the files of all measurements that were made of a stage, as its ``stage.json`` has them."""
    names = record.get("evaluations", [])
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def note_results(folder: StageFolder) -> None:
    """Keep the names of the results that are there in ``stage.json``, so that one that is gone later is missed.

    Raises CascadeError for a damaged ``stage.json``.
    """
    record = folder.read()
    if record is not None and (new := set(whole_results(folder.evals)) - noted_results(record)):
        folder.update(evaluations=sorted(noted_results(record) | new))


def metric_steps(path: Path) -> set[int]:
    """Steps that have a whole line in a ``metrics.jsonl``; none where it cannot be read."""
    return set(metric_lines(path))


def metric_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Step -> line of a ``metrics.jsonl``, in step order; none where it cannot be read.

    A damaged line is skipped (the last one may be half-written). Of two lines for one step the later counts.
    """
    found = {}
    try:
        lines = records(path)
    except OSError:
        return {}
    for record in lines:
        if isinstance(record, dict) and (step := _step(record.get("step"))):
            found[step] = record
    return dict(sorted(found.items()))


def finished_folders(root: Path, run: Mapping[str, Any]) -> set[str]:
    """Folders, relative to ``root``, of the stages and the base model of a ``run.json`` that were complete once.

    They are those that the run noted, and those that a stage which has begun started from. Runs of earlier versions
    noted none: if all their folders are gone, the store is.
    """
    entries = {entry["name"]: entry for entry in [run["base"], *run["stages"]]}
    base = run["base"]["directory"]
    found = set(run.get("finished", []))
    for entry in run["stages"]:
        parent = entries.get(entry.get("parent") or "")
        if parent is not None and StageFolder(root / entry["directory"]).look() != ({}, None):
            found.add(parent["directory"])
    if "finished" not in run and not any((root / entry["directory"]).exists() for entry in entries.values()):
        found.update(entry["directory"] for entry in entries.values())
    return found | {base} if found else found


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
    elif finished and record["status"] != "complete" and not folder.superseded.is_dir():
        yield f"it was complete, and {folder.path / 'stage.json'} says {record['status']!r} now"
    if record.get("status") == "complete":
        yield from _result_faults(folder, record, hashes)
    yield from _record_faults(folder, record)
    if hashes:
        yield from filter(None, map(rollouts_fault, folder.rollout_files().values()))
    yield from results_in(folder.evals)[1]
    gone = (folder.evals / name for name in sorted(noted_results(record)))
    yield from (f"{path} is missing: it was measured" for path in gone if not path.exists())


def _has_result(record: dict[str, Any]) -> bool:
    """Whether the stage of this ``stage.json`` writes a checkpoint: all do but a base model that is not built in."""
    inputs = record.get("inputs")
    return record.get("kind") != "base" or (isinstance(inputs, dict) and "built_in" in inputs)


def _result_faults(folder: StageFolder, record: dict[str, Any], hashes: bool) -> Iterator[str]:
    """What is wrong with the checkpoint of a complete stage and what lies beside it."""
    if not _has_result(record):
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
    there, files = metric_steps(folder.metrics), folder.rollout_files()
    last = max(_step(noted.get("last_step")), _saved_step(folder), max(there, default=0))
    if record.get("status") == "complete":  # before that, rollouts are written ahead of the metrics of their step
        last = max(last, max(files, default=0), 0 if noted else _configured_steps(record))
    if missing := set(range(1, last + 1)) - there:
        yield f"{folder.metrics} lacks {steps_text(missing)} of {last}"
    wanted = range(1, last + 1) if _step(noted.get("rollouts")) >= last else range(1, max(files, default=0) + 1)
    if gone := set(wanted) - set(files):
        yield f"{folder.rollouts} lacks the rollouts of {steps_text(gone)} of {last}"


def _configured_steps(record: dict[str, Any]) -> int:
    """How many steps a complete stage has taken by its configuration; 0 where that does not tell (``stop_when``)."""
    config = record.get("config")
    return 0 if not isinstance(config, dict) or config.get("stop_when") else _step(config.get("steps"))


def _saved_step(folder: StageFolder) -> int:
    """The newest step whose state is saved: its metrics were written before."""
    names = (entry.name.removeprefix("step-") for entry in folder.state.glob("step-??????"))
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


def _step(value: Any) -> int:
    """``value`` if it is the number of a step that a file's name can have; else 0."""
    return value if type(value) is int and 0 < value <= LAST_STEP else 0


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
