"""A small valid recipe, ways to load variations of it in an empty working folder, and checks of what is said of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade_rl.recipe import LoadedRecipe, RecipeError, load_recipe

VALID = """\
name: tiny
model: tiny-qwen3
stages:
  - name: sft-1
    kind: sft
    data: [{source: rows.jsonl}]
    learning_rate: 1.0e-3
    steps: 10
  - name: math
    kind: rl
    data: [{source: rows.jsonl}]
    reward: {use: "rewards.math:verify"}
    learning_rate: 2e-6
    steps: 20
"""


def mentions(text: str, *words: str) -> bool:
    """Whether all ``words`` occur in ``text``, each of them whole (``1`` is not in ``10`` or ``0.1``), in any order.

    Tests ask for keys, names, numbers and quoted text, or else for one word, so that messages can be rewritten.
    """
    return all(re.search(_whole(word), text) for word in words)


def _whole(word: str) -> str:
    start, end = (re.fullmatch(r"\w", letter) for letter in (word[0], word[-1]))
    return (r"(?<![\w.-])" if start else "") + re.escape(word) + (r"(?![.-]?\w)" if end else "")


def says(found: str, place: str, *words: str) -> None:
    """Assert that the problem ``found`` is at ``place`` and that its message has all ``words``, in any order.

    ``place`` is the whole of what comes before the message: ``recipe.yaml:9: stages.math.steps``.
    """
    assert found.startswith(f"{place}: "), f"not at {place}: {found}"
    message = found.removeprefix(f"{place}: ")
    missing = [word for word in words if not mentions(message, word)]
    assert not missing, f"no {missing} in: {message}"


def says_each(found: list[str], *expected: tuple[str, ...]) -> None:
    """Assert that there is one problem for each of ``expected`` (its place, then words) in this order, and no other."""
    assert len(found) == len(expected), found
    for problem, (place, *words) in zip(found, expected, strict=True):
        says(problem, place, *words)


@pytest.fixture
def valid() -> str:
    return VALID


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, so that messages show `recipe.yaml` without a path before it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[..., LoadedRecipe]:
    """Load a recipe from its text, with overrides; further files are given by name (`base="..."` is base.yaml)."""

    def _load(text: str, *overrides: str, **others: str) -> LoadedRecipe:
        for name, content in others.items():
            Path(f"{name}.yaml").write_text(content, encoding="utf-8")
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return load_recipe("recipe.yaml", overrides)

    return _load


@pytest.fixture
def problems(load: Callable[..., LoadedRecipe]) -> Callable[..., list[str]]:
    """The problems of a recipe that must not load, as the lines a user sees."""

    def _problems(text: str, *overrides: str, **others: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **others)
        return [str(problem) for problem in caught.value.problems]

    return _problems


@pytest.fixture
def problem(problems: Callable[..., list[str]]) -> Callable[..., str]:
    """The one problem of a recipe that has just one."""

    def _problem(text: str, *overrides: str, **others: str) -> str:
        (found,) = problems(text, *overrides, **others)
        return found

    return _problem
