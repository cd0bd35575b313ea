"""Finding one's way in the schema: which field a path leads to, and where else a key would be valid."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cascade_rl.recipe.kinds import KINDS, StageConfig
from cascade_rl.recipe.problems import Keys, nearest
from cascade_rl.recipe.schema import Recipe
from cascade_rl.type_words import is_model, required_type

Model = type[BaseModel]
FILE_KEYS = ("base", "defaults")
STAGE_KEYS = ("extends", "skip")
"""Keys that are used up while loading, so that the schema does not have them."""
LISTED_KEYS = 12
"""A section with more keys than this is not spelled out in a message."""
CLEARLY_NEARER = 0.1
"""How much more similar a key of another section must be to be preferred to one of the same."""


def field_at(model: Model, keys: Keys) -> tuple[Any, list[Any]] | None:
    """Annotation and constraints of the value at ``keys`` within a section; None where the schema has none."""
    annotation, constraints = model, []
    for key in keys:
        annotation, origin = required_type(annotation), typing.get_origin(required_type(annotation))
        if is_model(annotation):
            info = annotation.model_fields.get(str(key))
            if info is None:
                return None
            annotation, constraints = info.annotation, info.metadata
        elif origin in (list, tuple, dict):
            arguments = typing.get_args(annotation)
            position = key if origin is tuple and isinstance(key, int) else len(arguments) - 1
            if position >= len(arguments):
                return None
            annotation, constraints = arguments[position], []
        else:
            return None
    return annotation, constraints


ELSEWHERE = {
    "beta": "loss.kl",
    "kl_coef": "loss.kl",
    "kl_loss_coef": "loss.kl",
    "epsilon": "loss.clip_low",
    "epsilon_high": "loss.clip_high",
    "loss_type": "loss.aggregate",
    "scale_rewards": "advantage",
    "num_generations": "group_size",
    "max_completion_length": "rollout.max_new_tokens",
    "max_response_length": "rollout.max_new_tokens",
    "max_prompt_length": "max_prompt_tokens",
    "num_iterations": "updates_per_batch",
    "reward_funcs": "reward",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "lr": "learning_rate",
    "from": "init",
    "parent": "init",
    "max_grad_norm": "grad_clip",
}
"""What other frameworks, or common sense, call the keys of a stage."""


def unknown_key(model: Model, keys: Keys) -> str:
    """What to say of the last of ``keys``, which its section in ``model`` does not have.

    Where the very word is valid in another section of the same stage (or file), that is meant; else the most similar
    key of its own section; else what fits further away.
    """
    key = str(keys[-1])
    found = field_at(model, keys[:-1])
    section = required_type(found[0]) if found else model
    if not is_model(section):
        return "unknown key"
    own = _keys(section)
    if issubclass(model, StageConfig) and key in ELSEWHERE:
        return (
            f"unknown key; it is {ELSEWHERE[key]} here (docs/keys.md has all keys, and what other frameworks call them)"
        )
    around = [(where, home) for where, home in _homes(model) if home is not section]
    far = [(where, home) for where, home in _distant_homes(model) if home is not section]
    for where, home in around:
        if key in home.model_fields:
            return f"unknown key here; it belongs to {_address(where, key)}"
    near, elsewhere = nearest(key, own), _nearest_home(key, around)
    if elsewhere and _likeness(key, elsewhere[0]) > _likeness(key, near or "") + CLEARLY_NEARER:
        return f"unknown key; did you mean {elsewhere[0]} in {elsewhere[1]}?"
    if near:
        return f"unknown key; did you mean {near}?"
    for where, home in far:
        if key in home.model_fields:
            return f"unknown key here; it belongs to {_address(where, key)}"
    return "unknown key" + (f"; the keys here are {', '.join(own)}" if len(own) <= LISTED_KEYS else "")


def _nearest_home(key: str, homes: list[tuple[str, Model]]) -> tuple[str, str] | None:
    """The most similar key of ``homes``, and the section that has it."""
    near = nearest(key, {name for _, home in homes for name in home.model_fields})
    return next(((near, where) for where, home in homes if near in home.model_fields), None) if near else None


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, word, other).ratio()


def _address(where: str, key: str) -> str:
    """``rollout.temperature`` for a key in `rollout`; for other places a sentence has to do."""
    return f"{where.strip('`')}.{key}" if where.startswith("`") and where.endswith("`") else where


def _keys(section: Model) -> list[str]:
    extra = FILE_KEYS if section is Recipe else STAGE_KEYS if issubclass(section, StageConfig) else ()
    return [*section.model_fields, *extra]


def _homes(model: Model) -> Iterator[tuple[str, Model]]:
    """The sections of one stage, benchmark or file, each with its name in a sentence; the outermost first."""
    if issubclass(model, StageConfig):
        yield "the stage itself", model
    elif model is Recipe:
        yield "the file's top level", model
    else:
        yield "the benchmark itself", model
    yield from _inner(model, ())


def _inner(model: Model, path: tuple[str, ...]) -> Iterator[tuple[str, Model]]:
    for name, info in model.model_fields.items():
        annotation = required_type(info.annotation)
        dotted = ".".join((*path, name))
        if is_model(annotation):
            yield f"`{dotted}`", annotation
            yield from _inner(annotation, (*path, name))
        elif typing.get_origin(annotation) is list:
            for entry in _models_in(typing.get_args(annotation)[0]):
                yield f"an entry of `{dotted}`", entry
                yield from _inner(entry, (*path, name, "N"))


def _models_in(annotation: Any) -> list[Model]:
    """The sections that an entry of a list may be: a stage may be of every kind."""
    alternatives = typing.get_args(annotation) or (annotation,)
    found = [each for each in alternatives if is_model(each)]
    return list(KINDS.values()) if found == [StageConfig] else found


def _distant_homes(model: Model) -> Iterator[tuple[str, Model]]:
    """Sections outside: other kinds of stages, and for a stage or benchmark the rest of the file."""
    if issubclass(model, StageConfig):
        for kind, other in KINDS.items():
            if other is not model:
                yield f"stages of kind {kind}, and this one is of another kind", other
    if model is not Recipe:
        yield "the file's top level", Recipe
        for where, home in _inner(Recipe, ()):
            if not where.startswith("an entry"):
                yield f"{where} at the file's top level", home
