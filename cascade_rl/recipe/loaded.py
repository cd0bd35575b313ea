"""What loading a recipe gives: the typed tree, and where each of its values was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cascade_rl.recipe import tree, writing
from cascade_rl.recipe.problems import SourceLine
from cascade_rl.recipe.schema import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe. Every stage's ``init`` names its parent, every stage's ``seed`` is set."""

    recipe: Recipe
    path: Path
    files: tuple[Path, ...]
    """All files read: ``path``, then its base, then that one's."""
    raw: tree.PlacedDict = field(repr=False, compare=False)
    """The merged tree that ``recipe`` was made from."""
    skipped: tuple[str, ...] = ()
    """Names of stages left out by ``skip: true``."""

    def place(self, *keys: str | int) -> SourceLine:
        """Where ``keys`` (stage names count as keys) were written, or the deepest part of them that was."""
        return tree.place_of(self.raw, keys)

    def dotted(self, *keys: str | int) -> str:
        """``keys`` as messages show them: ``stages.math-rl.steps``."""
        return tree.dotted(self.raw, keys)

    def to_yaml(self) -> str:
        """The resolved recipe: no `base`, `extends` or `defaults`, only values that differ from the schema's own.

        Relative paths in it are still relative to the original file. Loading it gives an equal recipe.
        """
        return writing.to_yaml(self.recipe)
