"""A stage's policy at its start and at its end."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from cascade_rl.data.template import Template
from cascade_rl.recipe import LanguageModelStage
from cascade_rl.recipe.launching import Launch
from cascade_rl.stages.adapter_files import publish_adapter
from cascade_rl.stages.context import Context
from cascade_rl.stages.handover import write_checkpoint
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.files import publishing_file
from cascade_rl.training.policy import Policy
from cascade_rl.training.startup import check_running


def make_policy(context: Context, config: LanguageModelStage, steps: int) -> Policy:
    """The policy at the start of a stage of ``steps`` steps, its parent's optimizer included where it is inherited. A
    collective call."""
    job, launch = context.job, Launch.from_environment(os.environ)
    sharding = launch.resolve(config.sharding)
    policy = Policy(
        Path(job.checkpoint or ""),
        config,
        ranks=context.ranks,
        dtype=context.dtype,
        total_steps=steps,
        gradient_checkpointing=config.gradient_checkpointing,
        chunk_tokens=config.logprob_chunk_tokens,
        sharding=sharding,
        lora=config.lora,
        seed=config.seed if config.seed is not None else job.seed,
    )
    check_running(policy, launch, sharding)
    if job.parent_optimizer is not None:
        policy.inherit_optimizer(job.parent_optimizer)
    return policy


def publish_policy(context: Context, policy: Policy, tokenizer: Any, template: Template) -> None:
    """Publish the stage's result. The checkpoint comes last, since it says that the work is done. A collective call."""
    ranks, folder = context.ranks, context.job.place
    if policy.lora is not None:
        publish_adapter(context, policy)
    if context.job.keep_optimizer:
        with publishing_file(folder.optimizer) if ranks.is_main else contextlib.nullcontext() as file:
            policy.save_optimizer(file)
    weights = policy.whole_state_dict(torch.bfloat16 if context.dtype == "bfloat16" else torch.float32)
    if ranks.is_main:
        with publishing_checkpoint(folder) as checkpoint:
            write_checkpoint(policy.model, tokenizer, template, checkpoint, context.dtype, weights)
    ranks.barrier()
