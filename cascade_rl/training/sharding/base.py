"""What a policy asks of the way it is spread over ranks.

The gradient of a step is summed over any number of backward passes and over ranks, unnormalised, and divided once, at
the step. Every strategy keeps to that, so that they give the same update up to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cascade_rl.training.packing import MicroBatch
from cascade_rl.training.root import Outputs, Terms

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state, beside its step count."""
Weights = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Piece:
    """What this rank keeps of one parameter: n elements in a row of the flattened whole, from ``start``."""

    name: str
    start: int
    shape: tuple[int, ...]
    """Of the whole parameter."""
    weight: Tensor
    """[n], a view into the float32 master weights."""
    owner: Tensor
    """What the optimizer knows it by: the parameter, its shard, or a flat partition of many."""
    offset: int = 0
    """Where the piece begins in the flattened ``owner``."""


class Sharding(Protocol):
    """A policy's weights, gradient and optimizer, spread over ranks."""

    optimizer: torch.optim.Optimizer
    """AdamW over what this rank keeps; its ``param_groups`` hold the learning rate."""

    needs_lockstep: bool
    """Forward or backward passes are collective: every rank must make the same number of them."""

    def run(self, batch: MicroBatch, terms: Terms | None) -> Outputs:
        """The model on one packed row; with ``terms``, to be followed by ``backward`` of its loss."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to the step's."""
        ...

    def step(self, denominator: float) -> float:
        """Divide the gradient, clip it, let the optimizer step, and forget it. Returns the norm before clipping.

        A norm that is not finite is returned on every rank alike, with weights and optimizer as they were. Where no
        rank has a gradient nothing moves, and 0 is returned. A collective call.
        """
        ...

    def discard(self) -> None:
        """Forget the step's gradient. A collective call."""
        ...

    def weights(self, bucket_mib: int, dtype: torch.dtype | None) -> Weights:
        """(checkpoint name, whole tensor) of every parameter in layer order, gathered about ``bucket_mib`` at a time.

        ``dtype``: one that will do for the receiver, so that less travels; others may come. A tensor is valid until the
        next is asked for, or longer. A collective call: every rank must draw all of them.
        """
        ...

    def pieces(self) -> Iterable[Piece]:
        """What this rank puts into a state, each element on exactly one rank."""
        ...

    def targets(self) -> Iterable[Piece]:
        """What this rank must fill from a state: its ``pieces``, or everything where every rank has everything."""
        ...

    def loaded(self) -> None:
        """``targets`` were written to: let everything that mirrors them follow. A collective call."""
        ...

    def marks(self) -> tuple[str, str]:
        """(strategy, device type of the optimizer's weights) by what this rank's parameters really are."""
        ...
