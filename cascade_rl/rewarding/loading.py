"""Rewards by import path: finding them, and knowing what they are before anything is constructed or called.

A reward is a plain function of one response and the columns of its row, sync or async::

    def score(response: str, *, answer: str) -> float: ...

or a class whose ``score`` is that, constructed once per worker process with the recipe keys its ``__init__`` takes,
and whose optional ``combine(groups) -> [[value]]`` runs in the trainer's process. Where that looks at each group by
itself, so that it may be given one at a time, in a thread, and needs no other rank, an attribute of the class or the
instance says so, ``combines_groups_alone = True``: ``dynamic_sampling`` needs that. A function with an attribute
``prepare`` has that called once per worker process instead. An attribute ``timeout_s`` of either is its deadline where
the recipe names none. See ``binding`` for parameters.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade_rl.importing import import_by_path, stay_importable
from cascade_rl.rewarding.adapters import from_trl, is_trl_style
from cascade_rl.rewarding.records import RewardError, RewardSettings
from cascade_rl.rewarding.traces import one_line, short_trace
from cascade_rl.source_code import IMPORT_PATH, source_fingerprint
from cascade_rl.types import CascadeError

if TYPE_CHECKING:
    from cascade_rl.recipe.parts import RewardConfig


@dataclass(frozen=True)
class LoadedReward:
    """An imported reward. A class is not constructed before ``function`` or ``combine`` is first asked for: `check`
    and the plan must not need what its constructor needs, such as the checkpoint of a stage still to be trained."""

    settings: RewardSettings
    search: tuple[Path, ...]
    target: Callable[..., Any]
    """The function, or the class."""
    parameters: Mapping[str, Parameter]
    """Of the function, or of the class's ``score`` without ``self``."""
    constructor: Mapping[str, Parameter] | None
    """Parameters of the class's ``__init__`` without ``self``; None for a function."""
    is_async: bool
    has_combine: bool

    @property
    def function(self) -> Callable[..., Any]:
        """What scores one call. Raises RewardError when the class cannot be constructed."""
        return self.target if self.constructor is None else self._instance.score

    @property
    def combine(self) -> Callable[..., Any] | None:
        """``combine(groups) -> [[value]]`` of a class that compares siblings. Raises like ``function``."""
        return self._instance.combine if self.has_combine else None

    @property
    def combines_groups_alone(self) -> bool:
        """Whether ``combine`` may be given one group at a time, as far as the class can tell."""
        return bool(getattr(self.target, "combines_groups_alone", False))

    @property
    def constructor_keys(self) -> frozenset[str]:
        """Recipe keys that the constructor takes."""
        if self.constructor is None:
            return frozenset()
        if any(p.kind is Parameter.VAR_KEYWORD for p in self.constructor.values()):
            return frozenset(self.settings.params)
        return frozenset(self.settings.params) & frozenset(self.constructor)

    def get_ready(self) -> None:
        """Once in each worker process, before the first call: construct a class, or call a function's ``prepare``
        attribute with those recipe keys that it takes. Raises RewardError when that fails."""
        prepare = getattr(self.target, "prepare", None)
        if self.constructor is not None or not callable(prepare):
            _ = self.function
            return
        takes = inspect.signature(prepare).parameters
        try:
            prepare(**{key: value for key, value in self.settings.params.items() if key in takes})
        except CascadeError as error:
            raise RewardError(f"reward {self.settings.use!r}: {error}") from error
        except Exception as error:
            raise RewardError(f"reward {self.settings.use!r} cannot be prepared: {short_trace(error)}") from error

    @functools.cached_property
    def _instance(self) -> Any:
        keys = self.constructor_keys
        try:
            return self.target(**{key: value for key, value in self.settings.params.items() if key in keys})
        except Exception as error:
            raise RewardError(f"reward {self.settings.use!r} cannot be constructed: {short_trace(error)}") from error


