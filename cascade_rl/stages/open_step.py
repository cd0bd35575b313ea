"""A step in progress on one rank: requests out, rollouts in, scores in, until every group is whole.

        feed ──slot──► submit ──► engine ──rollout──► reward ──score──► group ──► on_group, in slot order
          ▲                                                               │
          └───────────────── another prompt, where it is flat ◄───────────┘   (dynamic_sampling)

One thread. It waits in the engine's ``poll`` while anything is generated, else for scores; scores and combined groups
arrive in a queue from the threads of the rewards. What is asked, and what it is worth, does not depend on the order in
which things finish: seeds belong to places, and a flat group is replaced by the next place of its rank and mode.
"""

from __future__ import annotations

import bisect
import dataclasses
import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cascade_rl.rollout.engine import Engine, Request
from cascade_rl.stages.asked import Asked, is_broken
from cascade_rl.stages.feed import Feed
from cascade_rl.stages.journal import Journal
from cascade_rl.stages.prompts import Slot
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Group, Rollout, Score, Stop

POLL_S = 0.5
"""Longest wait in the engine before the stop request is looked at; shorter where scores decide what comes next."""
POLL_FOR_SCORES_S = 0.05


@dataclass(frozen=True)
class Rules:
    """What a step goes by."""

    group_size: int
    request: Callable[[Slot, int], Request]
    """The request for a rollout of a slot."""
    submit: Callable[[Slot, Rollout], Future[Score]]
    """Starts scoring a rollout."""
    finish: Callable[[Group], Future[Group]] | None
    """Makes the values of a group that is whole final, by itself; None where only the whole step can."""
    truncated_out: bool
    max_factor: float | None
    """Of ``dynamic_sampling``; None: flat groups stay."""
    abort_hopeless: bool
    version: int
    """Of the weights that all rollouts must come from."""


Meet = Callable[[bool, bool], tuple[bool, bool]]
"""Of ranks that can only learn together: called by all of them again and again, each time with whether this rank has
all its groups, and whether it must stop. Returns whether all have theirs, and whether any must stop."""


