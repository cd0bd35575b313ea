"""Beginning a step, beginning it again, and the states from which a stage resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cascade_rl.stages.onpolicy.run import RolloutRun
from cascade_rl.stages.saving import save_together
from cascade_rl.tracking.trace import Trace
from cascade_rl.training import state as states
from cascade_rl.types import CascadeError


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
    """Save a state every ``save_every`` steps and at the end, which may come early. A collective call."""
    if done % run.config.save_every == 0 or done == run.config.steps or run.switch.reason:
        save(run, done)


def save(run: RolloutRun, done: int, position: dict[str, Any] | None = None) -> None:
    """Save the state after ``done`` steps: the run goes on from it bit for bit (on CPU, with as many ranks).

    ``position`` of the sampler; default: where it stands. A collective call.
    """
    ranks = run.context.ranks
    if run.saved == done:
        return
    with run.trace.span("save"):
        rng = ranks.gather(states.rng_states())
        payload = {
            "step": done,
            "world_size": ranks.world_size,
            "sampler": position or run.sampler.state(),
            "switch": run.switch.state(),
            "skipped": run.skipped,
            "rng": rng,
        }

        def write(folder: Path) -> list[Path]:
            if ranks.is_main:
                torch.save(payload, folder / "state.pt")
            return [*run.policy.save(folder), *([folder / "state.pt"] if ranks.is_main else [])]

        if save_together(run.context, done, write):
            run.saved = done
            if ranks.is_main:
                run.journal.drop_before(done)
        ranks.barrier()


def resume(run: RolloutRun) -> int:
    """Load the newest whole state, if there is one; returns the number of steps done. A collective call."""
    found = run.context.newest_state()
    if found is None:
        return 0
    step, folder = found
    try:
        payload = torch.load(folder / "state.pt", map_location="cpu", weights_only=False)
        run.policy.load(folder)
        run.sampler.restore(payload["sampler"])
        run.switch.restore(payload["switch"])
        run.skipped, run.saved = payload["skipped"], step
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"state {folder} could not be loaded: {type(error).__name__}: {error}") from error
    ranks = run.context.ranks
    if payload["world_size"] == ranks.world_size:
        states.restore_rng(payload["rng"][ranks.rank])
    else:
        run.context.say(
            f"resumed with {ranks.world_size} ranks where {payload['world_size']} ran before: equal up to rounding"
        )
    run.context.say(f"going on from step {step} of {run.config.steps}; the engine is filled from the trainer's weights")
    return step
