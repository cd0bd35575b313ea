"""One state in the making: all ranks put their files into one folder, each in a thread beside training.

main rank                          other ranks
makes an empty folder      ──►     check that they see it                       together, before training goes on
writes its files           ◄──     write theirs, then a note of size and hashes   in threads, no collective calls
waits for all notes, writes the manifest, renames the folder: the state is there, whole
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cascade_rl.store.files import disk_fault, publishing, read_json, write_json
from cascade_rl.training import state as states
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

NOTE = ".rank-{rank:05d}.json"
PATIENCE_S = 1800.0
"""How long the main rank waits for the others once its own files are written."""
POLL_S = 0.1
SEEN_WITHIN_S = 10.0
"""Network file systems may show a new folder to other hosts a little later."""


@dataclass(frozen=True)
class Fault:
    """Why a state could not be written, as ranks tell each other."""

    text: str
    number: int | None
    """errno of a file system that failed; None for an error of any other kind."""

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        if isinstance(error, OSError):
            return cls(str(error), error.errno or errno.EIO)
        return cls(f"{type(error).__name__}: {error}", None)

    def error(self) -> Exception:
        """An exception that says the same."""
        return RuntimeError(self.text) if self.number is None else OSError(self.number, self.text)


class Writing:
    """A state that this rank's thread is writing. On the main rank it has ended when the state is published."""

    def __init__(self, step: int, work: Callable[[Writing], None]) -> None:
        self.step = step
        self.error: Exception | None = None
        self.given_up: Fault | None = None
        """Of another rank: the main rank waits no longer."""
        self._work, self._ended = work, threading.Event()
        self._started, self._seconds = time.monotonic(), 0.0
        threading.Thread(target=self._run, name=f"state of step {step}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._work(self)
        except Exception as error:
            self.error = error
        self._seconds = time.monotonic() - self._started
        self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return self._seconds if self.ended else time.monotonic() - self._started

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until the thread has ended; whether it has."""
        return self._ended.wait(timeout_s)


def start_writing(place: Path, step: int, part: states.Part, ranks: Ranks) -> Writing:
    """Begin to write ``place/step-...``, of which ``part`` writes this rank's files. A collective call.

    Raises OSError on every rank when the folder cannot be made, CascadeError when a rank does not see it.
    """
    with contextlib.ExitStack() as stack:
        folder = ranks.gather(_made(stack, states.step_folder(place, step)) if ranks.is_main else None)[0]
        if isinstance(folder, Fault):
            raise folder.error()
        blind = [rank for rank, sees in enumerate(ranks.gather(_appears(folder))) if not sees]
        if blind:
            raise CascadeError(
                f"{_ranks(blind)} cannot see {folder}, which rank 0 made: a run with several hosts needs its folder on "
                "a file system that all of them share."
            )
        opened = stack.pop_all()
    if ranks.is_main:
        return Writing(step, lambda writing: _publish(opened, folder, part, ranks.world_size, writing))
    return Writing(step, lambda writing: _contribute(folder, part, ranks.rank))


def _made(stack: contextlib.ExitStack, folder: Path) -> Path | Fault:
    """A temporary folder that becomes ``folder`` when ``stack`` closes without an exception."""
    try:
        return stack.enter_context(publishing(folder))
    except OSError as error:
        return Fault.of(error)


def _appears(folder: Path) -> bool:
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not folder.is_dir():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _publish(opened: contextlib.ExitStack, folder: Path, part: states.Part, world_size: int, writing: Writing) -> None:
    """Write the main rank's files, wait for those of the others, publish them all and delete the oldest state."""
    with opened:
        manifest = {**part(folder), **_from_others(folder, world_size, writing)}
        write_json(folder / states.MANIFEST, manifest)
    states.drop_old(folder.parent)


def _from_others(folder: Path, world_size: int, writing: Writing) -> states.Manifest:
    """What the notes of the other ranks say, each deleted. Raises OSError when one does not come."""
    manifest: states.Manifest = {}
    missing = set(range(1, world_size))
    deadline = time.monotonic() + PATIENCE_S
    while missing:
        for rank in sorted(missing):
            path = folder / NOTE.format(rank=rank)
            if (note := read_json(path)) is not None:
                if fault := note["fault"]:
                    raise Fault(f"rank {rank}: {fault['text']}", fault["number"]).error()
                manifest |= note["files"]
                path.unlink()
                missing.discard(rank)
        if writing.given_up:
            raise writing.given_up.error()
        if time.monotonic() > deadline:
            text = f"{_ranks(sorted(missing))} did not finish writing within {PATIENCE_S:.0f} s after rank 0"
            raise TimeoutError(errno.ETIMEDOUT, text)
        if missing:
            time.sleep(POLL_S)
    return manifest


def _contribute(folder: Path, part: states.Part, rank: int) -> None:
    """Write the files of ``rank`` and its note."""
    try:
        files = part(folder)
    except Exception as error:
        fault = Fault.of(disk_fault(error) or error)
        with contextlib.suppress(OSError):  # the main rank hears of it at the next step as well
            _leave_note(folder, rank, {"files": {}, "fault": vars(fault)})
        raise fault.error() from error
    _leave_note(folder, rank, {"files": files, "fault": None})


def _leave_note(folder: Path, rank: int, note: object) -> None:
    """Write ``note`` so that it is seen whole or not at all. Raises OSError where the main rank has deleted the
    folder, having given up."""
    path = folder / NOTE.format(rank=rank)
    with open(half := path.with_suffix(".half"), "w", encoding="utf-8") as file:
        json.dump(note, file)
    os.replace(half, path)


def _ranks(numbers: list[int]) -> str:
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
