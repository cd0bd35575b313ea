"""From a recipe to an ordered list of stages with identities: what would run, and what is done already.

No torch here: a plan is made in a second, by `check` as by every supervisor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cascade_rl.data.exclusion import stages_data
from cascade_rl.evals.registry import resolve_benchmark
from cascade_rl.fingerprints import recorded
from cascade_rl.inputs import benchmark_inputs, model_inputs, stage_inputs
from cascade_rl.models import BUILT_IN, builder_fingerprint
from cascade_rl.orchestrator.stage_inputs import config_inputs
from cascade_rl.recipe import (
    LoadedRecipe,
    Recipe,
    SourceLine,
    StageConfig,
)
from cascade_rl.recipe.problems import nearest, suggestion
from cascade_rl.store import PlannedBenchmark, Reads, StageFolder, Store, identity_fields, identity_of
from cascade_rl.types import CascadeError

BASE = "model"
"""The name under which a recipe's base model stands among its stages."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage, the parent it starts from, and the identity its result will have."""

    config: StageConfig
    parent: str
    parent_identity: str
    parent_checkpoint: str
    parent_folder: StageFolder | None
    parent_files: dict[str, Any] | None
    """What identifies a parent that lies in a folder outside of the store."""
    inputs: dict[str, Any]
    reads: Reads
    identity: str
    folder: StageFolder
    keep_optimizer: bool

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def sources(self) -> set[str]:
        """Whose results it takes: its parent's weights, a reward model's scores, teachers' log-probs."""
        return {self.parent, *self.config.takes_from}


@dataclass(frozen=True)
class PlannedBase:
    """The model before any stage. Built-in ones are made as a job of their own."""

    identity: str
    checkpoint: str
    folder: StageFolder
    inputs: dict[str, Any]
    is_built: bool


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, in order."""

    run: str
    loaded: LoadedRecipe
    store: Store
    base: PlannedBase
    stages: tuple[PlannedStage, ...]
    benchmarks: tuple[PlannedBenchmark, ...]
    rolled_back: tuple[str, ...] = ()
    """Stages that gates shut: what would have started from one starts from its parent (``gates.settled``)."""
    declared: Plan | None = None
    """The plan before anything was rolled back; None where nothing is."""

    def stage(self, name: str) -> PlannedStage:
        """The stage of that name. Raises CascadeError listing the names."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise CascadeError(f"no stage {name!r} in {self.loaded.path}; its stages are: {names}")

    def record(self) -> dict[str, Any]:
        """The plan as ``run.json`` keeps it."""
        root = self.store.root
        return {
            "name": self.run,
            "recipe_path": str(self.loaded.path),
            "seed": self.loaded.recipe.seed,
            "base": {
                "name": BASE,
                "model": self.loaded.recipe.model,
                "identity": self.base.identity,
                "directory": str(self.base.folder.path.relative_to(root)),
            },
            "stages": [
                {
                    "name": stage.name,
                    "kind": stage.config.kind,
                    "identity": stage.identity,
                    "parent": stage.parent,
                    "parent_identity": stage.parent_identity,
                    "directory": str(stage.folder.path.relative_to(root)),
                    **({"rolled_back": True} if stage.name in self.rolled_back else {}),
                }
                for stage in self.stages
            ],
            "benchmarks": [
                {"name": b.config.name, "identity": b.identity, "samples": b.config.samples} for b in self.benchmarks
            ],
        }


def make_plan(loaded: LoadedRecipe, store: Store, run: str | None = None) -> Plan:
    """Compute every identity. Raises CascadeError for data, rewards or models that cannot be found."""
    recipe = loaded.recipe
    base = _plan_base(loaded, store)
    inheriting = _inherited_from(recipe)
    done: dict[str, PlannedStage] = {}
    for config in recipe.stages:
        done[config.name] = _plan_stage(config, loaded, store, base, done, config.name in inheriting)
    return Plan(
        run=run or recipe.name,
        loaded=loaded,
        store=store,
        base=base,
        stages=tuple(done.values()),
        benchmarks=tuple(plan_benchmarks(loaded)),
    )


def _inherited_from(recipe: Recipe) -> set[str]:
    """Stages whose optimizer is kept for a later one. Where gates may roll back, those further up the chain too."""
    parents = {stage.name: stage.init for stage in recipe.stages}
    may_roll_back = any(gate.action == "rollback" for gate in recipe.gates)
    kept: set[str] = set()
    for stage in recipe.stages:
        parent = stage.init if stage.optimizer_state == "inherit" else None
        while parent is not None:
            kept.add(parent)
            parent = parents.get(parent) if may_roll_back else None
    return kept


