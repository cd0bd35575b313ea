"""Our side: the method of the SFT stage, step by step. ``python -m benchmarks.sft.ours SETTINGS.json``.

A pass of ``ours-quarter`` has as many tokens as one of TRL's ``-quarter`` sides, one of ``ours-bin`` as one of
``trl-packed``: speed and memory are compared at the same size.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pyarrow
import torch

from benchmarks.offline.ours import take_turns
from benchmarks.offline.problem import BETAS, GRAD_CLIP, LEARNING_RATE, LONGEST
from benchmarks.sft.problem import Problem, tokens_per_step
from cascade_rl.recipe import SftStage
from cascade_rl.stages.sft import Examples, Sft
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import Ranks


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    problem = Problem(**settings["problem"])
    torch.set_num_threads(1)
    budget = {
        "ours": settings["budget"],
        "ours-quarter": max(LONGEST, math.ceil(tokens_per_step(problem) / 4)),
        "ours-bin": LONGEST,
    }[settings["side"]]
    config = SftStage.model_validate(
        {
            "name": "sft", "data": [{"source": "rows.jsonl"}], "steps": 100_000, "batch_size": problem.batch,
            "learning_rate": LEARNING_RATE, "betas": BETAS, "grad_clip": GRAD_CLIP, "lr_schedule": "constant",
            "tokens_per_micro_batch": budget,
        }
    )  # fmt: skip
    policy = Policy(
        Path(problem.model), config, ranks=Ranks(0, 1, torch.device("cpu")), dtype="float32", total_steps=100_000,
        gradient_checkpointing=False, chunk_tokens=None, seed=problem.seed,
    )  # fmt: skip
    rows = problem.examples()
    table = pyarrow.table({name: [row[name] for row in rows] for name in ("prompt_ids", "completion_ids")})
    method = Sft(policy, config, Examples(table, range(len(rows))), Examples(table, []))
    take_turns(problem, rows, policy, method)


if __name__ == "__main__":
    main()
