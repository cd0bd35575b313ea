"""What a recipe's gates name must exist, and must be something that can be asked for or compared with.

The gates are read as written, so that what is wrong with them is told together with what is wrong with the stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cascade_rl.recipe.kinds import StageConfig
from cascade_rl.recipe.problems import Keys, Problem, suggestion
from cascade_rl.recipe.tree import PlacedDict, PlacedList, problem_at, stage_names

BASE = "model"
RELATIVE = ("previous", "best")
"""Values of ``compare_to`` that name no stage."""


def gate_problems(
    stages: Sequence[StageConfig | None], benchmarks: Sequence[Any], root: PlacedDict, skipped: Sequence[str]
) -> Iterator[Problem]:
    """``stages`` have their parents named; None stands for a stage or benchmark that is not valid."""
    gates = root.get("gates")
    chains = _Chains(stages, root)
    for index, gate in enumerate(gates if isinstance(gates, PlacedList) else ()):
        if isinstance(gate, PlacedDict):
            checks = (
                *_benchmark(gate, benchmarks),
                *_stages_named(gate, chains, skipped),
                *_compared(gate, chains, root, skipped),
            )
            for keys, message in checks:
                yield problem_at(root, ("gates", index, *keys), message)


class _Chains:
    """Which stages there are, and from which each descends."""

    def __init__(self, stages: Sequence[StageConfig | None], root: PlacedDict) -> None:
        self.names = [name for name in stage_names(root) if name]
        self.by_name = {stage.name: stage for stage in stages if stage}
        self.reward_models = [name for name, stage in self.by_name.items() if stage.MEASURED_ON == "pairs"]
        self.policies = [name for name in self.names if name not in self.reward_models]
        self.is_whole = None not in stages

    def ancestors(self, name: str) -> list[str]:
        """Parent, its parent, and so on, as far as they are known."""
        found: list[str] = []
        stage = self.by_name.get(name)
        while stage is not None and stage.init is not None and stage.init not in found:
            found.append(stage.init)
            stage = self.by_name.get(stage.init)
        return found


def _benchmark(gate: PlacedDict, benchmarks: Sequence[Any]) -> Iterator[tuple[Keys, str]]:
    wanted = gate.get("benchmark")
    if not isinstance(wanted, str) or None in benchmarks:
        return
    known = [entry if isinstance(entry, str) else entry.name or entry.use for entry in benchmarks]
    if wanted not in known:
        hint = suggestion(wanted, known, "it measures")
        yield ("benchmark",), f"the recipe does not measure {wanted!r} (evaluate.after_each_stage); {hint}"


def _stages_named(gate: PlacedDict, chains: _Chains, skipped: Sequence[str]) -> Iterator[tuple[Keys, str]]:
    """``after`` and exceptions. A skipped stage may be named: leaving one out must not mean editing every gate."""
    yield from _each_stage(gate.get("after"), ("after",), chains, skipped)
    exceptions = gate.get("exceptions")
    seen: list[Any] = []
    for index, entry in enumerate(exceptions if isinstance(exceptions, PlacedList) else ()):
        if not isinstance(entry, PlacedDict):
            continue
        keys: Keys = ("exceptions", index)
        if entry.get("name") in seen:
            yield (*keys, "name"), f"another exception of this gate is called {entry.get('name')}; names must differ"
        seen.append(entry.get("name"))
        if entry.get("max_drop") is not None and gate.get("max_drop") is None:
            yield (*keys, "max_drop"), "the gate itself has no `max_drop`, so there is no drop to allow"
        yield from _each_stage(entry.get("stages"), (*keys, "stages"), chains, skipped)


def _each_stage(names: Any, keys: Keys, chains: _Chains, skipped: Sequence[str]) -> Iterator[tuple[Keys, str]]:
    for index, name in enumerate(names if isinstance(names, PlacedList) else ()):
        if not isinstance(name, str) or name in chains.policies or name in skipped:
            continue
        if name in chains.reward_models:
            yield (*keys, index), f"{name} is a reward model, which no benchmark measures"
        else:
            yield (*keys, index), f"there is no stage {name!r}; {suggestion(name, chains.policies, 'stages are')}"


def _compared(
    gate: PlacedDict, chains: _Chains, root: PlacedDict, skipped: Sequence[str]
) -> Iterator[tuple[Keys, str]]:
    """``compare_to`` names a stage that is measured, and from which the stages asked after descend."""
    wanted = gate.get("compare_to")
    keys: Keys = ("compare_to",)
    if not isinstance(wanted, str) or wanted in RELATIVE:
        return
    if wanted == BASE:
        evaluate = root.get("evaluate")
        if isinstance(evaluate, PlacedDict) and evaluate.get("base_model") is False:
            yield keys, "the base model is not measured (evaluate.base_model is false), so nothing compares with it"
        return
    if wanted in skipped:
        yield keys, f"stage {wanted} is skipped, so nothing can be compared with it"
    elif wanted in chains.reward_models:
        yield keys, f"{wanted} is a reward model, which no benchmark measures"
    elif wanted not in chains.names:
        hint = suggestion(wanted, [*RELATIVE, BASE, *chains.policies], "it may be")
        yield keys, f"{wanted!r} is neither previous, best or model, nor a stage; {hint}"
    elif chains.is_whole:
        after = gate.get("after")
        named = [name for name in after if name in chains.policies] if isinstance(after, PlacedList) else []
        strangers = [name for name in named if wanted not in chains.ancestors(name)]
        if strangers:
            yield keys, f"{wanted} does not come before {', '.join(strangers)} in the chain of parents (see `init`)"
        elif not named and not any(wanted in chains.ancestors(name) for name in chains.policies):
            yield keys, f"no stage descends from {wanted}, so the gate would never be asked; name an earlier one"
