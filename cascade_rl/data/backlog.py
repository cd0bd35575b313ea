"""Prompts that were drawn for a step and not asked: none is lost, they come first in the next step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cascade_rl.data.mixing import Sampler


class Backlog:
    """The prompts of a step by position: those left over from before, then as many blocks of a step as are needed.

    A mixture shares out whole steps, so it is drawn from in blocks of one; a step that asks a few prompts more than
    it has places (``dynamic_sampling``) leaves the rest of a block over.
    """

    def __init__(self, sampler: Sampler, block: int) -> None:
        """``block``: prompts per step over all ranks."""
        self._sampler = sampler
        self._block = block
        self._drawn: list[int] = []

    def prompt(self, position: int) -> int:
        """Index of the prompt at ``position`` of the step, drawn if it was not yet."""
        while position >= len(self._drawn):
            self._drawn += self._sampler.next(self._block)
        return self._drawn[position]

    def close_step(self, used: Iterable[int]) -> None:
        """End the step: ``used`` are the positions asked by all ranks, the same list on each.

        So all ranks have drawn equally far afterwards, however far each of them had looked.
        """
        asked = set(used)
        if asked:
            self.prompt(max(asked))
        self._drawn = [index for position, index in enumerate(self._drawn) if position not in asked]

    def state(self) -> dict[str, Any]:
        """Where the drawing stands; to be asked for between steps."""
        return {"sampler": self._sampler.state(), "waiting": list(self._drawn)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. Raises CascadeError when it was taken over other data."""
        self._sampler.restore(state["sampler"])
        self._drawn = list(state["waiting"])
