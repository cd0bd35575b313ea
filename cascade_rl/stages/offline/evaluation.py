"""Measuring the held-out loss between steps, and keeping the weights that did best where ``early_stop`` asks for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from cascade_rl.stages.offline.method import OfflineMethod
from cascade_rl.stages.offline.run import OfflineRun
from cascade_rl.stages.offline.states import save
from cascade_rl.store.files import publishing, sync_file
from cascade_rl.types import CascadeError

KEPT = 2
"""Best weights that stay: as many as states do, so that the older state finds its own."""


def evaluate_if_due(run: OfflineRun, method: OfflineMethod, done: int) -> dict[str, float]:
    """The method's held-out metrics every ``evaluate_every`` steps and at the end, else {}. A collective call.

    Where they are the best so far and ``early_stop`` is set, the weights are kept, and a state that knows of them.
    """
    every = run.config.evaluate_every
    if done != run.steps and (every is None or done % every):
        return {}
    with run.trace.span("evaluate"):
        run.reporter.finished("measuring the held-out loss")
        run.policy.model.eval()
        measured = method.evaluate()
        run.policy.model.train()
    if not measured:
        return {}
    if run.early_stop.observe(measured["eval/loss"], done):
        with run.trace.span("save"):
            _keep_best(run, done)
        save(run, done)
    return {**measured, "time/evaluate_s": run.trace.seconds("evaluate")}


def load_best(run: OfflineRun, done: int) -> None:
    """The weights and moments of the best measurement, where ``early_stop`` watched for it. A collective call."""
    best = run.early_stop.best_step
    if best is not None and best != done:
        folder = _folder(run, best)
        if not folder.is_dir():
            raise CascadeError(f"{folder} is gone: it had the weights of step {best}, which did best on held-out rows")
        run.policy.load(folder)
        run.context.say(f"the checkpoint is that of step {best}, which did best on held-out rows")


def remove_best(run: OfflineRun) -> None:
    """Delete what ``load_best`` reads; a finished stage does not need it."""
    for folder in run.context.job.stage_folder.path.glob("best-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _folder(run: OfflineRun, step: int) -> Path:
    return run.context.job.stage_folder.path / f"best-{step:06d}"


def _keep_best(run: OfflineRun, step: int) -> None:
    """Write the weights after ``step`` steps; every rank its part."""
    ranks, folder = run.context.ranks, _folder(run, step)
    if not ranks.is_main:
        into: Path = ranks.gather(None)[0]
        for file in run.policy.save(into):
            sync_file(file)
        ranks.barrier()
    else:
        with publishing(folder) as temporary:
            ranks.gather(temporary)
            run.policy.save(temporary)
            ranks.barrier()
        for old in sorted(folder.parent.glob("best-??????"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    ranks.barrier()
