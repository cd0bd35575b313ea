"""One GRPO problem, the same for every side: model, prompts, sizes, sampling, optimizer."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.grpo import chain

WORDS = "red sun sky fox sea ice owl oak bee hat cup key first last words number sum take times".split()


@dataclass(frozen=True)
class Problem:
    """What a step consists of. ``folder`` has ``model`` and ``rows.jsonl``, written by ``prepare``."""

    folder: str
    lengths: str
    """``equal``: every rollout has ``max_tokens``; ``uneven``: log-normal with a long tail."""
    prompts: int = 4
    group_size: int = 8
    max_tokens: int = 512
    hidden_size: int = 256
    layers: int = 4
    learning_rate: float = 1e-6
    """So low that lengths stay as they were built."""
    micro_batch_tokens: int = 2048
    reward_workers: int = 2
    seed: int = 1

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group_size

    @property
    def model(self) -> str:
        return str(Path(self.folder) / "model")

    @property
    def rows(self) -> str:
        return str(Path(self.folder) / "rows.jsonl")

    @property
    def context(self) -> int:
        """Tokens of the longest prompt and completion."""
        return self.max_tokens + 96

    @classmethod
    def read(cls, settings: dict[str, Any]) -> Problem:
        return cls(**settings["problem"])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def prepare(problem: Problem, median: float, sigma: float) -> None:
    """Write model and prompts."""
    means = chain.lane_means(median, sigma) if problem.lengths == "uneven" else None
    chain.build(
        Path(problem.model),
        means=means,
        hidden_size=problem.hidden_size,
        layers=problem.layers,
        intermediate_size=4 * problem.hidden_size,
        context=max(1024, problem.context),
        seed=problem.seed,
    )
    rng = random.Random(problem.seed)
    rows = [{"id": f"row-{n}", "problem": " ".join(rng.choices(WORDS, k=12))} for n in range(64)]
    Path(problem.rows).write_text("".join(json.dumps(row) + "\n" for row in rows))


def stage_section(problem: Problem, wait_file: Path) -> dict[str, Any]:
    """As a stage of a recipe."""
    return {
        "kind": "rl",
        "name": "benchmark",
        "data": [{"source": problem.rows, "prompt": "{problem}"}],
        "reward": {
            "use": "benchmarks.grpo.reward:score",
            "wait_file": str(wait_file),
            "workers": problem.reward_workers,
        },
        "overlong": "score",
        "prompts_per_step": problem.prompts,
        "group_size": problem.group_size,
        "steps": 100_000,  # until the one who measures has enough
        "learning_rate": problem.learning_rate,
        "rollout": {"max_new_tokens": problem.max_tokens},
        "tokens_per_micro_batch": problem.micro_batch_tokens,
        "save_every": 100_000,
    }
