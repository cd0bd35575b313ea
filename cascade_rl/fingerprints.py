"""Hashes of files that results depend on, and a record of which files were hashed.

A file is hashed once per process as long as its size, inode and times stay the same. That is believed only of files
that were last changed some time before they were hashed: a file system stamps changes no finer than its clock ticks, so
a second change within the same tick could not be seen.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SETTLED_NS = 2_000_000_000
"""Age of a file's last change from which its times are believed (FAT, the coarsest, counts in steps of 2 s)."""
BLOCK = 1 << 22

_Signature = tuple[int, ...]
_known: dict[tuple[str, str], tuple[_Signature, str]] = {}
_record: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("hashed files", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Yield a dict that gets path -> hash of every file that is hashed while the block runs."""
    found: dict[str, str] = {}
    token = _record.set(found)
    try:
        yield found
    finally:
        _record.reset(token)


def file_hash(path: Path) -> str:
    """16 hex digits of the SHA-256 of the whole content. Raises OSError."""
    return _hashed(path, "whole", _whole)


def edges_hash(path: Path, edge: int = 1 << 20) -> str:
    """The same over the size, the first ``edge`` and the last ``edge`` bytes: all of a small file, and for tens of
    gigabytes of weights an answer at once."""
    return _hashed(path, f"edges {edge}", lambda file: _edges(file, edge))


def content_of(path: Path) -> bytes:
    """The whole content of a small file, which counts as hashed."""
    content = path.read_bytes()
    _note(path, hashlib.sha256(content).hexdigest()[:16])
    return content


class Watch:
    """Files that must stay as they are. ``files``: path -> hash of the whole content."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {path: (_signature_or_none(path), digest) for path, digest in files.items()}

    def changed(self) -> list[str]:
        """``path: old hash -> new hash`` of each file with another content by now. Reads only files whose size, inode
        or times differ from those at the start."""
        lines = []
        for path, (signature, digest) in self._files.items():
            if _signature_or_none(path) != signature:
                try:
                    new = _whole(Path(path))
                except OSError:
                    new = "not there"
                lines += [f"{path}: {digest} -> {new}"] if new != digest else []
        return lines


def _signature_or_none(path: str) -> _Signature | None:
    try:
        return _signature(Path(path))
    except OSError:
        return None


def _hashed(path: Path, how: str, digest_of: Callable[[Path], str]) -> str:
    key = (how, os.path.abspath(path))
    before = _signature(path)
    found = _known.get(key)
    if found is not None and found[0] == before:
        digest = found[1]
    else:
        started = time.time_ns()
        digest = digest_of(path)
        # The times of the file are its server's, which may differ from this machine's.
        if _signature(path) == before and started - max(before[-2:]) > SETTLED_NS:
            _known[key] = (before, digest)
    _note(path, digest)
    return digest


def _signature(path: Path) -> _Signature:
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _note(path: Path, digest: str) -> None:
    record = _record.get()
    if record is not None:
        record[os.path.abspath(path)] = digest


def _whole(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]


def _edges(path: Path, edge: int) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(edge))
        if size > edge:
            file.seek(max(edge, size - edge))
            digest.update(file.read())
    return digest.hexdigest()[:16]
