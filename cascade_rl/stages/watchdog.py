"""When nothing finishes any more: say what is waited for, and print the stacks of all ranks.

Each rank has a thread that looks at the time since its last ``beat``. The first that runs out of patience writes a file
into the stage's log folder; every rank's thread sees it and dumps the stacks of all its threads into its own log. A
hang inside a collective shows like this which rank did not come, where peers' hang without a word.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PATTERN = "stall-*.txt"


class Watchdog:
    """A context manager around a stage's work; ``beat`` whenever something finished.

    Nothing is stopped: a slow step may still end.
    """

    def __init__(self, logs: Path, rank: int, timeout_s: float, say: Callable[[str], None]) -> None:
        """``say`` shows a line to the user."""
        self._logs, self._rank, self._timeout_s, self._say = logs, rank, timeout_s, say
        self._doing = "starting"
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._seen = {path.name for path in self._logs.glob(PATTERN)}
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def beat(self, doing: str) -> None:
        """Something finished; what this rank is ``doing`` now is for people to read."""
        self._last, self._doing = time.monotonic(), doing

    def _watch(self) -> None:
        while not self._stop.wait(min(5.0, self._timeout_s / 4)):
            if time.monotonic() - self._last > self._timeout_s:
                self._last = time.monotonic()  # asked again after as long a wait
                self._announce()
            for path in sorted(self._logs.glob(PATTERN)):
                if path.name not in self._seen:
                    self._seen.add(path.name)
                    self._dump(path)

    def _announce(self) -> None:
        text = f"rank {self._rank}: nothing has finished for {self._timeout_s:.0f} s; waiting in: {self._doing}"
        self._say(f"WARNING: {text}. The stacks of all ranks are in {self._logs}")
        with contextlib.suppress(OSError):  # a full disk must not end the watch
            (self._logs / f"stall-{time.strftime('%Y%m%d-%H%M%S')}-rank-{self._rank}.txt").write_text(text + "\n")

    def _dump(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            print(f"\n===== {path.name}: {path.read_text().strip()}", file=sys.stderr)
        print(f"===== this is rank {self._rank}; waiting in: {self._doing}; its threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
