"""Several rewards in one stage: a prompt's domain selects the one that scores its rollouts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from cascade_rl.rewarding.records import RewardError
from cascade_rl.rewarding.scorer import Combines, Scorer, alone
from cascade_rl.types import Group, Prompt, Rollout, Score

SINGLE = ""
"""The domain of a stage that has one reward for all of its rows."""


class DomainScorer:
    """Same face as ``Scorer``, over a scorer for each domain. A context manager; it closes them."""

    def __init__(self, scorers: Mapping[str, Scorer]) -> None:
        """``scorers``: under ``SINGLE`` the one for all rows, or one for each domain."""
        self._scorers = dict(scorers)

    def __enter__(self) -> DomainScorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit_whole(self, prompt: Prompt, rollout: Rollout, overlong: str = "penalise") -> Future[Score]:
        """As ``Scorer.submit_whole``. Raises RewardError for a domain without a reward."""
        return self._scorers[self._domain(prompt)].submit_whole(prompt, rollout, overlong)

    @property
    def combines(self) -> Combines:
        """As ``Scorer.combines``, the latest of all domains."""
        found = {scorer.combines for scorer in self._scorers.values()}
        return "step" if "step" in found else "group" if "group" in found else "never"

    def combine(self, groups: Sequence[Group], gather: Callable[[Any], list[Any]] = alone) -> list[Group]:
        """As ``Scorer.combine``, for each domain by itself; groups keep their places."""
        combined = list(groups)
        # Every rank goes through all domains in one order, those it has no group of too: `gather` waits for all.
        for domain, scorer in sorted(self._scorers.items()):
            places = [place for place, group in enumerate(groups) if self._domain(group.prompt) == domain]
            for place, group in zip(places, scorer.combine([groups[place] for place in places], gather), strict=True):
                combined[place] = group
        return combined

    def combine_alone(self, group: Group) -> Group:
        """As ``Scorer.combine_alone``; other domains are not asked."""
        return self._scorers[self._domain(group.prompt)].combine_alone(group)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for scorer in self._scorers.values():
                closing.callback(scorer.close)

    def _domain(self, prompt: Prompt) -> str:
        if SINGLE in self._scorers:
            return SINGLE
        if prompt.domain not in self._scorers:
            known = ", ".join(self._scorers)
            raise RewardError(f"prompt {prompt.id} is of domain {prompt.domain!r}; the stage has rewards for: {known}")
        return prompt.domain
