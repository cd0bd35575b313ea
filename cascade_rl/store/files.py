"""Writing so that a kill at any instant leaves the old or the new state, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError

TEMPORARY = ".tmp-"
"""Marks a half-written sibling; anything with it in its name may be deleted by whoever holds the run."""


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` atomically and durably. Raises OSError (disk full) with the old file intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parsed content, or None where there is no such file.

    Raises CascadeError when the file is there but broken: ours are never half-written, so somebody edited it or the
    disk is damaged, and guessing would lose work.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise CascadeError(damaged(path, str(error))) from error


def read_record(path: Path, keys: Mapping[str, type]) -> dict[str, Any] | None:
    """The same of a JSON object with at least ``keys`` of these types. Raises CascadeError for anything else."""
    record = read_json(path)
    if record is None and not path.exists():
        return None
    if not isinstance(record, dict):
        raise CascadeError(damaged(path, "it is no JSON object"))
    for key, kind in keys.items():
        if not isinstance(record.get(key), kind):
            raise CascadeError(damaged(path, f"`{key}` is not there, or of another type"))
    return record


def damaged(path: Path, why: str) -> str:
    """The message for a file of ours that is not as we write it."""
    return f"{path} is damaged ({why}). Restore it, or move its folder away to have it made again."


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``folder`` when the block ends without an exception.

    Everything inside is fsynced before the rename. A folder (or file) already there is replaced. What torch and
    safetensors raise when the disk takes no more comes out as OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(folder)
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        if folder.exists():
            old = _sibling(folder)
            os.rename(folder, old)
            os.rename(temporary, folder)
            _remove(old)
        else:
            os.rename(temporary, folder)
        sync_folder(folder.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        fault = disk_fault(error)
        if fault is None or fault is error:
            raise
        raise fault from error


@contextlib.contextmanager
def publishing_file(path: Path) -> Iterator[Path]:
    """The same for one file, which the block writes to the temporary path it is given."""
    published = path.with_name(f".{path.name}.folder")
    with publishing(published) as folder:
        yield folder / path.name
    os.replace(published / path.name, path)
    published.rmdir()
    sync_folder(path.parent)


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def disk_fault(error: BaseException) -> OSError | None:
    """The OSError behind ``error`` if it tells of a disk that took no more, in the words of torch and safetensors too."""
    text = str(error)
    if isinstance(error, OSError):
        return error if error.errno in DISK_ERRORS else None
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"I/O error: (.*) \(os error (\d+)\)", text)):
        return OSError(int(found[2]), found[1])
    # torch's writer only says that its position in the file is not what it should be.
    if isinstance(error, RuntimeError) and ("inline_container" in text or "PytorchStreamWriter" in text):
        return OSError(errno.EIO, "writing failed; is the disk full?")
    return None


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below ``folder``."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root) / name)
        sync_folder(Path(root))


def sync_file(path: Path) -> None:
    """Make the content of ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames within ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left half-done directly in ``folder``."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if TEMPORARY in entry.name:
            _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}{TEMPORARY}{uuid.uuid4().hex[:8]}")
