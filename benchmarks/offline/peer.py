"""TRL's side of offline training: a trainer that is counted and takes turns."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.grpo.turns import Turns
from benchmarks.offline.problem import BETAS, GRAD_CLIP, LEARNING_RATE, Memory


class InOrder:
    """Mixin, listed before a TRL trainer class: rows come in the order they lie in, and are counted."""

    positions = 0
    tokens = 0
    summed = 0.0
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        self.positions += inputs["input_ids"].numel()
        self.tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self.summed += float(loss)
        return loss


class TakesTurns(TrainerCallback):
    """Waits for its turn before each step and reports after it. The loss is the sum over passes by ``passes``."""

    def __init__(self, passes: int) -> None:
        self._turns, self._passes = Turns(), passes
        self.trainer: Any
        self._memory: Memory

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._memory = Memory()
        self._turns.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self.trainer
        self._turns.report(
            {
                "loss": trainer.summed / self._passes,
                "tokens": trainer.tokens,
                "positions": trainer.positions,
                "peak": self._memory.peak(),
            }
        )
        trainer.positions, trainer.tokens, trainer.summed = 0, 0, 0.0
        self._turns.wait()


def common_arguments(folder: str, batch: int, passes: int) -> dict[str, Any]:
    """What all of TRL's configurations share here."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": max(1, batch // passes),
        "gradient_accumulation_steps": passes,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "max_grad_norm": GRAD_CLIP,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "max_steps": 100_000,
    }
