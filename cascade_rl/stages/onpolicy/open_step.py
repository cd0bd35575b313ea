"""A step in progress on one rank: rollouts come in, are scored, join their group, and the group leaves.

::

    feed ──slot──► ask ──request──► engine ──rollout──► score ──► join ──► finish ──► pass on ──group──► listener
                    ▲                                                        │
                    └────────── the next prompt, where the group is flat ◄───┘   (dynamic_sampling)

    stage     waits for                                        unblocked by
    ask       a slot: of the step, or to replace a flat group  feed.open_step, feed.stand_in
    receive   a rollout, while anything is generated;          engine.poll, or its timeout
              else a score or a finished group                 a thread of the rewards, through ``_arrivals``
    score     nothing here: the score arrives later            the reward, through ``_arrivals``
    join      all rollouts of the group scored, or gone        the last score, a lost rollout, a cancelled one
    finish    values that depend on siblings                   the combining thread, through ``_arrivals``; values that
                                                               depend on the whole step come after ``run``
    pass on   all groups at positions before it                their finish; a listener that waits for the end of
                                                               generation also waits for the engine's last rollout

One thread does all of this. What is asked, and what it is worth, does not depend on the order in which things finish:
seeds belong to positions, and a flat group is replaced by the next position of its rank and mode.
"""

from __future__ import annotations

import dataclasses
import queue
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from cascade_rl.recipe import RolloutStage
from cascade_rl.rollout.engine import Engine, Request
from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.onpolicy.feed import Feed
from cascade_rl.stages.onpolicy.journal import Journal
from cascade_rl.stages.onpolicy.open_group import OpenGroup, is_broken
from cascade_rl.stages.onpolicy.options import RolloutOptions
from cascade_rl.stages.onpolicy.prompts import Slot
from cascade_rl.stages.onpolicy.requests import request_of
from cascade_rl.stages.onpolicy.scoring import GroupScorer
from cascade_rl.stages.reporting import Reporter
from cascade_rl.tracking.trace import BusyLanes, Trace
from cascade_rl.types import CascadeError, Group, Rollout, Score, Stop

POLL_S = 0.5
"""Longest wait in the engine before the stop request is looked at; shorter where scores decide what comes next."""
POLL_FOR_SCORES_S = 0.05


class GroupListener(Protocol):
    """Trains on groups while others of the step are still in progress."""

    after_generation: bool
    """Whether it needs the engine's memory, so that nothing may be generated any more."""

    def take(self, position: int, group: Group) -> None:
        """A group whose values are final. Groups come in the order of their positions."""
        ...

    def meet(self, done: bool, stopped: bool) -> tuple[bool, bool]:
        """Called again and again, with whether this rank has all its groups, and whether it must stop. Returns whether
        all ranks that train together have theirs, and whether any of them must stop."""
        ...


@dataclass(frozen=True)
class StepParts:
    """What all steps of a stage are collected with."""

    config: RolloutStage
    options: RolloutOptions
    seed: int
    engine: Engine
    feed: Feed
    scorer: GroupScorer
    stop: StopFlag
    journal: Journal | None = None
    reporter: Reporter = field(default_factory=Reporter)


@dataclass
class StepCounts:
    """What happened in a step, on one rank."""

    asked: int = 0
    """Prompts."""
    lost: int = 0
    """Rollouts that never came back."""
    cancelled: int = 0
    """Rollouts given up because their group was hopeless."""
    kept: int = 0
    """Rollouts taken over from an earlier attempt."""
    denied: int = 0
    """Flat groups that were not replaced, at the bound of ``dynamic_sampling``."""


@dataclass(frozen=True)
class _Scored:
    """A rollout's score has arrived."""

    open_group: OpenGroup
    index: int
    future: Future[Score]


@dataclass(frozen=True)
class _Finished:
    """A group's values are final."""

    open_group: OpenGroup
    future: Future[Group]


