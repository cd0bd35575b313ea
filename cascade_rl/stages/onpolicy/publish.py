"""From the first step of a stage to its published checkpoint."""

from __future__ import annotations

from cascade_rl.stages.onpolicy.loop import train
from cascade_rl.stages.onpolicy.method import Method
from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.onpolicy.states import resume
from cascade_rl.stages.onpolicy.weights import check_engine
from cascade_rl.stages.policies import publish_policy
from cascade_rl.stages.reporting import reporting


def carry_out(run: RolloutRun, method: Method) -> None:
    """Resume, check the engine, train from the step reached, publish the checkpoint. A collective call."""
    first_step = resume(run)
    check_engine(run)
    with reporting(run, first_step):
        train(run, method, first_step)
    publish(run)


def publish(run: RolloutRun) -> None:
    """Publish the stage's result. The checkpoint comes last, since it says that the work is done. A collective call."""
    run.context.saver.settle()
    publish_policy(run.context, run.policy, run.tokenizer, run.template)