def load_reward(config: RewardConfig | RewardSettings, search: Sequence[Path]) -> LoadedReward:
    """Import what ``config.use`` names, looking in the folders of ``search`` first.

    Raises RewardError saying what is missing, what failed while importing and where, or why it cannot be called.
    """
    settings = RewardSettings.of(config)
    target = _imported(settings.use, search)
    if settings.names_its_timeout:
        own = getattr(target, "timeout_s", settings.timeout_s)
        settings = dataclasses.replace(settings, timeout_s=float(own), names_its_timeout=False)
    stay_importable(search)
    if is_trl_style(target):
        target = from_trl(target)
    if not inspect.isclass(target):
        is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
        parameters = _by_name(settings.use, _signature(settings.use, target))
        return LoadedReward(settings, tuple(search), target, parameters, None, is_async, False)
    score = getattr(target, "score", None)
    if not callable(score):
        raise RewardError(f"reward {settings.use!r} is a class without a method `score`")
    return LoadedReward(
        settings,
        tuple(search),
        target,
        parameters=_by_name(settings.use, _without_self(target, "score", _signature(settings.use, score))),
        constructor=_by_name(settings.use, _signature(settings.use, target)),
        is_async=inspect.iscoroutinefunction(score),
        has_combine=callable(getattr(target, "combine", None)),
    )


def fingerprint(loaded: LoadedReward) -> str:
    """16 hex digits over the reward's import path, its parameters and all project files behind it, those behind a
    parameter that is an import path (``verifier: my_rewards:check``) too."""
    settings = loaded.settings
    keys = json.dumps([settings.use, dict(settings.params)], sort_keys=True, default=repr)
    paths = [value for value in settings.params.values() if isinstance(value, str) and IMPORT_PATH.fullmatch(value)]
    sources = [source_fingerprint(path, loaded.search) for path in [settings.use, *sorted(paths)]]
    return hashlib.sha256("\0".join([keys, *sources]).encode()).hexdigest()[:16]


def _imported(use: str, search: Sequence[Path]) -> Any:
    try:
        return import_by_path(use, search, "reward")
    except SystemExit as error:  # a script without a __main__ guard must not end the orchestrator without a word
        raise RewardError(f"reward {use!r}: its module calls sys.exit while being imported") from error
    except CascadeError as error:
        if error.__cause__ is not None:  # the module is there and failed
            raise RewardError(f"reward {use!r}: importing it failed: {one_line(error.__cause__)}") from error.__cause__
        missing = error.__context__
        near = _nearest_module(missing.name, search) if isinstance(missing, ModuleNotFoundError) else ""
        raise RewardError(f"{error}{near}") from None


def _nearest_module(missing: str | None, search: Iterable[Path]) -> str:
    """``; did you mean rewards.math?`` for a missing ``rewards.maths``, or nothing."""
    package, _, last = (missing or "").rpartition(".")
    folders = getattr(sys.modules.get(package), "__path__", []) if package else [str(folder) for folder in search]
    near = difflib.get_close_matches(last, [module.name for module in pkgutil.iter_modules(folders)], n=1)
    return f"; did you mean {package}{'.' if package else ''}{near[0]}?" if near else ""


def _signature(use: str, function: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError):
        raise RewardError(f"reward {use!r} has parameters without names; wrap it in a function") from None


def _without_self(cls: type, name: str, parameters: Mapping[str, Parameter]) -> Mapping[str, Parameter]:
    # Looked up on the class, only a plain function still shows the instance as its first parameter.
    if isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod):
        return parameters
    return dict(list(parameters.items())[1:])


def _by_name(use: str, parameters: Mapping[str, Parameter]) -> Mapping[str, Parameter]:
    for name, parameter in parameters.items():
        if parameter.kind is Parameter.POSITIONAL_ONLY and parameter.default is Parameter.empty:
            raise RewardError(f"reward {use!r}: `{name}` is positional-only (before a /), but parameters bind by name")
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.POSITIONAL_ONLY)
    }
