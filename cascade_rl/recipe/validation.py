"""From a merged tree to the typed recipe; pydantic's findings in plain words, each at its place.

Stages and benchmarks are validated one by one against the schema that their kind or shape names, so that no finding
speaks of alternatives that nobody meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cascade_rl.recipe.kinds import KINDS, StageConfig, find_kind, kind_names
from cascade_rl.recipe.measuring import BenchmarkByName, BenchmarkConfig
from cascade_rl.recipe.problems import Keys, Misfit, Problem, UnknownKey, suggestion
from cascade_rl.recipe.schema import Recipe
from cascade_rl.recipe.sections import field_at, unknown_key
from cascade_rl.recipe.tree import PlacedDict, PlacedList, place_of, plain, problem_at, stages_of
from cascade_rl.recipe.wording import mismatch
from cascade_rl.type_words import expected, shown


@dataclass(frozen=True)
class Validated:
    """What of a tree is valid. A part with problems is None, and ``recipe`` is None unless all parts are valid.

    A stage can be None without a problem: when its ``extends`` leads nowhere, which was reported before.
    """

    recipe: Recipe | None
    stages: tuple[StageConfig | None, ...]
    benchmarks: tuple[Any, ...]
    problems: list[Problem]


def validate(root: PlacedDict) -> Validated:
    """Validate a tree that ``base``, ``extends``, ``skip`` and ``defaults`` were taken out of or applied to."""
    validator = _Validator(root)
    validator.defaults()
    stages = tuple(validator.stages())
    benchmarks = tuple(validator.benchmarks())
    head = validator.head()
    recipe = None
    if not validator.problems and None not in (*stages, *benchmarks):
        evaluate = {**head.get("evaluate", {}), "after_each_stage": list(benchmarks)}
        if "evaluate" not in head:
            evaluate = {}
        recipe = Recipe.model_validate({**head, "evaluate": evaluate, "stages": list(stages)})
    return Validated(recipe, stages, benchmarks, validator.problems)


def validate_stages(root: PlacedDict) -> tuple[tuple[StageConfig | None, ...], list[Problem]]:
    """The stages of ``root`` typed, None for one with problems, and these problems; nothing else of the tree."""
    validator = _Validator(root)
    stages = tuple(validator.stage(stage, ("stages", index)) for index, stage in enumerate(stages_of(root)))
    return stages, validator.problems


class _Validator:
    """Walks over a tree once; ``problems`` grows on the way."""

    def __init__(self, root: PlacedDict) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.seen: set[tuple[int, Keys, str]] = set()

    def report(self, unit: Keys, inner: Keys, message: str) -> None:
        """A problem at ``inner`` within ``unit`` (a stage, say); once only for what several stages inherit."""
        problem = problem_at(self.root, (*unit, *inner), message)
        # By identity: what stages share by `extends` and `defaults` is the same object at the same place.
        mark = (id(place_of(self.root, (*unit, *inner))), tuple(inner), message)
        if mark not in self.seen:
            self.seen.add(mark)
            self.problems.append(problem)

    def head(self) -> dict[str, Any]:
        """Everything but stages and benchmarks, as plain values."""
        values = plain(self.root.without("stages", "defaults"))
        evaluate = values.get("evaluate")
        if isinstance(evaluate, dict) and isinstance(evaluate.get("after_each_stage"), list):
            evaluate["after_each_stage"] = []
        self.typed(Recipe, values, (), lambda finding: finding["loc"] == ("stages",))
        return values

    def defaults(self) -> None:
        """What is wrong with `defaults` by itself, whether or not a stage of that kind exists."""
        sections = self.root.get("defaults")
        for kind, section in sections.items() if isinstance(sections, PlacedDict) else ():
            if (schema := find_kind(kind)) is not None and isinstance(section, PlacedDict):
                self.typed(schema, plain(section), ("defaults", kind), _of_incomplete)

    def stages(self) -> Iterator[StageConfig | None]:
        """Each stage typed, or None for one with problems."""
        if "stages" not in self.root:
            self.report((), ("stages",), "missing; must be a list of stages")
        elif not isinstance(self.root["stages"], PlacedList):
            found = shown(self.root["stages"])
            self.report((), ("stages",), f"must be a list of stages, each beginning with `- name:`, not {found}")
        elif not self.root["stages"]:
            self.report((), ("stages",), "must list at least one stage that is not skipped")
        for index, stage in enumerate(stages_of(self.root)):
            yield self.stage(stage, ("stages", index))

    def stage(self, stage: Any, keys: Keys) -> StageConfig | None:
        if not isinstance(stage, PlacedDict):
            self.report(keys, (), f"must be a mapping with name, kind and data, not {shown(stage)}")
            return None
        kind, incomplete = stage.get("kind"), "extends" in stage
        if (schema := find_kind(kind)) is not None:
            ignore = _of_incomplete if incomplete else None
            typed = self.typed(schema, plain(stage.without("extends")), keys, ignore)
            if typed is not None:
                typed.refuse_unnamed()
            return typed
        if kind is not None:
            meant = next((name for name, each in KINDS.items() if str(kind).lower() in each.ALSO_CALLED), None)
            hint_ = f"it is {meant} here" if meant else suggestion(str(kind), kind_names(), "kinds are")
            self.report(keys, ("kind",), f"there is no kind {shown(kind)}; {hint_}")
        elif not incomplete:
            self.report(keys, ("kind",), f"missing; must be one of {' or '.join(kind_names())}")
        return None

    def benchmarks(self) -> Iterator[Any]:
        """Each benchmark typed by its shape (a name, ``use``, or a definition), or None for one with problems."""
        evaluate = self.root.get("evaluate")
        entries = evaluate.get("after_each_stage") if isinstance(evaluate, PlacedDict) else None
        for index, entry in enumerate(entries if isinstance(entries, PlacedList) else ()):
            keys = ("evaluate", "after_each_stage", index)
            if isinstance(entry, str):
                yield entry
            elif isinstance(entry, PlacedDict):
                yield self.typed(BenchmarkByName if "use" in entry else BenchmarkConfig, plain(entry), keys)
            else:
                wanted = "a benchmark's name, or a mapping with `use` or with name, data and reward"
                self.report(keys, (), f"must be {wanted}, not {shown(entry)}")
                yield None

    def typed(
        self, model: type[BaseModel], values: Any, keys: Keys, ignore: Callable[[ErrorDetails], bool] | None = None
    ) -> Any:
        """``values`` as a ``model``; None where something is wrong that ``ignore`` does not excuse."""
        try:
            # As JSON, whose strict mode fits YAML: `no` and "10" are text, 3 is a number too, a list can be a tuple.
            return model.model_validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            for finding in error.errors():
                if not (ignore and ignore(finding)):
                    misfit = finding.get("ctx", {}).get("error")
                    within = misfit.keys if isinstance(misfit, Misfit) else ()
                    self.report(keys, (*finding["loc"], *within), _in_plain_words(model, finding))
        return None


def _of_incomplete(finding: ErrorDetails) -> bool:
    """True for what can only be said of a section that has all its keys."""
    return finding["type"] == "missing" or not finding["loc"]


def _in_plain_words(model: type[BaseModel], finding: ErrorDetails) -> str:
    keys = finding["loc"]
    if finding["type"] == "extra_forbidden":
        return unknown_key(model, keys)
    if finding["type"] == "value_error":
        error = finding["ctx"]["error"]
        return unknown_key(model, (*keys, *error.keys)) if isinstance(error, UnknownKey) else str(error)
    field = field_at(model, keys)
    if field is None:
        return finding["msg"]
    if finding["type"] == "missing":
        return f"missing; must be {expected(*field)}"
    return mismatch(*field, finding["input"], finding["type"])
