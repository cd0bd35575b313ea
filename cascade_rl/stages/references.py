"""Frozen models of a stage: the reference that a KL penalty holds the policy to, and teachers of this process."""

from __future__ import annotations

from cascade_rl.recipe import RlStage, RolloutStage
from cascade_rl.stages.context import Context
from cascade_rl.stages.rollout_run import RolloutRun
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


def kl_reference(run: RolloutRun) -> Reference:
    """The weights that the stage started from: a model of its own, or the policy without its adapters."""
    config = run.config
    if isinstance(config, RlStage) and config.loss is not None and config.loss.kl_estimator == "k1":
        run.context.say(
            "WARNING: `loss.kl_estimator: k1` is shown but penalises nothing: its gradient has mean zero. Use k2 or k3."
        )
    if config.lora is not None:
        return WithoutAdapters(run.policy)
    return frozen_model(run.context, config, run.context.job.checkpoint or "")
