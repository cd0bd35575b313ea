"""Our side: the method of the reward-model stage, step by step. ``python -m benchmarks.pairs.ours SETTINGS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.offline.ours import take_turns
from benchmarks.offline.problem import BETAS, GRAD_CLIP, LEARNING_RATE
from benchmarks.pairs.problem import Problem
from cascade_rl.recipe import OptimizerConfig
from cascade_rl.stages.pair_method import PairMethod
from cascade_rl.stages.pairs import TokenPair
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.scoring import TrainedRewardModel


class WithoutSharing(TrainedRewardModel):
    """Both sides of a pair go through the layers whole."""

    _shares_prompts = False


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem = Problem(**settings["problem"])
    torch.set_num_threads(1)
    ranks = Ranks(0, 1, torch.device("cpu"))
    kind = WithoutSharing if settings["side"] == "ours-whole" else TrainedRewardModel
    model = kind(
        problem.model,
        OptimizerConfig(learning_rate=LEARNING_RATE, betas=BETAS, grad_clip=GRAD_CLIP),
        ranks=ranks,
        dtype="float32",
        pad_token_id=0,
        total_steps=100_000,
        seed=problem.seed,
    )
    pairs = problem.examples()
    context: Any = SimpleNamespace(ranks=ranks, stop=SimpleNamespace(is_set=False))
    tokens = [TokenPair(**pair, category="") for pair in pairs]
    method = PairMethod(context, model, tokens, range(len(pairs)), [], budget=settings["budget"])
    take_turns(problem, pairs, model, method)


if __name__ == "__main__":
    main()
