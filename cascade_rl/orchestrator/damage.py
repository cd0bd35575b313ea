"""Damaged results in the store, found before hours are spent on the way to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cascade_rl.orchestrator.plan import BASE, Plan, evaluate_job
from cascade_rl.store import StageFolder
from cascade_rl.store.checksums import damaged, faults
from cascade_rl.store.inspection import stage_faults
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


def verify_all(plan: Plan) -> Iterator[tuple[str, list[str]]]:
    """Every finished stage of ``plan`` and the base model, and what is wrong with each. Reads all results whole."""
    for name, folder in _folders(plan):
        record, fault = folder.look()
        if fault or record.get("status") == "complete":
            yield name, stage_faults(folder, finished=False, hashes=True)


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
