"""The group of one prompt while its rollouts come in."""

from __future__ import annotations

from dataclasses import dataclass, field

from cascade_rl.stages.onpolicy.prompts import Slot
from cascade_rl.types import Group, Rollout, Score


@dataclass
class OpenGroup:
    """What has come back of the ``size`` rollouts of a prompt."""

    slot: Slot
    size: int
    rollouts: dict[int, Rollout] = field(default_factory=dict)
    scores: dict[int, Score] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    """Rollouts that will not come: lost, or no longer wanted."""
    group: Group | None = None
    """Set once all are there and scored; its values are final as soon as ``is_final``."""
    is_final: bool = False
    is_unused: bool = False
    """The group is flat, and ``dynamic_sampling`` leaves it out."""

    @property
    def position(self) -> int:
        """Position of the prompt in its step, over all ranks."""
        return self.slot.position

    @property
    def outstanding(self) -> list[int]:
        """Rollouts still being generated."""
        return [index for index in range(self.size) if index not in self.rollouts and index not in self.gone]

    @property
    def is_whole(self) -> bool:
        """Whether every rollout is scored or will not come."""
        return len(self.scores) + len(self.gone) == self.size

    def assemble(self) -> Group:
        """Its group, in rollout order, without those that are gone: they count nowhere."""
        indices = sorted(self.rollouts)
        return Group(
            self.slot.prompt,
            self.slot.prompt_token_ids,
            [self.rollouts[index] for index in indices],
            [self.scores[index] for index in indices],
        )

    def is_hopeless(self, drops_truncated: bool) -> bool:
        """Whether fewer than two of its rollouts can count, whatever the outstanding ones bring.

        Nothing else can be known ahead: any other outstanding rollout may get another value than its siblings.
        """
        able = sum(
            not (drops_truncated and rollout.truncated)
            and (index not in self.scores or self.scores[index].error is None)
            for index, rollout in self.rollouts.items()
        )
        return able + len(self.outstanding) < 2


def is_broken(group: Group, drops_truncated: bool) -> bool:
    """Whether faults of the grader are why fewer than two rollouts count: another prompt would not help."""
    counted = len(group.members(drops_truncated))
    return counted < 2 <= counted + sum(score.error is not None for score in group.scores)
