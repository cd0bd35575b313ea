"""Options of one stage that contradict each other, or that nothing would act on."""

from __future__ import annotations

from collections.abc import Iterator

from cascade_rl.recipe.conditions import SPOKEN
from cascade_rl.recipe.problems import Keys, suggestion
from cascade_rl.recipe.schema import DistillStage, RewardModelStage, RlStage, RolloutStage, SftStage, StageConfig

Found = Iterator[tuple[Keys, str]]
"""Key below the stage, message."""


def contradictions(stage: StageConfig) -> Found:
    """What of a valid ``stage`` makes no sense together."""
    yield from _schedule(stage)
    if isinstance(stage, SftStage | RewardModelStage):
        yield from _trainer(stage)
    if isinstance(stage, RolloutStage):
        yield from _end(stage)
        yield from _support(stage)
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


NOT_FOR_TRL = ("tokens_per_micro_batch", "logprob_chunk_tokens", "lora", "max_skipped_steps", "stall_timeout_s", "loss",
               "evaluate_every", "early_stop")  # fmt: skip
"""Keys that TRL's trainers do not follow."""


def _trainer(stage: SftStage | RewardModelStage) -> Found:
    """Keys that the stage's trainer would not follow."""
    if stage.trainer is None:
        return
    ignored = [*NOT_FOR_TRL, *(["held_out"] if isinstance(stage, SftStage) else [])]
    for key in ignored:
        field = type(stage).model_fields.get(key)
        if field is not None and getattr(stage, key) != field.default:
            yield (key,), "TRL's trainers do not follow it: leave it out, or leave out `trainer: trl`"


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


def _support(stage: RolloutStage) -> Found:
    if stage.mismatch is None or stage.mismatch.support != "kept":
        return
    keys: Keys = ("mismatch", "support")
    if stage.rollout.top_k == 0:
        yield keys, "`kept` needs `rollout.top_k` above 0, which bounds how many tokens each position is sent with"
    if stage.engine.placement == "dedicated":
        yield keys, "`kept` is for colocated engines: servers do not say which tokens were kept"
    if isinstance(stage, DistillStage) and any(teacher.url for teacher in stage.teachers_by_domain.values()):
        yield keys, "`kept` needs teachers in this process: one behind a `url` answers for the whole vocabulary alone"


def _keys_of_trl(stage: SftStage | RewardModelStage) -> Iterator[str]:
    """What earlier recipes set, and no longer acts where TRL does not train."""
    if isinstance(stage, SftStage) and stage.packing:
        yield (
            f"stage {stage.name}: rows are packed in any case, and `batch_size` counts rows. `packing` acts with "
            "`trainer: trl` alone, where `batch_size` counts sequences of packed rows"
        )
    if stage.micro_batch_size is not None:
        yield (
            f"stage {stage.name}: micro-batches are cut by `tokens_per_micro_batch`; `micro_batch_size` acts with "
            "`trainer: trl` alone"
        )


def notes(stage: StageConfig) -> list[str]:
    """What a person should know about choices that are allowed, but do less than they seem to."""
    if isinstance(stage, SftStage | RewardModelStage):
        return [] if stage.trainer else list(_keys_of_trl(stage))
    if not isinstance(stage, RolloutStage) or (stage.rollout.top_p == 1.0 and stage.rollout.top_k == 0):
        return []
    mismatch = stage.mismatch
    updates = (stage.updates_per_batch or 1) if isinstance(stage, RlStage) else 1
    corrected = mismatch is not None and (mismatch.cap is not None or mismatch.mask != "none")
    compares = updates > 1 or corrected or isinstance(stage, DistillStage)
    if not compares or (mismatch is not None and mismatch.support == "kept"):
        return []
    return [
        f"stage {stage.name}: rollouts are drawn with top_p or top_k, but ratios are those of the whole vocabulary's "
        "probabilities, not of the truncated ones that tokens were drawn by. `mismatch.support: kept` takes the latter "
        "(docs/training.md)."
    ]


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
