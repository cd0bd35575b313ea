"""Our step against what it is made of: plain vLLM for the same requests plus a plain loop over the same tokens.

    python benchmarks/overhead.py [--steps 6] [--json FILE]

overhead = seconds of a whole step / (seconds of ``LLM.generate`` + seconds of forward, backward and optimizer), with
the same weights, prompts, seeds, lengths and packed rows, in two processes that take turns. With a slow reward (50 ms a
rollout) "unhidden" is what the ratio would be if nothing of it were hidden behind generation. "CPU" is the same ratio
in processor time, reward workers apart: it is steadier where the machine is busy.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import tempfile
from typing import Any

from benchmarks.common import machine, machine_line, median, table, write_json
from benchmarks.grpo.problem import Problem, prepare
from benchmarks.grpo.turns import Side

REWARDS = ("free", "slow")


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine()}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        for lengths in ("equal", "uneven"):
            problem = Problem(
                folder=str(Path(folder) / lengths),
                lengths=lengths,
                prompts=options.prompts,
                group_size=options.group_size,
                max_tokens=512 if lengths == "uneven" else 128,
            )
            Path(problem.folder).mkdir()
            prepare(problem, median=74, sigma=0.9)
            found[lengths] = measure(problem, options)
            report(problem, found[lengths], options.reward_s)
    print(f"\nload at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted, in each regime")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--reward-s", type=float, default=0.05, help="seconds of a slow reward, two under way at once")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(problem: Problem, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Reward regime -> steps of ours, each with ``raw``, what the plain side took for the same."""
    found: dict[str, list[dict[str, Any]]] = {reward: [] for reward in REWARDS}
    folder = Path(problem.folder)
    requests = str(folder / "ours" / "requests.json")
    settings = {"problem": problem.as_dict(), "keep_requests": True, "requests_file": requests}
    with contextlib.ExitStack() as running:
        ours = running.enter_context(Side("ours", "benchmarks.grpo.ours", settings, folder / "ours"))
        ours.get_ready()
        raw = running.enter_context(Side("raw", "benchmarks.grpo.raw", settings, folder / "raw"))
        raw.get_ready()
        for number in range(options.warm_up + options.steps):
            for reward in REWARDS if number >= options.warm_up else REWARDS[:1]:
                step = ours.step({"reward_s": options.reward_s if reward == "slow" else 0.0})
                step["raw"] = raw.step({})
                if number >= options.warm_up:
                    found[reward].append({key: value for key, value in step.items() if key != "metrics"})
    return found


def report(problem: Problem, steps: dict[str, list[dict[str, Any]]], reward_s: float) -> None:
    rows = []
    for reward, taken in steps.items():
        raws = [step["raw"]["generation_s"] + step["raw"]["training_s"] for step in taken]
        waits = problem.rollouts * reward_s / problem.reward_workers if reward == "slow" else 0.0
        rows.append(
            (
                reward,
                *(median(step[part] for step in taken) for part in ("step_s", "generation_s", "reward_s", "update_s")),
                *(median(step["raw"][part] for step in taken) for part in ("generation_s", "training_s")),
                median(step["step_s"] / raw for step, raw in zip(taken, raws, strict=True)),
                median(1 + waits / raw for raw in raws),
                median(step["cpu_s"] / step["raw"]["cpu_s"] for step in taken),
            )
        )
    print(f"\n{problem.lengths} lengths, {problem.rollouts} rollouts of at most {problem.max_tokens} tokens; medians")
    header = (
        "reward",
        "step s",
        "generation",
        "reward wait",
        "update",
        "raw vLLM",
        "raw update",
        "overhead",
        "unhidden",
        "CPU",
    )
    print(table(header, rows))


if __name__ == "__main__":
    main()
