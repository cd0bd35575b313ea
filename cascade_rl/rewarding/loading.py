"""Rewards by import path: finding them, and binding their parameters by name.

A reward is a plain function of one response and the columns of its row::

    def score(response: str, *, answer: str) -> float: ...

Parameters bind by name: ``response`` (the text after ``</think>``), ``completion`` (all of it), ``prompt`` (the last
user message), ``messages``, ``truncated``, then any column of the row, then keys of the recipe's ``reward:`` section.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rl.importing import import_by_path, source_fingerprint
from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.response import response_text
from cascade_rl.types import CascadeError, Score

GIVEN = ("response", "completion", "prompt", "messages", "truncated")
"""Names the framework fills in; a column of the same name is shadowed."""


class RewardError(CascadeError):
    """A reward that cannot be loaded, bound or started."""


@dataclass(frozen=True)
class ScoreCall:
    """One rollout to score, as it crosses to a worker process."""

    completion: str
    messages: tuple[Mapping[str, Any], ...]
    truncated: bool
    thinking: bool
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedReward:
    """A reward's function, ready to be bound. ``combine`` is set for classes that compare siblings."""

    config: RewardConfig
    search: tuple[Path, ...]
    function: Callable[..., Any]
    combine: Callable[..., Any] | None
    bound_keys: tuple[str, ...]
    """Recipe keys that a class has taken in its constructor."""

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def arguments(self, call: ScoreCall) -> dict[str, Any]:
        """Keyword arguments for one call: what the framework gives, then the row, then the recipe."""
        recipe = {key: value for key, value in self.config.params.items() if key not in self.bound_keys}
        prompt = next((m["content"] for m in reversed(call.messages) if m["role"] == "user"), "")
        values: dict[str, Any] = {
            **recipe,
            **call.columns,
            "response": response_text(call.completion, call.thinking),
            "completion": call.completion,
            "prompt": prompt,
            "messages": call.messages,
            "truncated": call.truncated,
        }
        wanted = self.parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values()):
            return values
        return {name: values[name] for name in wanted if name in values}


def load_reward(config: RewardConfig, search: Sequence[Path]) -> LoadedReward:
    """Import the reward that ``config.use`` names. A class is constructed with the recipe keys its constructor takes.

    Raises RewardError saying what is missing or failed.
    """
    try:
        found = import_by_path(config.use, search, "reward")
    except RewardError:
        raise
    except CascadeError as error:
        raise RewardError(str(error)) from error
    if not inspect.isclass(found):
        return LoadedReward(config, tuple(search), found, None, ())
    if not callable(getattr(found, "score", None)):
        raise RewardError(f"reward {config.use!r} is a class without a method `score`")
    taken = {name: value for name, value in config.params.items() if name in inspect.signature(found).parameters}
    try:
        instance: Any = found(**taken)
    except Exception as error:
        raise RewardError(f"reward {config.use!r} cannot be constructed: {type(error).__name__}: {error}") from error
    return LoadedReward(config, tuple(search), instance.score, getattr(instance, "combine", None), tuple(taken))


def check_binding(loaded: LoadedReward, columns: set[str]) -> list[str]:
    """What is wrong with the reward's parameters, given the columns that every row has."""
    problems = []
    parameters = loaded.parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    keys = set(loaded.config.params) - set(loaded.bound_keys)
    available = {*GIVEN, *columns, *keys}
    for name, parameter in parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            continue
        if parameter.default is inspect.Parameter.empty and name not in available:
            near = difflib.get_close_matches(name, sorted(columns), n=1)
            hint = f"; map it with columns: {{{name}: {near[0]}}}" if near else ""
            problems.append(
                f"{loaded.config.use} needs `{name}`, which is neither a column ({', '.join(sorted(columns))}) nor a "
                f"key of this section{hint}"
            )
    if not takes_all:
        for key in sorted(keys - set(parameters)):
            near = difflib.get_close_matches(key, list(parameters), n=1)
            problems.append(f"{loaded.config.use} takes no `{key}`" + (f"; did you mean {near[0]}?" if near else ""))
    return problems


def fingerprint(loaded: LoadedReward) -> str:
    """Hash of the reward's source and what it imports of its own package."""
    return source_fingerprint(loaded.config.use, loaded.search)


def as_score(value: Any, use: str) -> Score:
    """What a reward returned, as a Score. Raises TypeError or ValueError naming the reward for anything else."""
    if isinstance(value, Score):
        number, score = value.value, value
    elif isinstance(value, bool | int | float) or hasattr(value, "__float__"):
        number, score = float(value), Score(float(value))
    else:
        raise TypeError(f"reward {use} returned {type(value).__name__}; it must return a number or a Score")
    if not math.isfinite(number):
        raise ValueError(f"reward {use} returned {number}; scores must be finite")
    return score
