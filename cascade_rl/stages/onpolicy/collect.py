"""Rollouts of a step and their scores, over all ranks: rewards run while other rollouts still generate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from cascade_rl.rewarding.binding import known_too_late
from cascade_rl.stages.onpolicy.open_group import OpenGroup
from cascade_rl.stages.onpolicy.open_step import GroupListener, OpenStep, StepCounts, StepParts
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Group


@dataclass(frozen=True)
class Collected:
    """This rank's groups of a step, in the order of their positions."""

    groups: list[Group]
    """To be trained on. Under ``dynamic_sampling`` only those with variance: there may be none at all."""
    positions: list[int] = field(default_factory=list)
    """Position of each of ``groups`` in the step, over all ranks."""
    unused: list[Group] = field(default_factory=list)
    """Flat groups under ``dynamic_sampling``: others were asked in their place, as far as its bound allows."""
    aborted: bool = False
    """True when a stop request ended it early on any rank: there are no groups then."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Over all ranks."""

    @property
    def by_position(self) -> dict[int, Group]:
        """Position -> group, of the groups to be trained on."""
        return dict(zip(self.positions, self.groups, strict=True))

    @property
    def everything(self) -> list[Group]:
        """All groups that tokens were spent on."""
        return [*self.groups, *self.unused]


@dataclass(frozen=True)
class _Tally:
    """What a rank reports to the others at the end of its step."""

    aborted: bool
    counts: StepCounts


class Collector:
    """Draws a step's groups from an engine and has them scored as they finish."""

    def __init__(
        self, parts: StepParts, *, gather: Callable[[Any], list[Any]], say: Callable[[str], object] = lambda _: None
    ) -> None:
        """``gather`` returns what every rank hands to it, in rank order; ``say`` shows a line to the user.

        Raises CascadeError for ``dynamic_sampling`` with a reward whose values depend on the whole step.
        """
        self._parts, self._gather, self._say = parts, gather, say
        if parts.options.dynamic_sampling is not None and parts.scorer.combines == "step":
            raise CascadeError(f"stage {parts.config.name}: {known_too_late('its reward')}")

    def collect(
        self, step: int, version: int, listener: GroupListener | None = None, trace: Trace | None = None
    ) -> Collected:
        """All groups of a step, drawn by weights of ``version``. A collective call.

        ``listener`` is given this rank's groups to train on in the order of their positions, each as soon as it and all
        before it are final; where the reward's values depend on the whole step, once that is there. What it was given
        is void when the result is ``aborted``. Where the time went is added to ``trace``.

        Raises CascadeError when the engine or a reward fails for good.
        """
        trace = trace or Trace()
        work = OpenStep(self._parts, step, version, listener, trace)
        try:
            finished = work.run()
        finally:
            if self._parts.journal:
                self._parts.journal.close()
        # First of all the ranks agree whether there is a step: no other collective may come before.
        tallies: list[_Tally] = self._gather(_Tally(not finished, work.counts))
        if any(tally.aborted for tally in tallies):
            return Collected([], aborted=True)
        asked = [work.groups[position] for position in sorted(work.groups)]
        with trace.span("wait for rewards"):
            groups = self._final(asked, trace)
        self._parts.feed.close_step(
            [(one.slot, group) for one, group in zip(asked, groups, strict=True)], self._parts.options.drops_truncated
        )
        if listener is not None and not all(one.is_final for one in asked):
            for one, group in zip(asked, groups, strict=True):
                listener.take(one.position, group)
        return Collected(
            [group for one, group in zip(asked, groups, strict=True) if not one.is_unused],
            [one.position for one in asked if not one.is_unused],
            [group for one, group in zip(asked, groups, strict=True) if one.is_unused],
            metrics=self._metrics([tally.counts for tally in tallies], step),
        )

    def _final(self, asked: Sequence[OpenGroup], trace: Trace) -> list[Group]:
        """Every group with its final values. A collective call where rewards are."""
        groups = [one.group for one in asked if one.group is not None]
        if all(one.is_final for one in asked):
            return groups
        with trace.span("reward"):
            return self._parts.scorer.finish_all(groups, self._gather)

    def _metrics(self, counts: Sequence[StepCounts], step: int) -> dict[str, float]:
        total = StepCounts(*(sum(getattr(each, f.name) for each in counts) for f in fields(StepCounts)))
        if total.kept:
            self._say(f"step {step + 1}: {total.kept} rollouts that an earlier attempt had finished were taken over")
        metrics = {"rollouts/lost": float(total.lost), **self._parts.feed.metrics()}
        if self._parts.options.abort_hopeless:
            metrics["rollouts/cancelled"] = float(total.cancelled)
        sampling = self._parts.options.dynamic_sampling
        if sampling is not None:
            per_step = self._parts.config.prompts_per_step
            metrics["groups/replaced"] = float(total.asked - per_step)
            if total.denied:
                self._say(
                    f"WARNING: step {step + 1}: {total.asked} prompts were asked, the most that dynamic_sampling "
                    f"allows (max_factor {sampling.max_factor:g}), and {total.denied} of {per_step} groups are "
                    "missing all the same: it trains on the others. The prompts may be too easy, or too hard."
                )
        return metrics
