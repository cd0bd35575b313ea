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

import argparse
import tempfile
from typing import Any

from benchmarks.against_trl import measure, report
from benchmarks.common import machine, machine_line, write_json
from benchmarks.pairs.problem import Problem, prepare

SIDES = ("ours", "ours-whole", "trl", "trl-quarter")


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="reward-model-vs-trl-") as folder:
        for lengths in options.lengths:
            problem = Problem(str(Path(folder) / lengths), lengths == "uneven", options.batch, options.hidden_size)
            prepare(problem)
            steps = measure(
                problem, options.sides, module_of, options.warm_up, options.steps, options.micro_batch_tokens
            )
            found[lengths] = report(f"{lengths} lengths", steps)
    print(f"load at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


def module_of(side: str) -> str:
    return "benchmarks.pairs.ours" if side.startswith("ours") else "benchmarks.pairs.peer"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--lengths", type=names, default=["equal", "uneven"])
    parser.add_argument("--sides", type=names, default=list(SIDES))
    parser.add_argument("--warm-up", type=int, default=1, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted, of each side")
    parser.add_argument("--batch", type=int, default=16, help="pairs per step")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="our tokens per forward pass")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
