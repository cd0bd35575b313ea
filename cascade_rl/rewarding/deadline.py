"""Deadlines that count computing, not clock time, so that a busy machine gives the verdicts of an idle one.

A deadline has two limits. ``computing_s`` is CPU time of all processes and threads watched, together. ``blocked_s`` is
clock time in which none of them ran or waited for a processor: they slept, were stopped, or waited for something else.
Time that a loaded machine keeps a process on the run queue counts for neither.

The owner waits for an event and, in between, looks at the process. It looks no earlier than a limit can be reached, so
that a call which ends soon costs no look at all.
"""

from __future__ import annotations

import math
import select
import time
from typing import Protocol

from cascade_rl.processes import cores
from cascade_rl.rewarding.process_tree import Usage

START_COMPUTING_S = 60.0
"""CPU time that a process may take for its start, imports included."""
_SHORTEST_WAIT_S = 0.05
_FIRST_CLOSE_LOOK_S = 0.1
_FREE_S = 0.02
"""Most of what goes uncounted before the first look at a process that has worked before."""


def longest_blocked(computing_s: float) -> float:
    """The default limit of blocked time: five times the computing and 10 s."""
    return 5 * computing_s + 10


class _Watched(Protocol):
    def look(self) -> Usage: ...


class Deadline:
    """Begins when it is made. ``watched``: whose usage counts.

    ``is_new``: the processes began with the deadline, so that all of their usage counts. For others the first look is
    the zero; it comes after 20 ms (or a twentieth of the limit), which go uncounted. ``closely``: look after 0.1 s and
    whenever the time has doubled, so that ``blocked_s`` holds at least half of the blocked time of what ended by itself
    after longer than that. ``process``: a pidfd; that its process ended is noticed at once.
    """

    def __init__(
        self,
        watched: _Watched,
        computing_s: float,
        blocked_s: float | None = None,
        *,
        is_new: bool = False,
        closely: bool = False,
        process: int | None = None,
    ) -> None:
        self.computing_s = computing_s
        self.limit_of_blocked_s = longest_blocked(computing_s) if blocked_s is None else blocked_s
        self.computed_s = 0.0
        """CPU seconds until the last look."""
        self.blocked_s = 0.0
        """Clock seconds until the last look in which nothing ran or was ready to."""
        self._watched = watched
        self._process = process
        self._closely = closely
        self._waited_s = 0.0
        self._begun = time.monotonic()
        self._looked: float | None = self._begun if is_new else None
        first_s = self._longest_wait(cores()) if is_new else min(_FREE_S, computing_s / 20)
        self._next_look = self._begun + first_s

    def left(self) -> float:
        """Seconds, more than 0, to wait before asking again. Raises TimeoutError, saying which limit was reached."""
        now = time.monotonic()
        if now >= self._next_look:
            usage = self._watched.look()
            self._count(usage, now)
            if self.computed_s >= self.computing_s:
                raise TimeoutError(f"{self.computing_s:g} s of computing")
            if self.blocked_s >= self.limit_of_blocked_s:
                raise TimeoutError(f"{self.limit_of_blocked_s:g} s of waiting")
            self._next_look = now + self._longest_wait(min(usage.threads, cores()))
        return max(self._next_look - now, 1e-3)

    def wait(self, descriptor: int, event: int) -> None:
        """Wait for an event (of ``select.poll``). Raises TimeoutError, EOFError when the process ended before it."""
        poll = select.poll()
        poll.register(descriptor, event)
        if self._process is not None:
            poll.register(self._process, select.POLLIN)
        timeout_ms = 0  # what is there already counts, however late this process comes to look
        while True:
            ready = dict(poll.poll(timeout_ms))
            if descriptor in ready:
                return
            if ready:
                raise EOFError
            timeout_ms = math.ceil(self.left() * 1000)

    def _count(self, usage: Usage, now: float) -> None:
        if self._looked is not None:
            passed_s = now - self._looked
            active_s = usage.computed_s - self.computed_s + usage.waited_s - self._waited_s
            # A wait on the run queue is counted by the kernel when it ends, so a thread that is ready now may have
            # been ready all along.
            self.blocked_s += 0.0 if usage.is_runnable else max(0.0, passed_s - active_s)
        self.computed_s, self._waited_s = usage.computed_s, usage.waited_s
        self._looked = now

    def _longest_wait(self, parallel: int) -> float:
        """Seconds in which no limit can be reached by so many threads, or less for a close look."""
        computing_s = (self.computing_s - self.computed_s) / max(1, parallel)
        wait_s = min(computing_s, self.limit_of_blocked_s - self.blocked_s)
        if self._closely:
            wait_s = min(wait_s, max(_FIRST_CLOSE_LOOK_S, time.monotonic() - self._begun))
        return max(_SHORTEST_WAIT_S, wait_s)
