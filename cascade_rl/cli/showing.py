"""What `check`, `status` and `rollouts` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cascade_rl.orchestrator.damage import verify_all
from cascade_rl.orchestrator.plan import Plan
from cascade_rl.recipe import GateConfig
from cascade_rl.store import StageFolder, Store
from cascade_rl.store.inspection import finished_folders, metric_steps, stage_faults, steps_text
from cascade_rl.store.locks import holder
from cascade_rl.store.results import results_in
from cascade_rl.store.rollouts import details_text, read_rollouts
from cascade_rl.types import CascadeError

UNBOUNDED = 10_000


def show_plan(plan: Plan, processes: int) -> None:
    """The resolved stages, their identities, and what a run would do now."""
    console = Console(soft_wrap=True, highlight=False)
    recipe = plan.loaded.recipe
    console.print(f"{plan.loaded.path}: ok", markup=False)
    console.print(f"run {plan.run}, model {recipe.model}, template {recipe.template.mode}, seed {recipe.seed}\n")
    rows = [
        (
            stage.name, stage.config.kind, stage.parent, stage.identity,
            _state(stage.folder.status, stage.name in plan.rolled_back), stage.config.arithmetic(processes),
        )
        for stage in plan.stages
    ]  # fmt: skip
    _show_table(console, ("stage", "kind", "from", "identity", "status", "arithmetic"), rows)
    todo = [stage.name for stage in plan.stages if not stage.folder.is_complete]
    console.print(f"\nwould run: {', '.join(todo) or 'nothing, all is complete'}", markup=False)
    names = ", ".join(b.config.name for b in plan.benchmarks) or "none"
    console.print(f"measured after each stage: {names}", markup=False)
    if recipe.gates:
        told = "; ".join(f"{gate.benchmark} ({_wanted(gate)}): {gate.action}" for gate in recipe.gates)
        console.print(f"gates: {told}", markup=False)


def show_verified(plan: Plan) -> int:
    """Read every finished stage of ``plan`` and print what is wrong with it. Returns 1 if anything is, else 0."""
    damaged = []
    for found in verify_all(plan):
        damaged += [found.name] if found.problems else []
        whole = "as written" if found.compared else "not compared: no checksums"
        print(f"{found.name}: {'DAMAGED' if found.problems else whole}")
        for problem in found.problems:
            print(f"  {problem}")
    print(f"damaged: {', '.join(damaged) or 'none of the finished stages'}")
    return int(bool(damaged))


def _show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A line for each stage. Where the terminal is too narrow, the last columns stand in a table below."""
    count = len(columns)
    while count > 2 and _width(console, _table(columns, rows, count)) > console.width:
        count -= 1
    console.print(_table(columns, rows, count))
    if count < len(columns):
        console.print()
        _show_table(console, (columns[0], *columns[count:]), [(row[0], *row[count:]) for row in rows])


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], count: int) -> Table:
    """The first ``count`` columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:count]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[:count]))
    return table


def _state(status: str, rolled_back: bool) -> str:
    return f"{status}, rolled back" if rolled_back else status


def _wanted(gate: GateConfig) -> str:
    """``max drop 3 below previous, at least 40, but for rlhf-costs-it after rlhf``."""
    drop = f"max drop {gate.max_drop:g} below {gate.compare_to}" if gate.max_drop is not None else ""
    least = f"at least {gate.min_value:g}" if gate.min_value is not None else ""
    exceptions = (f"but for {entry.name} after {', '.join(entry.stages)}" for entry in gate.exceptions)
    return ", ".join(filter(None, (drop, least, *exceptions)))


def status_of(store: Store, run: str) -> dict[str, Any]:
    """The facts behind `status`: {"run", "stages": [{"name", "kind", "status", "identity", "parent", ...}], "base": the
    same of the base model, "gates": what each gate said of each stage (``orchestrator.gates.Decision``)}.

    What is missing or damaged is told in ``problems`` of its stage; nothing of that raises."""
    record = store.read_run(run)
    assert record is not None
    finished = finished_folders(store.root, record)
    base, *stages = [
        _stage_status(store, entry, entry["directory"] in finished) for entry in [record["base"], *record["stages"]]
    ]
    return {
        "run": run,
        "base": base,
        "branch_of": record.get("branch_of"),
        "stages": stages,
        "gates": record.get("gates", []),
    }


def _stage_status(store: Store, entry: dict[str, Any], finished: bool) -> dict[str, Any]:
    folder = StageFolder(store.root / entry["directory"])
    facts, fault = folder.look()
    attempts = facts.get("attempts", [])
    results, _ = results_in(folder.evals)
    status = "damaged" if fault else facts.get("status", "missing" if finished else "pending")
    return {
        **entry,
        "status": status,
        "seconds": facts.get("seconds"),
        "attempts": len(attempts),
        "steps_done": max(metric_steps(folder.metrics), default=0),
        "evaluations": {result["benchmark"]: result["value"] for result in results},
        "error": next((a["error"] for a in attempts[-1:] if a.get("error")), None),
        "used": holder(folder.lock),
        "problems": stage_faults(folder, finished=finished),
    }


def show_status(facts: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"run {facts['run']}, model {facts['base']['model']}", markup=False)
    rows = []
    for stage in facts["stages"]:
        scores = "  ".join(f"{name} {100 * value:.1f}" for name, value in stage["evaluations"].items())
        seconds, state = stage["seconds"], _state(stage["status"], stage.get("rolled_back", False))
        took = f"{seconds:.0f} s" if seconds else ""
        name, kind, directory = (stage[key] for key in ("name", "kind", "directory"))
        rows.append((name, kind, state, str(stage["steps_done"]), took, str(stage["attempts"]), directory, scores))
    columns = ("stage", "kind", "status", "steps", "time", "attempts", "folder", "evaluations")
    _show_table(console, columns, rows)
    for stage in facts["stages"]:
        if stage["error"] and stage["status"] == "failed":
            console.print(f"\n{stage['name']} failed: {stage['error']}", markup=False)
        elif stage["used"]:
            console.print(f"\n{stage['name']} is in use {stage['used']}", markup=False)
    rows_of_all = [facts["base"], *facts["stages"]]
    if problems := [(stage["name"], problem) for stage in rows_of_all for problem in stage["problems"]]:
        console.print("\nmissing or damaged:", style="bold")
        for name, problem in problems:
            console.print(f"  {name}: {problem}", markup=False)
    if told := [decision["message"] for decision in facts["gates"] if decision["verdict"] != "pass"]:
        console.print("\ngates:\n" + "\n".join(f"  {message}" for message in told), markup=False)
    elif facts["gates"]:
        console.print("\ngates: all open", markup=False)


def show_rollouts(store: Store, run: str, stage: str, step: int | None, limit: int, worst: bool) -> None:
    """Print ``limit`` rollouts of a step. Raises CascadeError where there are none."""
    by_step = store.rollouts_of(run, stage)
    chosen = by_step.get(max(by_step) if step is None else step)
    if chosen is None:
        raise CascadeError(f"no rollouts of step {step}; there are those of {steps_text(by_step)}")
    try:
        rows = read_rollouts(chosen)
    except CascadeError as error:
        others = steps_text([other for other, path in by_step.items() if path != chosen])
        raise CascadeError(f"{error}. There are those of {others} (--step)") from None
    if worst:
        rows.sort(key=lambda row: row["value"])
    for row in rows[:limit]:
        print(f"--- step {row['step']}  {row['prompt_id']} #{row['index']}  score {row['value']:g}  "
              f"{row['length']} tokens, {row['stop']}")  # fmt: skip
        print(f"> {row['prompt']}\n{row['completion']}")
        if details := details_text(row):
            print(f"details: {details}")
        if row["error"]:
            print(f"error: {row['error']}")
