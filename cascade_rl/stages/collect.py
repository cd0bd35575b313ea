"""Rollouts of a step and their scores, over all ranks: rewards run while other rollouts still generate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from cascade_rl.recipe import RlStage, RolloutStage, SamplingConfig
from cascade_rl.rewarding import DomainScorer
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.stages.asked import Asked
from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.feed import Feed
from cascade_rl.stages.journal import Journal
from cascade_rl.stages.open_step import Meet, OpenStep, Rules
from cascade_rl.stages.prompts import Slot
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score

OnGroup = Callable[[Group], object]


@dataclass(frozen=True)
class Collected:
    """This rank's groups of a step, in slot order."""

    groups: list[Group]
    """To be trained on. Under ``dynamic_sampling`` only those with variance: there may be none at all."""
    positions: list[int] = field(default_factory=list)
    """Of each of ``groups``: where its prompt stands among those of all ranks in this step."""
    unused: list[Group] = field(default_factory=list)
    """Flat ones under ``dynamic_sampling``: others were asked in their place, as far as its bound allows."""
    aborted: bool = False
    """True when a stop request ended it early on any rank: there are no groups then."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Over all ranks."""

    @property
    def everything(self) -> list[Group]:
        """All groups that tokens were spent on."""
        return [*self.groups, *self.unused]


@dataclass(frozen=True)
class _Tally:
    """What a rank tells the others at the end of its step."""

    aborted: bool
    asked: int
    lost: int
    cancelled: int
    kept: int
    denied: int


