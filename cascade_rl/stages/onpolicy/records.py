"""What a step leaves behind: its rollouts, its metrics, who waited for whom, benchmarks that are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cascade_rl.rollout.archive import joined, rows_of, write_rollouts
from cascade_rl.rollout.engine import Engine
from cascade_rl.stages.context import Context
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.reporting import write_down
from cascade_rl.types import Group

LANES = {
    "sync": "time/sync_s",
    "generate": "time/rollout_s",
    "wait for rewards": "time/reward_wait_s",
    "train": "time/train_s",
}
"""Lane of a step's trace -> metric of the seconds it was busy."""


def record(
    run: RolloutRun, step: int, groups: Sequence[Group], metrics: dict[str, float], lanes: Mapping[str, str]
) -> None:
    """Write the step down. ``lanes``: those of the method, beside ``LANES``. A collective call."""
    context = run.context
    archive(context, groups, step)
    metrics = metrics | context.saver.metrics() | engine_metrics(run.engine)
    metrics |= {metric: run.trace.seconds(lane) for lane, metric in {**LANES, **lanes}.items()}
    metrics["time/step_s"] = run.trace.now
    metrics["time/tokens_per_s"] = metrics["tokens/rollout"] / metrics["time/step_s"]
    every = context.job.evaluate_every
    if every and (step + 1) % every == 0 and step + 1 < run.config.steps:
        run.engine.load_weights(run.policy.named_weights(run.config.engine.sync_bucket_mib), version=step + 1)
        metrics |= run.benchmarks.values(run.engine)
    write_down(run, step + 1, metrics)
    run.switch.observe(metrics)


def engine_metrics(engine: Engine) -> dict[str, float]:
    """What an engine reports of itself: device memory at each phase (GPU), rollouts asked for again (servers)."""
    memory, again = getattr(engine, "memory", None), getattr(engine, "asked_again", None)
    return {**(memory.gib if memory else {}), **({} if again is None else {"rollouts/asked_again": float(again)})}


def archive(context: Context, groups: Sequence[Group], step: int) -> None:
    """Write the rollouts of all ranks into one file. A full disk costs the file, not the run. A collective call."""
    shares = context.ranks.gather(rows_of(groups, step + 1))
    if context.ranks.is_main:
        try:
            write_rollouts(context.job.stage_folder.rollouts, step + 1, joined(shares))
        except OSError as error:
            context.say(f"WARNING: rollouts of step {step + 1} could not be written: {error}")
