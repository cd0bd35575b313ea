"""Losses and advantages of the user's: they can be imported, and the recipe's keys fit them."""

from __future__ import annotations

from collections.abc import Iterator

from cascade_rl.algorithms.loading import key_problems, load_function
from cascade_rl.inputs import search_path
from cascade_rl.recipe import LoadedRecipe, Problem, RlStage
from cascade_rl.recipe.problems import Keys
from cascade_rl.types import CascadeError

INPUTS = {"loss": "the tokens (`LossInputs`)", "advantage": "a group (`GroupInputs`), or all groups of the batch"}


def check_functions(loaded: LoadedRecipe, stage: RlStage, keys: Keys) -> Iterator[Problem]:
    """Problems of ``loss`` and ``advantage`` of the ``stage`` at ``keys``, where they are import paths."""
    for what, (use, arguments) in stage.functions.items():
        try:
            function = load_function(use, search_path(loaded.path), what)
        except CascadeError as error:
            yield Problem.at(loaded, (*keys, what), str(error))
            continue
        for problem in key_problems(function, arguments, INPUTS[what]):
            yield Problem.at(loaded, (*keys, what), f"{use} {problem}")
        traits = getattr(function, "loss_traits", None)
        if stage.sharding.sequence_parallel > 1 and getattr(traits, "whole_rollouts", None) is not None:
            yield Problem.at(
                loaded,
                (*keys, "sharding", "sequence_parallel"),
                f"the loss {use} needs whole rollouts, of which a rank has parts; use 1",
            )
