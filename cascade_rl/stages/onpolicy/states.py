"""Beginning a step, beginning it again, and the states from which a stage resumes bit for bit."""

from __future__ import annotations

from typing import Any

from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.policy_state import resume_policy, save_policy
from cascade_rl.tracking.trace import Trace


def begin_step(run: RolloutRun, step: int) -> None:
    """Set the learning rate of ``step``, start its clock, and note the sampler's position in case the step is done
    again."""
    run.policy.begin_step(step)
    run.trace = Trace()
    run.position = run.sampler.state()


def begin_again(run: RolloutRun, step: int) -> None:
    """Give up ``step`` as it was: the same prompts are asked again, and no rollout of it is kept."""
    run.journal.discard(step)
    run.sampler.restore(run.position)


def save_if_due(run: RolloutRun, done: int) -> None:
    """Save a state every ``save_every`` steps or ``save_every_s`` seconds, and at the end, which may come early. A
    collective call."""
    due = run.context.saver.due(done, run.config.save_every, run.config.save_every_s)
    if due or done == run.config.steps or run.switch.reason:
        save(run, done)


def save(run: RolloutRun, done: int, position: dict[str, Any] | None = None) -> None:
    """Save the state after ``done`` steps, in the background: the run goes on from it bit for bit (on CPU, with as many
    ranks). The rollouts of the steps before it are dropped once it is there.

    ``position`` of the sampler; default: where it stands. A collective call.
    """
    with run.trace.span("save"):
        standing = {
            "sampler": position or run.sampler.state(),
            "switch": run.switch.state(),
            "skipped": run.skipped,
        }
        save_policy(run.context, done, run.policy, standing, run.journal.drop_before)


def resume(run: RolloutRun) -> int:
    """Load the newest whole state, if there is one; returns the number of steps done. A collective call."""

    def restore(payload: dict[str, Any]) -> None:
        run.sampler.restore(payload["sampler"])
        run.switch.restore(payload["switch"])
        run.skipped = payload["skipped"]

    step = resume_policy(run.context, run.policy, restore)
    if step is None:
        return 0
    run.context.say(f"going on from step {step} of {run.config.steps}; the engine is filled from the trainer's weights")
    return step
