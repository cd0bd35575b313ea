"""The rewards of a recipe tried on its own rows: by `check`, and by `run` before hours are spent on the way to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import to_prompts
from cascade_rl.evals.registry import resolve_benchmark
from cascade_rl.inputs import search_path
from cascade_rl.orchestrator.row_checks import first_rows
from cascade_rl.recipe import DataSource, LoadedRecipe, Problem, RecipeError, RewardConfig
from cascade_rl.recipe.measuring import BenchmarkConfig
from cascade_rl.recipe.problems import Keys
from cascade_rl.rewarding.binding import check_binding
from cascade_rl.rewarding.loading import LoadedReward, load_reward
from cascade_rl.rewarding.trial import ROWS, Trial, try_reward
from cascade_rl.types import CascadeError, Prompt

AT_ONCE = 4
"""Rewards tried at the same time: nearly all of it is starting a process and its imports."""


@dataclass(frozen=True)
class _Tried:
    keys: Keys
    source: str
    config: RewardConfig
    prompts: tuple[Prompt, ...]


def try_rewards(loaded: LoadedRecipe, finished: Collection[str] = ()) -> list[Problem]:
    """Warnings of all rewards of stages that are not ``finished``, and of benchmarks, on rows that are at hand (those
    of a hub are not fetched for this).

    Raises RecipeError for a reward that can score no row at all. The recipe has passed ``preflight``.
    """
    asked = _distinct(_asked(loaded, finished))
    thinking = loaded.recipe.template.mode == "thinking"
    with ThreadPoolExecutor(AT_ONCE) as threads:
        trials = list(threads.map(partial(_try, search=search_path(loaded.path), thinking=thinking), asked))
    fatal = [
        Problem.at(loaded, one.keys, f"{trial.fatal} (rows of {one.source})")
        for one, trial in zip(asked, trials, strict=True)
        if trial.fatal
    ]
    if fatal:
        raise RecipeError(fatal, loaded.path)
    return [
        Problem.at(loaded, one.keys, f"{warning} (rows of {one.source})")
        for one, trial in zip(asked, trials, strict=True)
        for warning in trial.warnings
    ]


def _try(one: _Tried, search: list, thinking: bool) -> Trial:
    return try_reward(one.config, search, one.prompts, thinking)


def _asked(loaded: LoadedRecipe, finished: Collection[str]) -> Iterator[_Tried]:
    for stage in loaded.recipe.stages:
        if stage.name not in finished:
            for domain, reward in stage.rewards_by_domain.items():
                keys: Keys = ("stages", stage.name, *stage.keys_of(reward))
                yield from _of(loaded, keys, stage.data, reward, domain)
    for index, entry in enumerate(loaded.recipe.evaluate.after_each_stage):
        if isinstance(entry, BenchmarkConfig):
            benchmark = resolve_benchmark(entry)
            keys = ("evaluate", "after_each_stage", index, "reward")
            yield from _of(loaded, keys, benchmark.data, benchmark.reward)


def _of(
    loaded: LoadedRecipe, keys: Keys, sources: list[DataSource], reward: RewardConfig, domain: str = ""
) -> Iterator[_Tried]:
    for source in sources:
        try:
            loaded_reward = load_reward(reward, search_path(loaded.path))
        except CascadeError:
            continue  # preflight has reported it
        prompts = tuple(_samples(loaded, source, loaded_reward, domain))
        if prompts:
            yield _Tried(keys, source.source, reward, prompts)


def _samples(loaded: LoadedRecipe, source: DataSource, reward: LoadedReward, domain: str) -> list[Prompt]:
    """The first ``ROWS`` prompts of ``domain`` (empty: of any) with every column that ``reward`` needs.

    Where fewer have them all, others follow, so that a reward that no row fits is tried and reported.
    """
    complete: list[Prompt] = []
    others: list[Prompt] = []
    for number, row in enumerate(first_rows(loaded, source)):
        for prompt in to_prompts([row], source, [number], Refusals()):
            if not domain or prompt.domain == domain:
                (others if check_binding(reward, set(prompt.columns)) else complete).append(prompt)
        if len(complete) == ROWS:
            break
    return [*complete, *others][:ROWS]


def _distinct(asked: Iterator[_Tried]) -> list[_Tried]:
    """Without those that try the same reward on rows of the same source: a stage and its benchmark."""
    found: dict[str, _Tried] = {}
    for one in asked:
        found.setdefault(f"{one.source} {one.config.model_dump_json()}", one)
    return list(found.values())
