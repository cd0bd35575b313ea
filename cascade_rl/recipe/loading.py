"""Loading a recipe: read, reuse, validate; one error with everything that is wrong."""

from __future__ import annotations

from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cascade_rl.recipe.merging import apply_override, merged, read_with_bases, resolve_extends
from cascade_rl.recipe.problems import Keys, Place, Problem, RecipeError, nearest
from cascade_rl.recipe.reading import Mapping, Sequence
from cascade_rl.recipe.schema import KINDS, Recipe
from cascade_rl.recipe.validation import validate_recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe and where each of its values was written."""

    recipe: Recipe
    path: Path
    files: tuple[Path, ...]
    raw: Mapping = field(repr=False)

    def place(self, *keys: str | int) -> Place:
        """Where ``keys`` (stage names count as keys) was written, or the deepest part of it that was."""
        return locate(self.raw, str(self.path), keys)

    def to_yaml(self) -> str:
        """The resolved recipe: no `base`, `extends` or `defaults`, only values that differ from the schema's own.

        Relative paths in it are still relative to the original file. Loading it gives an equal recipe.
        """
        return yaml.safe_dump(_plain(self.recipe), sort_keys=False, allow_unicode=True, width=110)


def load_recipe(path: str | Path, overrides: AnySequence[str] = ()) -> LoadedRecipe:
    """Load and validate a recipe. Raises RecipeError listing every problem with file, line and key."""
    from cascade_rl.recipe.checks import check_structure

    path = Path(path)
    shown = str(path)
    raw, files = read_with_bases(path, shown)
    problems = [problem for text in overrides if (problem := apply_override(raw, text))]
    if isinstance(raw.get("stages"), Sequence):
        problems += resolve_extends(raw["stages"])
        problems += _apply_defaults(raw, shown)
    if problems:
        raise RecipeError(problems, shown)
    recipe, problems = validate_recipe(raw, lambda keys: locate(raw, shown, keys))
    if recipe is None:
        raise RecipeError(problems, shown)
    loaded = LoadedRecipe(_resolved(recipe), path, tuple(files), raw)
    problems = check_structure(loaded, None)
    if problems:
        raise RecipeError(problems, shown)
    return loaded


def locate(raw: Any, shown: str, keys: Keys) -> Place:
    """The place of the deepest known part of ``keys``."""
    place, holder = Place(shown, 1), raw
    for key in keys:
        if isinstance(holder, Mapping) and key in holder:
            place, holder = holder.places.get(key, place), holder[key]
        elif isinstance(holder, Sequence):
            index = next(
                (i for i, item in enumerate(holder) if isinstance(item, Mapping) and item.get("name") == key),
                key if isinstance(key, int) and key < len(holder) else None,
            )
            if index is None:
                break
            place, holder = holder.places[index], holder[index]
        else:
            break
    return place


def _apply_defaults(raw: Mapping, shown: str) -> list[Problem]:
    """Lay every stage on its kind's defaults, in place."""
    defaults = raw.get("defaults")
    if defaults is None:
        return []
    place = locate(raw, shown, ("defaults",))
    if not isinstance(defaults, Mapping):
        return [Problem(place, "defaults", "must be a mapping from kinds of stages to their keys")]
    problems = []
    for kind in defaults:
        if kind not in KINDS:
            near = nearest(kind, KINDS)
            hint = f"did you mean {near}?" if near else f"kinds: {', '.join(KINDS)}"
            problems.append(Problem(defaults.places[kind], f"defaults.{kind}", f"there is no such kind; {hint}"))
        elif not isinstance(defaults[kind], Mapping):
            problems.append(Problem(defaults.places[kind], f"defaults.{kind}", "must be a mapping of keys"))
    if not problems:
        stages = raw["stages"]
        for index, stage in enumerate(stages):
            if isinstance(stage, Mapping) and stage.get("kind") in defaults:
                stages[index] = merged(defaults[stage["kind"]], stage)
    return problems


def _resolved(recipe: Recipe) -> Recipe:
    """Every stage with its parent named and its seed set."""
    stages, before = [], "model"
    for stage in recipe.stages:
        seed = recipe.seed if stage.seed is None else stage.seed
        stages.append(stage.model_copy(update={"init": stage.init or before, "seed": seed}))
        before = stage.name
    return recipe.model_copy(update={"stages": stages})


def _plain(value: Any) -> Any:
    """A section as plain YAML values, without what equals the schema's default (names and kinds always stay)."""
    if isinstance(value, BaseModel):
        fields = {}
        for name, info in type(value).model_fields.items():
            item = getattr(value, name)
            if name in ("name", "kind", "use", "source") or item != info.get_default(call_default_factory=True):
                fields[name] = _plain(item)
        return fields | {key: _plain(item) for key, item in (value.model_extra or {}).items()}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
