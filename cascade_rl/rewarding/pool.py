"""Worker processes that score rollouts, each call under a hard deadline.

    submit ──► queue ──► manager thread (one per worker) ──pipe──► worker process (fresh, light interpreter)
                              │  deadline passed or pipe closed: SIGKILL, a new worker, one more try,
                              ▼  then the response has earned the failure value
                          Future[Score]

Workers are started, never forked from the trainer, whose threads and memory they must not share. Thread and alarm
time-outs do not stop a C loop; only a kill does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import RewardError, ScoreCall
from cascade_rl.rewarding.wire import receive, send
from cascade_rl.types import Score

START_BUDGET_S = 60.0
"""A worker's own imports do not count against a call's deadline."""


class WorkerGone(Exception):
    """The worker died or was killed; ``hung`` says which."""

    def __init__(self, hung: bool) -> None:
        super().__init__("hung" if hung else "crashed")
        self.hung = hung


class Worker:
    """One process and the pipes to it."""

    def __init__(self, config: RewardConfig, search: Sequence[Path], memory_mib: int) -> None:
        environment = {**os.environ, "CASCADE_RL_PARENT": str(os.getpid()), "OMP_NUM_THREADS": "1"}
        package_root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cascade_rl.rewarding.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._verdicts = self._process.stdin, self._process.stdout
        try:
            self._send((config, tuple(search), memory_mib))
            kind, text = self._receive(START_BUDGET_S)
        except WorkerGone as gone:
            self.kill()
            raise RewardError(
                f"a worker for reward {config.use!r} {'did not start in time' if gone.hung else 'died while starting'}"
            ) from None
        if kind == "failed":
            self.kill()
            raise RewardError(str(text))

    @property
    def pid(self) -> int:
        return self._process.pid

    def score(self, call: ScoreCall, timeout_s: float) -> Score:
        """Raises WorkerGone when the verdict does not come in time or the process dies."""
        self._send(call)
        _, score = self._receive(timeout_s)
        assert isinstance(score, Score)
        return score

    def kill(self) -> None:
        """End the process and reap it."""
        self._process.kill()
        for pipe in (self._commands, self._verdicts):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def _send(self, message: object) -> None:
        try:
            send(self._commands, message)
        except OSError:
            raise WorkerGone(hung=False) from None

    def _receive(self, timeout_s: float) -> tuple[str, object]:
        deadline = time.monotonic() + timeout_s
        if not select.select([self._verdicts], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise WorkerGone(hung=True)
        try:
            message = receive(self._verdicts)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerGone(hung=False) from None
        return message


class RewardPool:
    """Scores calls in worker processes. A context manager; ``submit`` may be called from any thread."""

    def __init__(self, config: RewardConfig, search: Sequence[Path], workers: int, memory_mib: int = 4096) -> None:
        self._config = config
        self._search = search
        self._memory_mib = memory_mib
        self._queue: queue.SimpleQueue[tuple[ScoreCall, Future[Score]] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._broken: RewardError | None = None
        self._workers: dict[int, Worker] = {}
        self.counts: Counter[str] = Counter()
        """calls, timeouts, crashes, errors, restarts since the start."""
        # The first worker starts here, so that a reward that cannot load is reported before anything is spent.
        self._workers[0] = self._start()
        self._threads = [
            threading.Thread(target=self._manage, args=(index,), name=f"reward-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Processes of the workers alive now."""
        return [worker.pid for worker in self._workers.values()]

    def submit(self, call: ScoreCall) -> Future[Score]:
        """Queue a call; its Future raises RewardError when no worker can be started any more."""
        future: Future[Score] = Future()
        self._queue.put((call, future))
        return future

    def close(self) -> None:
        """Kill and reap all workers; calls still waiting are cancelled."""
        self._closed.set()
        for _ in self._threads:
            self._queue.put(None)
        for worker in list(self._workers.values()):
            worker.kill()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _start(self) -> Worker:
        return Worker(self._config, self._search, self._memory_mib)

    def _manage(self, index: int) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            call, future = item
            if self._closed.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                future.set_result(self._score(index, call))
            except RewardError as error:
                future.set_exception(error)
            except Exception as error:  # whatever it is must reach the caller, or it would wait for ever
                if self._closed.is_set():
                    future.cancel()
                future.set_exception(error) if not future.done() else None

    def _score(self, index: int, call: ScoreCall) -> Score:
        """One verdict: a response that hangs or kills its worker gets a second try on a fresh one, then fails."""
        self.counts["calls"] += 1
        gone: WorkerGone | None = None
        for _ in range(2):
            if index not in self._workers:
                self._workers[index] = self._start()
            try:
                score = self._workers[index].score(call, self._config.timeout_s)
            except WorkerGone as error:
                gone = error
                self._workers.pop(index).kill()
                self.counts["restarts"] += 1
                if self._closed.is_set():
                    break
                continue
            self.counts["errors"] += score.error is not None
            return score
        assert gone is not None
        self.counts["timeouts" if gone.hung else "crashes"] += 1
        return Score(self._config.failure, {"timeout": True} if gone.hung else {"crashed": True})
