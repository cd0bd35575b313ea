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
    sides whose steps have other examples, so that their losses are not compared; those of all others must agree to
    1e-3.
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
    losses = {name: [step["loss"] for step in those] for name, those in found.items() if name not in other_examples}
    first = next(iter(losses.values()))
    for name, those in losses.items():
        assert all(abs(a - b) < 1e-3 for a, b in zip(first, those, strict=True)), f"{name} trains something else"
    return found


def report(title: str, steps: Steps) -> dict[str, Any]:
    """Print one table; returns its numbers."""
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
    for key, what in (("tokens_per_s", "tokens/s"), ("tokens_per_cpu_s", "tokens per CPU second")):
        best = max((name for name in found if name.startswith("trl")), key=lambda name: found[name][key])
        if "ours" in found:
            print(f"ours / {best}: {found['ours'][key] / found[best][key]:.2f} times the {what}")
    return json.loads(json.dumps(found))
