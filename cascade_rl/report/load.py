"""A run as the store has it, read into small records. Whatever is missing or half-written stays empty."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rl.json_lines import text_lines
from cascade_rl.store import StageFolder
from cascade_rl.store.rollouts import read_rollouts as rows_of_file
from cascade_rl.types import CascadeError


@dataclass(frozen=True)
class Measurement:
    """One benchmark on one checkpoint; values from 0 to 1."""

    benchmark: str
    value: float
    stderr: float
    low: float
    high: float
    rows: int
    samples: int


@dataclass(frozen=True)
class StageView:
    """One stage (or the base model) as far as it has come."""

    name: str
    kind: str
    identity: str
    parent: str | None
    directory: Path
    status: str
    seconds: float
    attempts: list[dict[str, Any]]
    config: dict[str, Any]
    versions: dict[str, str]
    metrics: list[dict[str, Any]]
    measurements: dict[str, Measurement] = field(default_factory=dict)
    rolled_back: bool = False
    """A gate shut after it: nothing started from it."""

    @property
    def samples(self) -> bool:
        """Whether it learns from the policy's own rollouts: its curves and its seconds are of that kind."""
        return self.kind in ("rl", "distill")

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was recorded."""
        points = [(m["step"], m[key]) for m in self.metrics if m.get(key) is not None]
        return [p[0] for p in points], [p[1] for p in points]


@dataclass(frozen=True)
class RunView:
    """A run: the base model, then its stages in order."""

    name: str
    recipe_path: str
    model: str
    seed: int
    created: str
    updated: str
    branch_of: str | None
    base: StageView
    stages: list[StageView]
    benchmarks: list[str]
    benchmark_identities: dict[str, str] = field(default_factory=dict)
    """By name; what two runs measured under one name is comparable where these are equal."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """What each gate said of each stage, as ``run.json`` has it (values in points)."""

    @property
    def rows(self) -> list[StageView]:
        """The base model and the stages."""
        return [self.base, *self.stages]


def load_run(root: Path, run: str) -> RunView:
    """Read run ``run`` under ``root``. Raises CascadeError when there is no such run."""
    path = root / "runs" / run / "run.json"
    if not path.is_file():
        raise CascadeError(f"there is no run {run!r} under {root / 'runs'}")
    record = json.loads(path.read_text(encoding="utf-8"))
    names = {entry["identity"]: entry["name"] for entry in record["benchmarks"]}
    base = _stage(root, {**record["base"], "name": "model", "kind": "base", "parent": None}, names)
    return RunView(
        name=record["name"],
        recipe_path=record["recipe_path"],
        model=record["base"]["model"],
        seed=record["seed"],
        created=record.get("created", ""),
        updated=record.get("updated", ""),
        branch_of=record.get("branch_of"),
        base=base,
        stages=[_stage(root, entry, names) for entry in record["stages"]],
        benchmarks=[entry["name"] for entry in record["benchmarks"]],
        benchmark_identities={entry["name"]: entry["identity"] for entry in record["benchmarks"]},
        gates=record.get("gates", []),
    )


def _stage(root: Path, entry: dict[str, Any], benchmarks: dict[str, str]) -> StageView:
    directory = root / entry["directory"]
    facts = _json(directory / "stage.json") or {}
    return StageView(
        name=entry["name"],
        kind=entry["kind"],
        identity=entry["identity"],
        parent=entry["parent"],
        directory=directory,
        status=facts.get("status", "pending"),
        seconds=facts.get("seconds") or 0.0,
        attempts=facts.get("attempts", []),
        config=facts.get("config", {}),
        versions=facts.get("versions", {}),
        metrics=_lines(directory / "metrics.jsonl"),
        measurements=_measurements(directory, benchmarks),
        rolled_back=entry.get("rolled_back", False),
    )


def _measurements(directory: Path, benchmarks: dict[str, str]) -> dict[str, Measurement]:
    """Results of the run's own benchmarks (a shared stage may also carry other recipes')."""
    found = {}
    for identity, name in benchmarks.items():
        result = _json(directory / "evals" / f"{name}-{identity}.json")
        if result is not None:
            low, high = result["ci95"]
            found[name] = Measurement(
                name, result["value"], result["stderr"], low, high, result["rows"], result["samples"]
            )
    return found


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Metric lines in step order; a torn one is skipped, of two for one step the later counts."""
    by_step: dict[int, dict[str, Any]] = {}
    try:
        lines = text_lines(path)
    except OSError:
        return []
    for line in lines:
        try:
            value = json.loads(line)
            by_step[int(value["step"])] = value
        except (ValueError, KeyError, TypeError):
            continue
    return [by_step[step] for step in sorted(by_step)]


def read_rollouts(stage: StageView, step: int) -> list[dict[str, Any]]:
    """Stored rollouts of one step."""
    return rows_of_file(StageFolder(stage.directory).rollout_files()[step])


def rollout_steps(stage: StageView) -> list[int]:
    """Steps whose rollouts are stored."""
    return list(StageFolder(stage.directory).rollout_files())
