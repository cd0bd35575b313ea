"""The order a supervisor hands to the processes of one stage: everything they need, nothing they must guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cascade_rl.recipe import (
    BenchmarkConfig,
    DataSource,
    EngineConfig,
    StageConfig,
    TemplateConfig,
    TrackingConfig,
    find_kind,
)
from cascade_rl.store.records import StageFolder
from cascade_rl.types import CascadeError


class PlannedBenchmark(BaseModel):
    """A benchmark and the identity that names its results."""

    model_config = ConfigDict(frozen=True)

    config: BenchmarkConfig
    identity: str
    files: dict[str, str] = {}
    """Path -> hash of the files that the identity is made of."""

    @property
    def file_stem(self) -> str:
        return f"{self.config.name}-{self.identity}"


class Reads(BaseModel):
    """What a stage reads beside its parent's weights, and what the plan found there."""

    model_config = ConfigDict(frozen=True)

    stage: dict[str, Any]
    """The stage's section as in the recipe; in a job's own, other stages are replaced by where their results lie."""
    stages_data: dict[str, list[DataSource]]
    known: dict[str, str]
    """Identities of the stages before it, by name."""
    inputs: dict[str, Any]
    """What of the identity's inputs was read from files."""
    files: dict[str, str]
    """Path -> hash of these files, to name those that have changed."""

    def stage_config(self) -> StageConfig:
        """The section, typed by its kind."""
        return _typed(self.stage)


def _typed(stage: dict[str, Any]) -> StageConfig:
    kind = find_kind(stage["kind"])
    if kind is None:
        raise CascadeError(f"there is no kind {stage['kind']!r} any more: is the package that brings it installed?")
    return kind.model_validate(stage)


class Job(BaseModel):
    """One piece of work for one fresh process per rank."""

    model_config = ConfigDict(frozen=True)

    task: Literal["base", "stage", "evaluate"]
    """``base`` builds a built-in model; ``stage`` trains; ``evaluate`` measures ``folder``'s checkpoint."""
    run: str
    name: str
    identity: str
    folder: Path
    recipe_path: Path
    model: str
    model_args: dict[str, Any] = {}
    checkpoint: str | None = None
    """What the job starts from: a folder or hub id."""
    parent_files: dict[str, Any] | None = None
    """What identifies ``checkpoint`` where it lies outside of the store."""
    parent_optimizer: Path | None = None
    keep_optimizer: bool = False
    stage: dict[str, Any] | None = None
    """The resolved stage section."""
    stages_data: dict[str, list[DataSource]] = {}
    """The data of each other stage that this one's ``exclude`` names."""
    reads: Reads | None = None
    """Of a job that trains."""
    template: TemplateConfig
    seed: int
    dtype: Literal["auto", "float32", "bfloat16"]
    benchmarks: list[PlannedBenchmark] = []
    evaluate_every: int | None = None
    evaluate_engine: EngineConfig = EngineConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def stage_folder(self) -> StageFolder:
        return StageFolder(self.folder)

    @property
    def stage_seed(self) -> int:
        """The stage's own seed, or the recipe's."""
        own = (self.stage or {}).get("seed")
        return self.seed if own is None else own

    @property
    def samples(self) -> bool:
        """Whether it needs an engine that generates: it measures benchmarks, or learns from rollouts."""
        return self.task == "evaluate" if self.stage is None else self.stage_config().SAMPLES and self.task == "stage"

    def stage_config(self) -> StageConfig:
        """The stage section, typed by its kind."""
        assert self.stage is not None
        return _typed(self.stage)
