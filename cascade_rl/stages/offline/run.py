"""The record of an offline stage, and what its loop does in each step beside the method's own part."""

from __future__ import annotations

from dataclasses import dataclass, field

from cascade_rl.recipe import OfflineStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import Batches
from cascade_rl.stages.offline.early_stop import EarlyStop
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.reporting import Reporter, write_down
from cascade_rl.stages.skipping import step_or_skip
from cascade_rl.tracking import Tracker
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.trained_model import TrainedModel
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
    reporter: Reporter
    early_stop: EarlyStop
    tracker: Tracker | None = None
    trace: Trace = field(default_factory=Trace)
    """Of the step in progress."""
    done: int = 0
    """Steps done."""
    skipped: int = 0
    """Steps in a row whose update was skipped."""


def begin_step(run: OfflineRun, step: int) -> None:
    """Set the learning rate of ``step`` and start its clock."""
    run.policy.begin_step(step)
    run.trace = Trace()


def take_step(run: OfflineRun, stats: StepStats, step: int) -> dict[str, float]:
    """Make the optimizer step; returns its metrics. One whose loss or gradient is not finite is skipped and counted.

    Raises CascadeError once more than ``max_skipped_steps`` in a row were. A collective call.
    """

    def failure(what: str) -> CascadeError:
        return CascadeError(
            f"step {step + 1}: {what} The last saved state is intact. Lower `learning_rate`, add `warmup_steps`, or "
            "look at the rows (`max_skipped_steps` bounds it)."
        )

    return step_or_skip(run, stats, step, failure)


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
    write_down(run, done, metrics)
