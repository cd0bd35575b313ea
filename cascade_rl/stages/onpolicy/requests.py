"""What is asked of the engine: how a prompt is sampled, and the seed of each of its rollouts."""

from __future__ import annotations

from cascade_rl.recipe import RolloutStage, SamplingConfig
from cascade_rl.rollout.engine import Request, request_seed
from cascade_rl.stages.onpolicy.prompts import Slot
from cascade_rl.types import Prompt


def request_of(config: RolloutStage, seed: int, step: int, slot: Slot, index: int) -> Request:
    """The request for rollout ``index`` of the prompt of ``slot`` in ``step``.

    Its seed follows from these values alone, so the rollout is the same whatever it is batched with.
    """
    return Request(
        prompt_id=str(slot.position),
        index=index,
        prompt_token_ids=slot.prompt_token_ids,
        seed=request_seed(seed, config.name, step, slot.position, slot.prompt.id, index),
        sampling=sampling_of(config, slot.prompt),
    )


def sampling_of(config: RolloutStage, prompt: Prompt) -> SamplingConfig:
    """How a prompt is sampled: by the stage, in its mode, or with fewer tokens if its row says so."""
    limit = config.completion_limit(bool(prompt.thinking))
    limit = min(limit, prompt.columns.get("max_new_tokens") or limit)
    if limit == config.rollout.max_new_tokens:
        return config.rollout
    return config.rollout.model_copy(update={"max_new_tokens": limit})
