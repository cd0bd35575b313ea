"""Which examples each step trains on: a pure function of seed and step, so that a state need not save a position."""

from __future__ import annotations

import math

from cascade_rl.data.order import epoch_order
from cascade_rl.recipe import OfflineStage


class Batches:
    """The batch of each step over ``count`` examples: one epoch's order after another, cut nowhere.

    A batch that an epoch does not fill is filled from the next one. So every step has exactly ``size`` examples
    whatever the number of ranks, and an epoch's end is no special case when a stage resumes.
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, size, seed
        self._epoch, self._order = -1, list[int]()

    def of(self, step: int) -> list[int]:
        """Numbers of the examples of ``step`` (0-based)."""
        return [self._at(position) for position in range(step * self._size, (step + 1) * self._size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._count, self._seed, epoch)
        return self._order[place]


def ordered_rows(count: int, size: int, steps: int, seed: int) -> list[int]:
    """The examples of all ``steps``, batch after batch: for a trainer that reads its rows one after another."""
    batches = Batches(count, size, seed)
    return [example for step in range(steps) for example in batches.of(step)]


def steps_of(config: OfflineStage, count: int) -> int:
    """Optimizer steps of the stage over ``count`` examples: its own number, or what its epochs come to."""
    return config.steps or math.ceil(round(config.epochs * count / config.batch_size, 6))  # type: ignore[operator]
