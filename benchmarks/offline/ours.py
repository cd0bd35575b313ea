"""Our side of offline training: the method of a stage, step by step, as its loop takes them."""

from __future__ import annotations

from typing import Any

from benchmarks.grpo.turns import Turns
from benchmarks.offline.problem import Memory, OfflineProblem, tokens_of
from cascade_rl.stages.offline.method import OfflineMethod
from cascade_rl.training.trained_model import TrainedModel


def take_turns(
    problem: OfflineProblem, examples: list[dict[str, Any]], model: TrainedModel, method: OfflineMethod
) -> None:
    """One step per turn until the examples or the turns end; ``method`` trains ``model`` on ``examples``."""
    turns, memory = Turns(), Memory()
    for step in range(len(examples) // problem.batch):
        batch = range(step * problem.batch, (step + 1) * problem.batch)
        turns.wait()
        model.begin_step(step)
        update = method.update()
        for row in method.rows(batch):
            update.add(row)
        stats = update.stats()
        model.step(stats.denominator)
        turns.report(
            {
                "loss": stats.loss,
                "tokens": tokens_of([examples[number] for number in batch]),
                "positions": stats.metrics["tokens/total"],
                "peak": memory.peak(),
            }
        )
