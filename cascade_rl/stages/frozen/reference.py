"""Frozen models of a stage: the reference that a KL penalty holds the policy to, and teachers of this process."""

from __future__ import annotations

from cascade_rl.recipe import RolloutStage
from cascade_rl.stages.context import Context
from cascade_rl.training.policy import Policy
from cascade_rl.training.reference import FrozenModel, Reference, WithoutAdapters


def frozen_model(context: Context, config: RolloutStage, checkpoint: str) -> FrozenModel:
    """``checkpoint``, scored as the stage's policy is. Raises CascadeError when it does not load."""
    return FrozenModel(
        checkpoint,
        device=context.ranks.device,
        dtype=context.dtype,
        chunk_tokens=config.logprob_chunk_tokens,
        row_tokens=config.tokens_per_micro_batch,
        offload=config.sharding.offload_reference,
    )


def start_reference(context: Context, config: RolloutStage, policy: Policy) -> Reference:
    """The weights that the stage started from: a model of its own, or the policy without its adapters."""
    if config.lora is not None:
        return WithoutAdapters(policy)
    return frozen_model(context, config, context.job.checkpoint or "")
