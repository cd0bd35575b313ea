"""Checks across keys: what no single field can see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.recipe import stage_references
from cascade_rl.recipe.data_checks import source_problems
from cascade_rl.recipe.gate_checks import gate_problems
from cascade_rl.recipe.kinds import StageConfig
from cascade_rl.recipe.loaded import LoadedRecipe
from cascade_rl.recipe.measuring import BenchmarkByName, BenchmarkConfig
from cascade_rl.recipe.parts import DataSource, sections_below
from cascade_rl.recipe.paths import is_generator, is_hub_id, looks_like_path, resolve_path
from cascade_rl.recipe.problems import Keys, Problem
from cascade_rl.recipe.tree import PlacedDict, place_of, problem_at, stage_names

Stages = Sequence[StageConfig | None]


def check_structure(loaded: LoadedRecipe, world_size: int | None) -> list[Problem]:
    """Names, parents, steps, data sections, gates; divisibility over ``world_size`` ranks (at least 1) if known."""
    recipe = loaded.recipe
    return structure_problems(recipe.stages, recipe.evaluate.after_each_stage, loaded.raw, loaded.skipped, world_size)


def structure_problems(
    stages: Stages, benchmarks: Sequence[Any], root: PlacedDict, skipped: Sequence[str], world_size: int | None
) -> list[Problem]:
    """``check_structure`` over what of a tree is valid so far: None stands for a stage or benchmark that is not."""
    problems = [*_unique_stage_names(root), *_unique_benchmarks(benchmarks, root)]
    if isinstance(root.get("model"), str) and not root["model"].strip():
        problems.append(problem_at(root, ("model",), "is empty; name a hub id, a folder, or a built-in model"))
    for index, stage in enumerate(stages):
        problems += stage_references.parent(root, index, skipped)
        if stage is not None:
            for keys, message in (*stage_references.of_stage(stage, index, root), *_batches(stage, world_size)):
                problems.append(problem_at(root, ("stages", index, *keys), message))
    problems += inner_problems(stages, benchmarks, root)
    return [*problems, *gate_problems(stages, benchmarks, root, skipped)]


def inner_problems(stages: Stages, benchmarks: Sequence[Any], root: PlacedDict) -> list[Problem]:
    """What is wrong within a stage or benchmark, whatever others the recipe has: contradictions and data sources."""
    problems = []
    for index, stage in enumerate(stages):
        for inner, message in stage.contradictions() if stage else ():
            problems.append(problem_at(root, ("stages", index, *inner), message))
    for keys, source in _sources(stages, benchmarks):
        problems += [problem_at(root, (*keys, *inner), message) for inner, message in source_problems(source)]
    for keys, text in _replaced_sources(benchmarks):
        if not text.strip():
            problems.append(problem_at(root, keys, "is empty; name a file or folder, or leave the key out"))
    return problems


def check_files(loaded: LoadedRecipe) -> list[Problem]:
    """Local data files must exist; a source or model that is no file must have the form of a generator or hub id."""
    recipe = loaded.recipe
    named = [((*keys, "source"), source.source) for keys, source in _sources(recipe.stages, _benchmarks(loaded))]
    problems = [
        Problem.at(loaded, keys, wrong) for keys, source in named if (wrong := _wrong_source(source, loaded.path, True))
    ]
    for keys, text in _replaced_sources(_benchmarks(loaded)):
        if wrong := _wrong_source(text, loaded.path, False):
            problems.append(Problem.at(loaded, keys, wrong))
    for keys, model in _models(loaded):
        if not (is_hub_id(model) or looks_like_path(model) or resolve_path(model, loaded.path)):
            message = f"{model!r} is neither a folder beside the recipe or in the working folder, nor {HUB_ID}"
            problems.append(Problem.at(loaded, keys, message))
    return problems


HUB_ID = "a hub id (name or owner/name, of letters, digits, dots, dashes and underscores)"


def _wrong_source(source: str, recipe_path: Path, may_generate: bool) -> str | None:
    """Why ``source`` cannot lead to rows; None when it may."""
    if resolve_path(source, recipe_path) is not None or is_hub_id(source) or (may_generate and is_generator(source)):
        return None
    if looks_like_path(source):
        return f"there is no file {source} beside the recipe or in the working folder"
    generator = ", nor a generator as package.module:function" if may_generate else ""
    return f"{source!r} is neither a file beside the recipe or in the working folder, nor {HUB_ID}{generator}"


def _models(loaded: LoadedRecipe) -> Iterator[tuple[Keys, str]]:
    """Every model that is no stage, with its keys."""
    recipe = loaded.recipe
    names = {stage.name for stage in recipe.stages} | {"model"}
    yield ("model",), recipe.model
    for index, stage in enumerate(recipe.stages):
        if stage.init is not None and stage.init not in names:
            yield ("stages", index, "init"), stage.init
        for teacher in stage.teachers_by_domain.values():
            if teacher.model is not None and teacher.stage is None:
                yield ("stages", index, *stage.keys_of(teacher), "model"), teacher.model


def check_context(loaded: LoadedRecipe, context_tokens: int) -> list[Problem]:
    """No stage may need more positions than it has: the base model's, until a stage's ``rope_scaling`` says more."""
    problems = []
    positions = positions_of_stages(loaded, context_tokens)
    for index, stage in enumerate(loaded.recipe.stages):
        inner, need, what = stage.longest_tokens()
        there = positions[stage.name]
        if there is not None and need > there:
            message = (
                f"needs {what} positions, the model has {there} (RoPE scaling included): lower it, or give "
                "the model more (`rope_scaling` of the stage, `context` of a built-in model)"
            )
            problems.append(Problem.at(loaded, ("stages", index, *inner), message))
        problems += _teachers_context(loaded, stage, positions, need)
    return problems


def _teachers_context(
    loaded: LoadedRecipe, stage: StageConfig, positions: Mapping[str, int | None], need: int
) -> Iterator[Problem]:
    """A teacher reads all that the student writes."""
    for teacher in stage.teachers_by_domain.values():
        there = positions.get(teacher.stage) if teacher.stage else None
        if there is not None and need > there:
            keys: Keys = ("stages", stage.name, *stage.keys_of(teacher))
            message = f"the teacher {teacher.stage} has {there} positions, and this stage needs {need}"
            yield Problem.at(loaded, keys, message)


def positions_of_stages(loaded: LoadedRecipe, context_tokens: int) -> dict[str, int | None]:
    """Positions that each stage's model has; None where a stage starts from a model of its own."""
    positions: dict[str, int | None] = {"model": context_tokens}
    for stage in loaded.recipe.stages:
        parent = positions.get(stage.init or "model")
        positions[stage.name] = stage.rope_scaling.positions if stage.rope_scaling else parent
    return positions


