"""A run as the store has it, read into small records. Whatever is missing or damaged stays empty and is named."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rl.recipe import StageConfig, find_kind
from cascade_rl.store import StageFolder, Store
from cascade_rl.store.files import damaged
from cascade_rl.store.inspection import finished_folders, metric_lines, noted_results, stage_faults
from cascade_rl.store.results import read_result
from cascade_rl.store.rollouts import read_rollouts
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
    problems: list[str] = field(default_factory=list)
    """What of it is missing or damaged, one line each."""
    lost: bool = False
    """It was complete, and its folder is gone, or its record does not say so any more."""
    missing: frozenset[str] = frozenset()
    """Benchmarks that it was measured on and whose results are gone or damaged."""

    def lacks(self, benchmark: str) -> bool:
        """Whether it was measured on ``benchmark`` and the result is gone or damaged, alone or with the stage."""
        if benchmark in self.measurements:
            return False
        return benchmark in self.missing or (self.lost and not self.is_base and not self.measured_on_pairs)

    @property
    def is_base(self) -> bool:
        """Whether it is the model before any stage."""
        return self.kind == "base"

    @functools.cached_property
    def of_kind(self) -> type[StageConfig]:
        """The stage's kind; one with nothing special for the base model, and for a kind whose package is gone."""
        try:
            return find_kind(self.kind) or StageConfig
        except CascadeError:
            return StageConfig

    @property
    def samples(self) -> bool:
        """Whether it learns from the policy's own rollouts: its curves and its seconds are of that kind."""
        return self.of_kind.SAMPLES

    @property
    def measured_on_pairs(self) -> bool:
        """Whether it is a reward model, say, which the recipe's benchmarks are not asked of."""
        return self.of_kind.MEASURED_ON == "pairs"

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was recorded as a finite number."""
        points = [(m["step"], m[key]) for m in self.metrics if _is_finite(m.get(key))]
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
    record = Store(root).read_run(run)
    if record is None:
        raise CascadeError(f"there is no run {run!r} under {root / 'runs'}")
    try:
        return _view(root, record)
    except (KeyError, TypeError) as error:
        path = Store(root).run_folder(run) / "run.json"
        raise CascadeError(damaged(path, f"{type(error).__name__}: {error}")) from error


def _view(root: Path, record: dict[str, Any]) -> RunView:
    names = {entry["identity"]: entry["name"] for entry in record["benchmarks"]}
    finished = finished_folders(root, record)
    base = _stage(root, {**record["base"], "name": "model", "kind": "base", "parent": None}, names, finished)
    return RunView(
        name=record["name"],
        recipe_path=record["recipe_path"],
        model=record["base"]["model"],
        seed=record["seed"],
        created=str(record.get("created") or ""),
        updated=str(record.get("updated") or ""),
        branch_of=record.get("branch_of"),
        base=base,
        stages=[_stage(root, entry, names, finished) for entry in record["stages"]],
        benchmarks=[entry["name"] for entry in record["benchmarks"]],
        benchmark_identities={entry["name"]: entry["identity"] for entry in record["benchmarks"]},
        gates=record.get("gates", []),
    )


def _stage(root: Path, entry: dict[str, Any], benchmarks: dict[str, str], finished: Collection[str]) -> StageView:
    directory = root / entry["directory"]
    folder, was_finished = StageFolder(directory), entry["directory"] in finished
    facts, fault = folder.look()
    status = "damaged" if fault else facts.get("status", "missing" if was_finished else "pending")
    measurements = _measurements(directory, benchmarks)
    return StageView(
        name=entry["name"],
        kind=entry["kind"],
        identity=entry["identity"],
        parent=entry["parent"],
        directory=directory,
        status=status,
        seconds=facts.get("seconds") or 0.0,
        attempts=facts.get("attempts", []),
        config=facts.get("config", {}),
        versions=facts.get("versions", {}),
        metrics=list(metric_lines(folder.metrics).values()),
        measurements=measurements,
        rolled_back=entry.get("rolled_back", False),
        problems=stage_faults(folder, finished=was_finished),
        lost=was_finished and status != "complete" and not folder.superseded.is_dir(),
        missing=frozenset(_lost_results(folder, facts, benchmarks)) - set(measurements),
    )


def _measurements(directory: Path, benchmarks: dict[str, str]) -> dict[str, Measurement]:
    """Results of the run's own benchmarks (a shared stage may also carry other recipes')."""
    found = {}
    for identity, name in benchmarks.items():
        result = read_result(directory / "evals" / f"{name}-{identity}.json")
        if result is not None:
            low, high = result["ci95"]
            found[name] = Measurement(
                name, result["value"], result["stderr"], low, high, result["rows"], result["samples"]
            )
    return found


def _lost_results(folder: StageFolder, facts: dict[str, Any], benchmarks: dict[str, str]) -> Iterator[str]:
    """Benchmarks of the run that the stage was measured on: the result is noted, or there is a file for it."""
    noted = noted_results(facts)
    for identity, name in benchmarks.items():
        file = f"{name}-{identity}.json"
        if file in noted or os.path.exists(folder.evals / file):
            yield name


def _is_finite(value: Any) -> bool:
    """Whether ``value`` is a number that can be drawn."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of a float
        return False


def rollouts_of(stage: StageView, step: int) -> list[dict[str, Any]]:
    """Stored rollouts of one step. Raises CascadeError for a damaged file."""
    return read_rollouts(StageFolder(stage.directory).rollout_files()[step])


def sample_steps(stage: StageView) -> list[int]:
    """Steps whose rollouts a page shows: the first and the last that are stored."""
    steps = list(StageFolder(stage.directory).rollout_files())
    return list(dict.fromkeys([*steps[:1], *steps[-1:]]))


def readable_samples(stage: StageView) -> list[int]:
    """Those of ``sample_steps`` whose files are whole."""
    found = []
    for step in sample_steps(stage):
        with contextlib.suppress(CascadeError):
            rollouts_of(stage, step)
            found.append(step)
    return found
