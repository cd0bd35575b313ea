"""What a stage may not cost: each gate of a recipe, asked after each stage on the evaluations in the store.

A decision depends on stored evaluations and the recipe alone, so a run that was killed decides the same when it goes
on. All values here are in points of 100, as in recipes and in the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cascade_rl.orchestrator.plan import BASE, Plan
from cascade_rl.orchestrator.rollback import without
from cascade_rl.recipe import GateConfig, GateException, LoadedRecipe
from cascade_rl.store import StageFolder
from cascade_rl.store.results import read_result
from cascade_rl.types import CascadeError

Verdict = Literal["pass", "excepted", "warn", "stop", "rollback"]
"""``excepted``: the gate would have shut but for an exception; the last three: it shut, and this is its action."""
SHUT = ("warn", "stop", "rollback")


class GateShut(CascadeError):
    """A gate ends the run after a stage: its action is ``stop``, or its roll-back needs leave to compute finished work
    anew. The text says why, and how to go on."""


@dataclass(frozen=True)
class Measured:
    """One benchmark on one stage's result, or the base model's (``model``); in points."""

    stage: str
    value: float
    stderr: float

    @property
    def half(self) -> float:
        """Half of the 95% interval."""
        return 1.96 * self.stderr

    def __str__(self) -> str:
        return f"{self.value:.1f} ± {self.half:.1f}"


@dataclass(frozen=True)
class Decision:
    """What one gate said of one stage, as ``run.json`` keeps it; values in points."""

    stage: str
    benchmark: str
    gate: int
    """Its number in the recipe's ``gates``, from 0."""
    verdict: Verdict
    value: float
    interval: float
    """Half of the 95% interval of ``value``."""
    compared_to: str | None
    """The stage that the value was compared with; None where the gate compares nothing, or nothing was measured."""
    compared_value: float | None
    compared_interval: float | None
    drop: float | None
    """How far the value is below the other; negative where it is above."""
    chance: float | None
    """The half width of the 95% interval of that difference."""
    allowed: float | None
    """The ``max_drop`` that held."""
    min_value: float | None
    exception: str | None
    """The exception that held after this stage, whether or not it was needed."""
    message: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


def settled(plan: Plan) -> tuple[Plan, list[Decision]]:
    """``plan`` with everything rolled back that gates ask for, and all decisions on it, in order of the stages.

    One roll-back changes what later stages start from, and so which of their evaluations count: the first is applied,
    then all gates are asked anew, until nothing is left to roll back.
    """
    rolled_back: list[str] = []
    while True:
        current = without(plan, rolled_back)
        decisions = decide(current)
        verdicts = {name: [d.verdict for d in decisions if d.stage == name] for name in (d.stage for d in decisions)}
        new = [
            name
            for name, found in verdicts.items()
            if "rollback" in found and "stop" not in found and name not in rolled_back
        ]
        if not new:
            return current, decisions
        rolled_back.append(new[0])


def decide(plan: Plan) -> list[Decision]:
    """Every gate on every stage that it is asked of, where that and all before it in its chain are measured: what was
    decided with a gap in the chain could come out otherwise once the gap is filled."""
    recipe = plan.loaded.recipe
    stems = {planned.config.name: planned.file_stem for planned in plan.benchmarks}
    results = {name: dict(_read(plan, stems[name])) for name in {gate.benchmark for gate in recipe.gates} & set(stems)}
    unmeasured = set() if recipe.evaluate.base_model else {BASE}
    decisions = []
    for stage in plan.stages:
        above = ancestors(plan, stage.name)
        for number, gate in enumerate(recipe.gates):
            measured = results.get(gate.benchmark, {})
            if set(above) <= measured.keys() | unmeasured:
                decision = ask(_standing(gate, plan, stage.name), number, stage.name, above, measured)
                decisions += [decision] if decision else []
    return decisions


def ask(
    gate: GateConfig, number: int, stage: str, above: Sequence[str], measured: Mapping[str, Measured]
) -> Decision | None:
    """What ``gate`` says of ``stage``; None where it is not asked of that stage, or the stage is not measured.

    ``above``: the stage's ancestors, nearest first. ``measured``: what there is, by stage.
    """
    own = measured.get(stage)
    if own is None or math.isnan(own.value) or (gate.after and stage not in gate.after):
        return None
    if gate.compare_to not in ("previous", "best", BASE) and gate.compare_to not in above:
        return None  # the stage does not come after the one to compare with: another branch, or before it
    other = _reference(gate, above, measured) if gate.max_drop is not None else None
    exception = next((entry for entry in gate.exceptions if stage in entry.stages), None)
    strict = _faults(gate, own, other, None)
    faults = _faults(gate, own, other, exception)
    verdict: Verdict = gate.action if faults else "excepted" if strict else "pass"
    allowed = exception.max_drop if exception and gate.max_drop is not None else gate.max_drop
    return Decision(
        stage=stage,
        benchmark=gate.benchmark,
        gate=number,
        verdict=verdict,
        value=_rounded(own.value),
        interval=_rounded(own.half),
        compared_to=other.stage if other else None,
        compared_value=_rounded(other.value) if other else None,
        compared_interval=_rounded(other.half) if other else None,
        drop=_rounded(other.value - own.value) if other else None,
        chance=_rounded(_chance(own, other)) if other else None,
        allowed=allowed,
        min_value=gate.min_value,
        exception=exception.name if exception else None,
        message=_message(gate, own, other, faults or strict, verdict, exception),
    )


