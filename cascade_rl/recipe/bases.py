"""``base:`` — a recipe laid on another file."""

from __future__ import annotations

import os
from pathlib import Path

from cascade_rl.recipe.merging import merged_recipes
from cascade_rl.recipe.problems import Problem, RecipeError, SourceLine, suggestion
from cascade_rl.recipe.reading import read_yaml
from cascade_rl.recipe.tree import PlacedDict, PlacedList, problem_at, stage_name, stage_names, stages_of
from cascade_rl.type_words import shown


def read_with_bases(path: Path) -> tuple[PlacedDict, tuple[Path, ...], list[Problem]]:
    """Read a recipe and merge it onto its ``base``, which is merged onto its own base first, and so on.

    Returns the merged tree, the files read (``path`` first), and the entries of ``stages`` that change a stage which
    no base has. Such entries are not in the tree.

    Raises RecipeError for a file that cannot be read and for bases that go round in a circle.
    """
    trees: list[PlacedDict] = []
    files: list[Path] = []
    following: Path | None = path
    while following is not None:
        tree = read_yaml(following, str(following))
        trees.append(tree.without("base"))
        files.append(following)
        following = _base_of(tree, files)
    result = trees.pop()
    problems: list[Problem] = []
    while trees:
        child, base = trees.pop(), files[len(trees) + 1]
        child, found = _without_strays(child, result, base)
        problems += found
        result = merged_recipes(result, child)
    return result, tuple(files), problems


def _without_strays(child: PlacedDict, base: PlacedDict, base_file: Path) -> tuple[PlacedDict, list[Problem]]:
    """``child`` without the entries of its ``stages`` that are neither a change to a stage of ``base`` nor a new stage.

    A new stage says its ``kind`` or which stage it ``extends``. Problems number the entries as the child's file does.
    """
    names = stage_names(base)
    if not isinstance(base.get("stages"), PlacedList) or not isinstance(child.get("stages"), PlacedList):
        return child, []
    stages, problems = PlacedList(stages_of(child).place), []
    first: dict[str | None, SourceLine] = {}
    for index, (stage, place) in enumerate(zip(stages_of(child), stages_of(child).places, strict=True)):
        name = stage_name(stage)
        is_new = isinstance(stage, PlacedDict) and any(stage.get(key) is not None for key in ("kind", "extends"))
        if is_new or (name in names and name not in first):
            stages.add(stage, place)
        else:
            before = first.get(name) if name in names else None
            wrong = _stray(stage, [n for n in names if n], base_file, before)
            problems.append(Problem(place, f"stages.{index}", wrong))
        first.setdefault(name, place)
    return child.replaced("stages", stages, child.places["stages"]), problems


def _stray(stage: object, names: list[str], base_file: Path, before: SourceLine | None) -> str:
    """What is wrong with an entry that no stage of the base belongs to, or whose stage has an entry at ``before``."""
    if not isinstance(stage, PlacedDict):
        return (
            f"must be a mapping with the `name` of a stage of {base_file}, or a new stage with `kind`, "
            f"not {shown(stage)}"
        )
    name = stage.get("name")
    if name is None:
        return f"has no `name`, so it belongs to no stage; {base_file} has {', '.join(names) or 'none'}"
    if before is not None:
        return f"stage {name} is listed twice (the first: {before}); write all its keys into one entry"
    hint = suggestion(str(name), names, "its stages are")
    stop = "" if hint.endswith("?") else "."
    return f"{base_file} has no stage {shown(name)}; {hint}{stop} A new stage needs `kind` or `extends`."


def _base_of(tree: PlacedDict, files: list[Path]) -> Path | None:
    """The base that the last of ``files`` names. Raises RecipeError when there is none such, or it was read before."""
    name = tree.get("base")
    if name is None:
        return None
    if not isinstance(name, str):
        raise _error(problem_at(tree, ("base",), "must be the path of another recipe, as text"), files)
    # Normalised as text and not resolved, so that messages show the path as the user would write it.
    base = Path(os.path.normpath(files[-1].parent / os.path.expanduser(name)))
    read = [os.path.realpath(file) for file in files]
    if os.path.realpath(base) in read:
        circle = [*files[read.index(os.path.realpath(base)) :], base]
        names = [os.path.relpath(file, files[0].parent) for file in circle]
        message = f"bases go round in a circle: {' -> '.join(names)}"
        raise _error(problem_at(tree, ("base",), message), files)
    if not os.path.exists(base):
        raise _error(problem_at(tree, ("base",), f"there is no file {base} (looked for beside {files[-1]})"), files)
    return base


def _error(problem: Problem, files: list[Path]) -> RecipeError:
    return RecipeError([problem], files[0])