class OpenStep:
    """``run`` it once; then ``asked`` has every prompt of the step that this rank asked, by position."""

    def __init__(
        self,
        rules: Rules,
        engine: Engine,
        feed: Feed,
        journal: Journal | None,
        trace: Trace,
        *,
        is_stopped: Callable[[], bool],
        on_group: Callable[[Group], object] | None,
        after_generation: bool,
        meet: Meet | None,
        phase: Callable[[str], object],
        show: Callable[[str], object],
    ) -> None:
        """``after_generation``: ``on_group`` must wait until nothing is generated any more. ``meet``: see there; None
        where this rank goes its own way. ``phase`` is told when something has finished, ``show`` what is waited for
        meanwhile."""
        self._rules, self._engine, self._feed, self._journal, self._trace = rules, engine, feed, journal, trace
        self._is_stopped, self._on_group, self._phase, self._show = is_stopped, on_group, phase, show
        self._after_generation, self._meet = after_generation, meet or (lambda done, stopped: (done, stopped))
        self.asked: dict[int, Asked] = {}
        self.lost = self.cancelled = self.kept = self.denied = 0
        self._order: list[int] = []  # positions, ascending
        self._handed_on = 0  # so many of them
        self._wanted: list[Slot] = []
        self._unfinished = 0  # prompts whose group is not there yet
        self._news: queue.SimpleQueue[tuple[Asked, int | None, Future[Any]]] = queue.SimpleQueue()
        self._pending = 0  # scores and groups on their way into the queue
        self._busy: dict[str, float] = {}  # lanes of the trace, since when

    def run(self) -> bool:
        """False when a stop request cut it short. Raises CascadeError when the engine or a reward fails for good."""
        try:
            self._wanted = self._feed.open_step()
            while True:
                mine = not (self._wanted or self._unfinished)
                done, stopped = self._meet(mine, self._is_stopped() and self._is_generating)
                if done or stopped:
                    return done
                if not mine:
                    self._admit()
                    self._wait()
                    self._take_news()
                    self._hand_on()
        finally:
            self._engine.clear()  # nothing may linger into the next step
            for lane in list(self._busy):
                self._lane(lane, False)

    @property
    def _is_generating(self) -> bool:
        return bool(self._engine.in_flight or self._wanted)

    def _admit(self) -> None:
        """Ask for all rollouts of the prompts wanted, those expected to be longest first."""
        wanted, self._wanted = self._wanted, []
        for slot in sorted(wanted, key=lambda slot: (-self._feed.expected_tokens(slot), slot.position)):
            asked = self.asked[slot.position] = Asked(slot, self._rules.group_size)
            self._unfinished += 1
            bisect.insort(self._order, slot.position)
            for index in range(asked.size):
                request = self._rules.request(slot, index)
                if not self._take_kept(asked, request):
                    self._engine.submit(request)
            self._give_up_if_hopeless(asked)
        self._lane("generate", self._engine.in_flight > 0)

    def _take_kept(self, asked: Asked, request: Request) -> bool:
        """Take a rollout that an earlier attempt has left, if there is one."""
        kept = self._journal and self._journal.kept(asked.slot.position, request.index, request.seed)
        if not kept or kept.rollout.version != self._rules.version:
            return False
        self.kept += 1
        asked.rollouts[request.index] = kept.rollout
        if kept.score is None:
            self._score(asked, kept.rollout)
        else:
            asked.scores[request.index] = kept.score
            self._look_at(asked)
        return True

    def _wait(self) -> None:
        """For the engine, or for scores where nothing is generated."""
        generating = self._engine.in_flight > 0
        self._lane("wait for rewards", not generating and self._pending > 0)
        if not generating:
            if self._pending:
                self._take(self._news.get())
            elif self._unfinished and not self._wanted:
                raise CascadeError(f"the engine has lost rollouts of {self._unfinished} prompts without a word")
            return
        hands_on = self._on_group is not None and not self._after_generation
        hurry = self._pending and (self._rules.max_factor is not None or hands_on)
        drawn = self._engine.poll(POLL_FOR_SCORES_S if hurry else POLL_S)
        for rollout in drawn:
            self._arrived(rollout)
        self._lane("generate", self._engine.in_flight > 0)
        if self._journal:
            self._journal.sync_if_due()
        (self._phase if drawn else self._show)(self._doing())

    def _arrived(self, drawn: Rollout) -> None:
        """A rollout is back: keep it, have it scored."""
        asked = self.asked[int(drawn.prompt_id)]
        if drawn.stop is Stop.ABORT:
            self.lost += 1
            asked.gone.add(drawn.index)
            self._look_at(asked)
            return
        if drawn.version != self._rules.version:
            raise CascadeError(
                f"the engine returned a rollout of weights of version {drawn.version}, where it serves version "
                f"{self._rules.version}: training on it would not be on-policy. The last saved state is intact."
            )
        slot = asked.slot
        rollout = asked.rollouts[drawn.index] = dataclasses.replace(drawn, prompt_id=slot.prompt.id)
        if self._journal:
            self._journal.add_rollout(slot.position, self._rules.request(slot, drawn.index).seed, rollout)
        self._score(asked, rollout)
        self._give_up_if_hopeless(asked)

    def _score(self, asked: Asked, rollout: Rollout) -> None:
        self._expect(asked, rollout.index, self._rules.submit(asked.slot, rollout))

    def _expect(self, asked: Asked, index: int | None, future: Future[Any]) -> None:
        self._pending += 1
        self._lane("reward", True)
        future.add_done_callback(lambda done: self._news.put((asked, index, done)))

    def _take_news(self) -> None:
        while True:
            try:
                news = self._news.get_nowait()
            except queue.Empty:
                return
            self._take(news)

    def _take(self, news: tuple[Asked, int | None, Future[Any]]) -> None:
        """A score (with its index), or a group whose values are final now."""
        asked, index, future = news
        self._pending -= 1
        self._lane("reward", self._pending > 0)
        if index is None:
            self._finished(asked, future.result())
            return
        if not self._engine.in_flight:
            self._phase(self._doing())
        score = asked.scores[index] = future.result()
        if self._journal:
            self._journal.add_score(asked.slot.position, index, score)
        self._give_up_if_hopeless(asked)
        self._look_at(asked)

    def _give_up_if_hopeless(self, asked: Asked) -> None:
        if not self._rules.abort_hopeless or not asked.is_hopeless(self._rules.truncated_out):
            return
        for index in asked.outstanding:
            self._engine.cancel(str(asked.slot.position), index)
            asked.gone.add(index)
            self.cancelled += 1
        self._look_at(asked)

    def _look_at(self, asked: Asked) -> None:
        """Put the group together if all is there."""
        if asked.group is not None or not asked.is_whole:
            return
        asked.group = asked.assemble()
        if self._rules.finish is None:
            self._unfinished -= 1
        else:
            self._expect(asked, None, self._rules.finish(asked.group))

    def _finished(self, asked: Asked, group: Group) -> None:
        """The group's values are final: another prompt is asked where they are all alike."""
        asked.group, asked.is_final = group, True
        self._unfinished -= 1
        factor, truncated_out = self._rules.max_factor, self._rules.truncated_out
        if factor is None or not group.is_flat(truncated_out):
            return
        asked.is_unused = True
        if is_broken(group, truncated_out):
            return
        slot = self._feed.stand_in(asked.slot, factor)
        if slot is None:
            self.denied += 1
        else:
            self._wanted.append(slot)

    def _hand_on(self) -> None:
        """Give groups to the trainer, in slot order, as far as they are final.

        A stand-in comes after the place it fills, so no later place is handed on before it is known to be needed.
        """
        if self._after_generation:
            if self._engine.in_flight or self._wanted:
                return
            self._engine.sleep()  # the trainer needs its memory
        while self._handed_on < len(self._order) and not self._wanted:
            asked = self.asked[self._order[self._handed_on]]
            if not asked.is_final or asked.group is None:
                return
            self._handed_on += 1
            if self._on_group is not None and not asked.is_unused:
                self._lane("wait for rewards", False)
                self._on_group(asked.group)

    def _lane(self, name: str, busy: bool) -> None:
        """Begin or end a span of the trace."""
        if busy:
            self._busy.setdefault(name, self._trace.now)
        elif name in self._busy:
            self._trace.add(name, self._busy.pop(name))

    def _doing(self) -> str:
        """For people: how far generation is; near its end, what it waits for."""
        waiting, everything = self._engine.in_flight, len(self.asked) * self._rules.group_size
        if not waiting:
            return f"scoring, {self._pending} to come"
        if waiting > max(1, everything // 10):
            return f"generating {everything - waiting}/{everything}"
        prompts = sum(bool(asked.outstanding) for asked in self.asked.values())
        text = f"waiting for {_count(waiting, 'rollout')} of {_count(prompts, 'prompt')}"
        longest = getattr(self._engine, "longest_running", lambda: None)()
        return text if longest is None else f"{text}, the longest running {longest} tokens"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
