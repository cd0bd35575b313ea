"""Checks across keys: what no single field can see."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator

from cascade_rl.recipe.loading import LoadedRecipe
from cascade_rl.recipe.paths import looks_like_path, resolve_path
from cascade_rl.recipe.problems import Problem, nearest
from cascade_rl.recipe.schema import BenchmarkConfig, DataSource, RlStage, SftStage, Stage

Keys = tuple[str | int, ...]


def check_structure(loaded: LoadedRecipe, world_size: int | None) -> list[Problem]:
    """Names, parents, steps, data sections; and divisibility over ``world_size`` ranks, if it is known."""
    return [
        *_names(loaded),
        *(problem for stage in loaded.recipe.stages for problem in _parent(loaded, stage)),
        *(problem for stage in loaded.recipe.stages for problem in _optimizer(loaded, stage)),
        *(problem for keys, source in sources(loaded) for problem in _data(loaded, keys, source)),
        *(problem for stage in loaded.recipe.stages for problem in _batches(loaded, stage, world_size or 1)),
    ]


def check_files(loaded: LoadedRecipe) -> list[Problem]:
    """Local data files must exist."""
    return [
        Problem.at(loaded, (*keys, "source"), f"there is no file {source.source} beside the recipe or in this folder")
        for keys, source in sources(loaded)
        if ":" not in source.source
        and looks_like_path(source.source)
        and resolve_path(source.source, loaded.path) is None
    ]


def check_context(loaded: LoadedRecipe, context_tokens: int) -> list[Problem]:
    """No stage or benchmark may need more positions than the model has."""
    problems = []
    for stage in loaded.recipe.stages:
        if isinstance(stage, RlStage):
            need = (stage.max_prompt_tokens or 0) + stage.rollout.max_new_tokens
            keys: Keys = ("stages", stage.name, "rollout", "max_new_tokens")
        else:
            need, keys = stage.max_length, ("stages", stage.name, "max_length")
        if need > context_tokens:
            problems.append(
                Problem.at(
                    loaded, keys, f"needs {need} positions, the model has {context_tokens} (RoPE scaling included)"
                )
            )
    return problems


def sources(loaded: LoadedRecipe) -> Iterator[tuple[Keys, DataSource]]:
    """Every data source with its keys: of stages, then of benchmarks defined in the recipe."""
    for stage in loaded.recipe.stages:
        for index, source in enumerate(stage.data):
            yield ("stages", stage.name, "data", index), source
    for position, entry in enumerate(loaded.recipe.evaluate.after_each_stage):
        if isinstance(entry, BenchmarkConfig):
            for index, source in enumerate(entry.data):
                yield ("evaluate", "after_each_stage", position, "data", index), source


def _names(loaded: LoadedRecipe) -> Iterator[Problem]:
    stages = loaded.recipe.stages
    for name, count in Counter(stage.name for stage in stages).items():
        if count > 1:
            yield Problem.at(loaded, ("stages", name), f"{count} stages are called {name}; names must differ")
        if name == "model":
            yield Problem.at(loaded, ("stages", name), "`model` means the base model; choose another name")
    entries = loaded.recipe.evaluate.after_each_stage
    names = [entry if isinstance(entry, str) else entry.name or getattr(entry, "use", "") for entry in entries]
    for name, count in Counter(names).items():
        if count > 1:
            keys = ("evaluate", "after_each_stage", names.index(name))
            yield Problem.at(loaded, keys, f"{count} benchmarks are called {name}; give one another `name`")


def _parent(loaded: LoadedRecipe, stage: Stage) -> Iterator[Problem]:
    names = [other.name for other in loaded.recipe.stages]
    earlier = names[: names.index(stage.name)]
    keys: Keys = ("stages", stage.name, "init")
    parent = stage.init or "model"
    if parent in names and parent not in earlier:
        yield Problem.at(loaded, keys, f"{parent} comes at or after {stage.name}; a stage starts from an earlier one")
    elif parent not in earlier and parent != "model" and "/" not in parent:
        near = nearest(parent, [*earlier, "model"])
        hint = f"did you mean {near}?" if near else f"earlier stages: {', '.join(earlier) or 'none'}"
        yield Problem.at(loaded, keys, f"{parent!r} is no earlier stage, nor `model`, nor a path or hub id; {hint}")
    if stage.optimizer_state == "inherit":
        kind = next((other.kind for other in loaded.recipe.stages if other.name == parent), None)
        if kind != stage.kind:
            what = f"stage {parent} is of kind {kind}" if kind else f"{parent} has no optimizer"
            keys = ("stages", stage.name, "optimizer_state")
            yield Problem.at(loaded, keys, f"an optimizer is inherited from a stage of the same kind only; {what}")


def _optimizer(loaded: LoadedRecipe, stage: Stage) -> Iterator[Problem]:
    if stage.min_learning_rate > stage.learning_rate:
        yield Problem.at(
            loaded, ("stages", stage.name, "min_learning_rate"),
            f"{stage.min_learning_rate:g} is above learning_rate {stage.learning_rate:g}",
        )  # fmt: skip
    if stage.steps is not None and stage.warmup_steps >= stage.steps:
        yield Problem.at(
            loaded, ("stages", stage.name, "warmup_steps"),
            f"{stage.warmup_steps} warm-up steps leave nothing of {stage.steps} steps",
        )  # fmt: skip


def _data(loaded: LoadedRecipe, keys: Keys, source: DataSource) -> Iterator[Problem]:
    if source.prompt is not None:
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(source.prompt) if name is not None]
        except ValueError as error:
            message = f"is no format string: {error}; write literal braces twice, e.g. \\boxed{{{{}}}}"
            yield Problem.at(loaded, (*keys, "prompt"), message)
        else:
            if any(not field or field.isdigit() for field in fields):
                message = "has an empty {}: name a column in it, or write literal braces twice, e.g. \\boxed{{}}"
                yield Problem.at(loaded, (*keys, "prompt"), message)
    for column, pattern in source.extract.items():
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            yield Problem.at(loaded, (*keys, "extract", column), f"is no regular expression: {error}")
        else:
            if groups < 1:
                yield Problem.at(loaded, (*keys, "extract", column), "needs a group (...) around what to keep")


def _batches(loaded: LoadedRecipe, stage: Stage, world_size: int) -> Iterator[Problem]:
    name = "prompts_per_step" if isinstance(stage, RlStage) else "batch_size"
    size = getattr(stage, name)
    keys: Keys = ("stages", stage.name, name)
    if size % world_size:
        below, above = size - size % world_size, size + world_size - size % world_size
        options = f"{below} or {above}" if below else str(above)
        yield Problem.at(loaded, keys, f"{size} does not divide over {world_size} ranks; use {options}")
    elif isinstance(stage, SftStage) and stage.micro_batch_size and (size // world_size) % stage.micro_batch_size:
        yield Problem.at(
            loaded, ("stages", stage.name, "micro_batch_size"),
            f"{stage.micro_batch_size} does not divide the {size // world_size} rows of a rank",
        )  # fmt: skip
