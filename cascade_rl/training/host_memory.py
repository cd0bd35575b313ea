"""A copy of what is trained in the host's memory, from which a state is written while training goes on.

The whole share of a rank is copied at once: an optimizer step changes all of it, and the next one may come before even
the first file is written, with an optimizer that works on the CPU as well. That takes 12 bytes per parameter of the
share (weight and two moments in float32), in memory that is kept for the next state, so a stage that has saved once
needs no more later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Entry = dict[str, Any]


class HostMemory:
    """Memory for one copy. ``copy`` overwrites the one before, which must have been written by then."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._registered = False

    @property
    def size(self) -> int:
        """Bytes that it takes up."""
        return self._buffer.nbytes

    def copy(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """``entries`` (``portable.entries_of``) with their float32 tensors copied; complete when this returns."""
        tensors = [value for entry in entries.values() for value in entry.values() if isinstance(value, Tensor)]
        self._grow(tensors)
        copied, end = {}, 0
        for name, entry in entries.items():
            copied[name] = dict(entry)
            for key, value in entry.items():
                if isinstance(value, Tensor):
                    begin, end = end, end + value.numel()
                    copied[name][key] = self._buffer[begin:end]
                    copied[name][key].copy_(value, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            torch.cuda.synchronize()
        return copied

    def _grow(self, tensors: list[Tensor]) -> None:
        if wrong := {tensor.dtype for tensor in tensors} - {torch.float32}:
            raise TypeError(f"states hold float32 numbers, not {wrong}")
        size = sum(tensor.numel() for tensor in tensors)
        if size <= self._buffer.numel():
            return
        self._release()
        self._buffer = torch.empty(size)
        if any(tensor.is_cuda for tensor in tensors):
            # Registered, a GPU writes to it directly. (torch's own pinned memory comes in powers of two.)
            status = torch.cuda.cudart().cudaHostRegister(self._buffer.data_ptr(), self._buffer.nbytes, 0)
            self._registered = int(status) == 0  # otherwise the copy is slower, and as exact

    def _release(self) -> None:
        if self._registered:
            torch.cuda.cudart().cudaHostUnregister(self._buffer.data_ptr())
        self._buffer, self._registered = torch.empty(0), False


def bytes_of(entries: Mapping[str, Entry]) -> int:
    """Bytes that a copy of ``entries`` takes."""
    return sum(value.nbytes for entry in entries.values() for value in entry.values() if isinstance(value, Tensor))


def available_bytes() -> int | None:
    """Bytes of this host's memory that can be had without swapping, within what a container (cgroup 2) may use; None
    where the system does not say."""
    found = [value for value in (_of_the_host(), _of_the_container()) if value is not None]
    return min(found, default=None)


def _of_the_host() -> int | None:
    fields = _fields(Path("/proc/meminfo"))
    return fields["MemAvailable:"] << 10 if "MemAvailable:" in fields else None


def _of_the_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        # Cached files count as used, and go when there is need.
        return None if limit == "max" else int(limit) - int(used) + _fields(folder / "memory.stat")["inactive_file"]
    except (OSError, ValueError, KeyError):
        return None


def _fields(path: Path) -> dict[str, int]:
    """Name -> number of each line of ``path``."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
