"""What a kind of offline stage brings to the one loop (``loop.train``): its rows, its loss, its metrics.

An *example* is what ``batch_size`` counts: a row of SFT, a pair of a reward model. Examples are numbered from 0; which
of them a step trains on is decided by ``batches``, not by the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cascade_rl.training.packing import MicroBatch


@dataclass(frozen=True)
class StepStats:
    """One optimizer step, over all ranks."""

    loss: float
    """The summed loss divided by ``denominator``."""
    denominator: float
    """What the summed gradient is divided by (``Policy.step``)."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The method's own metrics, by the names of metrics.jsonl; ``loss`` is not among them."""


class StepUpdate(Protocol):
    """The gradient of one step, row by row."""

    def add(self, row: MicroBatch) -> None:
        """One forward and one backward pass; the gradient is added to the policy's, summed and not yet divided."""
        ...

    def stats(self) -> StepStats:
        """Of all rows of all ranks so far. A collective call."""
        ...


class OfflineMethod(Protocol):
    """The examples of a stage and what is learned from them."""

    @property
    def count(self) -> int:
        """Examples that are trained on: the length of an epoch. Those held out are not among them."""
        ...

    def rows(self, examples: Sequence[int]) -> list[MicroBatch]:
        """This rank's packed rows of a step whose batch is ``examples``, over all ranks; equally many rows on every
        rank. A collective call, with the same numbers on every rank."""
        ...

    def update(self) -> StepUpdate:
        """An empty update for the rows of one step."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics of the held-out examples (``eval/loss``, ...), without gradient; {} where none are held out. A
        collective call."""
        ...
