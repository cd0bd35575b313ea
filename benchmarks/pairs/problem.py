"""One problem of reward-model training, the same for every side: model, pairs, batches, optimizer."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rl.models import tiny_qwen3

LEARNING_RATE = 1e-5
GRAD_CLIP = 1.0
BETAS = (0.9, 0.95)
STEPS = 64
"""Steps that there are pairs for."""


@dataclass(frozen=True)
class Problem:
    """What a step consists of. ``folder`` has ``model`` and ``pairs.json``, written by ``prepare``."""

    folder: str
    uneven: bool
    """Questions and answers of log-normal lengths (medians 60 and 74, up to 512 each); else of 64 and 128 tokens."""
    batch: int = 16
    hidden_size: int = 256
    layers: int = 4
    seed: int = 1

    @property
    def model(self) -> str:
        return str(Path(self.folder) / "model")

    def pairs(self) -> list[dict[str, list[int]]]:
        """In the order of training."""
        return json.loads((Path(self.folder) / "pairs.json").read_text())


def prepare(problem: Problem) -> None:
    """Write model and pairs."""
    folder = Path(problem.folder)
    sizes = {"hidden_size": problem.hidden_size, "intermediate_size": 4 * problem.hidden_size}
    tiny_qwen3.build(Path(problem.model), seed=problem.seed, layers=problem.layers, context=1024, **sizes)
    rng = random.Random(problem.seed)
    pairs = [_pair(rng, problem.uneven) for _ in range(STEPS * problem.batch)]
    (folder / "pairs.json").write_text(json.dumps(pairs))


def _pair(rng: random.Random, uneven: bool) -> dict[str, list[int]]:
    def drawn(median: float, fixed: int) -> list[int]:
        count = min(512, max(4, round(rng.lognormvariate(0.0, 0.9) * median))) if uneven else fixed
        return rng.choices(range(20, 300), k=count)

    question = drawn(60, 64)
    return {"chosen_ids": question + drawn(74, 128), "rejected_ids": question + drawn(74, 128)}


class Memory:
    """The resident peak of this process above what it held when this was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self._before = _status("VmRSS")

    def peak(self) -> int:
        return _status("VmHWM") - self._before


def _status(key: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def tokens_of(pairs: list[dict[str, Any]]) -> int:
    """Of both sides of ``pairs``."""
    return sum(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs)
