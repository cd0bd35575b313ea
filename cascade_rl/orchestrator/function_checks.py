"""Losses and advantages of the user's: they can be imported, the recipe's keys fit them, a call of them succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cascade_rl.algorithms.loading import key_problems, load_function
from cascade_rl.inputs import search_path
from cascade_rl.recipe import LoadedRecipe, Problem, StageConfig
from cascade_rl.recipe.kinds.base import UserFunction
from cascade_rl.recipe.problems import Keys
from cascade_rl.types import CascadeError

INPUTS = {"loss": "the tokens (`LossInputs`)", "advantage": "a group (`GroupInputs`), or all groups of the batch"}


def check_functions(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    """Problems of ``loss`` and ``advantage`` of the ``stage`` at ``keys``, where they are import paths."""
    for what, wanted in stage.functions.items():
        use = wanted.use
        try:
            function = load_function(use, search_path(loaded.path), what)
        except CascadeError as error:
            yield Problem.at(loaded, (*keys, what), str(error))
            continue
        problems = [f"{use} {problem}" for problem in key_problems(function, wanted.params, INPUTS[what])]
        for problem in problems or _tried(wanted, what, function):
            yield Problem.at(loaded, (*keys, what), problem)
        traits = getattr(function, "loss_traits", None)
        if stage.sharding.sequence_parallel > 1 and getattr(traits, "whole_rollouts", None) is not None:
            yield Problem.at(
                loaded,
                (*keys, "sharding", "sequence_parallel"),
                f"the loss {use} needs whole rollouts, of which a rank has parts; use 1",
            )


def _tried(wanted: UserFunction, what: str, function: Callable[..., Any]) -> list[str]:
    """What a call of the function shows. Whoever wrote it imported torch already."""
    from cascade_rl.algorithms.trial import advantage_problem, loss_problem

    if what == "loss":
        needed = bool(getattr(getattr(function, "loss_traits", None), "needs_reference", False))
        problem = loss_problem(wanted.use, function, wanted.params, with_reference=needed or wanted.with_reference)
    else:
        problem = advantage_problem(wanted.use, function, wanted.params, wanted.group_size)
    return [] if problem is None else [problem]
