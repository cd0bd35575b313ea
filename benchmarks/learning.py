"""Does it learn as well? Reward curves of ours and of TRL's GRPOTrainer with the same settings, over several seeds.

    python benchmarks/learning.py [--seeds 5] [--steps 40] [--json FILE] [--figure FILE]

The task is ``basic_arithmetic`` of reasoning-gym: sums of two numbers below 100. A short SFT stage of ours teaches a
tiny Qwen3 to work them out, from a teacher who makes slips; then both start from that one checkpoint. Both: the same
reward code, group size, token-mean loss, advantage (r - mean) / (std + eps), AdamW (0.9, 0.95) without decay, constant
rate, clip 1.0, one update per batch, no KL, temperature 1, float32. TRL generates with colocated vLLM in its default
setting (with the shim of ``benchmarks/grpo/peer.py``). What is compared is the mean reward of the last ten steps of
each seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0].endswith("benchmarks"):  # math.py here is not Python's math
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.common import REPOSITORY, environment, machine, machine_line, write_json
from benchmarks.grpo.problem import Problem
from cascade_rl.json_lines import text_lines
from cascade_rl.store import Job

LAST = 10
"""Steps at the end whose mean reward counts."""
MAX_TOKENS = 40
SIDES = ("ours", "trl")


def main() -> None:
    options = parse()
    found: dict[str, Any] = {"machine": machine(), "options": options_of(options)}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="learning-") as folder:
        start = starting_checkpoint(Path(folder), options)
        found["curves"] = curves(Path(folder), start, options)
    found["final"] = compare(found["curves"])
    draw(found["curves"], options.figure)
    print(f"drawn to {options.figure}")
    if options.json:
        write_json(options.json, found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--sft-steps", type=int, default=250)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side; nothing is timed here")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "docs" / "images" / "learning.json")
    parser.add_argument("--figure", type=Path, default=REPOSITORY / "docs" / "images" / "learning.png")
    return parser.parse_args()


def options_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the curves depend on."""
    return {key: value for key, value in vars(options).items() if key not in ("json", "figure")}


TEMPLATE = {"mode": "instruct", "system": None}


def source(**arguments: Any) -> dict[str, Any]:
    return {"source": "benchmarks.grpo.gym:sums", "args": arguments, "prompt": "{question}"}


