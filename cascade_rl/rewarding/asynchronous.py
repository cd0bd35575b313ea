"""``async def`` rewards: judges and reward-model servers, called from an event loop in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any

from cascade_rl.rewarding.binding import call_arguments
from cascade_rl.rewarding.deadline import START_COMPUTING_S, Deadline
from cascade_rl.rewarding.loading import LoadedReward
from cascade_rl.rewarding.process_tree import ThreadUsage
from cascade_rl.rewarding.records import RewardError, ScoreCall
from cascade_rl.rewarding.traces import short_trace
from cascade_rl.rewarding.verdict import as_score
from cascade_rl.types import Score


class AsyncCaller:
    """Same face as ``RewardPool``; ``settings.concurrency`` calls are under way at once.

    Their deadline is one of clock time, because these calls wait for servers and compute little. A deadline passed here
    is an error, not a failure: a slow judge is not the response's fault. It starts when the call does, not while it
    waits for its turn. Code that blocks without ``await`` holds up all calls alike.
    """

    def __init__(self, loaded: LoadedReward) -> None:
        """Raises RewardError when the reward's class cannot be constructed."""
        self._loaded = loaded
        self._slots = asyncio.Semaphore(loaded.settings.concurrency)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="async-reward", daemon=True)
        self._thread.start()
        try:
            # On the loop, because HTTP clients want to be made where they will be used.
            self._wait_for(self._start(self._construct()))
        except TimeoutError as error:
            self.close()
            raise RewardError(f"reward {loaded.settings.use!r} was not constructed after {error}") from None
        except BaseException:
            self.close()
            raise

    def submit(self, call: ScoreCall) -> Future[Score]:
        """Start a call; never blocks. Raises RuntimeError when closed."""
        return self._start(self._score(call))

    def summary(self) -> dict[str, int]:
        """Counters by the names of ``RewardPool.summary``; ``timeouts`` are part of ``errors`` here."""
        from cascade_rl.rewarding.pool import COUNTERS

        return {name: self._counts[name] for name in COUNTERS}

    def close(self) -> None:
        """Cancel what is under way and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        # A reward that blocks the loop cannot be stopped; its thread is a daemon and ends with the process.
        self._thread.join(timeout=5.0)

    def _wait_for(self, constructed: Future[Any]) -> None:
        """The constructor's own imports may take long on a loaded machine, which is no reason to give up."""
        deadline = Deadline(ThreadUsage(self._thread), START_COMPUTING_S)
        while not constructed.done():
            wait([constructed], timeout=deadline.left())
        constructed.result()

    def _start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError("the reward caller is closed")

    def _run(self) -> None:
        self._loop.run_forever()
        # Every caller waiting for a Future must be let go, so what is left is cancelled before the loop closes.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=2.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _construct(self) -> None:
        _ = self._loaded.function

    async def _score(self, call: ScoreCall) -> Score:
        async with self._slots:
            score = await self._call(call)
        self._counts["calls"] += 1  # only ever changed on the loop's thread
        self._counts["errors"] += score.error is not None
        return score

    async def _call(self, call: ScoreCall) -> Score:
        settings = self._loaded.settings
        try:
            task = asyncio.ensure_future(self._loaded.function(**call_arguments(self._loaded, call)))
            # Not asyncio.timeout: that waits for ever when the reward swallows its cancellation.
            done, _ = await asyncio.wait({task}, timeout=settings.timeout_s)
            if not done:
                task.cancel()
                self._counts["timeouts"] += 1
                return Score(settings.failure, {}, f"reward {settings.use} gave no answer in {settings.timeout_s:g} s")
            return as_score(task.result(), settings.use)
        except Exception as error:
            return Score(settings.failure, {}, f"reward {settings.use} raised {short_trace(error)}")
