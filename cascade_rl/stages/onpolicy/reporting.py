"""What goes on now: told to the watchdog, which notices when nothing finishes, and to the progress line."""

from __future__ import annotations

from dataclasses import dataclass

from cascade_rl.stages.watchdog import Watchdog
from cascade_rl.tracking import Progress


@dataclass(frozen=True)
class Reporter:
    """Of one rank. ``progress`` is None on all ranks but the main one."""

    watchdog: Watchdog | None = None
    progress: Progress | None = None

    def finished(self, now: str) -> None:
        """Something has finished; ``now`` is what comes next."""
        if self.watchdog:
            self.watchdog.beat(now)
        self.waiting(now)

    def waiting(self, text: str) -> None:
        """Nothing has finished since; ``text`` says what is waited for."""
        if self.progress:
            self.progress.phase(text)
