"""From rollouts to scored groups: each rollout alone, then what depends on siblings, then the method's shaping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from cascade_rl.rewarding.scorer import Combines
from cascade_rl.types import Group, Prompt, Rollout, Score


class RolloutScorer(Protocol):
    """What a stage's rewards look like from here: ``rewarding.DomainScorer``, or a scorer of no values at all."""

    @property
    def combines(self) -> Combines:
        """What has to be known before values are final: the rollout, its group, or all groups of the step."""
        ...

    def submit_whole(self, prompt: Prompt, rollout: Rollout, overlong: str = ...) -> Future[Score]:
        """Start scoring one rollout; ``overlong`` says what a truncated one is worth."""
        ...

    def combine(self, groups: Sequence[Group], gather: Callable[[Any], list[Any]]) -> list[Group]:
        """The groups of a step with values that depend on siblings. A collective call."""
        ...

    def combine_alone(self, group: Group) -> Group:
        """The same for one group, where ``combines`` is not ``step``. No collective call."""
        ...


class GroupScorer:
    """Scores single rollouts, then makes the values of whole groups final."""

    def __init__(
        self, scorer: RolloutScorer, overlong: str = "score", shape: Callable[[Group], Group] = lambda group: group
    ) -> None:
        """``shape`` is applied to each group last of all."""
        self._scorer, self._overlong, self._shape = scorer, overlong, shape
        self._thread = ThreadPoolExecutor(1, "combine")  # starts with the first group that is combined by itself

    @property
    def combines(self) -> Combines:
        """When values are final (see ``RolloutScorer``)."""
        return self._scorer.combines

    def score(self, prompt: Prompt, rollout: Rollout) -> Future[Score]:
        """Start scoring one rollout."""
        return self._scorer.submit_whole(prompt, rollout, self._overlong)

    def finish(self, group: Group) -> Future[Group]:
        """Make the values of one group final, where they do not depend on the whole step.

        Combining runs in one thread of its own, always the same, so that others generate meanwhile.
        """
        if self.combines == "group" and group.rollouts:
            return self._thread.submit(lambda: self._shape(self._scorer.combine_alone(group)))
        done: Future[Group] = Future()
        done.set_result(self._shape(group))
        return done

    def finish_all(self, groups: Sequence[Group], gather: Callable[[Any], list[Any]]) -> list[Group]:
        """Make the values of a whole step final. A collective call."""
        final = list(groups)
        # Rewards never see a group of which no rollout came back.
        numbers = [number for number, group in enumerate(groups) if group.rollouts]
        combined = self._scorer.combine([groups[number] for number in numbers], gather)
        for number, group in zip(numbers, combined, strict=True):
            final[number] = self._shape(group)
        return final
