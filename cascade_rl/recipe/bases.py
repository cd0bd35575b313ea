"""``base:`` — a recipe laid on another file."""

from __future__ import annotations

import os
from pathlib import Path

from cascade_rl.recipe.merging import merged_recipes
from cascade_rl.recipe.problems import Problem, RecipeError
from cascade_rl.recipe.reading import read_yaml
from cascade_rl.recipe.tree import PlacedDict, problem_at


def read_with_bases(path: Path) -> tuple[PlacedDict, tuple[Path, ...]]:
    """The file laid on its ``base``, that on its own, and so on; and all files read, ``path`` first.

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
    for child in reversed(trees):
        result = merged_recipes(result, child)
    return result, tuple(files)


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
