"""Tokens per second and peak memory of a reward model's training steps, ours against TRL's RewardTrainer.

    python benchmarks/reward_model_vs_trl.py [--lengths equal,uneven] [--steps 6] [--json FILE]

The same tiny Qwen3, pairs, batches, optimizer, float32 and one thread. TRL pads; it runs in two settings, the whole
batch in one pass (``trl``) and a quarter of it (``trl-quarter``), and the headline is ours against the faster one.
``ours-whole`` is ours without sharing what the sides of a pair begin with. Every side is a process of its own; they
take turns, step by step, and medians are shown. Tokens are those of both sides of all pairs, without padding;
"positions" are what the layers computed. Memory is the resident peak of the steps above what the process held before
the first one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from typing import Any

from benchmarks.offline.against_trl import compare, measure, parser, report
from benchmarks.pairs.problem import Problem, prepare

SIDES = ("ours", "ours-whole", "trl", "trl-quarter")


def main() -> None:
    options = parser(__doc__, SIDES, 16, "pairs").parse_args()

    def of_lengths(lengths: str, folder: str) -> dict[str, Any]:
        problem = Problem(folder, lengths == "uneven", options.batch, options.hidden_size)
        prepare(problem)
        return report(f"{lengths} lengths", measure(problem, options, "pairs"))

    compare(options, of_lengths)


if __name__ == "__main__":
    main()
