"""From the opening of an offline stage to its last step."""

from __future__ import annotations

from cascade_rl.recipe import OfflineStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.offline.batches import Batches
from cascade_rl.stages.offline.early_stop import EarlyStop
from cascade_rl.stages.offline.evaluation import load_best
from cascade_rl.stages.offline.loop import train
from cascade_rl.stages.offline.method import OfflineMethod
from cascade_rl.stages.offline.run import OfflineRun
from cascade_rl.stages.offline.states import resume
from cascade_rl.stages.reporting import Reporter, reporting
from cascade_rl.stages.watchdog import Watchdog
from cascade_rl.training.trained_model import TrainedModel


def carry_out(
    context: Context, config: OfflineStage, policy: TrainedModel, method: OfflineMethod, steps: int
) -> OfflineRun:
    """Resume and train from the step reached, all ``steps`` or until the held-out loss ends it. ``policy`` then has the
    weights to publish. A collective call."""
    for note in config.notes():
        context.say(note)
    with Watchdog(
        context.job.stage_folder.logs, context.ranks.rank, config.stall_timeout_s, context.say_anywhere
    ) as watchdog:
        run = OfflineRun(
            context=context,
            config=config,
            policy=policy,
            batches=Batches(method.count, config.batch_size, context.job.stage_seed),
            count=method.count,
            steps=steps,
            reporter=Reporter(watchdog, context.progress(steps)),
            early_stop=EarlyStop(config.early_stopping),
        )
        first_step = resume(run)
        with reporting(run, first_step):
            train(run, method, first_step)
        context.saver.settle()
        load_best(run, run.done)
    return run
