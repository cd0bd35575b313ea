"""What a run had finished, beside what its recipe asks for now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cascade_rl.orchestrator.gates import Decision
from cascade_rl.orchestrator.jobs import evaluate_job
from cascade_rl.orchestrator.plan import Plan
from cascade_rl.recipe import StageConfig
from cascade_rl.store import StageFolder, differences
from cascade_rl.types import CascadeError


def refuse_silent_changes(
    plan: Plan, decisions: Sequence[Decision], accepted: bool, say: Callable[[str], None]
) -> None:
    """Stop when a stage that this run had finished would be computed anew: that costs, and may be a slip.

    Raises CascadeError showing what changed, from what to what; with ``accepted`` (--accept-changes) says it instead.
    """
    before = plan.store.read_run(plan.run)
    if before is None:
        return
    was = {stage["name"]: stage for stage in before["stages"]}
    changed: list[str] = []
    redone: list[str] = []
    for stage in plan.stages:
        old = was.get(stage.name)
        if old is None or old["identity"] == stage.identity:
            continue
        old_record = StageFolder(plan.store.root / old["directory"]).read()
        if old_record is None or old_record["status"] != "complete" or stage.folder.is_complete:
            continue
        redone.append(stage.name)
        old_inputs, left_out = old_record.get("inputs", {}), ("parent:", "revision:")
        lines = [line for line in differences(old_inputs, stage.inputs) if not line.startswith(left_out)]
        lines += _revisions(stage.config, old_inputs.get("revision", 1))
        if old["parent"] != stage.parent:
            lines.append(f"starts from {stage.parent}, no longer from {old['parent']}")
            lines += _part_of_gates(old["parent"], stage.parent, was, decisions, plan)
        changed += [f"  {stage.name}: {line}" for line in lines]
    if not redone:
        return
    text = "\n".join(
        [
            f"run {plan.run!r} had finished work that this recipe would compute anew: {', '.join(redone)}",
            "What changed:",
            *(changed or ["  the order or the parents of its stages"]),
        ]
    )
    if accepted:
        say(text + "\nGoing on, as asked (--accept-changes); the earlier results stay in the store.")
        return
    raise CascadeError(
        f"{text}\nUse --accept-changes to go on, or --branch NAME for a new run that shares every stage still valid."
    )


def _revisions(config: StageConfig, made_by: int) -> list[str]:
    """Why a result of an earlier, or a later, revision of the stage's kind is not this stage's."""
    now = config.revision()
    if made_by == now:
        return []
    changes = [text for number, text in sorted(config.REVISIONS.items()) if made_by < number <= now]
    why = "; ".join(changes) or "it was made by a later version of this package"
    return [f"it was made by revision {made_by} of kind {config.kind}, which is at revision {now} now: {why}"]


def _part_of_gates(
    old: str, new: str, was: Mapping[str, Mapping[str, Any]], decisions: Sequence[Decision], plan: Plan
) -> list[str]:
    """Why a stage has another parent, where that is the gates' doing."""
    if was.get(new, {}).get("rolled_back"):
        lost = [stage.name for stage in plan.stages if stage.folder.is_complete and evaluate_job(plan, stage)]
        why = (
            f": measurements of {', '.join(lost)} are missing. With --accept-changes they are made again first, and "
            "the gate decides anew"
        )
        return [f"{new} was rolled back by a gate before, and no longer is{why if lost else ''}"]
    return [f"gate {d.message}" for d in decisions if d.stage == old and d.verdict == "rollback"]
