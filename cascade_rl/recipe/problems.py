"""What is wrong with a recipe, and where: small records, and the one exception that carries all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascade_rl.types import CascadeError

Keys = Sequence[str | int]
"""The way to a value: ``("stages", "math-rl", "data", 0, "limit")``."""

OVERRIDE = "--set"
"""Stands for the file of what came from the command line; such places have no line."""


@dataclass(frozen=True)
class SourceLine:
    """Where something was written. Lines and columns count from 1."""

    file: str
    line: int | None = None
    column: int | None = None
    """Only in syntax errors, where the line alone does not say enough."""

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


class Misfit(ValueError):
    """Raised by a validator of a section: keys that do not go together; ``keys`` lead to the one that had better be
    mended. Where it was not written the section itself is shown."""

    def __init__(self, *keys_and_message: str) -> None:
        *keys, message = keys_and_message
        super().__init__(message)
        self.keys = tuple(keys)


class UnknownKey(Misfit):
    """Raised by a section that takes keys of its own only under a condition; the message is that of any unknown key."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "unknown key")


class Locating(Protocol):
    """What knows where its values were written: a loaded recipe."""

    def place(self, *keys: str | int) -> SourceLine: ...

    def dotted(self, *keys: str | int) -> str: ...


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    place: SourceLine
    key: str
    """Dotted, with stage names: ``stages.math-rl.group_size``; empty for the whole file."""
    message: str

    @property
    def file(self) -> str:
        return self.place.file

    @property
    def line(self) -> int | None:
        return self.place.line

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.message) if part)

    @classmethod
    def at(cls, loaded: Locating, keys: Keys, message: str) -> Problem:
        """A problem of a loaded recipe's ``keys`` (stage names count as keys)."""
        return cls(loaded.place(*keys), loaded.dotted(*keys), message)


class RecipeError(CascadeError):
    """All problems of a recipe. The text has one line for each, then says how many there are."""

    def __init__(self, problems: Iterable[Problem], path: Path | str) -> None:
        self.problems = list(problems)
        self.path = Path(path)
        super().__init__(self.problems, self.path)  # what unpickling calls the class with again

    def __str__(self) -> str:
        count = len(self.problems)
        total = f"{count} problem{'' if count == 1 else 's'} in {self.path}"
        return "\n".join([*map(str, self.problems), total])


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice spelled most like ``word``, or None when none is like it."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(word: str, choices: Iterable[str], otherwise: str) -> str:
    """``did you mean x?`` for the nearest choice; without one, ``otherwise`` and all of the choices."""
    choices = list(choices)
    near = nearest(word, choices)
    return f"did you mean {near}?" if near else f"{otherwise}: {', '.join(choices) or 'none'}"
