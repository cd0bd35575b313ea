"""In which order prompts are drawn: a pure function of seed and epoch, with a position that can be saved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Any, Protocol

from cascade_rl.types import CascadeError


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of ``range(count)``, the same for the same seed and epoch on every machine."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:8], "big")
    order = list(range(count))
    random.Random(key).shuffle(order)
    return order


class EpochFilter(Protocol):
    """Which prompts an epoch leaves out (``cascade_rl.data.curriculum``)."""

    def asks(self, index: int, epoch: int) -> bool:
        """Whether ``epoch`` asks this prompt. Called once for each prompt and epoch, when its turn comes."""
        ...

    def readmit(self, indices: Iterable[int]) -> None:
        """An epoch would have asked none of these: all of them come back."""
        ...


class PromptSampler:
    """Draws every prompt once per epoch; a draw that crosses the end of an epoch goes on with the next."""

    def __init__(self, fingerprint: str, count: int, seed: int, leaving_out: EpochFilter | None = None) -> None:
        if count < 1:
            raise CascadeError("there are no prompts to draw from")
        self._fingerprint = fingerprint
        self._count = count
        self._seed = seed
        self._filter = leaving_out
        self._epoch = 0
        self._cursor = 0
        self._given = 0  # in this epoch so far
        self._order = epoch_order(count, seed, 0)

    def next(self, count: int) -> list[int]:
        """Indices of the next ``count`` prompts."""
        drawn: list[int] = []
        while len(drawn) < count:
            if self._cursor == self._count:
                self._begin_epoch()
            index = self._order[self._cursor]
            self._cursor += 1
            # Looked up when its turn comes, so that what was learned until then is known.
            if self._filter is None or self._filter.asks(index, self._epoch):
                self._given += 1
                drawn.append(index)
        return drawn

    def _begin_epoch(self) -> None:
        if self._filter is not None and not self._given:
            self._filter.readmit(range(self._count))
        self._epoch, self._cursor, self._given = self._epoch + 1, 0, 0
        self._order = epoch_order(self._count, self._seed, self._epoch)

    def state(self) -> dict[str, Any]:
        """Where the drawing stands, and in what."""
        return {
            "epoch": self._epoch,
            "cursor": self._cursor,
            "given": self._given,
            "seed": self._seed,
            "count": self._count,
            "fingerprint": self._fingerprint,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. Raises CascadeError when it was taken over other data: positions would lie."""
        for key, mine in (("fingerprint", self._fingerprint), ("count", self._count), ("seed", self._seed)):
            if state[key] != mine:
                raise CascadeError(
                    f"the saved position belongs to other data: {key} was {state[key]!r}, is {mine!r}. The data "
                    "changed since this stage was interrupted; put it back, or delete the stage's state folder."
                )
        self._epoch, self._cursor, self._given = state["epoch"], state["cursor"], state["given"]
        self._order = epoch_order(self._count, self._seed, self._epoch)