def _benchmarks(loaded: LoadedRecipe) -> list[Any]:
    return loaded.recipe.evaluate.after_each_stage


def _sources(stages: Stages, benchmarks: Sequence[Any]) -> Iterator[tuple[Keys, DataSource]]:
    """Every data source with its keys: of stages, then of benchmarks defined in the recipe."""
    for index, stage in enumerate(stages):
        for keys, section in sections_below(stage):
            if isinstance(section, DataSource):
                yield ("stages", index, *keys), section
    for index, entry in enumerate(benchmarks):
        for number, source in enumerate(entry.data if isinstance(entry, BenchmarkConfig) else ()):
            yield ("evaluate", "after_each_stage", index, "data", number), source


def _replaced_sources(benchmarks: Sequence[Any]) -> Iterator[tuple[Keys, str]]:
    """What shipped benchmarks read instead of their own rows, with its keys."""
    for index, entry in enumerate(benchmarks):
        if isinstance(entry, BenchmarkByName) and entry.source is not None:
            yield ("evaluate", "after_each_stage", index, "source"), entry.source


def _unique_stage_names(root: PlacedDict) -> Iterator[Problem]:
    names = stage_names(root)
    for index, name in enumerate(names):
        keys = ("stages", index, "name")
        if name == "model":
            yield problem_at(root, keys, "`model` means the recipe's base model; choose another name")
        elif name is not None and name in names[:index]:
            first = place_of(root, ("stages", names.index(name), "name"))
            count = names.count(name)
            yield problem_at(root, keys, f"{count} stages are called {name} (the first: {first}); names must differ")


def _unique_benchmarks(benchmarks: Sequence[Any], root: PlacedDict) -> Iterator[Problem]:
    names = [
        entry if isinstance(entry, str) else entry and (entry.name or getattr(entry, "use", None))
        for entry in benchmarks
    ]
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            keys = ("evaluate", "after_each_stage", index)
            message = f"another benchmark is called {name}; give this one a `name` of its own"
            yield problem_at(root, keys, message)


def _batches(stage: StageConfig, world_size: int | None) -> Iterator[tuple[Keys, str]]:
    """Equal shares for all ranks. Without a world size only what no number of ranks can make right is reported."""
    (key, size), ranks = stage.rows_per_step(), world_size or 1
    if rest := size % ranks:
        options = [str(option) for option in (size - rest, size - rest + ranks) if option]
        yield (key,), f"{size} does not divide over {ranks} ranks; use {' or '.join(options)}"
    elif stage.rows_per_pass is not None and (size // ranks) % stage.rows_per_pass[1]:
        inner, rows = stage.rows_per_pass
        share = f"the {size // ranks} rows of each of {ranks} ranks" if world_size else f"{key} {size}"
        yield (inner,), f"{rows} does not divide {share}"
