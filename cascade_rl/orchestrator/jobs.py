"""The orders that a supervisor gives to the processes of a stage: train it, build the base model, measure a result."""

from __future__ import annotations

from typing import Any

from cascade_rl.data.exclusion import stages_data
from cascade_rl.evals.registry import pairs_identity, resolve_pairs
from cascade_rl.orchestrator.plan import BASE, Plan, PlannedStage
from cascade_rl.recipe import LoadedRecipe, PairBenchmark, StageConfig, TemplateConfig
from cascade_rl.recipe.paths import resolve_path
from cascade_rl.store import Job
from cascade_rl.store.results import read_result
from cascade_rl.types import CascadeError


def template_of(stage: PlannedStage, loaded: LoadedRecipe) -> TemplateConfig:
    """The recipe's; a reward model may be another model, with a template of its own."""
    if stage.config.own_template is not None:
        return stage.config.own_template
    is_ours = stage.parent == BASE or stage.parent_folder is not None
    return loaded.recipe.template if is_ours or not stage.config.OWN_TEMPLATE else TemplateConfig(mode="native")


def stage_job(plan: Plan, stage: PlannedStage) -> Job:
    """The order to train ``stage``."""
    parent = stage.parent_folder
    inherits = stage.config.optimizer_state == "inherit"
    if inherits and parent is not None and parent.is_complete and not parent.optimizer.is_file():
        raise CascadeError(
            f"stage {stage.name} inherits the optimizer of {stage.parent}, which finished without keeping it "
            f"(no later stage asked for it then). Run again with --from {stage.parent}, or use optimizer_state: fresh."
        )
    return _job(
        plan,
        task="stage",
        name=stage.name,
        identity=stage.identity,
        folder=stage.folder.path,
        checkpoint=stage.parent_checkpoint,
        parent_optimizer=parent.optimizer if inherits and parent is not None else None,
        keep_optimizer=stage.keep_optimizer,
        stage=_with_checkpoints(stage.config, plan).model_dump(mode="json"),
        stages_data=stages_data(stage.config, plan.loaded.recipe.stages),
        reads=stage.reads,
        parent_files=stage.parent_files,
        template=template_of(stage, plan.loaded),
        evaluate_every=plan.loaded.recipe.evaluate.every_steps,
    )


def _with_checkpoints(config: StageConfig, plan: Plan) -> StageConfig:
    """``stage:NAME`` replaced by where that stage's result lies, and a teacher's path by where that leads from here."""
    results = {stage.name: str(stage.folder.checkpoint) for stage in plan.stages}
    return config.with_models(lambda model: str(resolve_path(model, plan.loaded.path) or model)).with_results(results)


def base_job(plan: Plan) -> Job:
    """The order to build the built-in base model."""
    return _job(plan, task="base", name=BASE, identity=plan.base.identity, folder=plan.base.folder.path)


def evaluate_job(plan: Plan, stage: PlannedStage | None) -> Job | None:
    """The order to measure a stage's checkpoint (None: the base model's) on what is not measured yet."""
    if stage and stage.config.MEASURED_ON == "pairs":
        return _pairs_job(plan, stage, stage.config.own_benchmarks)
    folder = stage.folder if stage else plan.base.folder
    missing = [b for b in plan.benchmarks if read_result(folder.evals / f"{b.file_stem}.json") is None]
    if not missing:
        return None
    job = _job(
        plan,
        task="evaluate",
        name=stage.name if stage else BASE,
        identity=stage.identity if stage else plan.base.identity,
        folder=folder.path,
        checkpoint=str(folder.checkpoint) if stage else plan.base.checkpoint,
        parent_files=None if stage or plan.base.is_built else plan.base.inputs,
    )
    return job.model_copy(update={"benchmarks": missing})


def _pairs_job(plan: Plan, stage: PlannedStage, benchmarks: list[str | PairBenchmark]) -> Job | None:
    """The same of a reward model, which generates nothing and is measured on preference pairs."""
    for benchmark in map(resolve_pairs, benchmarks):
        result = read_result(stage.folder.evals / f"{benchmark.name}.json")
        if result is None or result.get("identity") != pairs_identity(benchmark, plan.loaded.path):
            break
    else:
        return None
    return _job(
        plan,
        task="evaluate",
        name=stage.name,
        identity=stage.identity,
        folder=stage.folder.path,
        checkpoint=str(stage.folder.checkpoint),
        stage=stage.config.model_dump(mode="json"),
        template=template_of(stage, plan.loaded),
    )


def _job(plan: Plan, **fields: Any) -> Job:
    recipe = plan.loaded.recipe
    return Job(
        run=plan.run,
        recipe_path=plan.loaded.path,
        model=recipe.model,
        model_args=recipe.model_args,
        template=fields.pop("template", recipe.template),
        seed=recipe.seed,
        dtype=recipe.dtype,
        benchmarks=list(plan.benchmarks),
        evaluate_engine=recipe.evaluate.engine,
        tracking=recipe.tracking,
        **fields,
    )
