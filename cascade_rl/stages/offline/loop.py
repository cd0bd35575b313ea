"""The loop of every stage that learns from a fixed set of examples."""

from __future__ import annotations

import functools

from cascade_rl.stages.offline.evaluation import evaluate_if_due
from cascade_rl.stages.offline.method import OfflineMethod
from cascade_rl.stages.offline.run import OfflineRun, begin_step, record, take_step
from cascade_rl.stages.offline.states import save, save_if_due


def train(run: OfflineRun, method: OfflineMethod, first_step: int) -> None:
    """One optimizer step per batch, until all steps are made or the held-out loss says that it is enough."""
    step = first_step
    while step < run.steps and not run.early_stop.reason:
        begin_step(run, step)
        with run.trace.span("pack"):
            rows = method.rows(run.batches.of(step))
        with run.trace.span("train"):
            update = method.update()
            for row in rows:
                update.add(row)
                run.reporter.finished("training")
            stats = update.stats()
            taken = take_step(run, stats, step)
        step += 1
        measured = evaluate_if_due(run, method, step)
        record(run, step, {"loss": stats.loss, **stats.metrics, **taken, **measured})
        save_if_due(run, step)
        run.context.stop_if_asked(functools.partial(save, run, step))
    if run.early_stop.reason:
        run.context.say(f"stopping after step {step} of {run.steps}: {run.early_stop.reason}")
