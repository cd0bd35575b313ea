"""What results depend on beside a recipe's own keys: rows, rewards, models. The plan names results by it, and each
stage's process compares it with what the plan saw, since files may be edited in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.data.exclusion import StagesData, exclusion_inputs
from cascade_rl.data.sources import fingerprint as data_fingerprint
from cascade_rl.fingerprints import edges_hash
from cascade_rl.recipe import (
    BenchmarkConfig,
    DataSource,
    RewardConfig,
    StageConfig,
    TeacherConfig,
    TemplateConfig,
)
from cascade_rl.recipe.paths import resolve_path
from cascade_rl.rewarding.loading import fingerprint as reward_fingerprint
from cascade_rl.rewarding.loading import load_reward
from cascade_rl.source_code import function_fingerprint
from cascade_rl.store import identity_fields
from cascade_rl.types import CascadeError


def search_path(recipe_path: Path) -> list[Path]:
    """Where import paths of a recipe are looked up: its own folder, then the working folder."""
    return [recipe_path.resolve().parent, Path.cwd()]


def stage_inputs(
    config: StageConfig, stages_data: StagesData, known: Mapping[str, str], recipe_path: Path
) -> dict[str, Any]:
    """What ``config``, as its recipe has it, leads to: ``data``, and where it has such ``exclude``, ``teacher`` and
    ``reward``, and the source of a loss or advantage of the user's. Plain JSON.

    ``stages_data``: as for ``exclusion_inputs``. ``known``: identities of the stages before it, by name. Raises
    CascadeError for what cannot be found or read.
    """
    inputs: dict[str, Any] = {key: data_inputs(sources, recipe_path) for key, sources in config.data_lists.items()}
    if config.exclude:
        inputs["exclude"] = [exclusion_inputs(exclusion, stages_data, recipe_path) for exclusion in config.exclude]
    if teachers := config.teachers_by_domain:
        found = {name: _teacher(each, known, recipe_path) for name, each in teachers.items()}
        inputs["teacher"] = found if config.is_by_domain(teachers) else found[""]
    if rewards := config.rewards_by_domain:
        found = {name: reward_inputs(each.with_results(known), recipe_path) for name, each in rewards.items()}
        inputs["reward"] = found if config.is_by_domain(rewards) else found[""]
    for what, function in config.functions.items():
        inputs[f"{what}_source"] = function_fingerprint(function.use, function.params, search_path(recipe_path))
    said = {name for each in (*rewards.values(), *teachers.values()) for _, name in each.stage_references()}
    if others := config.takes_from - said:
        inputs["results"] = {name: known[name] for name in sorted(others)}
    if config.CODE:  # a kind of another package
        inputs["code"] = function_fingerprint(f"{config.CODE}:run", {}, search_path(recipe_path))
    return inputs


def benchmark_inputs(
    config: BenchmarkConfig, template: TemplateConfig, dtype: str, recipe_path: Path
) -> dict[str, Any]:
    """What the results of a benchmark on given weights depend on. Raises CascadeError like ``stage_inputs``."""
    return {
        "benchmark": identity_fields(config, frozenset({"data", "reward"})),
        "data": data_inputs(config.data, recipe_path),
        "reward": reward_inputs(config.reward, recipe_path),
        "template": identity_fields(template),
        "dtype": dtype,
    }


def data_inputs(sources: Sequence[DataSource], recipe_path: Path) -> list[dict[str, Any]]:
    """What identifies the rows of ``sources``."""
    return [data_fingerprint(source, recipe_path) for source in sources]


def reward_inputs(config: RewardConfig, recipe_path: Path) -> dict[str, Any]:
    """What identifies a reward: its keys and its source code."""
    source = reward_fingerprint(load_reward(config, search_path(recipe_path)))
    return {**identity_fields(config), "source": source}


def folder_inputs(path: Path) -> dict[str, Any]:
    """What identifies the model in a local folder. The path itself is no part of it.

    Small files count by content, large ones by size, head and tail: hashing tens of gigabytes at every start would
    cost minutes.
    """
    files = {
        str(file.relative_to(path)): edges_hash(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    }
    return {"files": files}


def model_inputs(model: str, recipe_path: Path) -> tuple[dict[str, Any], str]:
    """What identifies a model given by path or hub id, and where to load it from.

    Raises CascadeError for a folder that holds no model; LookupError for what is neither a folder nor a hub id.
    """
    path = resolve_path(model, recipe_path)
    if path is None:
        if model.startswith((".", "/", "~")) or "/" not in model:
            raise LookupError(model)
        return {"hub": model}, model
    if not (path / "config.json").is_file():
        raise CascadeError(f"{path} is not a model folder (it has no config.json)")
    return folder_inputs(path), str(path)


def _teacher(config: TeacherConfig, known: Mapping[str, str], recipe_path: Path) -> dict[str, Any]:
    """What identifies a teacher: its stage, its model, or, where that is all there is, the address of its server."""
    if config.stage is not None:
        return {"stage": known[config.stage]}
    if config.model is None:
        return {"url": config.url}
    return model_inputs(config.model, recipe_path)[0]
