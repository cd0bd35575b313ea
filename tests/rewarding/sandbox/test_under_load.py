"""Programs are judged by what they compute: a core that others keep busy changes no verdict.

Programs that must pass keep their core wanted until the clock is past their limit, so that a limit by the clock cannot
let them through; with three busy neighbours they compute a quarter of that time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cascade_rl.rewarding.sandbox import BubblewrapSandbox, Limits, Sandbox, command, script
from tests.busy import SPIN_BY_CLOCK, busy_core

from .test_hostile import _at_level, still_serves
from .test_sandbox import BACKENDS, open_sandbox

LIMITS = Limits(cpu_s=0.6, blocked_s=30)


@contextlib.contextmanager
def opened(name: str) -> Iterator[Sandbox | BubblewrapSandbox]:
    with _at_level("landlock") if name == "landlock" else open_sandbox(backend=name) as made:
        yield made


@pytest.fixture(scope="module", params=BACKENDS)
def beside_others(request) -> Iterator[Sandbox | BubblewrapSandbox]:
    with busy_core(), opened(request.param) as made:
        yield made


def test_a_program_within_its_limit_passes_on_a_busy_core(beside_others):
    outcome = beside_others.run(script(SPIN_BY_CLOCK + "spin_by_clock(1.2)\nprint('done')"), LIMITS)
    assert (outcome.status, outcome.stdout) == ("ok", b"done\n"), outcome


def test_a_program_past_its_limit_does_not(beside_others):
    outcome = beside_others.run(script(SPIN_BY_CLOCK + "compute(1.8)\nprint('done')"), LIMITS)
    assert outcome.status == "time", outcome


@pytest.mark.parametrize("source", ["time.sleep(3600)", "threading.Event().wait()", "os.kill(os.getpid(), 19)"])
def test_a_blocked_program_ends_on_a_busy_core(beside_others, source):
    limits = Limits(cpu_s=30, blocked_s=0.5)
    outcome = beside_others.run(script(f"import os, threading, time\n{source}"), limits)
    assert outcome.status == "time", outcome
    assert outcome.blocked_s >= 0.5
    assert beside_others.run(script("print(1)"), LIMITS).stdout == b"1\n"


CROWD = (
    SPIN_BY_CLOCK
    + """
import os
for _ in range(4):
    if os.fork() == 0:
        compute(0.3)
        os._exit(0)
for _ in range(4): os.wait()
print('done')
"""
)


def test_processes_of_a_command_share_its_limit():
    """Each of them stays below, so that no limit of the kernel's ends them."""
    with Sandbox(require="namespaces") as sandbox:
        request = command(["python3", "-S", "-c", CROWD], {}, sandbox.environment())
        assert sandbox.run(request, Limits(cpu_s=0.7, blocked_s=30)).status == "time"
        assert sandbox.run(request, Limits(cpu_s=20, blocked_s=30)).stdout == b"done\n"


def test_a_stop_that_crosses_with_the_answer_is_no_request():
    """The interpreter may have answered already when it is told to stop; the next test is judged as ever."""
    from cascade_rl.rewarding.sandbox.inside import frames

    with Sandbox() as sandbox:
        begun = sandbox._process
        frames.send(sandbox._end, {"stop": True})
        still_serves(sandbox)
        assert sandbox._process is begun
