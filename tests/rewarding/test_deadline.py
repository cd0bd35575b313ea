"""What a deadline counts, with usage made up by the test and a clock that the test moves."""

import os
import select
import subprocess
import sys

import pytest

from cascade_rl.rewarding import deadline as module
from cascade_rl.rewarding.deadline import Deadline, longest_blocked
from cascade_rl.rewarding.process_tree import Usage


class Machine:
    """A clock, and the usage that the next look finds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.computed = self.waited = 0.0
        self.threads = 1
        self.runnable = False
        self.looks = 0

    def look(self) -> Usage:
        self.looks += 1
        return Usage(self.computed, self.waited, self.threads, self.runnable)

    def pass_(self, clock: float, computed: float = 0.0, waited: float = 0.0) -> None:
        self.now += clock
        self.computed += computed
        self.waited += waited


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(module, "cores", lambda: 4)
    return made


def is_over(deadline: Deadline) -> bool:
    try:
        deadline.left()
    except TimeoutError:
        return True
    return False


def test_computing_is_counted_until_its_limit(machine):
    deadline = Deadline(machine, 10.0, is_new=True)
    machine.pass_(9.0, computed=9.0)
    assert not is_over(deadline)
    machine.pass_(1.0, computed=1.0)
    assert is_over(deadline)


def test_time_on_the_run_queue_counts_for_neither(machine):
    deadline = Deadline(machine, 1.0, 5.0, is_new=True)
    for _ in range(100):
        machine.pass_(10.0, computed=0.009, waited=9.991)
        assert not is_over(deadline)
    assert deadline.blocked_s == pytest.approx(0.0, abs=1e-9)
    machine.pass_(10.0, computed=0.2, waited=9.8)
    assert is_over(deadline)


def test_blocked_time_has_its_own_limit(machine):
    deadline = Deadline(machine, 1.0, 5.0, is_new=True)
    machine.pass_(4.0, computed=0.1)
    assert not is_over(deadline)
    assert deadline.blocked_s == pytest.approx(3.9)
    machine.pass_(1.2)
    assert is_over(deadline)


def test_a_ready_thread_is_not_blocked(machine):
    """The kernel counts a wait on the run queue when it ends, so this one cannot be seen in the numbers yet."""
    deadline = Deadline(machine, 1.0, 5.0, is_new=True)
    machine.runnable = True
    machine.pass_(100.0)
    assert not is_over(deadline)
    assert deadline.blocked_s == 0.0


def test_many_threads_do_not_make_blocked_time_negative(machine):
    deadline = Deadline(machine, 100.0, 5.0, is_new=True)
    machine.pass_(26.0, computed=40.0, waited=60.0)
    assert not is_over(deadline)
    machine.pass_(20.0)
    assert is_over(deadline)


def test_earlier_work_of_a_process_does_not_count(machine):
    machine.computed, machine.waited = 500.0, 300.0
    deadline = Deadline(_Since(machine), 1.0, 5.0)
    machine.pass_(0.1)
    assert not is_over(deadline)
    assert (deadline.computed_s, deadline.blocked_s) == (0.0, 0.0)
    machine.pass_(2.0, computed=1.0)
    assert is_over(deadline)


class _Since:
    """As a process tree: the first look is the zero of later ones."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._zero: Usage | None = None

    def look(self) -> Usage:
        seen = self._machine.look()
        self._zero = self._zero or seen
        return Usage(seen.computed_s - self._zero.computed_s, seen.waited_s - self._zero.waited_s, 1, False)


def test_nobody_looks_before_a_limit_can_be_reached(machine):
    deadline = Deadline(machine, 8.0, is_new=True)
    assert deadline.left() == pytest.approx(2.0)  # four cores could reach 8 s of computing in 2 s
    machine.pass_(2.0, computed=2.0)
    assert deadline.left() == pytest.approx(6.0)  # it has one thread
    machine.threads = 3
    machine.pass_(6.0, computed=0.0)
    assert deadline.left() == pytest.approx(2.0)
    machine.threads = 100
    machine.pass_(2.0, computed=2.0)
    assert deadline.left() == pytest.approx(1.0)
    assert machine.looks == 3


def test_the_look_for_blocked_time_comes_in_time_too(machine):
    deadline = Deadline(machine, 100.0, 3.0, is_new=True)
    assert deadline.left() == pytest.approx(3.0)
    machine.pass_(3.0, computed=1.0)
    assert deadline.left() == pytest.approx(1.0)


def test_close_looks_come_whenever_the_time_has_doubled(machine):
    deadline = Deadline(machine, 100.0, 300.0, is_new=True, closely=True)
    waits = []
    for _ in range(6):
        waits.append(deadline.left())
        machine.pass_(waits[-1])
    assert waits == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.8, 1.6])
    assert deadline.blocked_s == pytest.approx(1.6)  # of 3.2 s: it may end just before a look


def test_the_default_for_blocked_time_is_much_longer():
    assert [longest_blocked(seconds) for seconds in (1, 10, 150)] == [15, 60, 760]


def test_an_event_ends_the_wait_before_the_deadline_does(machine):
    deadline = Deadline(machine, 1e6, is_new=True)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    deadline.wait(reading, select.POLLIN)
    os.close(reading)
    os.close(writing)
    assert machine.looks == 0


def test_a_process_that_ended_ends_the_wait(machine):
    """Also where a child of it holds the other end open."""
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        handle = os.pidfd_open(process.pid)
        with pytest.raises(EOFError):
            Deadline(machine, 1e6, is_new=True, process=handle).wait(reading, select.POLLIN)
    for descriptor in (reading, writing, handle):
        os.close(descriptor)


def test_an_event_that_is_there_counts_after_the_deadline(machine):
    deadline = Deadline(machine, 1.0, is_new=True)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    machine.pass_(2.0, computed=2.0)
    deadline.wait(reading, select.POLLIN)
    os.read(reading, 1)
    with pytest.raises(TimeoutError):
        deadline.wait(reading, select.POLLIN)
    os.close(reading)
    os.close(writing)
