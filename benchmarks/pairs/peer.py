"""TRL's side: RewardTrainer on the same pairs, step by step. ``python -m benchmarks.pairs.peer SETTINGS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import RewardConfig, RewardTrainer

from benchmarks.offline.peer import InOrder, TakesTurns, common_arguments
from benchmarks.pairs.problem import Problem
from cascade_rl.training.reward_model import load_reward_model


class PairsInOrder(InOrder, RewardTrainer):
    """TRL's RewardTrainer, counted."""


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem = Problem(**settings["problem"])
    passes = 4 if settings["side"] == "trl-quarter" else 1
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(problem.model)
    pairs = problem.examples()
    arguments = RewardConfig(**common_arguments(settings["folder"], problem.batch, passes), max_length=None)
    callback = TakesTurns(passes)
    trainer = PairsInOrder(
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
