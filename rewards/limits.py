"""A soft limit of processor time for Python code, in a worker's main thread. The hard limit is the pool's kill."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_REPEAT_S = 0.25


class OutOfTime(BaseException):
    """Not an Exception: libraries catch those and go on."""


def within(seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call(*args, **kwargs)``, or OutOfTime once it has computed for ``seconds`` (as soon as Python code runs).

    Time of the processor (in user mode, of all threads of the process), not of the clock: the same answer gets the same
    verdict on a busy machine. The alarm
    repeats until it is heard. A single one is lost when it strikes inside a destructor, a callback of the garbage
    collector or a bare ``except``, where Python swallows exceptions; the call would then run for ever.

    Raises ValueError outside the main thread. Not to be nested.
    """

    def ring(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"not done after {seconds:g} s of computing")

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _REPEAT_S)
            return call(*args, **kwargs)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:  # again: an alarm may have struck just before the line above
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Budget:
    """Computing shared by several calls: each has at most ``each`` seconds, all since ``begin`` at most ``total``."""

    def __init__(self, each: float, total: float) -> None:
        self.each = each
        self.total = total
        self._begun = time.process_time()

    def begin(self) -> None:
        self._begun = time.process_time()

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``call(*args, **kwargs)``. Raises OutOfTime, at once where nothing is left."""
        left = self.total - (time.process_time() - self._begun)
        if left <= 0:
            raise OutOfTime(f"{self.total:g} s of computing are spent")
        return within(min(self.each, left), call, *args, **kwargs)

    def uncounted(self, call: Callable[[], T]) -> T:
        """``call()``, whose computing leaves the total as it is: loading a library belongs to no call."""
        before = time.process_time()
        try:
            return call()
        finally:
            self._begun += time.process_time() - before
