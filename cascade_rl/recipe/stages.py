"""What stages take from elsewhere: ``extends`` (another stage), ``defaults`` (their kind); and ``skip``.

Each function gives the new tree and what is wrong; a stage whose ``extends`` cannot be followed keeps that key, so
that validation does not go on to complain of all that is missing in it.
"""

from __future__ import annotations

from typing import Any

from cascade_rl.recipe.kinds import find_kind, kind_names
from cascade_rl.recipe.merging import merged
from cascade_rl.recipe.problems import Problem, suggestion
from cascade_rl.recipe.tree import PlacedDict, PlacedList, problem_at, stage_names, stages_of

NOT_INHERITED = ("name", "init", "extends", "skip")


def with_extends(root: PlacedDict) -> tuple[PlacedDict, list[Problem]]:
    """Every stage with ``extends`` laid on the stage it names, which is resolved first."""
    stages, names = stages_of(root), stage_names(root)
    finished: dict[int, Any] = {}
    problems: list[Problem] = []

    def resolved(index: int, chain: tuple[int, ...]) -> Any:
        if index not in finished:
            finished[index] = followed(index, (*chain, index))
        return finished[index]

    def followed(index: int, chain: tuple[int, ...]) -> Any:
        stage = stages[index]
        if not isinstance(stage, PlacedDict) or stage.get("extends") is None:
            return stage.without("extends") if isinstance(stage, PlacedDict) else stage
        wrong = _wrong_extends(names, chain, stage["extends"])
        if wrong:
            problems.append(problem_at(root, ("stages", index, "extends"), wrong))
            return stage
        parent = resolved(names.index(stage["extends"]), chain)
        own = stage if "extends" in parent else stage.without("extends")
        return merged(parent.without(*NOT_INHERITED), own)

    result = PlacedList(stages.place)
    for index, place in enumerate(stages.places):
        result.add(resolved(index, ()), place)
    return _with_stages(root, result), problems


def _wrong_extends(names: list[str | None], chain: tuple[int, ...], wanted: Any) -> str | None:
    """Why the last stage of ``chain`` cannot extend ``wanted``; None when it can."""
    if not isinstance(wanted, str) or wanted not in names:
        others = [name for i, name in enumerate(names) if name and i != chain[-1]]
        return f"there is no stage {wanted!r}; {suggestion(str(wanted), others, 'the other stages are')}"
    target = names.index(wanted)
    if target in chain:
        circle = " -> ".join(str(names[i]) for i in (*chain[chain.index(target) :], target))
        return f"stages extend each other in a circle: {circle}"
    return None


def without_skipped(root: PlacedDict) -> tuple[PlacedDict, PlacedDict, list[Problem]]:
    """Split the tree: one without the stages that say ``skip: true``, and one with these stages alone."""
    kept, skipped, problems = PlacedList(stages_of(root).place), PlacedList(stages_of(root).place), []
    for index, (stage, place) in enumerate(zip(stages_of(root), stages_of(root).places, strict=True)):
        skip = stage.get("skip") if isinstance(stage, PlacedDict) else None
        if skip is not None and not isinstance(skip, bool):
            problems.append(problem_at(root, ("stages", index, "skip"), f"must be true or false, not {skip!r}"))
        stays = stage.without("skip") if isinstance(stage, PlacedDict) else stage
        (skipped if skip is True else kept).add(stays, place)
    return _with_stages(root, kept), _with_stages(root, skipped), problems


def with_defaults(root: PlacedDict) -> tuple[PlacedDict, list[Problem]]:
    """Every stage laid on the defaults of its kind."""
    defaults = root.get("defaults")
    if defaults is None:
        return root, []
    if not isinstance(defaults, PlacedDict):
        return root, [
            problem_at(
                root, ("defaults",), f"must be a mapping from kinds of stages ({', '.join(kind_names())}) to their keys"
            )
        ]
    problems = []
    for kind, keys in defaults.items():
        if find_kind(kind) is None:
            message = f"there is no kind {kind!r}; {suggestion(str(kind), kind_names(), 'kinds are')}"
            problems.append(problem_at(root, ("defaults", kind), message))
        elif keys is not None and not isinstance(keys, PlacedDict):
            problems.append(problem_at(root, ("defaults", kind), f"must be a mapping of keys, not {keys!r}"))
    stages = PlacedList(stages_of(root).place)
    for stage, place in zip(stages_of(root), stages_of(root).places, strict=True):
        wanted = stage.get("kind") if isinstance(stage, PlacedDict) else None
        under = defaults.get(wanted) if isinstance(wanted, str) else None
        stages.add(merged(under, stage) if isinstance(under, PlacedDict) else stage, place)
    return _with_stages(root, stages), problems


def _with_stages(root: PlacedDict, stages: PlacedList) -> PlacedDict:
    if not isinstance(root.get("stages"), PlacedList):
        return root
    return root.replaced("stages", stages, root.places["stages"])
