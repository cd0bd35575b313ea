"""A loaded machine made on purpose: processes that compute for ever on one core, beside what is under test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

NEIGHBOURS = 3
SPIN_BY_CLOCK = """
import time
def spin_by_clock(seconds):
    '''Keep the core wanted until the clock has moved so far, however little of it is had.'''
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""
"""Source of two functions for code that runs elsewhere."""


@contextlib.contextmanager
def busy_core() -> Iterator[int]:
    """The number of a core that ``NEIGHBOURS`` busy processes are bound to. This process is bound to it as well, so that
    all that it starts meanwhile gets a quarter of that core."""
    before = os.sched_getaffinity(0)
    core = max(before)
    source = "print(flush=True)\nwhile True: pass"
    with contextlib.ExitStack() as ending:
        for _ in range(NEIGHBOURS):
            neighbour = subprocess.Popen(
                # Sessions share a core evenly (autogroups, sched(7)): one each makes four equal shares.
                [sys.executable, "-c", source], stdout=subprocess.PIPE, start_new_session=True
            )  # fmt: skip
            ending.callback(neighbour.wait)
            ending.callback(neighbour.kill)
            assert neighbour.stdout is not None
            ending.callback(neighbour.stdout.close)
            neighbour.stdout.readline()
            os.sched_setaffinity(neighbour.pid, {core})
        ending.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {core})
        yield core
