"""The record of an offline stage, and what its loop does in each step beside the method's own part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import Batches, OfflineStage
from cascade_rl.stages.offline.early_stop import EarlyStop
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.watchdog import Watchdog
from cascade_rl.tracking import Progress, Tracker
from cascade_rl.tracking.trace import Trace, append_trace
from cascade_rl.training.trained_model import NonFinite, TrainedModel
from cascade_rl.types import CascadeError


@dataclass
class OfflineRun:
    """What the loop works with."""

    context: Context
    config: OfflineStage
    policy: TrainedModel
    batches: Batches
    count: int
    """Examples in an epoch."""
    steps: int
    watchdog: Watchdog
    early_stop: EarlyStop
    progress: Progress | None = None
    tracker: Tracker | None = None
    trace: Trace = field(default_factory=Trace)
    """Of the step in progress."""
    done: int = 0
    """Steps done."""
    skipped: int = 0
    """Steps in a row whose update was skipped."""

    def phase(self, text: str) -> None:
        """Tell watchdog and progress line what goes on now; what came before it is done."""
        self.watchdog.beat(text)
        if self.progress:
            self.progress.phase(text)


def begin_step(run: OfflineRun, step: int) -> None:
    """Set the learning rate of ``step`` and start its clock."""
    run.policy.begin_step(step)
    run.trace = Trace()


def take_step(run: OfflineRun, stats: StepStats, step: int) -> dict[str, float]:
    """Make the optimizer step; returns its metrics. One whose loss or gradient is not finite is skipped and counted.

    Raises CascadeError once more than ``max_skipped_steps`` in a row were. A collective call.
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
        raise CascadeError(
            f"step {step + 1}: {trouble}; so was that of the {run.skipped - 1} steps before. The last saved state is "
            "intact. Lower `learning_rate`, add `warmup_steps`, or look at the rows (`max_skipped_steps` bounds it)."
        )
    if trouble:
        run.context.say(f"WARNING: step {step + 1}: {trouble}; its update is skipped, the weights stay as they are")
    return {"learning_rate": learning_rate, "grad_norm": norm, "update/skipped": float(bool(trouble))}


def record(run: OfflineRun, done: int, metrics: dict[str, float]) -> None:
    """Write down the step that was the ``done``-th: metrics, who waited for whom, the progress line. A collective
    call."""
    run.done = done
    seconds = run.trace.now - run.trace.seconds("evaluate")
    more = {
        "tokens/padding": 0,  # rows have none; TRL's trainers count theirs under this name
        "time/train_s": run.trace.seconds("train"),
        "time/step_s": seconds,
        "time/tokens_per_s": metrics["tokens/total"] / seconds,
    }
    metrics = {**metrics, "epoch": done * run.config.batch_size / run.count, **more, **run.context.saver.metrics()}
    lines = run.context.ranks.gather(run.trace.line(done, run.context.ranks.rank))
    if run.context.ranks.is_main:
        append_trace(run.context.job.place.trace, lines)
    if run.tracker:
        run.tracker.log(done, metrics)
    if run.progress:
        run.progress.step(done, metrics)
