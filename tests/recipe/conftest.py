"""A small valid recipe, and ways to load variations of it from files in an empty working folder."""

from __future__ import annotations

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
