"""The optimizer step of every loop: one whose loss or gradient is not finite is skipped and counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from cascade_rl.recipe import StageConfig
from cascade_rl.stages.context import Context
from cascade_rl.training.trained_model import NonFinite, TrainedModel
from cascade_rl.types import CascadeError


class Stats(Protocol):
    """What a step's passes gave, over all ranks."""

    @property
    def loss(self) -> float: ...
    @property
    def denominator(self) -> float: ...


class SkippingRun(Protocol):
    """What a loop's record has for this."""

    skipped: int
    """Steps in a row whose update was skipped."""

    @property
    def context(self) -> Context: ...
    @property
    def config(self) -> StageConfig: ...
    @property
    def policy(self) -> TrainedModel: ...


def step_or_skip(run: SkippingRun, stats: Stats, step: int, failure: Callable[[str], CascadeError]) -> dict[str, float]:
    """Make the optimizer step; returns its metrics.

    Raises ``failure(what happened)`` once more than ``max_skipped_steps`` in a row were skipped. A collective call.
    """
    learning_rate, norm, trouble = run.policy.learning_rate, math.nan, ""
    if not math.isfinite(stats.loss):
        run.policy.discard()
        trouble = f"the loss is {stats.loss}"
    else:
        try:
            norm = run.policy.step(stats.denominator)
        except NonFinite as error:
            trouble = str(error)
    run.skipped = run.skipped + 1 if trouble else 0
    if run.skipped > run.config.max_skipped_steps:
        raise failure(f"{trouble}; so was that of the {run.skipped - 1} steps before.")
    if trouble:
        run.context.say(f"WARNING: step {step + 1}: {trouble}; its update is skipped, the weights stay as they are")
    return {"learning_rate": learning_rate, "grad_norm": norm, "update/skipped": float(bool(trouble))}
