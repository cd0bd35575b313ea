"""Options of one stage that contradict each other, or that nothing would act on."""

from __future__ import annotations

from collections.abc import Iterator

from cascade_rl.recipe.conditions import SPOKEN
from cascade_rl.recipe.problems import Keys, suggestion
from cascade_rl.recipe.schema import DistillStage, RlStage, RolloutStage, StageConfig

Found = Iterator[tuple[Keys, str]]
"""Key below the stage, message."""


def contradictions(stage: StageConfig) -> Found:
    """What of a valid ``stage`` makes no sense together."""
    yield from _schedule(stage)
    if isinstance(stage, RolloutStage):
        yield from _end(stage)
    if isinstance(stage, RlStage):
        yield from _rl(stage)


def _schedule(stage: StageConfig) -> Found:
    if stage.min_learning_rate > stage.learning_rate:
        yield ("min_learning_rate",), f"{stage.min_learning_rate:g} is above learning_rate {stage.learning_rate:g}"
    steps = getattr(stage, "steps", None)
    if steps is not None and stage.warmup_steps >= steps:
        yield ("warmup_steps",), f"{stage.warmup_steps} warm-up steps leave nothing of {steps} steps"
    if stage.lr_schedule == "constant":
        for key in ("min_learning_rate", "lr_horizon_steps"):
            if getattr(stage, key):
                yield (key,), "does nothing under `lr_schedule: constant`; name another schedule, or leave it out"


def _end(stage: RolloutStage) -> Found:
    """``stop_when`` and its window."""
    if stage.stop_window is not None and not stage.stop_when:
        yield ("stop_window",), "there is no `stop_when` that looks at it"
    elif stage.stop_when and (stage.stop_window or 0) > stage.steps:
        yield ("stop_window",), f"a mean of {stage.stop_window} steps is never known in {stage.steps}"
    foreign = "reward" if isinstance(stage, DistillStage) else "advantage"
    known = [name for name in SPOKEN if name != foreign]
    for metric in stage.stop_when:
        if metric not in known and "/" not in metric:
            hint = suggestion(metric, known, "names are")
            message = f"a {stage.kind} stage has no such metric; {hint} (or one of metrics.jsonl, like reward/mean)"
            yield ("stop_when", metric), message


def _rl(stage: RlStage) -> Found:
    if stage.abort_hopeless and stage.curriculum is not None:
        yield (
            ("abort_hopeless",),
            "a curriculum judges prompts by all of their rollouts, and would not see those given up: leave out one of "
            "`abort_hopeless` and `curriculum`",
        )
    longest = stage.rollout.max_new_tokens
    if stage.overlong_buffer is not None and stage.overlong_buffer > longest:
        yield ("overlong_buffer",), f"{stage.overlong_buffer} tokens are more than rollout.max_new_tokens, {longest}"
    if stage.loss is not None and stage.loss.fixed_length is not None and stage.loss.aggregate != "fixed":
        yield ("loss", "fixed_length"), "belongs to `aggregate: fixed`; leave it out, or say that"
