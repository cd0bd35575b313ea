"""One problem of reward-model training, the same for every side: model, pairs, batches, optimizer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.offline.problem import OfflineProblem

STEPS = 64
"""Steps that there are pairs for."""


@dataclass(frozen=True)
class Problem(OfflineProblem):
    """Questions of 64 tokens and answers of 128; uneven: medians of 60 and 74."""

    batch: int = 16


def prepare(problem: Problem) -> None:
    """Write model and pairs (``chosen_ids``, ``rejected_ids``)."""
    problem.build()
    rng = random.Random(problem.seed)
    problem.write([_pair(problem, rng) for _ in range(STEPS * problem.batch)])


def _pair(problem: Problem, rng: random.Random) -> dict[str, list[int]]:
    question = problem.text(rng, 60, 64)
    return {"chosen_ids": question + problem.text(rng, 74, 128), "rejected_ids": question + problem.text(rng, 74, 128)}
