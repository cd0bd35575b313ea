"""CPU time of a process and of all that it started, however these parted from it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cascade_rl.rewarding import process_tree
from cascade_rl.rewarding.process_tree import ProcessTree, ThreadUsage, children, descendants, kill, zombies
from tests.busy import SPIN_BY_CLOCK
from tests.rewarding.conftest import state, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TICK = 0.06
"""CPU times of several processes are given in hundredths of a second each, rounded down."""

FAMILY = (
    SPIN_BY_CLOCK
    + """
import os, signal, sys
from cascade_rl.processes import adopt_orphans
adopt_orphans()
def say(text): os.write(1, f"{text}\\n".encode())
def child(seconds, ends):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        compute(seconds)
        say("computed")
        if not ends: signal.pause()
        os._exit(0)
    return pid
for line in sys.stdin:
    word = line.strip()
    if word == "compute": compute(0.2)
    if word == "child that stays": kept = child(0.2, False)
    if word == "child that ends": os.waitpid(child(0.2, True), 0)
    if word == "bury the child": os.kill(kept, signal.SIGKILL); os.waitpid(kept, 0)
    if word == "orphan":
        middle = os.fork()
        if middle == 0:
            child(0.2, False)
            os._exit(0)
        os.waitpid(middle, 0)
    if word == "leave a zombie": child(0.0, True)
    say(word)
"""
)


class Family:
    """A process that does as it is told, line by line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid

    def do(self, word: str, computed: bool = False) -> None:
        self._process.stdin.write(f"{word}\n")
        expected = {word, "computed"} if computed else {word}
        assert {self._process.stdout.readline().strip() for _ in expected} == expected

    def close(self) -> None:
        below = descendants(self.pid)
        self._process.kill()
        kill(below)
        self._process.communicate()


@pytest.fixture(params=[True, False], ids=["children listed", "children searched"])
def family(request, monkeypatch):
    monkeypatch.setattr(process_tree, "_HAS_CHILDREN", request.param and process_tree._HAS_CHILDREN)
    made = Family()
    made.do("ready")
    yield made
    made.close()


def test_all_that_a_process_starts_is_counted_once(family):
    tree = ProcessTree(family.pid)
    assert tree.look().computed_s == 0.0
    expected = 0.0
    for word in ("compute", "child that stays", "child that ends", "orphan"):
        family.do(word, computed=word != "compute")
        expected += 0.2
        assert tree.look().computed_s >= expected - TICK, word
    before = tree.look().computed_s
    family.do("bury the child")  # its time moves to the parent's
    after = tree.look().computed_s
    assert before <= after < before + 0.15


def test_from_birth_all_counts_and_the_root_may_be_left_out(family):
    family.do("child that stays", computed=True)
    family.do("compute")
    whole, below = ProcessTree(family.pid, from_birth=True), ProcessTree(family.pid, from_birth=True, with_root=False)
    assert whole.look().computed_s >= 0.4 - TICK
    assert below.look().computed_s >= 0.2 - TICK
    assert below.look().threads == 1
    assert whole.look().threads == 2


def test_members_are_known_by_pid_and_start(family):
    family.do("child that stays", computed=True)
    (child,) = children(family.pid)
    assert [pid for pid, _ in descendants(family.pid)] == [child]
    kill([(child, 1)])  # an earlier process of that number
    assert wait_until(lambda: state(child) == "S")
    kill(descendants(family.pid))
    assert wait_until(lambda: state(child) == "Z")
    assert zombies(family.pid) == 1


def test_an_orphan_is_adopted_and_found(family):
    family.do("orphan", computed=True)
    assert len(descendants(family.pid)) == 1


def test_a_member_stays_one_when_others_adopt_it():
    """Nothing here adopts orphans: this one goes to the first process of the machine, or whoever stands in for it."""
    command = ["sh", "-c", f"{sys.executable} -c 'while True: pass' & echo; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        tree = ProcessTree(parent.pid)
        assert wait_until(lambda: tree.look().is_runnable)
        (child,) = descendants(parent.pid)
        parent.kill()
    try:
        assert tree.look().is_runnable
    finally:
        kill([child])
    assert wait_until(lambda: state(child[0]) in (None, "Z"))


def test_a_ready_process_is_told_from_a_blocked_one():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        tree = ProcessTree(process.pid)
        assert wait_until(lambda: tree.look().is_runnable)
        os.kill(process.pid, signal.SIGSTOP)
        assert wait_until(lambda: not tree.look().is_runnable)
        process.kill()


def test_a_process_that_has_gone_uses_nothing_more():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        tree = ProcessTree(process.pid, from_birth=True)
    assert tree.look() == process_tree.Usage(0.0, 0.0, 0, False)


def test_a_thread_is_measured_alone():
    go, done, end = (threading.Event() for _ in range(3))

    def work() -> None:
        go.wait()
        limit = time.thread_time() + 0.2
        while time.thread_time() < limit:
            pass
        done.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    with contextlib.ExitStack() as ending:
        ending.callback(end.set)
        usage = ThreadUsage(thread)
        assert usage.look().computed_s == 0.0
        go.set()
        done.wait()
        assert usage.look().computed_s >= 0.2 - TICK


def test_where_there_is_no_proc_the_clock_stands_in(monkeypatch):
    monkeypatch.setattr(process_tree, "HAS_PROC", False)
    tree = ProcessTree(os.getpid())
    first = tree.look()
    assert first.is_runnable
    assert wait_until(lambda: tree.look().computed_s > first.computed_s)
    assert descendants(os.getpid()) == []
