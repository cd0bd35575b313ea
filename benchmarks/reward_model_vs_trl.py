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
import contextlib
import json
import tempfile
from typing import Any

from benchmarks.common import machine, machine_line, median, table, write_json
from benchmarks.grpo.turns import Side
from benchmarks.pairs.problem import Problem, prepare

SIDES = ("ours", "ours-whole", "trl", "trl-quarter")
Steps = dict[str, list[dict[str, Any]]]
"""Side -> what each of its steps measured."""


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="reward-model-vs-trl-") as folder:
        for lengths in options.lengths:
            problem = Problem(str(Path(folder) / lengths), lengths == "uneven", options.batch, options.hidden_size)
            prepare(problem)
            found[lengths] = report(lengths, measure(problem, options))
    print(f"load at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


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


def measure(problem: Problem, options: argparse.Namespace) -> Steps:
    """All sides in turns, on the same pairs in each step."""
    steps: Steps = {name: [] for name in options.sides}
    with contextlib.ExitStack() as running:
        sides = []
        for name in options.sides:
            module = "benchmarks.pairs.ours" if name.startswith("ours") else "benchmarks.pairs.peer"
            settings = {"problem": vars(problem), "side": name, "budget": options.micro_batch_tokens}
            sides.append(running.enter_context(Side(name, module, settings, Path(problem.folder) / name)))
            sides[-1].get_ready()
        for number in range(options.warm_up + options.steps):
            for side in sides:
                measured = side.step({})
                if number >= options.warm_up:
                    steps[side.name].append(measured)
    losses = {name: [step["loss"] for step in those] for name, those in steps.items()}
    first = next(iter(losses.values()))
    for name, those in losses.items():
        assert all(abs(a - b) < 1e-3 for a, b in zip(first, those, strict=True)), f"{name} trains something else"
    return steps


def report(lengths: str, steps: Steps) -> dict[str, Any]:
    """Print one table; returns its numbers."""
    found = {
        name: {
            "tokens_per_s": median(step["tokens"] / step["step_s"] for step in those),
            "tokens_per_cpu_s": median(step["tokens"] / step["cpu_s"] for step in those),
            "peak_mib": max(step["peak"] for step in those) / 2**20,
            "positions": sum(step["positions"] for step in those),
        }
        for name, those in steps.items()
    }
    best = max((name for name in found if name.startswith("trl")), key=lambda name: found[name]["tokens_per_s"])
    print(f"\n{lengths} lengths, {sum(step['tokens'] for step in next(iter(steps.values())))} tokens of each side")
    rows = [
        [name, *(round(of[key]) for key in ("tokens_per_s", "tokens_per_cpu_s", "peak_mib", "positions"))]
        for name, of in found.items()
    ]
    print(table(["", "tokens/s", "tokens/CPU s", "peak MiB", "positions"], rows))
    if "ours" in found:
        print(f"ours / {best}: {found['ours']['tokens_per_s'] / found[best]['tokens_per_s']:.2f} times the tokens/s")
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    main()