def job(folder: Path, stage: dict[str, Any], checkpoint: Path, seed: int) -> Path:
    """A job file for the process of a stage."""
    made = Job.model_validate(
        {
            "task": "stage",
            "run": "learning",
            "name": stage["name"],
            "identity": "learning",
            "folder": folder / "stage",
            "recipe_path": REPOSITORY / "recipe.yaml",
            "model": "tiny-qwen3",
            "checkpoint": str(checkpoint),
            "stage": stage,
            "template": TEMPLATE,
            "seed": seed,
            "dtype": "float32",
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(made.model_dump_json())
    return path


def starting_checkpoint(folder: Path, options: argparse.Namespace) -> Path:
    """A tiny model that works sums out as its teacher does, slips included."""
    from cascade_rl.models import tiny_qwen3
    from cascade_rl.recipe import TemplateConfig
    from cascade_rl.stages.checkpoints.handover import install_contract

    base = folder / "base"
    tiny_qwen3.build(base, seed=1, context=256)
    install_contract(base, TemplateConfig(**TEMPLATE))
    stage = {
        "kind": "sft",
        "name": "sft",
        "data": [source(solved=True)],
        "steps": options.sft_steps,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "warmup_steps": 20,
        "max_length": 256,
        "save_every": 100_000,
    }
    place = folder / "sft"
    wait([stage_process(job(place, stage, base, seed=1))])
    return place / "stage" / "checkpoint"


def stage_process(path: Path) -> subprocess.Popen:
    return launch(["-m", "cascade_rl.stages.worker", str(path), str(path.with_name("outcome.json"))], path.parent)


def launch(arguments: Sequence[str], folder: Path) -> subprocess.Popen:
    with open(folder / "log.txt", "w") as log:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait(processes: Sequence[subprocess.Popen]) -> None:
    """Until all are done; raises SystemExit when one fails, and leaves none behind."""
    try:
        for process in processes:
            if process.wait():
                raise SystemExit(f"{' '.join(map(str, process.args))} ended with exit code {process.returncode}")  # type: ignore[union-attr]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def curves(folder: Path, start: Path, options: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Side -> rewards of each step, for each seed."""
    found: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    todo = [(side, seed) for seed in range(options.seeds) for side in SIDES]
    for first in range(0, len(todo), options.at_once):
        some = todo[first : first + options.at_once]
        wait([begin(side, folder / f"{side}-{seed}", start, seed, options) for side, seed in some])
        for side, seed in some:
            found[side].append(rewards(side, folder / f"{side}-{seed}"))
            print(
                f"seed {seed}, {side}: {' '.join(f'{r:.2f}' for r in found[side][-1][:: max(1, options.steps // 10)])}"
            )
    return found


def begin(side: str, folder: Path, start: Path, seed: int, options: argparse.Namespace) -> subprocess.Popen:
    """Start one run of RL."""
    if side == "ours":
        stage = {
            "kind": "rl",
            "name": "rl",
            "data": [source()],
            "reward": {"use": "rewards.reasoning_gym:verify", "workers": 1},
            "overlong": "score",
            "prompts_per_step": options.prompts,
            "group_size": options.group_size,
            "steps": options.steps,
            "learning_rate": options.learning_rate,
            "rollout": {"max_new_tokens": MAX_TOKENS},
            "save_every": 100_000,
        }
        return stage_process(job(folder, stage, start, seed))
    problem = Problem(
        folder=str(folder),
        lengths="own",
        prompts=options.prompts,
        group_size=options.group_size,
        max_tokens=MAX_TOKENS,
        learning_rate=options.learning_rate,
        seed=seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"folder": str(folder), "problem": problem.as_dict(), "checkpoint": str(start), "template": TEMPLATE}
    path = folder / "settings.json"
    path.write_text(json.dumps({**settings, "steps": options.steps}))
    return launch(["-m", "benchmarks.grpo.learner", str(path)], folder)


def rewards(side: str, folder: Path) -> list[float]:
    """Mean reward of each step of a run that has ended."""
    if side == "trl":
        return json.loads((folder / "rewards.json").read_text())
    lines = text_lines(folder / "stage" / "metrics.jsonl")
    return [json.loads(line)["reward/mean"] for line in lines]


def compare(found: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Mean and spread over seeds of the reward of the last steps; printed."""
    finals = {side: [statistics.fmean(curve[-LAST:]) for curve in found[side]] for side in SIDES}
    means = {side: statistics.fmean(finals[side]) for side in SIDES}
    spreads = {side: statistics.stdev(finals[side]) if len(finals[side]) > 1 else 0.0 for side in SIDES}
    for side in SIDES:
        first = statistics.fmean(curve[0] for curve in found[side])
        each = " ".join(f"{value:.3f}" for value in finals[side])
        print(f"{side:5} {first:.3f} at the first step, {means[side]:.3f} +- {spreads[side]:.3f} at the end ({each})")
    difference = means["ours"] - means["trl"]
    within, worse = abs(difference) <= min(spreads.values()), difference < -spreads["trl"]
    verdict = "ours is WORSE" if worse else "ours is not worse"
    if len(found["ours"]) > 1:  # one seed has no spread to judge by
        verdict = f"{'within' if within else 'not within'} each other's spread; {verdict}"
    else:
        verdict = "one seed says nothing about spread"
    print(f"ours - TRL's: {difference:+.3f}; {verdict}")
    return {"means": means, "spreads": spreads, "each": finals, "within": within, "ours_worse": worse}


def draw(found: dict[str, list[list[float]]], path: Path) -> None:
    """Both bands: mean over seeds, and one standard deviation on each side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=150)
    names = {"ours": ("Cascade RL", "tab:blue"), "trl": ("TRL GRPOTrainer, vLLM", "tab:orange")}
    for side, (label, colour) in names.items():
        steps = range(1, min(map(len, found[side])) + 1)
        columns = [[curve[step - 1] for curve in found[side]] for step in steps]
        means = [statistics.fmean(column) for column in columns]
        spreads = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        axes.plot(steps, means, color=colour, label=f"{label}, {len(found[side])} seeds")
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="optimizer step", ylabel="mean reward", title="Sums from reasoning-gym, tiny Qwen3")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
