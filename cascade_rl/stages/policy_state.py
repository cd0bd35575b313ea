"""The states of every stage that trains on a ``Policy``: what they hold, and how a stage goes on from one."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cascade_rl.stages.context import Context
from cascade_rl.stages.saving import Source
from cascade_rl.training import state as states
from cascade_rl.training.trained_model import TrainedModel
from cascade_rl.types import CascadeError

FILE = "state.pt"
"""Everything but the policy, of all ranks."""


def save_policy(
    context: Context,
    step: int,
    policy: Source,
    position: Mapping[str, Any],
    published: Callable[[int], None] = lambda step: None,
) -> None:
    """Save ``policy``, the random generators and ``position`` (where the stage stands) after ``step`` steps, in the
    background (``Saver.take``). A collective call."""
    ranks = context.ranks
    rng = ranks.gather(states.rng_states())
    buffer = io.BytesIO()
    if ranks.is_main:
        torch.save({"step": step, "world_size": ranks.world_size, "rng": rng, **position}, buffer)

    def write(folder: Path) -> states.Manifest:
        if not ranks.is_main:
            return {}
        with states.hashed_file(folder / FILE) as file:
            file.write(buffer.getbuffer())
        return {FILE: file.record}

    context.saver.take(step, policy, write, published)


def resume_policy(context: Context, policy: TrainedModel, restore: Callable[[dict[str, Any]], object]) -> int | None:
    """Load the newest whole state, if there is one, ``restore`` what was saved as ``position``, and the random
    generators; returns the number of steps done, or None where there is no state. A collective call."""
    found = context.newest_state()
    if found is None:
        return None
    step, folder = found
    try:
        payload = torch.load(folder / FILE, map_location="cpu", weights_only=False)
        policy.load(folder)
        restore(payload)
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"state {folder} could not be loaded: {type(error).__name__}: {error}") from error
    context.saver.resumed(step)
    ranks = context.ranks
    if payload["world_size"] == ranks.world_size:
        states.restore_rng(payload["rng"][ranks.rank])
    else:
        context.say(
            f"resumed with {ranks.world_size} ranks where {payload['world_size']} ran before: equal up to rounding"
        )
    return step
