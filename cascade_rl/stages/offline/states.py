"""The states from which an offline stage resumes bit for bit."""

from __future__ import annotations

from typing import Any

from cascade_rl.stages.offline.run import OfflineRun
from cascade_rl.stages.policy_state import resume_policy, save_policy
from cascade_rl.types import CascadeError


def save_if_due(run: OfflineRun, done: int) -> None:
    """Save a state every ``save_every`` steps or ``save_every_s`` seconds, and at the end, which may come early. A
    collective call."""
    due = run.context.saver.due(done, run.config.save_every, run.config.save_every_s)
    if due or done == run.steps or run.early_stop.reason:
        save(run, done)


def save(run: OfflineRun, done: int) -> None:
    """Save the state after ``done`` steps, in the background: the stage goes on from it bit for bit (on CPU, with as
    many ranks). A collective call."""
    with run.trace.span("save"):
        standing = {"count": run.count, "early_stop": run.early_stop.state(), "skipped": run.skipped}
        save_policy(run.context, done, run.policy, standing)


def resume(run: OfflineRun) -> int:
    """Load the newest whole state, if there is one; returns the number of steps done. A collective call.

    Raises CascadeError when the stage had other rows when it was saved.
    """

    def restore(payload: dict[str, Any]) -> None:
        if payload["count"] != run.count:
            raise CascadeError(
                f"the state of step {payload['step']} was saved when the stage had {payload['count']} rows to train "
                f"on, now it has {run.count}: the data changed since it was interrupted. Put it back, or delete the "
                "stage's state folder."
            )
        run.early_stop.restore(payload["early_stop"])
        run.skipped = payload["skipped"]

    step = resume_policy(run.context, run.policy, restore)
    if step is None:
        return 0
    run.done = step
    run.context.say(f"going on from step {step} of {run.steps}")
    return step
