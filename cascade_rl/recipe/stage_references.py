"""What a stage says of other stages: whose weights it starts from, whose reward model scores it, who teaches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cascade_rl.recipe.kinds import StageConfig, find_kind
from cascade_rl.recipe.kinds.base import Result
from cascade_rl.recipe.problems import Keys, Problem, suggestion
from cascade_rl.recipe.tree import PlacedDict, problem_at, stage_name, stage_names, stages_of

Kinds = Mapping[str, type[StageConfig] | None]
"""Name -> kind of the stages before one; None for a stage without a valid kind."""


def parent(root: PlacedDict, index: int, skipped: Sequence[str]) -> Iterator[Problem]:
    """``init`` as written, so of invalid stages too. A slash makes it a path or hub id, for others to find."""
    names, stage = stage_names(root), stages_of(root)[index]
    earlier = [name for name in names[:index] if name]
    parent = stage.get("init") if isinstance(stage, PlacedDict) else None
    if not isinstance(parent, str) or parent in (*earlier, "model") or "/" in parent:
        return
    if parent in names:
        message = f"{parent} comes at or after {names[index]}; a stage starts from an earlier one"
    elif parent in skipped:
        message = f"stage {parent} is skipped, so nothing can start from it"
    else:
        hint = suggestion(parent, [*earlier, "model"], "it may be")
        message = f"{parent!r} is no earlier stage, nor `model`, nor a hub id or path with a slash; {hint}"
    yield problem_at(root, ("stages", index, "init"), message)


def of_stage(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[Keys, str]]:
    """Keys and message of each reference of a valid stage that leads nowhere, or to something of the wrong kind."""
    before = _kinds_before(index, root)
    yield from _parents_result(stage, before)
    yield from _excluded_stages(stage, index, root)
    yield from _results_read(stage, before)
    yield from _inherited_optimizer(stage, index, root)


def _inherited_optimizer(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[Keys, str]]:
    names, parent = stage_names(root), stage.init
    if stage.optimizer_state != "inherit" or parent is None or (parent in names and parent not in names[:index]):
        return  # an unknown or later parent is reported by itself
    own, above = stages_of(root)[index], stages_of(root)[names.index(parent)] if parent in names else {}
    kind, key = above.get("kind"), ("optimizer_state",)
    if own.get("lora") is not None or above.get("lora") is not None:
        yield key, "moments are those of a stage's own adapters, which are merged at its end: use `fresh`"
    elif kind != stage.kind:
        what = f"stage {parent} is of kind {kind}, not {stage.kind}" if kind else f"{parent} has no optimizer state"
        yield key, f"an optimizer is inherited from a stage of the same kind only; {what}"
    elif above.get("trainer") != stage.trained_by:
        yield (
            key,
            f"{parent} has another `trainer`, whose moments this stage cannot take over: use `fresh`, or the same",
        )


def _kinds_before(index: int, root: PlacedDict) -> Kinds:
    stages = [other for other in stages_of(root)[:index] if isinstance(other, PlacedDict)]
    return {name: find_kind(other.get("kind")) for other in stages if (name := stage_name(other))}


def _parents_result(stage: StageConfig, before: Kinds) -> Iterator[tuple[Keys, str]]:
    """A reward model has a scalar head in place of a language model's: not every kind can start from it."""
    above = before.get(stage.init or "")
    if above is not None and above.RESULT not in stage.STARTS_FROM:
        yield ("init",), f"{stage.init} is a {above.RESULT}, which no {stage.kind} stage can start from"


def _excluded_stages(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[Keys, str]]:
    """``exclude`` names any other stage."""
    names = stage_names(root)
    others = [name for number, name in enumerate(names) if name and number != index]
    for exclusion in stage.exclude:
        if exclusion.stage is not None and exclusion.stage not in others:
            hint = suggestion(exclusion.stage, [name for name in names if name], "the stages are")
            yield ("exclude",), f"there is no other stage {exclusion.stage!r}; {hint}"


def _results_read(stage: StageConfig, before: Kinds) -> Iterator[tuple[Keys, str]]:
    """``stage:NAME`` names an earlier stage: in a reward a reward model, for a teacher a language model."""
    seen: set[str] = set()
    for domain, reward in stage.rewards_by_domain.items():
        for keys, name in reward.stage_references():
            seen.add(name)
            if wrong := _wrong(name, "reward model", "a reward model", before):
                where = ".".join(filter(None, (domain, str(keys[0]))))
                yield stage.keys_of(reward)[:1], f"{where}: {wrong}"
    for domain, teacher in stage.teachers_by_domain.items():
        if (wanted := teacher.stage) is not None:
            seen.add(wanted)
            if wrong := _wrong(wanted, "language model", "a stage that trains a language model", before):
                where = f"{domain}: " if domain else ""
                yield stage.keys_of(teacher)[:1], f"{where}{wrong}"
    for keys, name in stage.stage_references():
        if name not in seen and name not in before:
            hint = suggestion(name, before, "the stages before this one are") if before else "there is none"
            yield keys, f"'stage:{name}' must name a stage before this one; {hint}"


def _wrong(wanted: str, result: Result, what: str, before: Kinds) -> str | None:
    """Why ``stage:WANTED`` is no stage before this one with such a result; None where it is one."""
    able = [name for name, kind in before.items() if kind is not None and result == kind.RESULT]
    if wanted in able or (wanted in before and before[wanted] is None):  # an invalid kind is reported by itself
        return None
    kind = before.get(wanted)
    found = f"is of kind {kind.model_fields['kind'].default}" if kind else "is no earlier stage"
    hint = suggestion(wanted, able, f"{result}s before this stage are") if able else "there is none"
    return f"'stage:{wanted}' must name {what}, but {wanted} {found}; {hint}"
