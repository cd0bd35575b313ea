"""The limit: heard whatever swallows it, gone afterwards, and blind to waiting."""

import gc
import os
import signal
import threading
import time

import pytest

from rewards.limits import Budget, OutOfTime, within
from tests.busy import busy_core


def compute(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def test_what_is_done_in_time():
    assert within(5.0, compute, 0.01) == "done"
    assert within(5.0, lambda *, a: a + 1, a=1) == 2
    with pytest.raises(KeyError):
        within(5.0, {}.__getitem__, "x")


def test_what_is_not():
    with pytest.raises(OutOfTime, match=r"not done after 0\.05 s of computing"):
        within(0.05, compute, 3600)


def test_waiting_is_not_computing():
    assert within(0.05, lambda: time.sleep(0.3)) is None


def swallowed_by_bare_except() -> None:
    while True:
        try:
            compute(3600)
        except:  # noqa: E722
            break
    compute(3600)


class Destructor:
    def __del__(self):
        compute(3600)


def swallowed_by_a_destructor() -> None:
    Destructor()
    compute(3600)


def swallowed_by_the_collector() -> None:
    def callback(phase: str, info: dict) -> None:
        compute(3600)

    gc.callbacks.append(callback)
    try:
        gc.collect()
        gc.callbacks.remove(callback)
        compute(3600)
    finally:
        if callback in gc.callbacks:
            gc.callbacks.remove(callback)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "call", [swallowed_by_bare_except, swallowed_by_a_destructor, swallowed_by_the_collector], ids=lambda c: c.__name__
)
def test_a_lost_alarm_rings_again(call):
    with pytest.raises(OutOfTime):
        within(0.05, call)


def test_nothing_is_left_behind():
    def other(signum, frame): ...

    before = signal.signal(signal.SIGVTALRM, other)
    try:
        with pytest.raises(OutOfTime):
            within(0.01, compute, 3600)
        assert signal.getsignal(signal.SIGVTALRM) is other
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


def test_a_budget_is_shared_by_its_calls():
    budget = Budget(each=0.05, total=0.2)
    with pytest.raises(OutOfTime, match=r"not done after 0\.05 s"):
        budget.run(compute, 3600)
    compute(0.2)
    with pytest.raises(OutOfTime, match=r"0\.2 s of computing are spent"):
        budget.run(compute, 0)
    budget.begin()
    assert budget.run(compute, 0) == "done"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds processes to a core")
def test_a_busy_core_does_not_shorten_the_limit():
    def wanted_past_the_limit_by_the_clock() -> str:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            pass
        return "done"

    with busy_core():
        assert within(0.4, wanted_past_the_limit_by_the_clock) == "done"


def test_computing_of_other_threads_counts():
    """The timer is the process's. A main thread that waits for a lock hears nothing: then the pool's deadline ends it."""
    ended = threading.Event()

    def wait() -> None:
        while True:
            time.sleep(0.01)

    def compute_elsewhere() -> None:
        while not ended.is_set():
            pass

    thread = threading.Thread(target=compute_elsewhere)
    thread.start()
    try:
        with pytest.raises(OutOfTime):
            within(0.1, wait)
    finally:
        ended.set()
        thread.join()


def test_loading_a_library_is_not_taken_from_a_budget():
    budget = Budget(each=5.0, total=0.2)
    assert budget.uncounted(lambda: compute(0.3)) == "done"
    assert budget.run(compute, 0.01) == "done"
