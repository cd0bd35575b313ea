"""Worker processes that score rollouts, each call under a hard deadline.

    submit ──► queue ──► manager thread (one per worker) ──socket──► worker process (fresh, light interpreter)
                              │  deadline passed or worker gone: SIGKILL, reap, a new worker, one more try,
                              ▼  then the response has earned the failure value (out of memory: an error)
                          Future[Score]

Time-outs by threads or alarms do not stop a C loop; only a kill does. A manager waits for the queue (freed by submit
or close) or for its worker (freed by a verdict, the worker's death, or the deadline), and for nothing else. A deadline
counts what a worker computes, not the clock, and starting a worker counts for no call: see ``deadline``. Async rewards
are not called here: they wait for servers, and ``asynchronous`` gives them a deadline by the clock.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import TYPE_CHECKING

from cascade_rl.fingerprints import Watch
from cascade_rl.rewarding.process import CannotStart, WorkerGone, WorkerProcess
from cascade_rl.rewarding.records import RewardError, RewardSettings, ScoreCall
from cascade_rl.rewarding.traces import short_trace
from cascade_rl.types import Score

if TYPE_CHECKING:
    from cascade_rl.recipe.parts import RewardConfig

COUNTERS = ("calls", "timeouts", "crashes", "errors", "restarts")
_TRIES = 2


class _Closed(Exception):
    """The pool is being closed; whatever went wrong is its doing."""


class RewardPool:
    """Scores calls in ``workers`` processes. A context manager; ``submit`` may be called from any thread."""

    def __init__(
        self, config: RewardConfig | RewardSettings, search: Sequence[Path], workers: int, source: Watch | None = None
    ) -> None:
        """Returns when the first worker is ready. Raises RewardError when it cannot start.

        ``source``: the reward's source files. Once one of them has changed no worker is started any more: a new process
        would score by the new source, beside others that go on with the old one.
        """
        self._settings = RewardSettings.of(config)
        self._source = source
        self._search = tuple(search)
        self._queue: queue.SimpleQueue[tuple[ScoreCall, Future[Score]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Guards the four below."""
        self._closed = False
        self._broken: RewardError | None = None
        self._processes: dict[int, WorkerProcess] = {}
        self._counts: Counter[str] = Counter()
        first: Future[None] = Future()
        self._threads = [
            threading.Thread(
                target=self._manage, args=(index, first if index == 0 else None), name=f"reward-{index}", daemon=True
            )
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        try:
            first.result()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers there are now; on Linux, of their supervisors."""
        with self._lock:
            return [process.pid for process in self._processes.values()]

    def summary(self) -> dict[str, int]:
        """Since the start: calls answered, and among them timeouts, crashes, errors; workers started anew."""
        with self._lock:
            return {name: self._counts[name] for name in COUNTERS}

    def submit(self, call: ScoreCall) -> Future[Score]:
        """Queue a call; never blocks. Its Future raises RewardError once workers can no longer be started.

        Raises RuntimeError on a closed pool.
        """
        future: Future[Score] = Future()
        with self._lock:  # or a call could slip in behind close() and wait for ever
            if self._closed:
                raise RuntimeError("the reward pool is closed")
            self._queue.put((call, future))
        return future

    def close(self) -> None:
        """Kill and reap all workers. Calls not answered yet are cancelled: their ``result()`` raises CancelledError."""
        with self._lock:
            self._closed = True
            processes = list(self._processes.values())
        for _ in self._threads:
            self._queue.put(None)
        for process in processes:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _manage(self, index: int, first: Future[None] | None) -> None:
        try:
            self._process(index)
        except BaseException as error:  # the constructor waits for this
            if first:
                first.set_exception(error)
        else:
            if first:
                first.set_result(None)
        while (item := self._queue.get()) is not None:
            self._answer(index, *item)
        self._discard(index)

    def _answer(self, index: int, call: ScoreCall, future: Future[Score]) -> None:
        if self._closed:
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._score(index, call))
        except _Closed:
            future.set_exception(CancelledError())
        except BaseException as error:  # whatever it is must reach the caller, who would wait for ever otherwise
            future.set_exception(error)

    def _score(self, index: int, call: ScoreCall) -> Score:
        """A response that hangs or kills its worker gets a second try on a fresh one, then the failure value."""
        settings = self._settings
        try:
            command = pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            text = f"reward {settings.use}: the row cannot be sent to a worker process: {short_trace(error)}"
            return self._counted(Score(settings.failure, {}, text), "errors")
        for last_try in (False, True):
            process = self._process(index)
            try:
                score = process.score(command)
            except WorkerGone as gone:
                self._discard(index)
                if last_try:
                    return self._failed(gone)
            else:
                if process.is_spent:
                    self._discard(index)
                return self._counted(score, "errors" if score.error is not None else None)
        raise AssertionError("unreachable")

    def _failed(self, gone: WorkerGone) -> Score:
        settings = self._settings
        if self._closed:
            raise _Closed
        if gone.why == "timeout":
            return self._counted(Score(settings.failure, {"timeout": True}), "timeouts")
        if gone.why == "crashed":
            return self._counted(Score(settings.failure, {"crashed": True}), "crashes")
        # An exception like any other that a reward can catch: an error, which nobody takes for a wrong answer.
        text = f"reward {settings.use} ran out of memory (memory_limit_mib: {settings.memory_limit_mib}): {gone.trace}"
        return self._counted(Score(settings.failure, {}, text), "errors")

    def _counted(self, score: Score, kind: str | None) -> Score:
        with self._lock:
            self._counts["calls"] += 1
            if kind:
                self._counts[kind] += 1
        return score

    def _process(self, index: int) -> WorkerProcess:
        """The manager's worker, started if there is none. Raises RewardError, the same one ever after, or _Closed."""
        for try_ in range(_TRIES):
            with self._lock:
                if self._closed:
                    raise _Closed
                if self._broken:
                    raise self._broken
                if index in self._processes:
                    return self._processes[index]
            try:
                return self._started(index)
            except CannotStart as error:
                self._discard(index)
                with self._lock:
                    if self._closed:
                        raise _Closed from None
                    if error.final or try_ + 1 == _TRIES:
                        self._broken = self._broken or RewardError(str(error))
        assert self._broken is not None
        raise self._broken

    def _started(self, index: int) -> WorkerProcess:
        """Raises CannotStart."""
        try:
            process = WorkerProcess(self._settings, self._search, "" if self._counts["restarts"] else str(index))
        except OSError as error:
            text = f"no worker process for reward {self._settings.use!r} can be started: {error}"
            raise CannotStart(text, final=False) from error
        with self._lock:
            self._processes[index] = process  # known before it is ready, so that close() can end it
            if self._closed:
                process.kill()
        process.get_ready()
        if self._source is not None and (changed := self._source.changed()):
            files = "\n".join(f"  {line}" for line in changed)
            text = f"the source of reward {self._settings.use!r} has changed since it was first loaded:\n{files}"
            way_out = "Put the old files back and start the same command again, or plan anew with the new ones."
            raise CannotStart(f"{text}\n{way_out}", final=True)
        return process

    def _discard(self, index: int) -> None:
        with self._lock:
            process = self._processes.get(index)
        if process is None:
            return
        process.reap()
        with self._lock:
            del self._processes[index]
            if not self._closed:
                self._counts["restarts"] += 1
