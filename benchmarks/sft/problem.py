"""One problem of supervised fine-tuning, the same for every side: model, rows, batches, optimizer."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from cascade_rl.models import tiny_qwen3

STEPS = 40
"""Steps that there are rows for."""
LONGEST = 1024
"""Tokens of the longest row."""


@dataclass(frozen=True)
class Problem:
    """What a step consists of. ``folder`` has ``model`` and ``rows.json``, written by ``prepare``."""

    folder: str
    uneven: bool
    """Questions and answers of log-normal lengths (medians 60 and 120, up to 512 each); else of 64 and 192 tokens."""
    batch: int = 32
    hidden_size: int = 256
    layers: int = 4
    seed: int = 1
    vocabulary: int = 0
    """Words of embeddings and head; 0: the tokenizer's own. More of them give the head the share of the work that it
    has in a large model."""

    @property
    def model(self) -> str:
        return str(Path(self.folder) / "model")

    def rows(self) -> list[dict[str, list[int]]]:
        """Rows with ``prompt_ids`` and ``completion_ids``, in the order of training."""
        return json.loads((Path(self.folder) / "rows.json").read_text())


def prepare(problem: Problem) -> None:
    """Write model and rows."""
    folder = Path(problem.folder)
    sizes = {"hidden_size": problem.hidden_size, "intermediate_size": 4 * problem.hidden_size}
    tiny_qwen3.build(Path(problem.model), seed=problem.seed, layers=problem.layers, context=LONGEST, **sizes)
    if problem.vocabulary:
        _widen(problem.model, problem.vocabulary, problem.seed)
    rng = random.Random(problem.seed)

    def drawn(median: float, fixed: int) -> list[int]:
        count = min(LONGEST // 2, max(4, round(rng.lognormvariate(0.0, 0.9) * median))) if problem.uneven else fixed
        return rng.choices(range(20, problem.vocabulary or 300), k=count)

    rows = [{"prompt_ids": drawn(60, 64), "completion_ids": drawn(120, 192)} for _ in range(STEPS * problem.batch)]
    (folder / "rows.json").write_text(json.dumps(rows))


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
    rows = problem.rows()
    return tokens_of(rows) / len(rows) * problem.batch


def tokens_of(rows: list[dict[str, list[int]]]) -> int:
    """Tokens of ``rows``, prompts included."""
    return sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
