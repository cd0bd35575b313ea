"""Loading a recipe: read, reuse, validate; one error with everything that is wrong.

files ─ base ─► one tree ─ --set ─ extends ─ skip ─ defaults ─► stages as meant ─ schema ─ checks ─► LoadedRecipe
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cascade_rl.recipe import stage_references
from cascade_rl.recipe.bases import read_with_bases
from cascade_rl.recipe.checks import inner_problems, structure_problems
from cascade_rl.recipe.kinds import StageConfig
from cascade_rl.recipe.loaded import LoadedRecipe
from cascade_rl.recipe.overrides import with_overrides
from cascade_rl.recipe.problems import Problem, RecipeError
from cascade_rl.recipe.schema import Recipe
from cascade_rl.recipe.stages import with_defaults, with_extends, without_skipped
from cascade_rl.recipe.tree import PlacedDict, stage_names, stages_of
from cascade_rl.recipe.validation import validate, validate_stages


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load and validate a recipe; ``overrides`` are the values of ``--set``, such as ``stages.math-rl.steps=10``.

    Raises RecipeError listing every problem with file, line and key. What makes a file unreadable (syntax, a key
    given twice, an absent base) is reported alone, since nothing can be said of the rest.
    """
    path = Path(path)
    root, files, problems = read_with_bases(path)
    root, found = with_overrides(root, overrides)
    problems += found
    root, found = with_extends(root)
    problems += found
    whole = root
    root, left_out, found = without_skipped(root)
    skipped = tuple(name or "" for name in stage_names(left_out))
    problems += found
    root, found = with_defaults(root)
    problems += found
    problems += _skipped_problems(with_defaults(left_out)[0], whole)
    valid = validate(root)
    names = stage_names(root)
    stages = _with_parents(valid.stages, names)
    # Also with problems: those of the valid stages are then told in the same message.
    problems += valid.problems + structure_problems(stages, valid.benchmarks, root, skipped, None)
    if problems or valid.recipe is None:
        raise RecipeError(_in_order(problems, files), path)
    return LoadedRecipe(_resolved(valid.recipe, stages), path, files, root, skipped)


def _skipped_problems(left_out: PlacedDict, whole: PlacedDict) -> list[Problem]:
    """What is wrong with skipped stages by themselves, and where they start: it would wait unseen for ``skip: false``.

    ``whole`` has all stages, skipped or not.
    """
    stages, problems = validate_stages(left_out)
    problems += inner_problems(stages, (), left_out)
    for index, stage in enumerate(stages_of(whole)):
        if isinstance(stage, PlacedDict) and stage.get("skip") is True:
            problems += stage_references.parent(whole, index, ())
    return problems


def _in_order(problems: list[Problem], files: tuple[Path, ...]) -> list[Problem]:
    """From the top of each file to its end; the command line first, bases last."""
    order = {str(file): number for number, file in enumerate(files)}
    return sorted(problems, key=lambda problem: (order.get(problem.file, -1), problem.line or 0))


def _with_parents(stages: Sequence[StageConfig | None], names: Sequence[str | None]) -> tuple[StageConfig | None, ...]:
    """Every stage with its parent named: by itself, or the stage before that is no side branch. None stays None."""
    named: list[StageConfig | None] = []
    before: str | None = "model"
    for stage, name in zip(stages, names, strict=True):
        named.append(stage and stage.model_copy(update={"init": before if stage.init is None else stage.init}))
        if not (stage and stage.IS_SIDE_BRANCH):
            before = name
    return tuple(named)


def _resolved(recipe: Recipe, stages: Sequence[StageConfig | None]) -> Recipe:
    """The recipe with these stages, each with a seed."""
    seeded = [
        stage.model_copy(update={"seed": recipe.seed if stage.seed is None else stage.seed})
        for stage in stages
        if stage
    ]
    return recipe.model_copy(update={"stages": seeded})
