"""Two runs beside one another: what each measured, what they share, how their recipes differ, what each took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade_rl.recipe import load_recipe
from cascade_rl.recipe.reading import read_yaml
from cascade_rl.recipe.tree import plain
from cascade_rl.report.load import Measurement, RunView, StageView, load_run
from cascade_rl.store import differences
from cascade_rl.types import CascadeError


def compare_runs(root: Path, first: str, second: str) -> dict[str, Any]:
    """The facts behind `cascade-rl diff`, as plain values. Runs are called ``a`` and ``b``; values are in points of
    100, differences are b minus a, ``beyond_chance`` says whether one is beyond its 95% interval, times are in seconds.

    {"a", "b": {"run", "recipe_path", "seconds", "order"}, "benchmarks": [...], "not_comparable": {name: why},
    "stages": [{"name", "shared", "a", "b": {"identity", ...} | None, "values": {benchmark: comparison}}],
    "final": {benchmark: comparison}, "recipe": [lines]}. Raises CascadeError when there is no such run.
    """
    a, b = load_run(root, first), load_run(root, second)
    rows_a, rows_b = {row.name: row for row in a.rows}, {row.name: row for row in b.rows}
    common = [name for name in a.benchmarks if b.benchmark_identities.get(name) == a.benchmark_identities[name]]
    return {
        "a": _run(a),
        "b": _run(b),
        "benchmarks": common,
        "not_comparable": _not_comparable(a, b, common),
        "stages": [_stage(name, rows_a.get(name), rows_b.get(name), common) for name in {**rows_a, **rows_b}],
        "final": _values(_final(a, common), _final(b, common), common),
        "recipe": _recipe_differences(root, a, b),
    }


def _run(view: RunView) -> dict[str, Any]:
    return {
        "run": view.name,
        "recipe_path": view.recipe_path,
        "branch_of": view.branch_of,
        "seconds": round(sum(row.seconds for row in view.rows), 1),
        "order": [stage.name for stage in view.stages],
    }


def _not_comparable(a: RunView, b: RunView, common: list[str]) -> dict[str, str]:
    """Benchmarks of either that the other did not measure, or not in the same way."""
    found = {}
    for name in dict.fromkeys([*a.benchmarks, *b.benchmarks]):
        if name not in common:
            only = a if name not in b.benchmarks else b
            both = name in a.benchmarks and name in b.benchmarks
            found[name] = "measured differently (rows, sampling or grader)" if both else f"only in {only.name}"
    return found


def _stage(name: str, a: StageView | None, b: StageView | None, benchmarks: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "shared": a is not None and b is not None and a.identity == b.identity,
        "a": _facts(a),
        "b": _facts(b),
        "values": _values(a.measurements if a else {}, b.measurements if b else {}, benchmarks),
    }


def _facts(stage: StageView | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    return {
        "identity": stage.identity,
        "kind": stage.kind,
        "parent": stage.parent,
        "status": stage.status,
        "rolled_back": stage.rolled_back,
        "seconds": stage.seconds,
    }


def _final(view: RunView, benchmarks: list[str]) -> dict[str, Measurement]:
    """Each benchmark on the last stage that was measured on any and was not rolled back; without results that are
    missing: an earlier stage's would be another model's."""
    for row in reversed(view.rows):
        found = {name: row.measurements[name] for name in benchmarks if name in row.measurements}
        if (found or any(map(row.lacks, benchmarks))) and not row.rolled_back:
            return found
    return {}


def _values(
    a: Mapping[str, Measurement], b: Mapping[str, Measurement], benchmarks: list[str]
) -> dict[str, dict[str, Any]]:
    """What at least one of the two measured; the difference where both did."""
    found = {}
    for name in benchmarks:
        one, other = a.get(name), b.get(name)
        if one is None and other is None:
            continue
        entry: dict[str, Any] = {"a": _points(one), "b": _points(other), "difference": None, "beyond_chance": None}
        if one is not None and other is not None:
            difference, chance = other.value - one.value, 1.96 * math.hypot(one.stderr, other.stderr)
            entry |= {"difference": round(100 * difference, 4), "chance": round(100 * chance, 4)}
            entry["beyond_chance"] = abs(difference) > chance
        found[name] = entry
    return found


def _points(measured: Measurement | None) -> float | None:
    return None if measured is None else round(100 * measured.value, 4)


def _recipe_differences(root: Path, a: RunView, b: RunView) -> list[str]:
    """``key: old -> new`` of the two resolved recipes, stages by name; and their order, where that differs."""
    one, other = (_recipe(root / "runs" / view.name / "recipe.yaml") for view in (a, b))
    if one is None or other is None:
        return [f"runs/{view.name}/recipe.yaml cannot be read" for view, read in ((a, one), (b, other)) if read is None]
    lines = []
    order, other_order = (list(recipe.get("stages", {})) for recipe in (one, other))
    if order != other_order:
        lines.append(f"order of stages: {', '.join(order)} -> {', '.join(other_order)}")
    for name in dict.fromkeys([*order, *other_order]):
        if name not in other_order or name not in order:
            lines.append(f"stages.{name}: only in {(a if name in order else b).name}")
            for recipe in (one, other):
                recipe["stages"].pop(name, None)
    return lines + differences(one, other)


def _recipe(path: Path) -> dict[str, Any] | None:
    """The resolved recipe of a run: every key, defaults included; as written, where this version cannot read it. None
    where there is no such file, or no YAML in it."""
    try:
        values = load_recipe(path).recipe.model_dump(mode="json")
    except CascadeError:
        try:
            values = plain(read_yaml(path, str(path)))
        except CascadeError:
            return None
    values = {key: value for key, value in values.items() if key not in ("name", "description")}
    values["stages"] = {stage["name"]: stage for stage in values.get("stages", [])}
    benchmarks = values.get("evaluate", {}).get("after_each_stage", [])
    if benchmarks:
        named = {_benchmark_name(entry): entry for entry in benchmarks}
        values["evaluate"] = {**values["evaluate"], "after_each_stage": named}
    return values


def _benchmark_name(entry: Any) -> str:
    return entry if isinstance(entry, str) else entry.get("name") or entry["use"]
