"""Our trainer of an offline stage against TRL's: sides in turns on the same examples, one table of what they did."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.common import median, table
from benchmarks.grpo.turns import Side

Steps = dict[str, list[dict[str, Any]]]
"""Side -> what each of its steps measured: ``loss``, ``tokens``, ``positions``, ``peak`` (bytes), seconds."""


class Problem(Protocol):
    """What a step consists of; a dataclass, whose fields every side is told."""

    @property
    def folder(self) -> str: ...


def measure(
    problem: Problem, sides: Sequence[str], module_of: Callable[[str], str], warm_up: int, steps: int, budget: int,
    other_examples: Collection[str] = (),
) -> Steps:  # fmt: skip
    """``warm_up`` steps that do not count, then ``steps`` of each side, in turns.

    ``module_of``: the module that carries out a side. ``budget``: our tokens per forward pass. ``other_examples``:
    sides whose steps have other examples, so that their losses are not compared; all others must have the same tokens,
    and losses that agree to 1e-3.
    """
    found: Steps = {name: [] for name in sides}
    with contextlib.ExitStack() as running:
        started = []
        for name in sides:
            settings = {"problem": vars(problem), "side": name, "budget": budget}
            started.append(running.enter_context(Side(name, module_of(name), settings, Path(problem.folder) / name)))
            started[-1].get_ready()
        for number in range(warm_up + steps):
            for side in started:
                measured = side.step({})
                if number >= warm_up:
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
