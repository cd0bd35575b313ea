"""What is free on the device at each phase of sharing it: peers run out of it around sleep and wake."""

from __future__ import annotations

from collections.abc import Callable

import torch

GIB = 2**30


def of_this_device() -> tuple[int, int] | None:
    """(free, total) bytes of the current GPU, as its driver counts; None on CPU."""
    return torch.cuda.mem_get_info() if torch.cuda.is_available() else None


class DeviceMemory:
    """Free and used GiB when last seen, by phase; a line per phase in the log. Nothing where there is no GPU."""

    def __init__(self, look: Callable[[], tuple[int, int] | None] = of_this_device) -> None:
        self._look = look
        self.gib: dict[str, float] = {}
        """``memory/<phase>_free_gib`` and ``memory/<phase>_used_gib``, as metrics."""

    def note(self, phase: str) -> None:
        """Look now. ``phase``: what has just been done."""
        seen = self._look()
        if seen is None:
            return
        free, used = seen[0] / GIB, (seen[1] - seen[0]) / GIB
        self.gib[f"memory/{phase}_free_gib"], self.gib[f"memory/{phase}_used_gib"] = free, used
        print(f"device memory after {phase}: {free:.2f} GiB free, {used:.2f} used", flush=True)
