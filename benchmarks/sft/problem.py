"""One problem of supervised fine-tuning, the same for every side: model, rows, batches, optimizer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.offline.problem import OfflineProblem, tokens_of

STEPS = 40
"""Steps that there are rows for."""


@dataclass(frozen=True)
class Problem(OfflineProblem):
    """Questions of 64 tokens and answers of 192; uneven: medians of 60 and 120."""

    batch: int = 32
    vocabulary: int = 0
    """Words of embeddings and head; 0: the tokenizer's own. More of them give the head the share of the work that it
    has in a large model."""


def prepare(problem: Problem) -> None:
    """Write model and rows (``prompt_ids``, ``completion_ids``)."""
    problem.build()
    if problem.vocabulary:
        _widen(problem.model, problem.vocabulary, problem.seed)
    rng, words = random.Random(problem.seed), problem.vocabulary or 300
    problem.write(
        [
            {"prompt_ids": problem.text(rng, 60, 64, words), "completion_ids": problem.text(rng, 120, 192, words)}
            for _ in range(STEPS * problem.batch)
        ]
    )


def _widen(checkpoint: str, vocabulary: int, seed: int) -> None:
    """Give the checkpoint embeddings and a head of ``vocabulary`` words; the tokenizer stays."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    torch.manual_seed(seed)
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    model.save_pretrained(checkpoint)


def tokens_per_step(problem: Problem) -> float:
    """Of the average batch."""
    rows = problem.examples()
    return tokens_of(rows) / len(rows) * problem.batch
