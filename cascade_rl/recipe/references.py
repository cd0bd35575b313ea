"""What a stage says of other stages: whose weights it starts from, whose reward model scores it, who teaches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cascade_rl.recipe.parts import stage_reference
from cascade_rl.recipe.problems import Problem, suggestion
from cascade_rl.recipe.schema import DistillStage, RewardModelStage, RlStage, StageConfig
from cascade_rl.recipe.tree import PlacedDict, problem_at, stage_name, stage_names, stages_of


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


def of_stage(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[str, str]]:
    """Key and message of each reference of a valid stage that leads nowhere, or to something of the wrong kind."""
    yield from _kind_of_parent(stage, index, root)
    yield from _references(stage, index, root)
    yield from _inherited_optimizer(stage, index, root)


def _inherited_optimizer(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[str, str]]:
    names, parent = stage_names(root), stage.init
    if stage.optimizer_state != "inherit" or parent is None or (parent in names and parent not in names[:index]):
        return  # an unknown or later parent is reported by itself
    above = stages_of(root)[names.index(parent)] if parent in names else {}
    kind = above.get("kind")
    if getattr(stage, "lora", None) is not None or above.get("lora") is not None:
        yield "optimizer_state", "moments are those of a stage's own adapters, which are merged at its end: use `fresh`"
    elif kind != stage.kind:
        what = f"stage {parent} is of kind {kind}, not {stage.kind}" if kind else f"{parent} has no optimizer state"
        yield "optimizer_state", f"an optimizer is inherited from a stage of the same kind only; {what}"
    elif above.get("trainer") != getattr(stage, "trainer", None):
        message = f"{parent} has another `trainer`, whose moments this stage cannot take over: use `fresh`, or the same"
        yield "optimizer_state", message


def _kinds_before(index: int, root: PlacedDict) -> dict[str | None, str | None]:
    return {stage_name(other): other.get("kind") for other in stages_of(root)[:index] if isinstance(other, PlacedDict)}


def _kind_of_parent(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[str, str]]:
    """A reward model has a scalar head in place of a language model's: only another reward model can start from it."""
    kinds = _kinds_before(index, root)
    if kinds.get(stage.init) == "reward_model" and not isinstance(stage, RewardModelStage):
        yield "init", f"{stage.init} is a reward model, which no {stage.kind} stage can start from"


def _references(stage: StageConfig, index: int, root: PlacedDict) -> Iterator[tuple[str, str]]:
    """``stage:NAME`` in a reward names the reward model of an earlier stage; ``exclude`` names any other stage."""
    names = stage_names(root)
    kinds = _kinds_before(index, root)
    for exclusion in stage.exclude:
        if exclusion.stage is not None and exclusion.stage not in [name for i, name in enumerate(names) if i != index]:
            hint = suggestion(exclusion.stage, [name for name in names if name], "the stages are")
            yield "exclude", f"there is no other stage {exclusion.stage!r}; {hint}"
    if isinstance(stage, DistillStage):
        yield from _teachers(stage, kinds)
    if not isinstance(stage, RlStage):
        return
    models = [name for name, kind in kinds.items() if kind == "reward_model" and name]
    for domain, reward in stage.rewards_by_domain.items():
        for key, value in reward.params.items():
            wanted = stage_reference(value)
            if wanted is None or wanted in models:
                continue
            where = f"{domain}.{key}" if domain else key
            what = f"is of kind {kinds[wanted]}" if wanted in kinds else "is no earlier stage"
            hint = suggestion(wanted, models, "reward models before this stage are") if models else "there is none"
            yield (
                "rewards" if domain else "reward",
                f"{where}: {value!r} must name a reward model, but {wanted} {what}; {hint}",
            )


def _teachers(stage: DistillStage, kinds: Mapping[str | None, str | None]) -> Iterator[tuple[str, str]]:
    """A teacher is an earlier language model of the recipe, where it is a stage."""
    able = [name for name, kind in kinds.items() if name and kind in ("sft", "rl", "distill")]
    for domain, teacher in stage.teachers_by_domain.items():
        wanted, key = teacher.stage, "teachers" if domain else "teacher"
        if wanted is not None and wanted not in able:
            what = f"is of kind {kinds[wanted]}" if wanted in kinds else "is no earlier stage"
            hint = suggestion(wanted, able, "language models before this stage are") if able else "there is none"
            where = f"{domain}: " if domain else ""
            yield (
                key,
                f"{where}{teacher.model!r} must name a stage that trains a language model, but {wanted} {what}; {hint}",
            )
        if teacher.url is not None:
            yield from ((key, message) for message in _of_server(teacher.url, stage))


def _of_server(url: str, stage: DistillStage) -> Iterator[str]:
    if not url.startswith(("http://", "https://")):
        yield f"the address of a teacher starts with http:// or https://, unlike {url!r}"
    if stage.rollout.temperature != 1.0:
        yield (
            "a server says how likely tokens are at temperature 1 only, and this stage samples at "
            f"{stage.rollout.temperature:g}: give the teacher as `model`, or set rollout.temperature to 1"
        )