class OpenStep:
    """``run`` it once; then ``groups`` has every prompt of the step that this rank asked, by position."""

    def __init__(self, parts: StepParts, step: int, version: int, listener: GroupListener | None, trace: Trace) -> None:
        """``version``: of the weights that all rollouts must come from."""
        self._parts, self._engine, self._options = parts, parts.engine, parts.options
        self._step, self._version, self._listener = step, version, listener
        self.groups: dict[int, OpenGroup] = {}
        self.counts = StepCounts()
        self._wanted: list[Slot] = []  # slots to be asked next
        self._unfinished = 0  # prompts asked whose group has not left yet
        self._passed_on = 0  # groups that have left for the listener
        self._arrivals: queue.SimpleQueue[_Scored | _Finished] = queue.SimpleQueue()
        self._pending = 0  # scores and finished groups that have yet to arrive
        self._lanes = BusyLanes(trace)
        sampling = parts.options.dynamic_sampling
        self._max_factor = None if sampling is None else sampling.max_factor
        # A reward that needs the whole step has no final values here; one that needs the group is asked for them here
        # only where somebody waits for them, since combining all groups at once is cheaper.
        needed = self._max_factor is not None or listener is not None
        self._finishes = parts.scorer.combines == "never" or (parts.scorer.combines == "group" and needed)

    def run(self) -> bool:
        """Work until all groups of this rank (and of those it trains together with) are there.

        Returns False when a stop request ended it early. Raises CascadeError when the engine or a reward fails for
        good.
        """
        try:
            self._wanted = self._parts.feed.open_step()
            while True:
                complete = not (self._wanted or self._unfinished)
                must_stop = self._parts.stop.is_set and bool(self._engine.in_flight or self._wanted)
                done, stopped = self._listener.meet(complete, must_stop) if self._listener else (complete, must_stop)
                if done or stopped:
                    return done
                if not complete:
                    self._ask()
                    self._receive()
                    self._take_arrivals()
                    self._pass_on()
        finally:
            self._engine.clear()  # nothing may linger into the next step
            self._lanes.close()

    # ask ------------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Request all rollouts of the prompts wanted, those expected to be longest first."""
        wanted, self._wanted = self._wanted, []
        feed = self._parts.feed
        for slot in sorted(wanted, key=lambda slot: (-feed.expected_tokens(slot), slot.position)):
            open_group = self.groups[slot.position] = OpenGroup(slot, self._parts.config.group_size)
            self.counts.asked += 1
            self._unfinished += 1
            for index in range(open_group.size):
                request = self._request(slot, index)
                if not self._take_kept(open_group, request):
                    self._engine.submit(request)
            self._give_up_if_hopeless(open_group)
        self._lanes.set("generate", self._engine.in_flight > 0)

    def _request(self, slot: Slot, index: int) -> Request:
        return request_of(self._parts.config, self._parts.seed, self._step, slot, index)

    def _take_kept(self, open_group: OpenGroup, request: Request) -> bool:
        """Take a rollout that an earlier attempt at this step has left in the journal, if there is one."""
        journal = self._parts.journal
        kept = journal and journal.kept(open_group.position, request.index, request.seed)
        if not kept or kept.rollout.version != self._version:
            return False
        self.counts.kept += 1
        open_group.rollouts[request.index] = kept.rollout
        if kept.score is None:
            self._score(open_group, kept.rollout)
        else:
            open_group.scores[request.index] = kept.score
            self._join(open_group)
        return True

    # receive, score -------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Wait for the engine; where it generates nothing, for one arrival from the threads of the rewards."""
        generating = self._engine.in_flight > 0
        self._lanes.set("wait for rewards", not generating and self._pending > 0)
        if not generating:
            if self._pending:
                # Nothing else can happen before this: blocking here costs nothing. The stop request is not looked at,
                # since a step that is fully generated is worth finishing.
                self._take(self._arrivals.get())
            elif self._unfinished and not self._wanted:
                raise CascadeError(f"the engine has lost rollouts of {self._unfinished} prompts without a word")
            return
        # ``poll`` returns with the first rollout, but not with the first score. So where a score decides what comes
        # next (a group to be replaced, a group to be trained on now) the wait is short.
        listens_now = self._listener is not None and not self._listener.after_generation
        hurry = self._pending and (self._max_factor is not None or listens_now)
        rollouts = self._engine.poll(POLL_FOR_SCORES_S if hurry else POLL_S)
        for rollout in rollouts:
            self._arrived(rollout)
        self._lanes.set("generate", self._engine.in_flight > 0)
        if self._parts.journal:
            self._parts.journal.sync_if_due()
        reporter = self._parts.reporter
        (reporter.finished if rollouts else reporter.waiting)(self._doing())

    def _arrived(self, rollout: Rollout) -> None:
        """Keep a rollout that is back, and have it scored."""
        open_group = self.groups[int(rollout.prompt_id)]  # requests are named by their position
        if rollout.stop is Stop.ABORT:
            self.counts.lost += 1
            open_group.gone.add(rollout.index)
            self._join(open_group)
            return
        if rollout.version != self._version:
            raise CascadeError(
                f"the engine returned a rollout of weights of version {rollout.version}, where it serves version "
                f"{self._version}: training on it would not be on-policy. The last saved state is intact."
            )
        slot = open_group.slot
        rollout = open_group.rollouts[rollout.index] = dataclasses.replace(rollout, prompt_id=slot.prompt.id)
        if self._parts.journal:
            self._parts.journal.add_rollout(slot.position, self._request(slot, rollout.index).seed, rollout)
        self._score(open_group, rollout)
        self._give_up_if_hopeless(open_group)

    def _score(self, open_group: OpenGroup, rollout: Rollout) -> None:
        future = self._parts.scorer.score(open_group.slot.prompt, rollout)
        self._await_arrival(_Scored(open_group, rollout.index, future))

    def _await_arrival(self, arrival: _Scored | _Finished) -> None:
        self._pending += 1
        self._lanes.set("reward", True)
        # The callback runs in a thread of the reward: all it may touch is the queue.
        arrival.future.add_done_callback(lambda _: self._arrivals.put(arrival))

    def _take_arrivals(self) -> None:
        while True:
            try:
                arrival = self._arrivals.get_nowait()
            except queue.Empty:
                return
            self._take(arrival)

    def _take(self, arrival: _Scored | _Finished) -> None:
        self._pending -= 1
        self._lanes.set("reward", self._pending > 0)
        if isinstance(arrival, _Finished):
            self._finished(arrival.open_group, arrival.future.result())
            return
        if not self._engine.in_flight:
            self._parts.reporter.finished(self._doing())
        open_group, index = arrival.open_group, arrival.index
        score = open_group.scores[index] = arrival.future.result()
        if self._parts.journal:
            self._parts.journal.add_score(open_group.position, index, score)
        self._give_up_if_hopeless(open_group)
        self._join(open_group)

    # join, finish ---------------------------------------------------------------------------------------------------

    def _give_up_if_hopeless(self, open_group: OpenGroup) -> None:
        """Cancel what is still generated for a group that can teach nothing any more (``abort_hopeless``)."""
        if not self._options.abort_hopeless or not open_group.is_hopeless(self._options.drops_truncated):
            return
        for index in open_group.outstanding:
            self._engine.cancel(str(open_group.position), index)
            open_group.gone.add(index)
            self.counts.cancelled += 1
        self._join(open_group)

    def _join(self, open_group: OpenGroup) -> None:
        """Put the group together if all is there."""
        if open_group.group is not None or not open_group.is_whole:
            return
        open_group.group = open_group.assemble()
        if self._finishes:
            self._await_arrival(_Finished(open_group, self._parts.scorer.finish(open_group.group)))
        else:
            self._unfinished -= 1

    def _finished(self, open_group: OpenGroup, group: Group) -> None:
        """The group's values are final: where they are all alike, ask another prompt (``dynamic_sampling``)."""
        open_group.group, open_group.is_final = group, True
        self._unfinished -= 1
        drops_truncated = self._options.drops_truncated
        if self._max_factor is None or not group.is_flat(drops_truncated):
            return
        open_group.is_unused = True
        if is_broken(group, drops_truncated):
            return
        slot = self._parts.feed.stand_in(open_group.slot, self._max_factor)
        if slot is None:
            self.counts.denied += 1
        else:
            self._wanted.append(slot)

    # pass on --------------------------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        """Give groups to the listener, in the order of their positions, as far as they are final.

        A prompt that replaces another has a position after it. So while a slot is wanted nothing is passed on: the
        position it gets may come before one that is final already.
        """
        if self._listener is None:
            return
        if self._listener.after_generation:
            if self._engine.in_flight or self._wanted:
                return
            self._engine.sleep()  # the trainer needs its memory
        if self._wanted:
            return
        for position in sorted(self.groups)[self._passed_on :]:
            open_group = self.groups[position]
            if not open_group.is_final or open_group.group is None:
                return
            self._passed_on += 1
            if not open_group.is_unused:
                self._lanes.set("wait for rewards", False)
                self._listener.take(position, open_group.group)

    def _doing(self) -> str:
        """How far generation is, for people; near its end, what it waits for."""
        waiting, everything = self._engine.in_flight, len(self.groups) * self._parts.config.group_size
        if not waiting:
            return f"scoring, {self._pending} to come"
        if waiting > max(1, everything // 10):
            return f"generating {everything - waiting}/{everything}"
        prompts = sum(bool(open_group.outstanding) for open_group in self.groups.values())
        text = f"waiting for {_count(waiting, 'rollout')} of {_count(prompts, 'prompt')}"
        longest = getattr(self._engine, "longest_running", lambda: None)()
        return text if longest is None else f"{text}, the longest running {longest} tokens"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
