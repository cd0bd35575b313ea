"""From raw YAML to the typed tree, with pydantic's findings put into plain words and placed."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from cascade_rl.recipe.problems import Keys, Place, Problem, dotted, nearest
from cascade_rl.recipe.reading import Mapping, Sequence
from cascade_rl.recipe.schema import KINDS, BenchmarkByName, BenchmarkConfig, Recipe, SftStage

Locate = Callable[[Keys], Place]


def validate_recipe(top: Mapping, locate: Locate) -> tuple[Recipe | None, list[Problem]]:
    """The typed recipe, or every problem. Stages are validated one by one against their own kind."""
    problems: list[Problem] = []
    stages = _validate_stages(top.get("stages"), locate, problems, "stages" in top)
    evaluate = top.get("evaluate")
    if isinstance(evaluate, Mapping) and isinstance(evaluate.get("after_each_stage"), Sequence):
        entries = _validate_benchmarks(evaluate["after_each_stage"], locate, problems)
        evaluate = {**evaluate, "after_each_stage": entries}
    rest = {key: value for key, value in top.items() if key not in ("stages", "evaluate", "defaults")}
    if evaluate is not None:
        rest["evaluate"] = evaluate
    if not stages:
        # A stand-in, so that the other keys are still checked; the stages' own problems are on the list already.
        stages = [SftStage.model_construct(name="-", learning_rate=1.0, data=[])]
        if not problems:
            problems.append(Problem(locate(("stages",)), "stages", "must list at least one stage"))
    recipe = _validate(Recipe, {**rest, "stages": stages}, (), locate, problems)
    return (None if problems else recipe), problems


def _validate_stages(stages: Any, locate: Locate, problems: list[Problem], given: bool) -> list[BaseModel]:
    if not isinstance(stages, Sequence):
        message = "must be a list of stages" if given else "missing; list the stages to run"
        problems.append(Problem(locate(("stages",)), "stages", message))
        return []
    typed = []
    for index, stage in enumerate(stages):
        if not isinstance(stage, Mapping):
            message = "must be a mapping with name, kind, data and so on"
            problems.append(Problem(locate(("stages", index)), f"stages.{index}", message))
            continue
        name = stage.get("name")
        keys: Keys = ("stages", name if isinstance(name, str) else index)
        kind = stage.get("kind")
        if kind not in KINDS:
            there = ", ".join(KINDS)
            near = nearest(str(kind), KINDS)
            message = (
                f"missing; one of: {there}"
                if kind is None
                else f"there is no kind {kind!r}; {f'did you mean {near}?' if near else f'kinds: {there}'}"
            )
            problems.append(Problem(locate((*keys, "kind")), dotted((*keys, "kind")), message))
            continue
        model = _validate(KINDS[kind], stage, keys, locate, problems)
        if model is not None:
            typed.append(model)
    return typed


def _validate_benchmarks(entries: Sequence, locate: Locate, problems: list[Problem]) -> list[Any]:
    typed: list[Any] = []
    for index, entry in enumerate(entries):
        keys: Keys = ("evaluate", "after_each_stage", index)
        if isinstance(entry, str):
            typed.append(entry)
        elif isinstance(entry, Mapping):
            model = _validate(BenchmarkByName if "use" in entry else BenchmarkConfig, entry, keys, locate, problems)
            if model is not None:
                typed.append(model)
        else:
            message = "must be the name of a shipped benchmark, or a mapping with name, data and reward"
            problems.append(Problem(locate(keys), dotted(keys), message))
    return typed


def _validate(model: type[BaseModel], value: Any, keys: Keys, locate: Locate, problems: list[Problem]) -> Any | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for item in error.errors():
            location = tuple(part for part in item["loc"] if not _is_tag(part))
            problems.append(_in_plain_words(item, (*keys, *location), len(keys), model, locate))
        return None


def _is_tag(part: Any) -> bool:
    """pydantic puts the tried type's name into locations of unions."""
    return isinstance(part, str) and (part.startswith(("function-", "tagged-union")) or part in _TAGS)


_TAGS = {"str", "BenchmarkByName", "BenchmarkConfig", "SftStage", "RlStage"}


def _in_plain_words(item: Any, keys: Keys, depth: int, model: type[BaseModel], locate: Locate) -> Problem:
    kind, found, context = item["type"], item.get("input"), item.get("ctx") or {}
    name = str(keys[-1]) if keys else ""
    if kind == "extra_forbidden":
        return Problem(locate(keys), dotted(keys), _unknown_key(name, keys, depth, model))
    if kind == "missing":
        return Problem(locate(keys[:-1]), dotted(keys), "missing")
    if kind == "literal_error":
        message = f"must be one of {context['expected'].replace(chr(39), '')}, not {found!r}"
    elif kind == "value_error":
        message = str(context.get("error", item["msg"]))
    elif kind == "string_pattern_mismatch":
        message = f"{found!r} will not do as a name: lower-case letters, digits, `.`, `_`, `-`, at most 64"
    elif kind in _COMPARED:
        word, key = _COMPARED[kind]
        message = f"must be {word} {context[key]}, not {found!r}"
    elif kind == "too_short":
        message = f"must have at least {context['min_length']} item"
    else:
        message = f"{_EXPECTED.get(kind, item['msg'])}, not {_shown(found)}"
    return Problem(locate(keys), dotted(keys), message)


_COMPARED = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_EXPECTED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}


def _shown(value: Any) -> str:
    kind = {dict: "a mapping", Mapping: "a mapping", list: "a list", Sequence: "a list", type(None): "nothing"}
    return kind.get(type(value), repr(value))


def _unknown_key(name: str, keys: Keys, depth: int, model: type[BaseModel]) -> str:
    """The nearest valid key here, or where in the same stage the key belongs."""
    section = _section(model, keys[depth:-1]) or model
    near = nearest(name, section.model_fields)
    if near:
        return f"unknown key; did you mean {near}?"
    for path, other in _sections(model):
        if name in other.model_fields and other is not section:
            return f"unknown key here; it belongs to {'.'.join((*path, name))}"
    return f"unknown key; valid ones: {', '.join(sorted(section.model_fields))}"


def _section(model: type[BaseModel], keys: Keys) -> type[BaseModel] | None:
    """The section class that ``keys`` lead to within ``model``."""
    current: type[BaseModel] | None = model
    for key in keys:
        if isinstance(key, int):
            continue
        if current is None or key not in current.model_fields:
            return None
        current = next(iter(_models_in(current.model_fields[key].annotation)), None)
    return current


def _sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], type[BaseModel]]]:
    found = [(path, model)]
    for name, info in model.model_fields.items():
        for inner in _models_in(info.annotation):
            if name not in ("stages", "after_each_stage"):
                found += _sections(inner, (*path, name))
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
    return []
