"""A stage's model at its start and at its end."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cascade_rl.data.template import Template
from cascade_rl.recipe import LanguageModelStage, ShardingConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.stages.checkpoints.adapter_files import publish_adapter
from cascade_rl.stages.checkpoints.handover import write_checkpoint
from cascade_rl.stages.context import Context
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.files import publishing_file
from cascade_rl.training.policy import Policy
from cascade_rl.training.startup import check_running
from cascade_rl.training.trained_model import TrainedModel

Model = TypeVar("Model", bound=TrainedModel)
Write = Callable[[Path, str, Mapping[str, Tensor] | None], None]
"""(folder, dtype, whole weights): writes a checkpoint."""


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
        seed=job.stage_seed,
    )
    return checked(context, policy, launch, sharding)


def checked(context: Context, model: Model, launch: Launch, sharding: ShardingConfig) -> Model:
    """``model`` once it is seen to run as it was asked to, its parent's optimizer included where it is inherited. A
    collective call."""
    check_running(model, launch, sharding)
    if context.job.parent_optimizer is not None:
        model.inherit_optimizer(context.job.parent_optimizer)
    return model


def publish_policy(context: Context, policy: Policy, tokenizer: Any, template: Template) -> None:
    """Publish the stage's result. A collective call."""
    publish(context, policy, functools.partial(write_checkpoint, policy.model, tokenizer, template))


def publish(context: Context, model: TrainedModel, write: Write) -> None:
    """Publish the stage's result as ``write`` writes it. The checkpoint comes last, since it says that the work is
    done. A collective call."""
    ranks, folder = context.ranks, context.job.stage_folder
    if model.lora is not None:
        publish_adapter(context, model)
    if context.job.keep_optimizer:
        with publishing_file(folder.optimizer) if ranks.is_main else contextlib.nullcontext() as file:
            model.save_optimizer(file)
    weights = model.whole_state_dict(torch.bfloat16 if context.dtype == "bfloat16" else torch.float32)
    if ranks.is_main:
        with publishing_checkpoint(folder) as checkpoint:
            write(checkpoint, context.dtype, weights)
    ranks.barrier()
