"""TRL's side: RewardTrainer on the same pairs, step by step. ``python -m benchmarks.pairs.peer SETTINGS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

from benchmarks.grpo.turns import Turns
from benchmarks.pairs.problem import BETAS, GRAD_CLIP, LEARNING_RATE, Memory, Problem, tokens_of
from cascade_rl.training.reward_model import load_reward_model


class InOrder(RewardTrainer):
    """Pairs come in the order they lie in; positions are counted."""

    positions = 0
    summed = 0.0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        self.positions += inputs["input_ids"].numel()
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.summed += float(loss)
        return loss


class TakesTurns(TrainerCallback):
    def __init__(self, problem: Problem, pairs: list[dict[str, Any]], passes: int) -> None:
        self._turns, self._problem, self._pairs, self._passes = Turns(), problem, pairs, passes
        self.trainer: InOrder
        self._memory: Memory

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._memory = Memory()
        self._turns.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        last = state.global_step * self._problem.batch
        self._turns.report(
            {
                "loss": self.trainer.summed / self._passes,
                "tokens": tokens_of(self._pairs[last - self._problem.batch : last]),
                "positions": self.trainer.positions,
                "peak": self._memory.peak(),
            }
        )
        self.trainer.positions, self.trainer.summed = 0, 0.0
        self._turns.wait()


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem = Problem(**settings["problem"])
    passes = 4 if settings["side"] == "trl-quarter" else 1
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(problem.model)
    pairs = problem.pairs()
    arguments = RewardConfig(
        output_dir=settings["folder"],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=problem.batch // passes,
        gradient_accumulation_steps=passes,
        max_length=None,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        weight_decay=0.0,
        max_grad_norm=GRAD_CLIP,
        logging_steps=1000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_steps=100_000,
    )
    callback = TakesTurns(problem, pairs, passes)
    trainer = InOrder(
        model=load_reward_model(problem.model, torch.device("cpu"), problem.seed, tokenizer.pad_token_id),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.train()


if __name__ == "__main__":
    main()
