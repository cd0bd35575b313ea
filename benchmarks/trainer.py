"""The trainer as benchmarks measure it: a small policy, the plain policy gradient, rollouts of made-up tokens."""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch
from torch import Tensor

from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.recipe import ShardingConfig
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.training.packing import MicroBatch, TrainingSequence, training_sequence
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.update import Update

ALONE = Ranks(0, 1, torch.device("cpu"))


def load_policy(
    checkpoint: Path,
    learning_rate: float,
    *,
    ranks: Ranks = ALONE,
    chunk_tokens: int | None = 1024,
    strategy: str = "ddp",
) -> Policy:
    """float32, no activation checkpointing, a constant learning rate."""
    return Policy(
        checkpoint,
        OptimizerConfig(learning_rate=learning_rate),
        ranks=ranks,
        dtype="float32",
        total_steps=1000,
        gradient_checkpointing=False,
        chunk_tokens=chunk_tokens,
        sharding=ShardingConfig.model_validate({"strategy": strategy}),
    )


def plain_update(policy: Policy) -> Update:
    """Of the token-mean policy gradient, at temperature 1."""

    def loss(row: MicroBatch, part: slice, logprobs: Tensor, _: Tensor) -> Tensor:
        return policy_gradient(logprobs, row.advantages[part])

    return Update(policy, loss, engine_temperature=1.0)


def log_normal(count: int, median: float, largest: int, seed: int = 0) -> list[int]:
    """Lengths in tokens with sigma 0.8, at least 4."""
    rng = random.Random(seed)
    return [min(largest, max(4, int(math.exp(rng.gauss(math.log(median), 0.8))))) for _ in range(count)]


def made_up_rollouts(count: int, median: float, longest: int, prompt: int) -> list[TrainingSequence]:
    """Random tokens after random prompts of ``prompt`` tokens, advantages of either sign; the same ones every time."""
    rng = random.Random(1)
    made = []
    for length in log_normal(count, median, longest, seed=2):
        ids = [rng.randrange(20, 400) for _ in range(prompt + length)]
        made.append(training_sequence(ids[:prompt], ids[prompt:], [-5.0] * length, rng.choice((-1.0, 1.0))))
    return made
