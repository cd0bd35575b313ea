"""Calls are judged by what they compute: the same on a core that others keep busy, and wherever the computing is done.

Calls that must pass keep their core wanted until the clock is past their limit, so that a deadline by the clock cannot
let them through; with three busy neighbours they compute a quarter of that time.
"""

import contextlib
import os
import sys
from pathlib import Path

import pytest

from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.process import CannotStart, WorkerProcess
from cascade_rl.rewarding.records import RewardSettings, ScoreCall
from tests.busy import SPIN_BY_CLOCK, busy_core
from tests.rewarding.conftest import state, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are watched through /proc")

LIMIT_S = 0.4
REWARDS = (
    SPIN_BY_CLOCK
    + f"""
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from cascade_rl.rewarding.process_tree import zombies
LIMIT_S = {LIMIT_S}
def forked(seconds, *, elsewhere=False):
    pid = os.fork()
    if pid == 0:
        if elsewhere: os.setsid()
        compute(seconds)
        os._exit(0)
    return pid

def score(response, place=None):
    if response == "past the limit by the clock": spin_by_clock(2 * LIMIT_S)
    if response == "computes": compute(3 * LIMIT_S)
    if response == "computes a little more": compute(1.2 * LIMIT_S)
    if response == "sleeps": time.sleep(3600)
    if response == "a child computes": os.waitpid(forked(3 * LIMIT_S), 0)
    if response == "a child in a session of its own": os.waitpid(forked(3600, elsewhere=True), 0)
    if response == "two children, each within the limit":
        for pid in [forked(0.7 * LIMIT_S), forked(0.7 * LIMIT_S)]: os.waitpid(pid, 0)
    if response == "one child after another":
        for _ in range(20): os.waitpid(forked(0.15 * LIMIT_S), 0)
    if response == "a daemon":
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                Path(place).write_text(str(os.getpid()))
                compute(3600)
            os._exit(0)
        os.wait()
        time.sleep(3600)
    if response == "leaves orphans":
        pids = []
        for _ in range(70):
            pids.append(os.fork())
            if pids[-1] == 0:
                if os.fork() == 0: os._exit(0)
                os._exit(0)
        for pid in pids: os.waitpid(pid, 0)  # not os.wait, which would wait for the orphans as well
        while zombies(os.getpid()) < 70: time.sleep(0.01)
    return 1.0
"""
)


@contextlib.contextmanager
def opened(folder: Path):
    """A pool of one worker."""
    (folder / "rewards_under_load.py").write_text(REWARDS)
    settings = RewardSettings("rewards_under_load:score", {}, LIMIT_S, -1.0, blocked_s=30.0)
    with RewardPool(settings, [folder], 1) as made:
        yield made


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("rewards")) as made:
        yield made


def details(pool: RewardPool, response: str, **columns) -> dict:
    verdict = pool.submit(ScoreCall(response, (), False, False, columns)).result(120)
    assert (verdict.value, verdict.error) == (-1.0 if verdict.details else 1.0, None)
    return dict(verdict.details)


def test_a_busy_core_changes_no_verdict(tmp_path):
    with busy_core(), opened(tmp_path) as pool:
        assert details(pool, "past the limit by the clock") == {}
        assert pool.summary()["restarts"] == 0, "a second try would have hidden it"
        assert details(pool, "computes") == {"timeout": True}
        assert details(pool, "fine") == {}


@pytest.mark.parametrize(
    "response",
    [
        "computes",
        "computes a little more",
        "a child computes",
        "a child in a session of its own",
        "two children, each within the limit",
        "one child after another",
    ],
)
def test_a_call_past_its_limit_is_ended_wherever_it_computes(pool, response):
    assert details(pool, response) == {"timeout": True}
    assert details(pool, "fine") == {}


def test_a_daemon_is_counted_and_killed(pool, tmp_path):
    place = tmp_path / "pid"
    assert details(pool, "a daemon", place=str(place)) == {"timeout": True}
    assert wait_until(lambda: state(int(place.read_text())) in (None, "Z"))


def test_a_worker_with_many_unburied_orphans_is_replaced(pool):
    before, restarts = pool.pids, pool.summary()["restarts"]
    assert details(pool, "leaves orphans") == {}
    assert details(pool, "fine") == {}
    assert pool.summary()["restarts"] == restarts + 1
    assert not set(before) & set(pool.pids)


# --- Starting --------------------------------------------------------------------------------------------------------


def worker(folder: Path, source: str) -> WorkerProcess:
    module = f"starting_{folder.name}"
    (folder / f"{module}.py").write_text(SPIN_BY_CLOCK + source + "\ndef score(response): return 1.0\n")
    return WorkerProcess(RewardSettings(f"{module}:score", {}, LIMIT_S, 0.0), [folder])


def test_a_busy_machine_may_take_long_to_start_a_worker(tmp_path):
    """Its own imports included: a worker computes for about a quarter of a second before it comes to the reward's."""
    with busy_core():
        process = worker(tmp_path, "spin_by_clock(2.5)")
        try:
            process.get_ready(computing_s=2.0, blocked_s=30.0)
        finally:
            process.reap()


@pytest.mark.parametrize(
    ("source", "limits"),
    [
        ("compute(3600)", {"computing_s": 0.5}),
        ("time.sleep(3600)", {"computing_s": 60.0, "blocked_s": 0.3}),
        ("import os; os.kill(os.getpid(), 19)", {"computing_s": 60.0, "blocked_s": 0.3}),
        ("import os; os._exit(1)", {}),
        ("import os\nif os.fork() == 0: time.sleep(3600)\nos._exit(1)", {}),
    ],
    ids=["computes", "sleeps", "stopped", "dead", "dead, its socket held open"],
)
def test_a_start_that_comes_to_nothing_is_given_up(tmp_path, source, limits):
    process = worker(tmp_path, source)
    try:
        with pytest.raises(CannotStart):
            process.get_ready(**limits)
    finally:
        process.reap()
    assert state(process.pid) is None


def test_one_worker_of_a_pool_costs_no_looks_for_short_calls(pool, monkeypatch):
    """A look reads a few files for each process; a call of a millisecond must not pay for one."""
    from cascade_rl.rewarding.process_tree import ProcessTree

    details(pool, "fine")
    looks = []
    look = ProcessTree.look
    monkeypatch.setattr(ProcessTree, "look", lambda tree: looks.append(os.getpid()) or look(tree))
    for _ in range(50):
        details(pool, "fine")
    assert len(looks) < 50