def plan_benchmarks(loaded: LoadedRecipe) -> list[PlannedBenchmark]:
    """The recipe's benchmarks, resolved, each with the identity that names its results."""
    planned = []
    for entry in loaded.recipe.evaluate.after_each_stage:
        config = resolve_benchmark(entry)
        with recorded() as files:
            inputs = benchmark_inputs(config, loaded.recipe.template, loaded.recipe.dtype, loaded.path)
        planned.append(PlannedBenchmark(config=config, identity=identity_of(inputs), files=files))
    return planned


def _plan_base(loaded: LoadedRecipe, store: Store) -> PlannedBase:
    recipe = loaded.recipe
    if recipe.model in BUILT_IN:
        checkpoint = ""
        inputs: dict[str, Any] = {
            "built_in": recipe.model,
            "args": recipe.model_args,
            "seed": recipe.seed,
            "source": builder_fingerprint(recipe.model),
            "template": identity_fields(recipe.template),
        }
    else:
        if recipe.model_args:
            where, hint = loaded.place("model_args"), suggestion(recipe.model, BUILT_IN, "built in are")
            raise CascadeError(
                f"{where}: model_args go with a built-in model only, which {recipe.model!r} is not; {hint}"
            )
        inputs, checkpoint = _model(recipe.model, loaded, loaded.place("model"))
    identity = identity_of({"kind": "base", **inputs})
    folder = store.stage("base", identity)
    is_built = recipe.model in BUILT_IN
    return PlannedBase(identity, str(folder.checkpoint) if is_built else checkpoint, folder, inputs, is_built)


def _plan_stage(
    config: StageConfig,
    loaded: LoadedRecipe,
    store: Store,
    base: PlannedBase,
    done: dict[str, PlannedStage],
    keep_optimizer: bool,
) -> PlannedStage:
    recipe = loaded.recipe
    parent = config.init or BASE
    parent_folder: StageFolder | None = None
    parent_files: dict[str, Any] | None = None
    if parent in done:
        parent_folder = done[parent].folder
        parent_identity, checkpoint = done[parent].identity, str(parent_folder.checkpoint)
    elif parent == BASE:
        parent_identity, checkpoint = base.identity, base.checkpoint
        parent_files = None if base.is_built else base.inputs
    else:
        parent_files, checkpoint = _model(parent, loaded, loaded.place("stages", config.name, "init"))
        parent_identity = identity_of({"kind": "base", **parent_files})
    reads = _reads(config, loaded, {name: stage.identity for name, stage in done.items()})
    inputs: dict[str, Any] = {
        "kind": config.kind,
        "name": config.name,
        "config": config_inputs(config),
        "parent": parent_identity,
        "template": identity_fields(recipe.template),
        "dtype": recipe.dtype,
        **reads.inputs,
    }
    if config.revision() > 1:  # the first has no number, so that results from before there were any stay valid
        inputs["revision"] = config.revision()
    identity = identity_of(inputs)
    folder = store.stage(config.name, identity)
    return PlannedStage(
        config=config,
        parent=parent,
        parent_identity=parent_identity,
        parent_checkpoint=checkpoint,
        parent_folder=parent_folder,
        parent_files=parent_files,
        inputs=inputs,
        reads=reads,
        identity=identity,
        folder=folder,
        keep_optimizer=keep_optimizer,
    )


def _reads(config: StageConfig, loaded: LoadedRecipe, known: dict[str, str]) -> Reads:
    """What the stage reads beside its parent. ``known``: identities of the stages before it."""
    for teacher in config.teachers_by_domain.values():
        if teacher.stage is None and teacher.model is not None:  # for the sake of its error, which names the line
            place = loaded.place("stages", config.name, config.keys_of(teacher)[0])
            _model(teacher.model, loaded, place, "the teacher's model", "a stage before this one (stage:NAME)")
    others = stages_data(config, loaded.recipe.stages)
    with recorded() as files:
        inputs = stage_inputs(config, others, known, loaded.path)
    return Reads(stage=config.model_dump(mode="json"), stages_data=others, known=known, inputs=inputs, files=files)


def _model(
    model: str,
    loaded: LoadedRecipe,
    place: SourceLine,
    what: str = "model",
    other: str = f"built in ({', '.join(BUILT_IN)})",
) -> tuple[dict[str, Any], str]:
    """``inputs.model_inputs``, whose errors name the place in the recipe. ``what`` the model is called there and what
    ``other`` kinds of names there are."""
    try:
        return model_inputs(model, loaded.path)
    except LookupError:
        near = nearest(model, BUILT_IN)
        hint = f"; did you mean {near}?" if near and near != model else ""
        raise CascadeError(
            f"{place}: {what} {model!r} is neither a folder, nor a hub id (owner/name), nor {other}{hint}"
        ) from None
    except CascadeError as error:
        raise CascadeError(f"{place}: {error}") from None
