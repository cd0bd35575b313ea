"""What a loop says of itself: to the watchdog, which notices when nothing finishes, to the progress line, to sinks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cascade_rl.stages.context import Context
from cascade_rl.stages.watchdog import Watchdog
from cascade_rl.tracking import Progress, Tracker
from cascade_rl.tracking.trace import Trace, append_trace


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


class ReportingRun(Protocol):
    """What a loop's record has for this."""

    tracker: Tracker | None

    @property
    def context(self) -> Context: ...
    @property
    def reporter(self) -> Reporter: ...
    @property
    def trace(self) -> Trace: ...


@contextlib.contextmanager
def reporting(run: ReportingRun, first_step: int) -> Iterator[None]:
    """Open the sinks of ``run``, which goes on from ``first_step``, and close them at the end."""
    run.tracker = run.context.tracker(first_step)
    run.context.note_start(first_step)
    progress = run.reporter.progress
    try:
        if progress:
            progress.begin(first_step)
        yield
    finally:
        for sink in (progress, run.tracker):
            if sink:
                sink.close()


def write_down(run: ReportingRun, done: int, metrics: Mapping[str, Any]) -> None:
    """Write down the step that was the ``done``-th: who waited for whom, its metrics, the progress line. A collective
    call."""
    lines = run.context.ranks.gather(run.trace.line(done, run.context.ranks.rank))
    if run.context.ranks.is_main:
        append_trace(run.context.job.stage_folder.trace, lines)
    if run.tracker:
        run.tracker.log(done, metrics)
    if run.reporter.progress:
        run.reporter.progress.step(done, metrics)
