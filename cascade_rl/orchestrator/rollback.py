"""A plan in which some stages are as if they had not been: what would have started from one starts from its parent."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from cascade_rl.orchestrator.plan import BASE, Plan, PlannedStage
from cascade_rl.store import identity_of


def without(plan: Plan, rolled_back: Collection[str]) -> Plan:
    """``plan`` with these stages rolled back. They stay in it, marked, but nothing starts from them.

    The identities are those of a recipe that skips the rolled-back stages, so results are shared with such a one. They
    follow from the plan alone: no file is read again, so that a reward edited while the run goes on cannot change them.
    """
    declared = plan.declared or plan
    if not rolled_back:
        return declared
    done: dict[str, PlannedStage] = {}
    renamed: dict[str, str] = {}
    for stage in declared.stages:
        moved = _moved(stage, done, rolled_back, renamed, declared)
        done[stage.name] = moved
        if moved.identity != stage.identity:
            renamed[stage.identity] = moved.identity
    names = tuple(stage.name for stage in declared.stages if stage.name in rolled_back)
    return dataclasses.replace(declared, stages=tuple(done.values()), rolled_back=names, declared=declared)


def _moved(
    stage: PlannedStage,
    done: Mapping[str, PlannedStage],
    rolled_back: Collection[str],
    renamed: Mapping[str, str],
    declared: Plan,
) -> PlannedStage:
    """``stage`` on what is left of its chain; itself where nothing of that changed."""
    heir = stage
    while heir.parent in rolled_back:
        heir = done[heir.parent]  # done already, so its own parent is the one that stands
    inputs = _with(stage.inputs, renamed)
    if heir is stage and inputs == stage.inputs:
        return stage
    parent = done.get(heir.parent)
    parent_files = heir.parent_files
    if parent is not None:
        parent_identity, checkpoint = parent.identity, str(parent.folder.checkpoint)
        parent_files = None
    elif heir.parent == BASE:
        parent_identity, checkpoint = declared.base.identity, declared.base.checkpoint
    else:
        parent_identity, checkpoint = heir.parent_identity, heir.parent_checkpoint
    config = stage.config
    if config.optimizer_state == "inherit" and (parent is None or parent.config.kind != config.kind):
        config = config.model_copy(update={"optimizer_state": "fresh"})  # there are no such moments to go on with
        inputs["config"] = {**inputs["config"], "optimizer_state": "fresh"}
    inputs["parent"] = parent_identity
    identity = identity_of(inputs)
    return dataclasses.replace(
        stage,
        config=config,
        parent=heir.parent,
        parent_identity=parent_identity,
        parent_checkpoint=checkpoint,
        parent_folder=parent.folder if parent else None,
        parent_files=parent_files,
        inputs=inputs,
        identity=identity,
        folder=declared.store.stage(stage.name, identity),
    )


def _with(value: Any, renamed: Mapping[str, str]) -> Any:
    """``value`` with the identities of other stages in it (a reward model's, say) replaced; always a copy."""
    if isinstance(value, Mapping):
        return {key: _with(inner, renamed) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with(inner, renamed) for inner in value]
    return renamed.get(value, value) if isinstance(value, str) else value
