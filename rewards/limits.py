"""A soft limit of processor time for Python code, in a worker's main thread. The hard limit is the pool's kill."""

from __future__ import annotations

import signal
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

    Time of the processor, not of the clock: the same answer gets the same verdict on a busy machine. The alarm
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
