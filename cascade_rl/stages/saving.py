"""When states are saved, and what became of them: the same answers on every rank.

A state is copied into host memory between two steps and written by ``state_writer`` while training goes on, one at a
time. What ranks must agree on is decided by the main rank and gathered at the end of each step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from cascade_rl.processes import grace_s
from cascade_rl.stages.state_writer import PATIENCE_S, Fault, Writing, start_writing
from cascade_rl.training import state as states
from cascade_rl.training.host_memory import HostMemory, available_bytes
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError, Preempted

if TYPE_CHECKING:
    pass

LEAVING_S = 3.0
"""What a process needs of the grace period after its state is written."""
USABLE = 0.9
"""Share of the available memory that a copy may take."""


class Source(Protocol):
    """What a state is made of (``training.policy.Policy``)."""

    @property
    def state_bytes(self) -> int:
        """What a copy of this rank's part takes."""
        ...

    def part(self, memory: HostMemory | None) -> states.Part:
        """Writes this rank's part: as it is now, from a copy in ``memory``, or without it as it is while being
        written."""
        ...


def no_files(folder: Path) -> states.Manifest:
    """A part without files."""
    return {}


class Saver:
    """The states of one stage. Its methods are collective calls, unless they say otherwise."""

    def __init__(
        self, place: Path, ranks: Ranks, say: Callable[[str], None], seconds_since_stop: Callable[[], float]
    ) -> None:
        """``say`` shows a line to the user, once; ``seconds_since_stop``: since this rank was asked to stop."""
        self._place, self._ranks, self._say, self._since_stop = place, ranks, say, seconds_since_stop
        self._memory = HostMemory()
        self._reached = self._published = -1
        self._writing: Writing | None = None
        self._newest: Writing | None = None  # may still write on this rank after a fault of another one
        self._when_published: Callable[[int], None] = lambda step: None
        self._owed = False
        self._last = time.monotonic()
        self._took_s: float | None = None
        self._deadline: float | None = None  # once ranks are asked to stop
        self._unsaved: str | None = None
        self._metrics: dict[str, float] = {}
        self._said_lack = False

    def resumed(self, step: int) -> None:
        """The stage goes on from the state after ``step`` steps. Later ones on the disk are damaged. Not collective."""
        self._reached = self._published = step
        self._last = time.monotonic()

    def due(self, done: int, every: int, every_s: float) -> bool:
        """Whether a state is to be saved after ``done`` steps: every ``every`` steps, and when the last one was taken
        ``every_s`` seconds ago by the main rank's clock. One that falls due while another is being written is put off
        until that is published."""
        self._collect()
        if done % every == 0 or time.monotonic() - self._last >= every_s:
            self._owed = True
        answer = bool(self._ranks.gather(self._owed and self._writing is None)[0])
        if answer:
            self._owed, self._last = False, time.monotonic()
        return answer

    def take(
        self,
        step: int,
        source: Source,
        extra: states.Part = no_files,
        published: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Save ``source`` as it is after ``step`` steps, and what ``extra`` writes on this rank; returns once it is
        copied. Nothing happens where that state is there, or being written.

        ``published(step)`` is called on the main rank, at the end of a later step, once the state is there. Where the
        host's memory does not hold a copy, the state is written before this returns. A disk that takes no more on one
        rank pauses saving on all, with a warning: the last good state stays.
        """
        if step == self._reached:
            return
        began = time.monotonic()
        # A process that is about to end trains nothing meanwhile.
        copies = self._deadline is None and self._has_memory_for(source.state_bytes)
        if self._may_start(step):
            part = source.part(self._memory if copies else None)
            self._start(step, lambda folder: {**part(folder), **extra(folder)}, published)
            if not copies:
                self.settle()
        self._metrics["time/save_s"] = self._metrics.get("time/save_s", 0.0) + time.monotonic() - began

    def save(self, step: int, part: states.Part) -> bool:
        """Save what ``part`` writes, before this returns; whether the state is there."""
        if self._may_start(step):
            self._start(step, part, lambda step: None)
            self.settle()
        return self._published == step

    def settle(self) -> None:
        """Wait until the state that is being written is published, or has failed; not beyond the grace period once
        ranks are asked to stop."""
        while self._writing is not None:
            late = self._deadline is not None and time.monotonic() > self._deadline
            if self._ranks.gather(late)[0]:
                return
            left = 1.0 if self._deadline is None else min(1.0, self._deadline - time.monotonic())
            self._writing.wait(max(0.0, left))
            self._collect()

    def wait(self) -> None:
        """Until this rank's thread has ended; no collective call. For a process that ends with an error."""
        if self._newest is not None:
            self._newest.wait(PATIENCE_S)

    def leave(self, save: Callable[[], object]) -> NoReturn:
        """Raise Preempted, after ``save`` (which calls ``take``) where the grace period allows; say so where not."""
        left = grace_s() - LEAVING_S - self._ranks.max(self._since_stop())
        self._deadline, self._unsaved = time.monotonic() + left, None
        save()
        self.settle()
        if (writing := self._writing) is not None and self._unsaved is None:
            self._unsaved = f"the state of step {writing.step} was not whole after {writing.seconds:.0f} s of writing"
        if self._unsaved is not None:
            resumed = f"step {self._published}" if self._published >= 0 else "its first step"
            kept = " with the rollouts that are kept of the steps since" if self._has_journals() else ""
            there = f"{max(0.0, left):.0f} s of the grace period of {grace_s():g} s were left for it"
            self._say(f"{self._unsaved}, and {there}: the stage will go on from {resumed}{kept}")
        raise Preempted

    def metrics(self) -> dict[str, float]:
        """Seconds that training waited for saving, and that the last state took until it was published, as far as they
        are new. Not collective."""
        found, self._metrics = self._metrics, {}
        return found

    def _may_start(self, step: int) -> bool:
        """Once an earlier write has ended: whether there is time, and no rank's thread still writes."""
        if self._deadline is not None and self._is_hopeless(step):
            return False
        self.settle()
        busy = self._newest is not None and not self._newest.ended
        writing = [rank for rank, busy in enumerate(self._ranks.gather(busy)) if busy]
        if writing:
            self._warn_unsaved(step, f"rank {writing[0]} is still writing its part of an earlier state")
        return not writing and self._writing is None

    def _start(self, step: int, part: states.Part, published: Callable[[int], None]) -> None:
        self._owed, self._last, self._when_published = False, time.monotonic(), published
        try:
            self._writing = start_writing(self._place, step, part, self._ranks)
        except OSError as error:
            self._warn_unsaved(step, str(error))
        else:
            self._newest, self._reached = self._writing, step

    def _collect(self) -> None:
        """Take note on all ranks of a write that has ended. Raises what is no fault of a disk."""
        writing = self._writing
        if writing is None:
            return
        own = None if writing.error is None else Fault.of(writing.error)
        everyone = self._ranks.gather((writing.ended, own))
        ended, fault = everyone[0]
        others = [f"rank {rank}: {other.text}" for rank, (_, other) in enumerate(everyone) if other]
        if not ended:
            if others:  # the rank's note may not have found room on the disk
                writing.given_up = Fault(others[0], next(other.number for _, other in everyone if other))
            return
        self._writing = None
        if fault is None:
            self._published = writing.step
            if self._ranks.is_main:
                self._took_s = self._metrics["time/state_write_s"] = writing.seconds
                self._when_published(writing.step)
            return
        self._reached = self._published
        if fault.number is not None:
            self._warn_unsaved(writing.step, fault.text)
        elif writing.error is not None:
            raise writing.error
        else:
            raise CascadeError(f"the state of step {writing.step} could not be written: {fault.text}")

    def _has_memory_for(self, size: int) -> bool:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.world_size))
        available = available_bytes()
        lacks = size > self._memory.size and available is not None and size * here > USABLE * available
        if not self._ranks.any(lacks):
            return True
        if not self._said_lack:
            self._say(
                f"the host's memory does not hold a copy of what is trained ({size / 2**30:.1f} GiB a rank): training "
                "waits while its states are written"
            )
        self._said_lack = True
        return False

    def _is_hopeless(self, step: int) -> bool:
        """Whether the grace period ends before a state could be written, by how long the last one took."""
        assert self._deadline is not None
        needed = 0.0
        if self._took_s is not None:
            pending = 0.0 if self._writing is None else max(0.0, self._took_s - self._writing.seconds)
            needed = pending + self._took_s
        left = self._deadline - time.monotonic()
        needed, left = self._ranks.gather((needed, left))[0]
        if needed > left:
            self._unsaved = (
                f"the state of step {step} is not written (about {needed:.0f} s by how long the last one took)"
            )
        return bool(needed > left)

    def _has_journals(self) -> bool:
        return any((self._place.parent / "rollouts" / "open").glob("step-*"))

    def _warn_unsaved(self, step: int, why: str) -> None:
        self._say(warning_unsaved(step, why))


def warning_unsaved(step: int, why: str) -> str:
    """What users read when a state could not be saved."""
    return (
        f"WARNING: the state of step {step} could not be saved ({why}); the one before it stays. "
        "Free some disk space: until then a crash loses the steps since."
    )
