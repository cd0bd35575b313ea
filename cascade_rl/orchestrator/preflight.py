"""Every mistake that can be found without a device is found here, by `check` and before anything of `run` starts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import ANSWERING, ASKING, domain_of, to_conversations, to_prompts
from cascade_rl.evals.registry import resolve_benchmark
from cascade_rl.inputs import search_path
from cascade_rl.models import BUILT_IN, argument_problems
from cascade_rl.orchestrator.function_checks import check_functions
from cascade_rl.orchestrator.launch_checks import check_launch, launch_of
from cascade_rl.orchestrator.pair_checks import check_pairs
from cascade_rl.orchestrator.row_checks import first_rows, row_fault
from cascade_rl.orchestrator.row_filters import check_selection
from cascade_rl.recipe import DataSource, LoadedRecipe, Problem, RecipeError, RewardConfig, StageConfig
from cascade_rl.recipe.checks import check_context, check_files, check_structure, positions_of_stages
from cascade_rl.recipe.measuring import BenchmarkByName, BenchmarkConfig
from cascade_rl.recipe.paths import resolve_path
from cascade_rl.recipe.problems import Keys
from cascade_rl.rewarding.binding import known_too_late, unbound, without_domain
from cascade_rl.rewarding.loading import load_reward
from cascade_rl.types import CascadeError


def preflight(loaded: LoadedRecipe, world_size: int) -> None:
    """Raise RecipeError with every problem at once, or return silently."""
    problems = [*check_structure(loaded, world_size), *check_files(loaded)]
    problems += _check_model_arguments(loaded)
    problems += [] if problems else _check_data_and_content(loaded)
    context = _context_tokens(loaded)
    if isinstance(context, int) and not isinstance(context, bool) and context > 0:  # else unknown, or refused above
        problems += [*check_context(loaded, context), *_check_benchmark_context(loaded, context)]
    problems += check_launch(loaded, launch_of(loaded), world_size)
    if problems:
        raise RecipeError(problems, loaded.path)


def _check_data_and_content(loaded: LoadedRecipe) -> list[Problem]:
    selection = list(check_selection(loaded))
    told = {problem.message for problem in selection}  # a filter that cannot be loaded stops reading its rows too
    return [*selection, *(problem for problem in _check_content(loaded) if problem.message not in told)]


def _check_model_arguments(loaded: LoadedRecipe) -> Iterator[Problem]:
    recipe = loaded.recipe
    if recipe.model in BUILT_IN:
        for key, message in argument_problems(recipe.model, recipe.model_args):
            yield Problem.at(loaded, ("model_args", key), message)


def _check_content(loaded: LoadedRecipe) -> Iterator[Problem]:
    """Rows can be read, and rewards find their columns in them."""
    for stage in loaded.recipe.stages:
        keys: Keys = ("stages", stage.name)
        if stage.READS == "pairs":
            yield from check_pairs(loaded, stage, keys)
        else:
            for key, sources in stage.data_lists.items():
                for index, source in enumerate(sources):
                    answers = stage.READS == "conversations"
                    yield from _check_rows(loaded, source, (*keys, key, index), answers=answers)
        yield from _check_rewards_and_teachers(loaded, stage, keys)
        yield from check_functions(loaded, stage, keys)
    for index, entry in enumerate(loaded.recipe.evaluate.after_each_stage):
        keys = ("evaluate", "after_each_stage", index)
        try:
            benchmark = resolve_benchmark(entry)
        except CascadeError as error:
            yield Problem.at(loaded, keys, str(error))
            continue
        if isinstance(entry, BenchmarkConfig):
            yield from _check_prompts(loaded, benchmark.data, keys)
            yield from _check_reward(loaded, benchmark.data, benchmark.reward, (*keys, "reward"))
        elif isinstance(entry, BenchmarkByName) and entry.source is not None:
            for source in benchmark.data:
                yield from _check_rows(loaded, source, (*keys, "source"), answers=False)
            yield from _check_reward(loaded, benchmark.data, benchmark.reward, (*keys, "source"))


def _check_rewards_and_teachers(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    for domain, reward in stage.rewards_by_domain.items():
        only = domain if stage.is_by_domain(stage.rewards_by_domain) else None
        yield from _check_reward(loaded, stage.data, reward, (*keys, *stage.keys_of(reward)), only)
    for known, what_for in ((stage.rewards_by_domain, "rewards"), (stage.teachers_by_domain, "teachers")):
        if stage.is_by_domain(known):
            yield from _check_domains(loaded, stage, keys, known, what_for)
    if stage.replaces_groups:
        yield from _check_dynamic_sampling(loaded, stage, keys)


def _check_dynamic_sampling(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    """Whether a group is flat must be known while others generate."""
    for domain, config in stage.rewards_by_domain.items():
        try:
            reward = load_reward(config, search_path(loaded.path))
        except CascadeError:
            continue  # reported by _check_reward
        if reward.has_combine and not reward.combines_groups_alone:
            what = f"the reward {config.use}" + (f" of domain {domain}" if domain else "")
            yield Problem.at(loaded, (*keys, "dynamic_sampling"), known_too_late(what))


def _check_domains(
    loaded: LoadedRecipe, stage: StageConfig, keys: Keys, domains_known: Collection[str], what_for: str
) -> Iterator[Problem]:
    """Every row has a reward, or a teacher."""
    for index, source in enumerate(stage.data):
        domains = {source.domain} if source.domain else _domains(loaded, source)
        for domain in sorted(domains - set(domains_known), key=str):
            yield Problem.at(loaded, (*keys, "data", index), without_domain(domain, domains_known, what_for))


def _domains(loaded: LoadedRecipe, source: DataSource) -> set[str]:
    """The domains of the first rows, without those that the stage leaves out."""
    return {prompt.domain for prompt in to_prompts(list(first_rows(loaded, source)), source, refusals=Refusals())}


def _check_prompts(loaded: LoadedRecipe, sources: list[DataSource], keys: Keys) -> Iterator[Problem]:
    for index, source in enumerate(sources):
        yield from _check_rows(loaded, source, (*keys, "data", index), answers=False)


def _check_reward(
    loaded: LoadedRecipe, sources: list[DataSource], config: RewardConfig, keys: Keys, domain: str | None = None
) -> Iterator[Problem]:
    """The reward can be loaded, and finds its columns in the rows of its domain (None: in all)."""
    try:
        reward = load_reward(config, search_path(loaded.path))
    except CascadeError as error:
        yield Problem.at(loaded, keys, str(error))
        return
    for source in sources:
        rows = first_rows(loaded, source)
        if domain is not None:
            rows = (row for row in rows if domain_of(row, source) == domain)
        for message in unbound(reward, rows):
            yield Problem.at(loaded, keys, f"{message} (rows of {source.source})")


def _check_rows(loaded: LoadedRecipe, source: DataSource, keys: Keys, answers: bool) -> Iterator[Problem]:
    read = to_conversations if answers else to_prompts
    if fault := row_fault(loaded, source, read, lambda columns: _missing_column(source, columns, answers)):
        yield Problem.at(loaded, keys, fault)


def _missing_column(source: DataSource, columns: set[str], answers: bool) -> str | None:
    """Which kind of column no row has, so that every row lacks a question or an answer."""
    if source.prompt is None and not {*ASKING} & columns:
        return (
            f"rows of {source.source} have neither `messages` nor `prompt`; they have {sorted(columns)}. "
            "Give `prompt:` as a format string over their columns, or map one with `columns:`"
        )
    if answers and not {*ANSWERING} & columns:
        return (
            f"rows of {source.source} have nothing to learn: no `messages`, `response` or `completion` among "
            f"{sorted(columns)}"
        )
    return None


def _context_tokens(loaded: LoadedRecipe) -> int | None:
    """Positions the base model was made for, RoPE scaling included; None where its config is not at hand."""
    recipe = loaded.recipe
    if recipe.model in BUILT_IN:
        return recipe.model_args.get("context")
    path = resolve_path(recipe.model, loaded.path)
    config = path / "config.json" if path else Path("-")
    if not config.is_file():
        return None
    try:
        values = json.loads(config.read_text())
    except ValueError as error:
        raise CascadeError(f"{config} is not readable: {error}") from error
    positions = values.get("max_position_embeddings")
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if positions and rope.get("factor") and rope.get("original_max_position_embeddings"):
        return max(positions, int(rope["original_max_position_embeddings"] * rope["factor"]))
    return positions


def _check_benchmark_context(loaded: LoadedRecipe, context_tokens: int) -> Iterator[Problem]:
    """A benchmark is asked of every model of the cascade, so the one with the fewest positions decides."""
    stages = positions_of_stages(loaded, context_tokens)
    if not loaded.recipe.evaluate.base_model:
        del stages["model"]
    for index, entry in enumerate(loaded.recipe.evaluate.after_each_stage):
        try:
            benchmark = resolve_benchmark(entry)
        except CascadeError:
            continue  # reported by _check_content
        scaling = benchmark.rope_scaling
        fewest = scaling.positions if scaling else min((n for n in stages.values() if n is not None), default=None)
        new = benchmark.sampling.max_new_tokens
        if fewest is not None and new >= fewest:
            yield Problem.at(
                loaded,
                ("evaluate", "after_each_stage", index),
                f"{benchmark.name} samples up to {new} tokens, and a prompt comes before them, but the model has "
                f"{fewest} positions: lower sampling.max_new_tokens, or give the benchmark `rope_scaling`",
            )
