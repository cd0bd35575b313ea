"""Which prompts a step asks: this rank's share, those that stand in for others, and what was learned about them.

Positions of a step are shared out by number: rank r has r, r + world, ... Positions from ``prompts_per_step`` on are
for stand-ins. Each stands in for a prompt of its own rank and mode and is the next one of these, so which prompts are
asked follows from what became of the groups before them, not from which of them was ready first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from cascade_rl.data.backlog import Backlog
from cascade_rl.data.curriculum import CurriculumFilter
from cascade_rl.data.lengths import Lengths
from cascade_rl.recipe.methods import Curriculum
from cascade_rl.stages.onpolicy.prompts import Prompts, Slot, make_sampler
from cascade_rl.types import Group


class Feed:
    """Draws the slots of one rank, step by step, alike on all ranks; ``state`` is the same on each."""

    def __init__(
        self,
        prompts: Prompts,
        per_step: int,
        *,
        seed: int,
        curriculum: Curriculum | None,
        rank: int,
        world_size: int,
        gather: Callable[[Any], list[Any]],
        say: Callable[[str], object],
    ) -> None:
        """``per_step``: prompts of a step over all ranks; ``gather`` returns what every rank hands to it."""
        self._prompts, self._per_step, self._gather = prompts, per_step, gather
        self._filter: CurriculumFilter | None = None
        if curriculum is not None:
            ids = [prompt.id for prompt in prompts.prompts]
            self._filter = CurriculumFilter(prompts.fingerprint, ids, seed, curriculum, say)
        self._solved = curriculum.solved if curriculum else 1.0
        self._lengths = Lengths()
        self._backlog = Backlog(make_sampler(prompts, seed, self._filter), per_step)
        mine = range(rank, per_step, world_size)
        self._mine = {mode: [p for p in mine if prompts.mode_of(p, per_step) is mode] for mode in (True, False)}
        self._asked: dict[bool, int] = {}  # of the open step, by mode
        self._before: dict[str, Any] | None = None  # state at the start of the open step

    def open_step(self) -> list[Slot]:
        """This rank's slots of the next step. One that was given up half-way is begun again."""
        if self._before is not None:
            self.restore(self._before)
        self._before = self.state()
        self._asked = {mode: len(positions) for mode, positions in self._mine.items()}
        return [self._slot(position) for position in sorted([*self._mine[True], *self._mine[False]])]

    def stand_in(self, slot: Slot, max_factor: float) -> Slot | None:
        """The next one of this rank in the mode of ``slot``; None once ``max_factor`` times as many as in a step
        without stand-ins were asked."""
        mode = self._prompts.mode_of(slot.position, self._per_step)
        positions, number = self._mine[mode], self._asked[mode]
        # 1.15 times 100 is 115: not the binary fraction just below, rounded down.
        if number >= math.floor(Fraction(str(max_factor)) * len(positions)):
            return None
        self._asked[mode] += 1
        return self._slot(number // len(positions) * self._per_step + positions[number % len(positions)])

    def expected_tokens(self, slot: Slot) -> float:
        """How long a rollout of it will be, from what is known of earlier epochs."""
        return self._lengths.expected(slot.index)

    def close_step(self, groups: Iterable[tuple[Slot, Group]], truncated_out: bool) -> None:
        """End the step, in which this rank asked ``groups``. A collective call.

        Prompts that were drawn and not asked come first in the next step. ``truncated_out``: as for ``Group.members``.
        """
        mine = [self._outcome(slot, group, truncated_out) for slot, group in groups]
        everyone = sorted(outcome for share in self._gather(mine) for outcome in share)
        self._backlog.close_step(position for position, *_ in everyone)
        for _, index, tokens, rollouts, right, counted in everyone:
            self._lengths.record(index, tokens, rollouts)
            if self._filter is not None:
                self._filter.record(index, right, counted)
        self._before = None

    def metrics(self) -> dict[str, float]:
        """What the curriculum knows, where there is one."""
        return {} if self._filter is None else self._filter.metrics()

    def state(self) -> dict[str, Any]:
        """Where the drawing stands; within a step, where it stood at its start."""
        if self._before is not None:
            return self._before
        return {
            **self._backlog.state(),
            "curriculum": None if self._filter is None else self._filter.state(),
            "lengths": self._lengths.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. Raises CascadeError when it was taken over other data."""
        self._backlog.restore({"sampler": state["sampler"], "waiting": state["waiting"]})
        self._lengths.restore(state["lengths"])
        if self._filter is not None and state["curriculum"] is not None:
            self._filter.restore(state["curriculum"])
        self._before = None

    def _slot(self, position: int) -> Slot:
        return self._prompts.slot(position, self._backlog.prompt(position), self._per_step)

    def _outcome(self, slot: Slot, group: Group, truncated_out: bool) -> tuple[int, ...]:
        """Position, index, tokens of all rollouts, their number, those right, those that count."""
        counted = group.members(truncated_out)
        right = sum(group.scores[i].value >= self._solved for i in counted)
        tokens = sum(len(rollout.token_ids) for rollout in group.rollouts)
        return slot.position, slot.index, tokens, len(group.rollouts), right, len(counted)
