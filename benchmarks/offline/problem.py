"""What problems of offline training have in common: optimizer, model, lengths of examples, memory of a side."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

from cascade_rl.models import tiny_qwen3

LEARNING_RATE = 1e-5
GRAD_CLIP = 1.0
BETAS = (0.9, 0.95)
LONGEST = 1024
"""Tokens of the longest example."""


@dataclass(frozen=True)
class OfflineProblem:
    """What a step consists of. ``folder`` has ``model`` and ``examples.json``, written by ``prepare`` of its module."""

    folder: str
    uneven: bool
    """Whether the two texts of an example have log-normal lengths, of up to 512 tokens each, or fixed ones."""
    batch: int
    hidden_size: int = 256
    layers: int = 4
    seed: int = 1

    @property
    def model(self) -> str:
        return str(Path(self.folder) / "model")

    def examples(self) -> list[dict[str, list[int]]]:
        """Examples as token ids by column, in the order of training."""
        return json.loads((Path(self.folder) / "examples.json").read_text())

    def build(self) -> None:
        """Write the model."""
        sizes = {"hidden_size": self.hidden_size, "intermediate_size": 4 * self.hidden_size}
        tiny_qwen3.build(Path(self.model), seed=self.seed, layers=self.layers, context=LONGEST, **sizes)

    def write(self, examples: list[dict[str, list[int]]]) -> None:
        """Write what ``examples`` returns."""
        (Path(self.folder) / "examples.json").write_text(json.dumps(examples))

    def text(self, rng: random.Random, median: float, fixed: int, words: int = 300) -> list[int]:
        """A random text of ``fixed`` tokens, or of a log-normal number with this ``median``."""
        count = min(LONGEST // 2, max(4, round(rng.lognormvariate(0.0, 0.9) * median))) if self.uneven else fixed
        return rng.choices(range(20, words), k=count)


def tokens_of(examples: list[dict[str, list[int]]]) -> int:
    """Tokens of all columns of ``examples``."""
    return sum(len(ids) for example in examples for ids in example.values())


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