class Collector:
    """Draws a step's groups from an engine and has them scored as they finish."""

    def __init__(
        self,
        engine: Engine,
        scorer: DomainScorer,
        feed: Feed,
        config: Any,  # RolloutStage: each kind of stage knows its own
        *,
        seed: int,
        stop: StopFlag,
        gather: Callable[[Any], list[Any]],
        journal: Journal | None = None,
        shape: Callable[[Group], Group] = lambda group: group,
        phase: Callable[[str], object] = lambda _: None,
        show: Callable[[str], object] = lambda _: None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``gather``: what every rank hands to it, in rank order. ``shape`` is applied to the values of each group
        last of all. ``phase`` is told what goes on when something has finished, ``show`` in between, ``say`` what a
        person must know.

        Raises CascadeError for ``dynamic_sampling`` with a reward whose values depend on the whole step.
        """
        self._engine, self._scorer, self._feed, self._config = engine, scorer, feed, config
        self._seed, self._stop, self._gather, self._journal = seed, stop, gather, journal
        self._shape, self._phase, self._show, self._say = shape, phase, show, say
        self._overlong = getattr(config, "overlong", "score")
        self._dynamic = getattr(config, "dynamic_sampling", None)
        self._thread = ThreadPoolExecutor(1, "combine")  # starts with the first group that is combined by itself
        if self._dynamic is not None and scorer.combines == "step":
            raise CascadeError(f"stage {config.name}: {NOT_BY_GROUP}")

    def collect(
        self,
        step: int,
        version: int,
        on_group: OnGroup | None = None,
        after_generation: bool = False,
        meet: Meet | None = None,
        trace: Trace | None = None,
    ) -> Collected:
        """All groups of a step, drawn by weights of ``version``. A collective call.

        ``on_group`` is given this rank's groups to train on in slot order, each as soon as it and all before it are
        final: while others generate, unless the reward's values depend on the whole step; or ``after_generation``,
        while others are scored, the engine asleep. What it was given is void when the result is ``aborted``. ``meet``:
        of ranks that learn together meanwhile (see there). Where the time went is added to ``trace``.

        Raises CascadeError when the engine or a reward fails for good.
        """
        trace = trace or Trace()
        work = OpenStep(
            self._rules(step, version, on_group),
            self._engine,
            self._feed,
            self._journal,
            trace,
            is_stopped=lambda: self._stop.is_set,
            on_group=on_group,
            after_generation=after_generation,
            meet=meet,
            phase=self._phase,
            show=self._show,
        )
        try:
            finished = work.run()
        finally:
            if self._journal:
                self._journal.close()
        # First of all the ranks agree whether there is a step: no other collective may come before.
        mine = _Tally(not finished, len(work.asked), work.lost, work.cancelled, work.kept, work.denied)
        tallies: list[_Tally] = self._gather(mine)
        if any(tally.aborted for tally in tallies):
            return Collected([], aborted=True)
        asked = [work.asked[position] for position in sorted(work.asked)]
        with trace.span("wait for rewards"):
            groups = self._final(asked, trace)
        self._feed.close_step(
            [(one.slot, group) for one, group in zip(asked, groups, strict=True)], self._truncated_out
        )
        if on_group is not None and not all(one.is_final for one in asked):
            for group in groups:
                on_group(group)
        return Collected(
            [group for one, group in zip(asked, groups, strict=True) if not one.is_unused],
            [one.slot.position for one in asked if not one.is_unused],
            [group for one, group in zip(asked, groups, strict=True) if one.is_unused],
            metrics=self._metrics(tallies, step),
        )

    @property
    def _truncated_out(self) -> bool:
        return bool(self._overlong == "filter")

    def _rules(self, step: int, version: int, on_group: OnGroup | None) -> Rules:
        config, combines = self._config, self._scorer.combines
        early = combines == "never" or (combines == "group" and (self._dynamic is not None or on_group is not None))
        return Rules(
            group_size=config.group_size,
            request=lambda slot, index: self._request(slot, index, step),
            submit=lambda slot, rollout: self._submit(slot, rollout),
            finish=(self._finish if combines == "never" else self._combine_alone) if early else None,
            truncated_out=self._truncated_out,
            max_factor=self._dynamic.max_factor if self._dynamic is not None else None,
            abort_hopeless=bool(getattr(config, "abort_hopeless", False)),
            version=version,
        )

    def _request(self, slot: Slot, index: int, step: int) -> Request:
        return Request(
            prompt_id=str(slot.position),
            index=index,
            prompt_token_ids=slot.prompt_token_ids,
            seed=request_seed(self._seed, self._config.name, step, slot.position, slot.prompt.id, index),
            sampling=sampling_of(self._config, slot.prompt),
        )

    def _submit(self, slot: Slot, rollout: Rollout) -> Future[Score]:
        return self._scorer.submit_whole(slot.prompt, rollout, self._overlong)

    def _finish(self, group: Group) -> Future[Group]:
        done: Future[Group] = Future()
        done.set_result(self._shape(group))
        return done

    def _combine_alone(self, group: Group) -> Future[Group]:
        """In a thread of its own, always the same: others generate meanwhile."""
        if not group.rollouts:
            return self._finish(group)
        return self._thread.submit(lambda: self._shape(self._scorer.combine_alone(group)))

    def _final(self, asked: Sequence[Asked], trace: Trace) -> list[Group]:
        """Every group with its final values. A collective call where rewards are."""
        groups = [one.group for one in asked if one.group is not None]
        if not all(one.is_final for one in asked):
            # Groups of which nothing came back are none of a reward's business.
            there = [place for place, group in enumerate(groups) if group.rollouts]
            with trace.span("reward"):
                combined = self._scorer.combine([groups[place] for place in there], self._gather)
            for place, group in zip(there, combined, strict=True):
                groups[place] = self._shape(group)
        return groups

    def _metrics(self, tallies: list[_Tally], step: int) -> dict[str, float]:
        total = {f.name: sum(getattr(tally, f.name) for tally in tallies) for f in dataclasses.fields(_Tally)}
        if total["kept"]:
            self._say(f"step {step + 1}: {total['kept']} rollouts that an earlier attempt had finished were taken over")
        metrics = {"rollouts/lost": float(total["lost"]), **self._feed.metrics()}
        if getattr(self._config, "abort_hopeless", False):
            metrics["rollouts/cancelled"] = float(total["cancelled"])
        if self._dynamic is not None:
            per_step = self._config.prompts_per_step
            metrics["groups/replaced"] = float(total["asked"] - per_step)
            if total["denied"]:
                self._say(
                    f"WARNING: step {step + 1}: {total['asked']} prompts were asked, the most that dynamic_sampling "
                    f"allows (max_factor {self._dynamic.max_factor:g}), and {total['denied']} of {per_step} groups are "
                    "missing all the same: it trains on the others. The prompts may be too easy, or too hard."
                )
        return metrics


NOT_BY_GROUP = (
    "dynamic_sampling needs to know which groups are flat while others generate, but the values of this reward are "
    "known only with all groups of the step (`combine`). Leave one of the two out; or, if `combine` looks at each "
    "group by itself, say so with `combines_groups_alone = True` on the reward's class"
)


def sampling_of(config: RolloutStage, prompt: Prompt) -> SamplingConfig:
    """How a prompt is sampled: by the stage, in its mode, or with fewer tokens if its row says so."""
    limit = config.completion_limit(bool(prompt.thinking))
    limit = min(limit, prompt.columns.get("max_new_tokens") or limit)
    if limit == config.rollout.max_new_tokens:
        return config.rollout
    return config.rollout.model_copy(update={"max_new_tokens": limit})


def members(group: Group, config: RlStage) -> list[int]:
    """Indices of the rollouts that count under ``config``."""
    return group.members(truncated_out=config.overlong == "filter")
