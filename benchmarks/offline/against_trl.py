"""Our trainer of an offline stage against TRL's: options, sides in turns on the same examples, and one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine, machine_line, median, table, write_json
from benchmarks.grpo.turns import Side
from benchmarks.offline.problem import OfflineProblem

Steps = dict[str, list[dict[str, Any]]]
"""Side -> what each of its steps measured: ``loss``, ``tokens``, ``positions``, ``peak`` (bytes), seconds."""


def parser(about: str | None, sides: Sequence[str], batch: int, examples: str) -> argparse.ArgumentParser:
    """The options that all comparisons have. ``batch``: how many ``examples`` (rows, pairs) a step has by default."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")  # noqa: E731
    made.add_argument("--lengths", type=names, default=["equal", "uneven"])
    made.add_argument("--sides", type=names, default=list(sides))
    made.add_argument("--warm-up", type=int, default=1, help="steps that are not counted")
    made.add_argument("--steps", type=int, default=6, help="counted, of each side")
    made.add_argument("--batch", type=int, default=batch, help=f"{examples} per step")
    made.add_argument("--hidden-size", type=int, default=256)
    made.add_argument("--micro-batch-tokens", type=int, default=4096, help="our tokens per forward pass")
    made.add_argument("--json", type=Path)
    return made


def compare(options: argparse.Namespace, of_lengths: Callable[[str, str], dict[str, Any]]) -> None:
    """``of_lengths(lengths, folder)`` for each of the lengths asked for, between a line about the machine and one about
    its load; what it returns goes to the file that ``--json`` names."""
    found: dict[str, Any] = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    print(machine_line(found["machine"]))
    with tempfile.TemporaryDirectory(prefix="against-trl-") as folder:
        for lengths in options.lengths:
            found[lengths] = of_lengths(lengths, str(Path(folder) / lengths))
    print(f"load at the end: {' '.join(map(str, machine()['load']))}")
    if options.json:
        write_json(options.json, found)


def measure(
    problem: OfflineProblem, options: argparse.Namespace, room: str, other_examples: Collection[str] = ()
) -> Steps:
    """The steps of each side that the ``options`` ask for, in turns.

    ``room``: the folder of benchmarks with the modules of the sides, ``ours`` and ``peer``. ``other_examples``: sides
    whose steps have other examples, so that their losses are not compared; all others must have the same tokens,
    and losses that agree to 1e-3.
    """
    sides = options.sides
    found: Steps = {name: [] for name in sides}
    with contextlib.ExitStack() as running:
        started = []
        for name in sides:
            settings = {"problem": vars(problem), "side": name, "budget": options.micro_batch_tokens}
            module = f"benchmarks.{room}.{'ours' if name.startswith('ours') else 'peer'}"
            started.append(running.enter_context(Side(name, module, settings, Path(problem.folder) / name)))
            started[-1].get_ready()
        for number in range(options.warm_up + options.steps):
            for side in started:
                measured = side.step({})
                if number >= options.warm_up:
                    found[side.name].append(measured)
    alike = [name for name in sides if name not in other_examples]
    for name in alike[1:]:
        for first, other in zip(found[alike[0]], found[name], strict=True):
            same = first["tokens"] == other["tokens"] and abs(first["loss"] - other["loss"]) < 1e-3
            assert same, f"{name} trains something else than {alike[0]}"
    return found


def report(title: str, steps: Steps, borrowing: Collection[str] = ()) -> dict[str, Any]:
    """Print one table, and how each of our sides compares with the best of TRL's: with the fastest of those that
    borrow nothing of ours, and with the fastest of those that do (``borrowing``). Returns the table's numbers."""
    found = {
        name: {
            "tokens_per_s": median(step["tokens"] / step["step_s"] for step in those),
            "tokens_per_cpu_s": median(step["tokens"] / step["cpu_s"] for step in those),
            "peak_mib": max(step["peak"] for step in those) / 2**20,
            "tokens": sum(step["tokens"] for step in those),
            "positions": sum(step["positions"] for step in those),
        }
        for name, those in steps.items()
    }
    print(f"\n{title}")
    columns = ("tokens_per_s", "tokens_per_cpu_s", "peak_mib", "tokens", "positions")
    rows = [[name, *(round(of[key]) for key in columns)] for name, of in found.items()]
    print(table(["", "tokens/s", "tokens/CPU s", "peak MiB", "tokens", "positions"], rows))
    theirs = [name for name in found if name.startswith("trl")]
    for group in ([n for n in theirs if n not in borrowing], [n for n in theirs if n in borrowing]):
        for seconds, what in (("step_s", "tokens/s"), ("cpu_s", "tokens per CPU second")):
            for ours in [name for name in found if name.startswith("ours") and group]:
                best = max(group, key=lambda name: found[name][KEYS[seconds]])
                print(f"{ours} / {best}: {_ratio(steps[ours], steps[best], seconds)} times the {what}, "
                      f"{found[ours]['peak_mib'] / found[best]['peak_mib']:.2f} times the peak")  # fmt: skip
    return json.loads(json.dumps(found))


KEYS = {"step_s": "tokens_per_s", "cpu_s": "tokens_per_cpu_s"}


def _ratio(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], seconds: str) -> str:
    """Of the speeds, turn by turn: the median and the range."""
    speeds = [[step["tokens"] / step[seconds] for step in those] for those in (ours, theirs)]
    ratios = [a / b for a, b in zip(*speeds, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
