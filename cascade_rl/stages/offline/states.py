"""The states from which an offline stage resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import torch

from cascade_rl.stages.offline.run import OfflineRun
from cascade_rl.stages.saving import save_together
from cascade_rl.training import state as states
from cascade_rl.types import CascadeError


def save_if_due(run: OfflineRun, done: int) -> None:
    """Save a state every ``save_every`` steps and at the end, which may come early. A collective call."""
    if done % run.config.save_every == 0 or done == run.steps or run.early_stop.reason:
        save(run, done)


def save(run: OfflineRun, done: int) -> None:
    """Save the state after ``done`` steps: the stage goes on from it bit for bit (on CPU, with as many ranks). A
    collective call."""
    ranks = run.context.ranks
    if run.saved == done:
        return
    with run.trace.span("save"):
        payload = {
            "step": done,
            "world_size": ranks.world_size,
            "count": run.count,
            "early_stop": run.early_stop.state(),
            "skipped": run.skipped,
            "rng": ranks.gather(states.rng_states()),
        }

        def write(folder: Path) -> list[Path]:
            if ranks.is_main:
                torch.save(payload, folder / "state.pt")
            return [*run.policy.save(folder), *([folder / "state.pt"] if ranks.is_main else [])]

        if save_together(run.context, done, write):
            run.saved = done
        ranks.barrier()


def resume(run: OfflineRun) -> int:
    """Load the newest whole state, if there is one; returns the number of steps done. A collective call."""
    found = run.context.newest_state()
    if found is None:
        return 0
    step, folder = found
    try:
        payload = torch.load(folder / "state.pt", map_location="cpu", weights_only=False)
        run.policy.load(folder)
        run.early_stop.restore(payload["early_stop"])
        run.skipped, run.saved = payload["skipped"], step
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"state {folder} could not be loaded: {type(error).__name__}: {error}") from error
    if payload["count"] != run.count:
        raise CascadeError(
            f"state {folder} was saved when the stage had {payload['count']} rows to train on, now it has {run.count}: "
            "the data changed since it was interrupted. Put it back, or delete the stage's state folder."
        )
    ranks = run.context.ranks
    if payload["world_size"] == ranks.world_size:
        states.restore_rng(payload["rng"][ranks.rank])
    else:
        run.context.say(
            f"resumed with {ranks.world_size} ranks where {payload['world_size']} ran before: equal up to rounding"
        )
    run.context.say(f"going on from step {step} of {run.steps}")
    return step
