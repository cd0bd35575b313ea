"""Finished rollouts and their scores, on disk as they come in: a crash loses at most what was still being generated.

One append-only file per step and rank: a header that says by which weights they were drawn, then a line for each
rollout and one for each score. After a restart those of the same weights are taken instead of being drawn again. A line
torn by the crash, and whatever comes after it, is cut off.

Lines are written at once, which is what a process that dies leaves behind; a thread has the disk keep them, since an
engine in this process stands still meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from cascade_rl.types import Rollout, Score, Stop

FORMAT = 1
SYNC_EVERY_S = 1.0
"""What the machine itself may lose, if it dies and not just the process."""
Key = tuple[int, int]
"""Position of the prompt in its step, index of the rollout."""


@dataclass(frozen=True)
class Kept:
    """A rollout of an earlier attempt. ``score`` is None where it has to be scored (again)."""

    rollout: Rollout
    seed: int
    score: Score | None = None


class Journal:
    """This rank's. ``begin`` a step, then ``kept``, ``add_rollout`` and ``add_score``; ``close`` at its end.

    Steps are counted from 0; files, like those of the archive, from 1.
    """

    def __init__(
        self, folder: Path, *, identity: str, rank: int, world_size: int, say: Callable[[str], object]
    ) -> None:
        """``identity``: of everything else that rollouts depend on: the stage's configuration and its prompts."""
        self._folder, self._identity, self._rank, self._world_size = folder, identity, rank, world_size
        self._say = say
        self._kept: dict[Key, Kept] = {}
        self._descriptor: int | None = None
        self._synced = 0.0
        self._dirty = False
        self._warned = False
        self._disk = ThreadPoolExecutor(1, "journal")
        self._syncing: Future[None] | None = None

    def begin(self, step: int, weights: str) -> int:
        """Open the journal of ``step``, whose rollouts are drawn by the weights of that fingerprint.

        Returns how many rollouts of an earlier attempt there are to be taken. Those of other weights are deleted.
        """
        self.close()
        header = {
            "journal": FORMAT,
            "step": step + 1,
            "rank": self._rank,
            "world_size": self._world_size,
            "identity": self._identity,
            "weights": weights,
        }
        path = self._path(step)
        try:
            self._kept, length = self._read(path, header)
            self._open(path, header, length)
        except OSError as error:
            self._pause(error)
        return len(self._kept)

    def kept(self, position: int, index: int, seed: int) -> Kept | None:
        """The rollout of an earlier attempt that was drawn in this place with this seed, if there is one."""
        found = self._kept.get((position, index))
        return found if found is not None and found.seed == seed else None

    def add_rollout(self, position: int, seed: int, rollout: Rollout) -> None:
        """``rollout`` has finished."""
        # Floats are written so that they come back bit for bit (`repr` of Python).
        record = {**vars(rollout), "stop": str(rollout.stop)}
        if rollout.kept is None:
            del record["kept"]
        else:
            record["kept"] = rollout.kept.tolist()
        self._append({"position": position, "seed": seed, "rollout": record})

    def add_score(self, position: int, index: int, score: Score) -> None:
        """A rollout was scored, before ``combine``. A fault of the grader is not kept: it may be mended by then."""
        if score.error is not None:
            return
        record = {"value": score.value, "details": dict(score.details)}
        try:
            if json.loads(json.dumps(record)) != record:  # a tuple, say: it would come back as something else
                return
        except (TypeError, ValueError):
            return
        self._append({"position": position, "index": index, "score": record})

    def sync_if_due(self) -> None:
        """Have the disk keep what was written, once a second at most."""
        if self._syncing is not None:
            if not self._syncing.done():
                return
            done, self._syncing = self._syncing, None
            if isinstance(error := done.exception(), OSError):
                self._pause(error)
        if self._descriptor is not None and self._dirty and time.monotonic() - self._synced > SYNC_EVERY_S:
            self._syncing = self._disk.submit(os.fsync, self._descriptor)
            self._synced, self._dirty = time.monotonic(), False

    def close(self) -> None:
        """The step's rollouts are all there; the file stays until ``drop_before``."""
        if self._descriptor is not None:
            self._disk.submit(_sync_and_close, self._descriptor)
            self._warned = False  # all of it could be written
        self._descriptor, self._syncing, self._kept = None, None, {}

    def drop_before(self, step: int) -> None:
        """Delete the journals of steps before ``step``, of all ranks: a state after them is saved."""
        for path in self._folder.glob("step-??????-rank-*.jsonl"):
            if int(path.name.split("-")[1]) <= step:
                self._delete(path)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # only an empty one goes

    def discard(self, step: int) -> None:
        """Delete this rank's journal of ``step``: its rollouts turned out to be bad."""
        self.close()
        self._delete(self._path(step))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step + 1:06d}-rank-{self._rank}.jsonl"

    def _read(self, path: Path, header: Mapping[str, Any]) -> tuple[dict[Key, Kept], int]:
        """What a file holds for ``header``, and its length in bytes up to its last whole line; else nothing, and 0."""
        if not path.exists():
            return {}, 0
        kept: dict[Key, Kept] = {}
        length = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                record = _parsed(line)
                if number == 0 and record != header:
                    self._tell_apart(record, header)
                    return {}, 0
                if record is None or not (number == 0 or _take(record, kept)):
                    break
                length += len(line)
        return kept, length

    def _tell_apart(self, found: Any, header: Mapping[str, Any]) -> None:
        if isinstance(found, dict):
            other = ", ".join(key for key in header if found.get(key) != header[key])
            self._say(
                f"rollouts that an earlier attempt kept of step {header['step']} are dropped and drawn again: they are "
                f"of another {other}"
            )

    def _open(self, path: Path, header: Mapping[str, Any], length: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._descriptor, length)
        if length == 0:
            self._append(header)

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            return
        data = memoryview(json.dumps(record).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            self._dirty = True
        except OSError as error:
            self._pause(error)

    def _pause(self, error: OSError) -> None:
        """A disk that takes no more costs the journal of this step, not the step; the next one tries again."""
        if self._descriptor is not None:
            self._disk.submit(os.close, self._descriptor)  # after an fsync that may be under way
        self._descriptor, self._syncing = None, None
        if not self._warned:
            self._say(
                f"WARNING: rollouts cannot be kept in {self._folder} as they come in ({error}); training goes on. "
                "Until there is room on the disk again, a crash loses the step in progress."
            )
        self._warned = True

    def _delete(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's record; None for one that was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _take(record: dict[str, Any], kept: dict[Key, Kept]) -> bool:
    """Add a line to ``kept``; False when it makes no sense."""
    try:
        if "rollout" in record:
            fields = record["rollout"]
            rollout = Rollout(
                **{
                    **fields,
                    "token_ids": tuple(fields["token_ids"]),
                    "logprobs": tuple(fields["logprobs"]),
                    "stop": Stop(fields["stop"]),
                    **({"kept": numpy.asarray(fields["kept"], numpy.int32)} if "kept" in fields else {}),
                }
            )
            kept[record["position"], rollout.index] = Kept(rollout, record["seed"])
        else:
            key = record["position"], record["index"]
            kept[key] = Kept(kept[key].rollout, kept[key].seed, Score(**record["score"]))
    except (KeyError, TypeError, ValueError):
        return False
    return True
