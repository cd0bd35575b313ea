"""One holder at a time for a run or a stage; the lock vanishes with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cascade_rl.store.records import now
from cascade_rl.types import CascadeError


@contextlib.contextmanager
def hold(path: Path, what: str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs.

    Waits ``patience_s`` for a holder that is just going away, then raises CascadeError naming it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise CascadeError(f"{what} is in use {_holder(descriptor)}") from None
                time.sleep(0.1)
        note = {"pid": os.getpid(), "host": platform.node(), "since": now(), "command": " ".join(sys.argv)}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return (
            f"by process {note['pid']} on {note['host']} since {note['since']} ({note['command']}). "
            f"Wait for it, or stop it with: kill {note['pid']}"
        )
    except (ValueError, KeyError):
        return "by another process that is just starting"
