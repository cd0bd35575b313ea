"""What this process may use, how long it has to end, and that it must not outlive the one that started it. Standard
library only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from cascade_rl.types import CascadeError


def cores() -> int:
    """Processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_long_integers() -> None:
    """Lift Python's limit of 4,300 digits for this process: tests of programs may hold longer integers.

    The time to read one grows with the square of its length. Rows are trusted; a text of a model must be bounded by
    whoever makes an integer of it.
    """
    sys.set_int_max_str_digits(0)


GRACE_VARIABLE = "CASCADE_RL_GRACE_S"


def grace_s() -> float:
    """How long a process may take to save and leave after SIGTERM: ``CASCADE_RL_GRACE_S`` seconds, 25 by default, as
    torchrun kills after 30. Raises CascadeError for what is no positive number."""
    text = os.environ.get(GRACE_VARIABLE, "25")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise CascadeError(f"{GRACE_VARIABLE} is {text!r}: it must be a number of seconds above 0")
    return seconds


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector while large libraries are imported, then set their objects aside.

    torch, transformers and vLLM create over a million objects that live as long as the process. The collector would
    scan them again and again while they are created (a fifth of the import's time), and in every full collection later.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def die_with_parent(expected_parent: int | None = None, signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent dies (Linux; elsewhere nothing happens).

    ``expected_parent``: its pid as known before; if it is gone already, exit at once.
    """
    if not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal_number), 0, 0, 0)
    if expected_parent is not None and os.getppid() != expected_parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux; elsewhere nothing happens): prctl(2)."""
    if sys.platform.startswith("linux"):
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def guard(parent: int, command: Sequence[str], patience_s: float = 10.0) -> int:
    """Run ``command`` in a process group of its own that does not outlive ``parent``; returns its exit code.

    For programs whose own children survive them (a vLLM server that is killed leaves its engine running, on the GPU).
    The whole group is asked to end, and after ``patience_s`` killed, when this process gets SIGTERM, as it does from
    the kernel when ``parent`` dies, and when the command itself has ended.
    """
    asked = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; ``parent`` decides what it means
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    die_with_parent(parent, signal.SIGTERM)
    us = os.getpid()
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: die_with_parent(us))
    while child.poll() is None and not asked:
        time.sleep(0.1)
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 0.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait_s or None)
    return child.returncode


def guarded(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` under ``guard`` for this process."""
    return [sys.executable, "-m", "cascade_rl.processes", str(os.getpid()), *command]


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
