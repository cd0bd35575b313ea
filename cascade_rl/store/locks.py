"""One holder at a time for a run or a stage. The kernel releases a lock when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cascade_rl.store.records import now
from cascade_rl.types import CascadeError

POLL_S = 0.1
TRIES = 3
"""Tries before somebody is said to hold a lock: ``holder`` has it for an instant when it looks."""


@contextlib.contextmanager
def hold(path: Path, what: str, run: str = "") -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs. ``run``: the run it is held for, which others are shown.

    Raises CascadeError that names the holder if there is another one, and where the file system has no locks.
    """
    with _opened(path) as descriptor:
        tries = itertools.count(1)
        while not _taken(descriptor, path):
            if next(tries) < TRIES:
                time.sleep(POLL_S)
                continue
            raise CascadeError(f"{what} is in use {_holder(descriptor)}{_way_out(descriptor)}")
        with _noted(descriptor, run):
            yield


@contextlib.contextmanager
def hold_together(path: Path, run: str, check_stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold ``path`` while the block runs, beside others that call this: it keeps out only those that call ``hold``.

    Waits for such a holder, which keeps the lock only briefly. ``check_stop`` is called several times a second while
    waiting; what it raises ends the wait.
    """
    with _opened(path) as descriptor:
        while not _taken(descriptor, path, fcntl.LOCK_SH):
            check_stop()
            time.sleep(POLL_S)
        with _noted(descriptor, run):
            yield


@contextlib.contextmanager
def hold_in_turn(path: Path, run: str, on_wait: Callable[[str], None], check_stop: Callable[[], None]) -> Iterator[None]:
    """Hold ``path`` while the block runs, after every earlier holder.

    ``on_wait`` gets a description of each holder that is waited for, once. ``check_stop`` is called several times a
    second while waiting; what it raises ends the wait.
    """
    with _opened(path) as descriptor:
        waited_for = None
        tries = itertools.count(1)
        while not _taken(descriptor, path):
            other = _holder(descriptor)
            if next(tries) >= TRIES and other != waited_for:
                on_wait(other)
                waited_for = other
            check_stop()
            time.sleep(POLL_S)
        with _noted(descriptor, run):
            yield


def holder(path: Path) -> str | None:
    """Who holds the lock ``path`` right now; None where nobody does, or the lock cannot be looked at."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError as error:
        raise CascadeError(f"the lock file {path} cannot be opened for writing: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int, path: Path, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock is ours now. Raises CascadeError where the file system cannot lock."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CascadeError(
            f"{path} cannot be locked ({error.strerror}): the file system that it lies on has no flock. Without locks "
            "two runs could write one stage at the same time. Put --root on a file system with locks, or mount this "
            "one with them (Lustre: -o flock; NFS: a lock daemon)."
        ) from error
    return True


@contextlib.contextmanager
def _noted(descriptor: int, run: str) -> Iterator[None]:
    """Write down who holds the lock, for those who wait; erased at the end.

    Of several that hold the lock together, the last to come has its note there: the others leave it alone.
    """
    note = {"run": run, "pid": os.getpid(), "host": platform.node(), "since": now(), "command": " ".join(sys.argv)}
    note["id"] = uuid.uuid4().hex
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)
    try:
        yield
    finally:
        if _note(descriptor).get("id") == note["id"]:
            os.ftruncate(descriptor, 0)


def _note(descriptor: int) -> dict[str, str]:
    """What the holder wrote down; empty while it has not yet."""
    try:
        note = json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _holder(descriptor: int) -> str:
    """``by run 'x', process 123 on host since 2026-01-01T00:00:00+00:00 (command)``."""
    note = _note(descriptor)
    if "pid" not in note:
        return "by another process, which is just starting or ending"
    run = f"run {note['run']!r}, " if note.get("run") else ""
    return f"by {run}process {note['pid']} on {note.get('host')} since {note.get('since')} ({note.get('command')})"


def _way_out(descriptor: int) -> str:
    pid = _note(descriptor).get("pid")
    return f". Wait for it, or stop it with: kill {pid}" if pid else ""
