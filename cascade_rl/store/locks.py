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
from typing import Any

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
    with _LockFile(path) as file:
        tries = itertools.count(1)
        while not file.taken():
            if next(tries) < TRIES:
                time.sleep(POLL_S)
                continue
            raise CascadeError(f"{what} is in use {file.holder()}")
        with file.noted(run):
            yield


@contextlib.contextmanager
def hold_together(path: Path, run: str, check_stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold ``path`` while the block runs, beside others that call this: it keeps out only those that call ``hold``.

    Waits for such a holder, which keeps the lock only briefly. ``check_stop`` is called several times a second while
    waiting; what it raises ends the wait.
    """
    with _LockFile(path) as file:
        while not file.taken(fcntl.LOCK_SH):
            check_stop()
            time.sleep(POLL_S)
        with file.noted(run):
            yield


@contextlib.contextmanager
def hold_in_turn(path: Path, run: str, on_wait: Callable[[str], None], check_stop: Callable[[], None]) -> Iterator[None]:
    """Hold ``path`` while the block runs, after every earlier holder.

    ``on_wait`` gets a description of each holder that is waited for, once, with what can be done about it.
    ``check_stop`` is called several times a second while waiting; what it raises ends the wait.
    """
    with _LockFile(path) as file:
        waited_for = None
        tries = itertools.count(1)
        while not file.taken():
            other = file.holder()
            if next(tries) >= TRIES and other != waited_for:
                on_wait(other)
                waited_for = other
            check_stop()
            time.sleep(POLL_S)
        with file.noted(run):
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
        return _described(_note(descriptor))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


class _LockFile:
    """The open lock file of a path, as a context manager; the lock is released at its end."""

    def __init__(self, path: Path) -> None:
        """Raises CascadeError where the file cannot be opened for writing."""
        self._path = path
        self._descriptor = self._open()

    def __enter__(self) -> _LockFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def taken(self, kind: int = fcntl.LOCK_EX) -> bool:
        """Whether the lock is ours now. Raises CascadeError where the file system cannot lock.

        If the file was deleted since it was opened, the one that is at its path now is locked instead: that is the one
        that others lock.
        """
        while True:
            taken = self._try(kind)
            if self._is_current():
                return taken
            os.close(self._descriptor)
            self._descriptor = self._open()

    def holder(self) -> str:
        """Who holds the lock, and what can be done about it."""
        note = _note(self._descriptor)
        return f"{_described(note)}. {_way_out(note, self._path)}"

    @contextlib.contextmanager
    def noted(self, run: str) -> Iterator[None]:
        """Write down who holds the lock, for those who wait; erased at the end.

        Of several that hold the lock together, the last to come has its note there: the others leave it alone.
        """
        note = {"run": run, "pid": os.getpid(), "host": platform.node(), "since": now(), "command": " ".join(sys.argv)}
        note["id"] = uuid.uuid4().hex
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(note).encode(), 0)
        try:
            yield
        finally:
            if _note(self._descriptor).get("id") == note["id"]:
                os.ftruncate(self._descriptor, 0)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise CascadeError(
                f"{self._path} cannot be locked ({error.strerror}): the file system that it lies on has no flock. "
                "Without locks two runs could write one stage at the same time. Put --root on a file system with "
                "locks, or mount this one with them (Lustre: -o flock; NFS: a lock daemon)."
            ) from error
        return True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CascadeError(f"the lock file {self._path} cannot be opened for writing: {error.strerror}") from error


def _note(descriptor: int) -> dict[str, Any]:
    """What the holder wrote down; empty while it has not yet."""
    try:
        note = json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:
        return {}
    return note if isinstance(note, dict) and isinstance(note.get("pid"), int) else {}


def _described(note: dict[str, Any]) -> str:
    """``by run 'x', process 123 on host since 2026-01-01T00:00:00+00:00 (command)``."""
    if not note:
        return "by another process, which is just starting or ending"
    run = f"run {note['run']!r}, " if note.get("run") else ""
    return f"by {run}process {note['pid']} on {note.get('host')} since {note.get('since')} ({note.get('command')})"


def _way_out(note: dict[str, Any], path: Path) -> str:
    """What can be done about a holder: it depends on whether its process is known, is on this host, and lives."""
    pid, host = note.get("pid"), note.get("host")
    if pid is None:
        return "Try again in a moment"
    if host != platform.node():
        return (
            f"Wait until it ends, or stop it on {host}: kill {pid}. If it has ended already, or {host} is down, the file "
            f"server keeps the lock until it notices that, which may take minutes. To go on before, delete {path}, but "
            f"only if you are sure that the process has ended"
        )
    if _lives(pid):
        return f"Wait until it ends, or stop it: kill {pid}"
    return (
        f"There is no process {pid} on this host any more (unless it is in another container): another process holds "
        f"the lock with it or after it. `fuser {path}` shows which; wait until that one ends, or stop it"
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True
