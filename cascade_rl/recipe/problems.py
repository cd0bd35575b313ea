"""What is wrong with a recipe, and where: every problem at once, each with a place and a way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where a value was written. ``line`` is 1-based; None for ``--set``."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    place: Place
    key: str
    """Dotted, with stage names: ``stages.math-rl.group_size``; empty for the whole file."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"

    @classmethod
    def at(cls, loaded: Any, keys: Sequence[str | int], message: str) -> Problem:
        """A problem of a loaded recipe's ``keys`` (stage names count as keys)."""
        return cls(loaded.place(*keys), dotted(keys), message)


class RecipeError(CascadeError):
    """All problems of a recipe; the text lists them."""

    def __init__(self, problems: Iterable[Problem], path: Path | str) -> None:
        self.problems = list(dict.fromkeys(problems))
        count = len(self.problems)
        lines = [str(problem) for problem in self.problems]
        if count > 1:
            lines.append(f"{count} problems in {path}")
        super().__init__("\n".join(lines))


def dotted(keys: Iterable[str | int]) -> str:
    return ".".join(str(key) for key in keys)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``word``, if any is like it at all."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None
