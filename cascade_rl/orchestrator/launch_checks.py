"""What was asked of the launcher and what of the recipe must be the same, and must be offered."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from cascade_rl.recipe import LoadedRecipe, Problem, StageConfig
from cascade_rl.recipe.launching import Launch
from cascade_rl.recipe.paths import resolve_path
from cascade_rl.recipe.problems import Keys
from cascade_rl.types import CascadeError


def accelerate_config(loaded: LoadedRecipe) -> Path | None:
    """The config file that the recipe names, if it names one. Raises CascadeError when there is none such."""
    named = loaded.recipe.launch.accelerate
    if named is None:
        return None
    path = resolve_path(named, loaded.path)
    if path is None:
        where = loaded.place("launch", "accelerate")
        raise CascadeError(
            f"{where}: launch.accelerate: there is no file {named} beside the recipe or in the working folder"
        )
    return path


def launch_of(loaded: LoadedRecipe) -> Launch:
    """What this process was launched with, or, before that, what the recipe's own accelerate config would ask for.

    Raises CascadeError for a config that cannot be read.
    """
    path = None if "RANK" in os.environ else accelerate_config(loaded)
    if path is None:
        return Launch.from_environment(os.environ)
    try:
        return Launch.from_config(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise CascadeError(f"launch.accelerate: {path} cannot be read: {error}") from error


def check_launch(loaded: LoadedRecipe, launch: Launch, world_size: int) -> Iterator[Problem]:
    """Problems of the accelerate config, and of each stage's ``sharding`` beside it."""
    for message in launch.refused:
        yield Problem.at(loaded, ("launch",), f"the accelerate config: {message}")
    if launch.precision == "bf16" and loaded.recipe.dtype == "float32":
        yield Problem.at(loaded, ("dtype",), "the recipe says float32, the accelerate config mixed_precision: bf16")
    for index, stage in enumerate(loaded.recipe.stages):
        keys: Keys = ("stages", index)
        clip = launch.gradient_clipping
        if clip is not None and clip != stage.grad_clip:
            message = f"{stage.grad_clip:g} here, {clip:g} in the accelerate config; leave it out there"
            yield Problem.at(loaded, (*keys, "grad_clip"), message)
        for key, message in _problems(stage, launch, world_size):
            yield Problem.at(loaded, (*keys, "sharding", key), message)


def _problems(stage: StageConfig, launch: Launch, world_size: int) -> Iterator[tuple[str, str]]:
    """(key of ``sharding``, message)."""
    if stage.trained_by == "trl":
        yield from _data_parallel_only(stage)
        return
    how = stage.sharding
    if message := launch.disagreement(how):
        yield "strategy", message
        return
    how = launch.resolve(how)
    if how.strategy.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        yield (
            "strategy",
            f"{how.strategy} needs DeepSpeed, which is not installed (pip install deepspeed)",
        )
    if how.offload_parameters and how.strategy not in ("zero3", "fsdp2"):
        yield "offload_parameters", f"{how.strategy} keeps whole weights on each device; use zero3 or fsdp2"
    if how.sequence_parallel > 1:
        yield from _sequence_parallel(how.sequence_parallel, stage, world_size)


def _data_parallel_only(stage: StageConfig) -> Iterator[tuple[str, str]]:
    how = stage.sharding
    if how.strategy not in ("auto", "ddp"):
        yield "strategy", "TRL's trainers are data-parallel here; leave it out, say ddp, or leave out `trainer: trl`"
    for key in ("offload_optimizer", "offload_parameters", "offload_activations", "offload_reference"):
        if getattr(how, key):
            yield key, "TRL's trainers do not offload here; leave it out, or leave out `trainer: trl`"
    if how.sequence_parallel > 1:
        yield "sequence_parallel", "TRL's trainers are data-parallel here; leave it out, or leave out `trainer: trl`"


def _sequence_parallel(size: int, stage: StageConfig, world_size: int) -> Iterator[tuple[str, str]]:
    if world_size % size:
        yield (
            "sequence_parallel",
            f"{size} does not divide the {world_size} ranks; start a multiple of {size}, or use 1",
        )
    if choice := stage.needs_whole_rollouts:
        yield "sequence_parallel", f"{choice} looks at whole rollouts, of which a rank has parts; use another"