def ancestors(plan: Plan, stage: str) -> list[str]:
    """Parent, its parent and so on to ``model``, or up to a model from elsewhere (which is none of them)."""
    parents = {planned.name: planned.parent for planned in plan.stages}
    found, name = [], parents[stage]
    while name in parents:
        found.append(name)
        name = parents[name]
    return [*found, BASE] if name == BASE else found


def _standing(gate: GateConfig, plan: Plan, stage: str) -> GateConfig:
    """``gate`` comparing with what stands in place of a stage that was rolled back, for those that come after it."""
    wanted = gate.compare_to
    if wanted not in plan.rolled_back or wanted not in ancestors(plan.declared or plan, stage):
        return gate
    parents = {planned.name: planned.parent for planned in plan.stages}
    known = parents[wanted] in parents or parents[wanted] == BASE
    return gate.model_copy(update={"compare_to": parents[wanted] if known else "previous"})


def _reference(gate: GateConfig, above: Sequence[str], measured: Mapping[str, Measured]) -> Measured | None:
    """What the gate compares with; None where nothing of that is measured."""
    chain = [measured[name] for name in above if name in measured and not math.isnan(measured[name].value)]
    if gate.compare_to == "best":
        return max(reversed(chain), key=lambda one: one.value, default=None)  # the earliest of equals
    if gate.compare_to == "previous":
        return chain[0] if chain else None
    return next((one for one in (measured.get(gate.compare_to),) if one and not math.isnan(one.value)), None)


def _chance(own: Measured, other: Measured) -> float:
    return 1.96 * math.hypot(own.stderr, other.stderr)


def _faults(
    gate: GateConfig, own: Measured, other: Measured | None, exception: GateException | None
) -> list[Literal["drop", "value"]]:
    """What shuts the gate; nothing where it stays open."""
    if exception is not None and exception.max_drop is None:
        return []
    found: list[Literal["drop", "value"]] = []
    if gate.max_drop is not None and other is not None:
        allowed = exception.max_drop if exception and exception.max_drop is not None else gate.max_drop
        drop = other.value - own.value
        if drop > allowed + 1e-9 and drop > _chance(own, other):
            found.append("drop")
    if gate.min_value is not None and own.value < gate.min_value - 1e-9:
        found.append("value")
    return found


def _message(
    gate: GateConfig,
    own: Measured,
    other: Measured | None,
    faults: Sequence[str],
    verdict: Verdict,
    exception: GateException | None,
) -> str:
    """``after rlhf: ifeval 61.2 ± 2.1, 18.0 below sft-2 (79.2 ± 1.9), allowed 3, chance 2.8: stop``."""
    parts = [f"after {own.stage}: {gate.benchmark} {own}"]
    if other is not None and (not faults or "drop" in faults):
        drop = other.value - own.value
        where = f"{abs(drop):.1f} {'below' if drop > 0 else 'above'} {other.stage} ({other})"
        allowed = gate.max_drop
        if exception is not None and verdict != "excepted":
            allowed = exception.max_drop
        limit = "" if allowed is None else f", allowed {allowed:g}"
        parts.append(f"{where}{limit}, chance {_chance(own, other):.1f}")
    elif other is None and gate.max_drop is not None and not faults:
        parts.append("nothing measured to compare with")
    if "value" in faults:
        parts.append(f"below the least value {gate.min_value:g}")
    how = f"allowed by the exception {exception.name}" if exception and verdict == "excepted" else verdict
    return f"{', '.join(parts)}: {how}"


def stop_message(decisions: Iterable[Decision], loaded: LoadedRecipe) -> str:
    """Why the run ends here, and how to go on deliberately. ``decisions`` are those that say stop."""
    lines = ["the run stops at a gate; all results are kept."]
    for decision in decisions:
        gate = loaded.recipe.gates[decision.gate]
        keys = ("gates", decision.gate)
        name = f"accepted-{decision.stage}"[:64]
        entry = f"{{name: {name}, stages: [{decision.stage}]}}"
        lines += [
            f"  {loaded.place(*keys)}: {loaded.dotted(*keys)}: {decision.message}",
            "  To go on with this result all the same, allow it by name in that gate (no stage is computed anew):",
            f"    exceptions: [{', '.join([*['...'] * bool(gate.exceptions), entry])}]",
        ]
        if not gate.exceptions:
            lines.append(f"    or once: --set '{loaded.dotted(*keys)}.exceptions=[{entry}]'")
        lines.append(
            f"  `action: warn` in place of stop opens it for every stage: --set {loaded.dotted(*keys)}.action=warn"
        )
    lines.append("  Or change the stage, and run again.")
    return "\n".join(lines)


def _read(plan: Plan, file_stem: str) -> Iterator[tuple[str, Measured]]:
    """Stage (or ``model``) and its result of one benchmark, where it is in the store."""
    folders: list[tuple[str, StageFolder]] = [(BASE, plan.base.folder)]
    folders += [(stage.name, stage.folder) for stage in plan.stages]
    for name, folder in folders:
        result = read_result(folder.evals / f"{file_stem}.json")
        if result is not None:
            yield name, Measured(name, 100 * result["value"], 100 * result["stderr"])


def _rounded(value: float) -> float:
    return round(value, 4)
