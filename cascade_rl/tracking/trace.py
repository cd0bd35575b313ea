"""Who worked and who waited within a step: spans of time by lane, for the report's timeline and ``time/...`` metrics.

One line per step and rank of ``trace.jsonl``: ``{"step": 7, "rank": 0, "spans": [["generate", 0.01, 3.2], ...]}``,
seconds since the step began. A lane may have many spans, and lanes may overlap: that is what it is there to show.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

Span = tuple[str, float, float]
"""Lane, start and end in seconds since the step began."""


class Trace:
    """Spans of one step. Lanes: ``sync``, ``generate``, ``reward``, ``wait for rewards``, ``train``, ``save``, ..."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.spans: list[Span] = []

    @property
    def now(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def span(self, lane: str) -> Iterator[None]:
        """Time the block as a span of ``lane``."""
        start = self.now
        try:
            yield
        finally:
            self.add(lane, start)

    def add(self, lane: str, start: float, end: float | None = None) -> None:
        """A span that began at ``start`` and ends at ``end``, or now."""
        self.spans.append((lane, start, self.now if end is None else end))

    def seconds(self, lane: str) -> float:
        """Time during which at least one span of ``lane`` was open."""
        total, covered = 0.0, 0.0
        for start, end in sorted((start, end) for name, start, end in self.spans if name == lane):
            total += max(0.0, end - max(start, covered))
            covered = max(covered, end)
        return total

    def line(self, step: int, rank: int) -> str:
        """As a line of ``trace.jsonl``."""
        spans = [[lane, round(start, 4), round(end, 4)] for lane, start, end in self.spans]
        return json.dumps({"step": step, "rank": rank, "spans": spans})


class BusyLanes:
    """Spans of lanes that are begun and ended by whether they are busy."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._since: dict[str, float] = {}

    def set(self, lane: str, busy: bool) -> None:
        """Begin a span of ``lane``, or end the one that is open; nothing where it is so already."""
        if busy:
            self._since.setdefault(lane, self._trace.now)
        elif lane in self._since:
            self._trace.add(lane, self._since.pop(lane))

    def close(self) -> None:
        """End all spans that are open."""
        for lane in list(self._since):
            self.set(lane, False)


def append_trace(path: Path, lines: list[str]) -> None:
    """Write lines of one step to ``path``. A disk that takes no more costs the lines, not the run."""
    with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
