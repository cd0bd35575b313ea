"""What a stage of adapters leaves beside its merged checkpoint: the adapter by itself, and what rounding cost it."""

from __future__ import annotations

import torch

from cascade_rl.stages.context import Context
from cascade_rl.store.files import publishing
from cascade_rl.training.lora import peft_task
from cascade_rl.training.trained_model import TrainedModel

MUCH = 0.1
"""Share of what was learned above which rounding is worth a warning."""


def publish_adapter(context: Context, policy: TrainedModel) -> None:
    """Write ``adapter/``: A and B in float32 as peft reads them, and a reward model's head, on the weights the stage
    started from. A collective call; call it before the checkpoint is published, which says that the work is done."""
    from peft import LoraConfig as PeftConfig
    from safetensors.torch import save_file

    assert policy.lora is not None
    tensors = policy.adapter_state_dict()
    if context.ranks.is_main:
        settings = PeftConfig(
            **policy.lora.peft_settings, **peft_task(policy.model), base_model_name_or_path=context.job.checkpoint
        )
        with publishing(context.job.stage_folder.adapter) as folder:
            save_file(tensors, folder / "adapter_model.safetensors")
            settings.save_pretrained(str(folder))
    if context.dtype == "bfloat16":
        tell_lost(context, policy.lost_in_rounding(torch.bfloat16))


def tell_lost(context: Context, lost: float) -> None:
    """Say what the checkpoint's precision took from the adapters."""
    warning = "WARNING: " if lost > MUCH else ""
    context.say(
        f"{warning}the adapters are merged into bfloat16 weights: rounding moved these by {100 * lost:.0f}% of what "
        f"was learned. Unrounded they are in {context.job.stage_folder.adapter}"
    )
