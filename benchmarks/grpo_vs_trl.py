"""Seconds per optimizer step, ours against TRL's GRPOTrainer, split in generation, reward and training.

    python benchmarks/grpo_vs_trl.py [--lengths equal,uneven] [--steps 6] [--json FILE]

The same tiny Qwen3, prompts, group size, reward, sampling, optimizer, float32 and one thread. TRL in three settings:
``hf``, out of the box on a CPU; ``vllm``, colocated vLLM with the small shim that makes it run here
(``benchmarks/grpo/peer.py``); ``vllm-uncorrected``, that without its mismatch correction. The headline is ours against
the best of them. Every side is a process of its own; they take turns, step by step, and a free and a slow reward (50 ms
a rollout, on as many workers for each side) take turns too. Training is all that is not generation, sync or waiting for
rewards. Lengths are drawn, so a side may have had more to do: "per token" is by what it generated itself. "CPU" is the
processor's time of the side's own process, which is steadier where the machine is busy.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import machine, machine_line, median, table, write_json
from benchmarks.grpo.problem import Problem, prepare
from benchmarks.grpo.turns import Side

SIDES = ("ours", "vllm", "vllm-uncorrected", "hf")
PARTS = ("generation", "reward", "sync", "training", "whole step", "CPU", "ms per token")
Steps = dict[tuple[str, str], list[dict[str, Any]]]
"""(side, reward regime) -> what each of its steps measured."""


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    print(machine_line(found["machine"]))
    print(f"TRL: {options.trl_batch} rollouts per forward pass; ours: {options.micro_batch_tokens} tokens\n")
    with tempfile.TemporaryDirectory(prefix="grpo-vs-trl-") as folder:
        for lengths in options.lengths:
            problem = make_problem(options, Path(folder) / lengths, lengths)
            steps = measure(problem, options)
            found[lengths] = report(problem, steps, options)
    found["machine_after"] = machine()
    print(f"load at the end: {' '.join(map(str, found['machine_after']['load']))}")
    if options.json:
        write_json(options.json, found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--lengths", type=names, default=["equal", "uneven"])
    parser.add_argument("--rewards", type=names, default=["free", "slow"])
    parser.add_argument("--sides", type=names, default=list(SIDES))
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted, of each side in each regime")
    parser.add_argument("--every-other", type=names, default=["vllm", "hf"], help="sides with half as many steps")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--equal-tokens", type=int, default=128, help="of every completion, where lengths are equal")
    parser.add_argument("--max-tokens", type=int, default=512, help="of a completion, where lengths are uneven")
    parser.add_argument("--median-tokens", type=float, default=74, help="of completions, where lengths are uneven")
    parser.add_argument("--sigma", type=float, default=0.9, help="of the logarithm of lengths")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--reward-s", type=float, default=0.05, help="seconds of a slow reward")
    parser.add_argument("--reward-workers", type=int, default=2, help="rewards under way at once, on both sides")
    parser.add_argument("--trl-batch", type=int, default=8, help="TRL's rollouts per forward pass")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048, help="our tokens per forward pass")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_problem(options: argparse.Namespace, folder: Path, lengths: str) -> Problem:
    folder.mkdir()
    problem = Problem(
        folder=str(folder),
        lengths=lengths,
        prompts=options.prompts,
        group_size=options.group_size,
        max_tokens=options.max_tokens if lengths == "uneven" else options.equal_tokens,
        hidden_size=options.hidden_size,
        layers=options.layers,
        micro_batch_tokens=options.micro_batch_tokens,
        reward_workers=options.reward_workers,
    )
    prepare(problem, options.median_tokens, options.sigma)
    return problem


def start(name: str, problem: Problem, options: argparse.Namespace) -> Side:
    module = "benchmarks.grpo.ours" if name == "ours" else "benchmarks.grpo.peer"
    settings = {"problem": problem.as_dict(), "generation": name, "batch": options.trl_batch}
    return Side(name, module, settings, Path(problem.folder) / name)


def measure(problem: Problem, options: argparse.Namespace) -> Steps:
    """All sides in turns. They start one after another, so that none takes the other's time while compiling."""
    steps: Steps = {(name, reward): [] for name in options.sides for reward in options.rewards}
    with contextlib.ExitStack() as running:
        sides = []
        for name in options.sides:
            sides.append(running.enter_context(start(name, problem, options)))
            sides[-1].get_ready()
        for number in range(options.warm_up + options.steps):
            counted = number - options.warm_up
            for reward in options.rewards if counted >= 0 else options.rewards[:1]:
                for side in sides:
                    if side.name in options.every_other and counted >= 0 and counted % 2:
                        continue
                    measured = side.step({"reward_s": options.reward_s if reward == "slow" else 0.0})
                    if counted >= 0:
                        steps[side.name, reward].append(measured)
    return steps


