"""Resumable states of a stage: published whole, verified before use, the newest two kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

MANIFEST = "manifest.json"
KEPT = 2
BLOCK = 4 << 20
"""Bytes that are hashed and written, or read, at once."""
Record = dict[str, Any]
"""``size`` and ``sha256`` of a file."""
Manifest = dict[str, Record]
"""Name within the state's folder -> record of the file."""
Part = Callable[[Path], Manifest]
"""Writes one rank's files into a folder, safe on the disk when it returns."""


def rng_states() -> dict[str, Any]:
    """States of every global random generator of this process."""
    import numpy

    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: Mapping[str, Any]) -> None:
    """Undo to ``rng_states()``."""
    import numpy

    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


class HashedFile:
    """Hashes what is written to a binary file, so that its bytes need not be read again."""

    def __init__(self, file: BinaryIO | FileIO) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Hash and write all of ``data``. Raises OSError when the disk takes no more, and keeps it as ``fault``."""
        view = memoryview(data).cast("B")
        try:
            for begin in range(0, len(view), BLOCK):
                block = view[begin : begin + BLOCK]
                self._digest.update(block)
                while block:
                    block = block[self._file.write(block) or 0 :]
        except OSError as error:
            self.fault = error
            raise
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    @property
    def record(self) -> Record:
        """Of the bytes written so far."""
        return {"size": self._size, "sha256": self._digest.hexdigest()}


@contextlib.contextmanager
def hashed_file(path: Path) -> Iterator[HashedFile]:
    """A new file at ``path`` that is hashed while the block writes it; it is on the disk after the block, or deleted
    when the block raises.

    A disk that takes no more is an OSError, whatever the writer in the block makes of it.
    """
    try:
        with open(path, "wb", buffering=0) as raw:
            file = HashedFile(raw)
            try:
                yield file
                os.fsync(raw.fileno())
            except Exception as error:
                if file.fault is None or error is file.fault:
                    raise
                raise file.fault from error  # torch's writer turns it into a RuntimeError about positions
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def record_of(path: Path) -> Record:
    """Size and hash of a file, by reading it."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}


def manifest_of(folder: Path, paths: Iterable[Path] | None = None) -> Manifest:
    """Records of ``paths``; default: of every file below ``folder`` but the manifest itself."""
    return {str(path.relative_to(folder)): record_of(path) for path in (_files(folder) if paths is None else paths)}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]


def newest_valid(
    folder: Path,
    read_manifest: Callable[[Path], Any],
    warn: Callable[[str], None],
    ranks: Ranks | None = None,
) -> tuple[int, Path] | None:
    """(step, folder) of the newest state whose files are what its manifest says, or None. A collective call: each file
    is read and hashed by one of ``ranks`` (default: this process alone).

    A damaged one is named in a warning and passed over. Raises CascadeError when states exist but none is whole:
    starting over silently would throw away work that may be repairable.
    """
    ranks = ranks or Ranks(0, 1, torch.device("cpu"))
    names = [path.name for path in folder.glob("step-??????")] if ranks.is_main else []
    candidates = [folder / name for name in sorted(ranks.gather(names)[0], reverse=True)]
    for candidate in candidates:
        if all(ranks.gather(_is_whole(candidate, read_manifest, ranks))):
            return int(candidate.name.removeprefix("step-")), candidate
        warn(f"state {candidate} is damaged (its files differ from its manifest); looking for an older one")
    if candidates:
        raise CascadeError(
            f"no state in {folder} is whole. Restore one from a backup, or delete the folder {folder} to start this "
            "stage from its first step."
        )
    return None


def _is_whole(state: Path, read_manifest: Callable[[Path], Any], ranks: Ranks) -> bool:
    """Whether ``state`` has the files of its manifest and no others, and this rank's share of them its hashes."""
    try:
        manifest = read_manifest(state / MANIFEST)
        files = {str(path.relative_to(state)): path for path in _files(state)}
        mine = list(files)[ranks.rank :: ranks.world_size]
        return bool(manifest) and set(manifest) == set(files) and all(manifest[n] == record_of(files[n]) for n in mine)
    except (OSError, CascadeError, TypeError):
        return False


def drop_old(folder: Path) -> None:
    """Delete all but the newest states."""
    for old in sorted(folder.glob("step-??????"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
