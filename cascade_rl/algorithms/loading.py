"""Losses and advantages named by import path: finding them, and whether a recipe's keys fit them.

No torch here: `check` and the plan read this module. Functions and their parameters are described in ``inputs``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.arguments import argument_problems
from cascade_rl.importing import import_by_path, stay_importable
from cascade_rl.types import CascadeError


def load_function(use: str, search: Sequence[Path], what: str) -> Callable[..., Any]:
    """The function ``use`` names, looked for in the folders of ``search`` first; ``what`` it is: loss or advantage.

    Raises CascadeError for each way in which it cannot be had.
    """
    try:
        found: Callable[..., Any] = import_by_path(use, search, what)
    except SystemExit as error:
        raise CascadeError(f"{what} {use!r}: its module calls sys.exit while being imported") from error
    stay_importable(search)
    if inspect.isclass(found):
        raise CascadeError(f"{what} {use!r} is a class; name a function, or an instance that can be called")
    return found


def key_problems(function: Callable[..., Any], keys: Mapping[str, Any], inputs: str) -> Iterator[str]:
    """Yield one sentence for each of a recipe's ``keys`` that ``function`` cannot take, or that it needs and lacks.

    ``inputs``: what its first parameter stands for, which the framework hands over.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        yield "has a signature that cannot be read; wrap it in a function"
        return
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    ):
        yield f"must take {inputs} as its first parameter"
        return
    yield from argument_problems(function, keys, handed_over=1)


def taken(function: Callable[..., Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``keys`` that ``function`` takes by name."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(keys)
    return {name: value for name, value in keys.items() if name in parameters}
