"""Damaged results in the store, found before hours are spent on the way to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cascade_rl.orchestrator.jobs import evaluate_job
from cascade_rl.orchestrator.plan import BASE, Plan
from cascade_rl.store import StageFolder
from cascade_rl.store.checksums import damaged, faults
from cascade_rl.store.inspection import finished_folders, stage_faults
from cascade_rl.types import CascadeError


def refuse_damage(plan: Plan, say: Callable[[str], None]) -> None:
    """Raise CascadeError if a finished result that ``plan`` still needs has files of another size than were written;
    warn if it needs the result no more. Contents are compared by the process that reads them.
    """
    needed = _needed(plan)
    for name, folder in _folders(plan):
        if folder.is_complete and (found := faults(folder, hashes=False)):
            if name in needed:
                raise CascadeError(damaged(folder, found))
            say(f"WARNING: {damaged(folder, found)}")


@dataclass(frozen=True)
class Verified:
    """What reading a finished stage whole has found."""

    name: str
    problems: list[str]
    compared: bool
    """Whether its result was compared with checksums. Stages of earlier versions have none, and neither has a base
    model that is not built in."""


def verify_all(plan: Plan) -> Iterator[Verified]:
    """Read every stage of ``plan`` that is finished, or was when the run last looked, and the base model whole.

    A stage that is being computed anew (``--from``) is left out.
    """
    root, run = plan.store.root, plan.store.read_run(plan.run)
    finished = finished_folders(root, run) if run else set()
    for name, folder in _folders(plan):
        record, fault = folder.look()
        complete = record.get("status") == "complete"
        was_finished = str(folder.path.relative_to(root)) in finished and not folder.superseded.exists()
        if fault or complete or was_finished:
            problems = stage_faults(folder, finished=was_finished, hashes=True)
            yield Verified(name, problems, folder.checksums.exists())


def _folders(plan: Plan) -> list[tuple[str, StageFolder]]:
    return [(BASE, plan.base.folder), *((stage.name, stage.folder) for stage in plan.stages)]


def _needed(plan: Plan) -> set[str]:
    """Stages whose results something that is still to do starts from, or measures."""
    needed = {BASE} if evaluate_job(plan, None) else set()
    for stage in plan.stages:
        if not stage.folder.is_complete:
            needed |= stage.sources
        elif evaluate_job(plan, stage):
            needed.add(stage.name)
    return needed
