"""Losses and advantages by import path, ready to be called: what they return is checked, their faults are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cascade_rl.algorithms.inputs import GroupInputs, LossInputs, LossTraits
from cascade_rl.algorithms.loading import taken
from cascade_rl.importing import last_place
from cascade_rl.types import CascadeError


@dataclass(frozen=True)
class CustomLoss:
    """A loss of the user's (``inputs``), with the keys that the recipe gives it."""

    use: str
    function: Callable[..., Tensor]
    keys: Mapping[str, Any]

    @property
    def traits(self) -> LossTraits:
        """What it says about itself."""
        return getattr(self.function, "loss_traits", LossTraits())

    def __call__(self, inputs: LossInputs) -> Tensor:
        """Loss terms [n]. Raises CascadeError when the function fails or returns another shape."""
        return self._checked(self.use, self.function, inputs, self.keys)

    def from_rollouts(self, inputs: LossInputs) -> Tensor:
        """What its ``whole_rollouts`` returns [n] for whole rows."""
        function = self.traits.whole_rollouts
        assert function is not None
        return self._checked(f"{self.use}, whole_rollouts", function, inputs, taken(function, self.keys))

    def measures(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Name of a metric -> [n] values."""
        function = self.traits.measures
        if function is None:
            return {}
        found = _called(f"loss {self.use}, measures", function, inputs, taken(function, self.keys))
        if not isinstance(found, Mapping):
            raise CascadeError(
                f"loss {self.use}, measures: must return a mapping of names to tensors, not {_kind(found)}"
            )
        for name, values in found.items():
            _refuse_shape(f"loss {self.use}, measures, {name}", values, inputs)
        return {f"loss/{name}": values.detach() for name, values in found.items()}

    @staticmethod
    def _checked(what: str, function: Callable[..., Any], inputs: LossInputs, keys: Mapping[str, Any]) -> Tensor:
        found = _called(f"loss {what}", function, inputs, keys)
        _refuse_shape(f"loss {what}", found, inputs)
        assert isinstance(found, Tensor)
        return found


@dataclass(frozen=True)
class CustomAdvantage:
    """An advantage of the user's (``inputs``), with the keys that the recipe gives it."""

    use: str
    function: Callable[..., Any]
    keys: Mapping[str, Any]

    @property
    def needs_whole_batch(self) -> bool:
        """Whether it is called with the groups of all ranks at once."""
        return bool(getattr(self.function, "whole_batch", False))

    def __call__(self, groups: Sequence[GroupInputs]) -> list[list[float]]:
        """An advantage for each rollout: [G] of each group. Raises CascadeError when the function fails, or returns
        another shape or numbers that are not finite."""
        what = f"advantage {self.use}"
        if self.needs_whole_batch:
            found = _called(what, self.function, list(groups), self.keys)
            if not isinstance(found, Sequence) or len(found) != len(groups):
                raise CascadeError(
                    f"{what}: must return one tensor for each of {len(groups)} groups, not {_kind(found)}"
                )
        else:
            found = [_called(what, self.function, group, self.keys) for group in groups]
        return [_advantages(what, values, len(group.rewards)) for values, group in zip(found, groups, strict=True)]


def _called(what: str, function: Callable[..., Any], inputs: Any, keys: Mapping[str, Any]) -> Any:
    try:
        return function(inputs, **keys)
    except CascadeError:
        raise
    except Exception as error:
        raise CascadeError(f"{what} failed: {type(error).__name__}: {error}{last_place(error)}") from error


def _refuse_shape(what: str, found: Any, inputs: LossInputs) -> None:
    if not isinstance(found, Tensor) or found.shape != inputs.logprobs.shape:
        raise CascadeError(f"{what}: must return a tensor of shape {list(inputs.logprobs.shape)}, not {_kind(found)}")


def _advantages(what: str, found: Any, members: int) -> list[float]:
    try:
        values = torch.as_tensor(found, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        values = None
    if values is None or values.shape != (members,):
        raise CascadeError(f"{what}: must return {members} advantages for a group of {members}, not {_kind(found)}")
    if not bool(values.isfinite().all()):
        raise CascadeError(f"{what}: returned {values.tolist()}; advantages must be finite")
    return values.tolist()


def _kind(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of shape {list(found.shape)}"
    return f"{type(found).__name__} of {len(found)}" if isinstance(found, Sequence | Mapping) else type(found).__name__