def split(step: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each part of a step."""
    parts = {part: step[f"{part}_s"] for part in ("generation", "reward", "sync")}
    return {
        **parts,
        "training": step["step_s"] - sum(parts.values()),
        "whole step": step["step_s"],
        "CPU": step["cpu_s"],
        "ms per token": 1000 * step["step_s"] / sum(step["lengths"]),
    }


def report(problem: Problem, steps: Steps, options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables of one regime of lengths; what they say, as plain data."""
    found: dict[str, Any] = {"problem": problem.as_dict(), "steps": {}, "medians": {}, "ratios": {}}
    print(f"== {problem.lengths} lengths, {problem.rollouts} rollouts of at most {problem.max_tokens} tokens")
    print(table(("lengths", *QUANTILES), [(name, *quantiles(steps, name, options.rewards)) for name in options.sides]))
    for reward in options.rewards:
        medians = {
            name: {part: median(split(step)[part] for step in steps[name, reward]) for part in PARTS}
            for name in options.sides
        }
        cost = (
            "free"
            if reward == "free"
            else f"{1000 * options.reward_s:g} ms a rollout, {problem.reward_workers} at once"
        )
        print(f"\n{problem.lengths} lengths, reward {cost}; medians over steps, seconds")
        rows = [(name, len(steps[name, reward]), *parts.values()) for name, parts in medians.items()]
        print(table(("", "steps", *PARTS), rows))
        found["medians"][reward] = medians
        found["ratios"][reward] = ratios(medians)
    for (name, reward), measured in steps.items():
        found["steps"][f"{name}, {reward}"] = [{k: v for k, v in step.items() if k != "metrics"} for step in measured]
    print()
    return found


QUANTILES = ("shortest", "25%", "50%", "75%", "90%", "longest", "mean", "tokens a step")


def quantiles(steps: Steps, name: str, rewards: Sequence[str]) -> list[str]:
    """Of all completions of a side, in tokens."""
    counted = [step["lengths"] for reward in rewards for step in steps[name, reward]]
    lengths = sorted(length for step in counted for length in step)
    at = [lengths[min(len(lengths) - 1, int(share * len(lengths)))] for share in (0, 0.25, 0.5, 0.75, 0.9, 1)]
    return [str(n) for n in (*at, round(sum(lengths) / len(lengths)), round(sum(lengths) / len(counted)))]


def ratios(medians: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """TRL's best setting over ours; printed."""
    others = [name for name in medians if name != "ours"]
    if "ours" not in medians or not others:
        return {}
    best = min(others, key=lambda name: medians[name]["whole step"])
    parts = ("whole step", "training", "CPU", "ms per token")
    found = {part: medians[best][part] / medians["ours"][part] for part in parts}
    whole, training, cpu, token = found.values()
    print(
        f"ours is {whole:.2f} times as fast as TRL's best ({best}); training {training:.2f} times, "
        f"per token {token:.2f}, in CPU time {cpu:.2f}"
    )
    return {"best": best, **found}  # type: ignore[dict-item]


if __name__ == "__main__":
    main()
