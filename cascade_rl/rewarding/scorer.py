"""The one thing a stage uses: hand in rollouts, get scores, whatever kind of function gives them."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import LoadedReward, RewardError, ScoreCall, as_score, load_reward
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.wire import short_trace
from cascade_rl.types import Group, Prompt, Rollout, Score

DEFAULT_CONCURRENCY = 64
"""Calls of an async reward under way at once; a recipe's `concurrency` key overrides it."""


class AsyncCaller:
    """Runs ``async def`` rewards (judges, reward-model servers) on an event loop in a thread of this process.

    A deadline passed there is an error, not a failure: a slow judge is not the response's fault.
    """

    def __init__(self, reward: LoadedReward) -> None:
        self._reward = reward
        self._loop = asyncio.new_event_loop()
        limit = int(reward.config.params.get("concurrency", DEFAULT_CONCURRENCY))
        self._slots = asyncio.Semaphore(limit)
        self._thread = threading.Thread(target=self._loop.run_forever, name="async-reward", daemon=True)
        self._thread.start()

    def submit(self, call: ScoreCall) -> Future[Score]:
        return asyncio.run_coroutine_threadsafe(self._score(call), self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)

    async def _score(self, call: ScoreCall) -> Score:
        config = self._reward.config
        async with self._slots:
            try:
                value = await asyncio.wait_for(self._reward.function(**self._reward.arguments(call)), config.timeout_s)
                return as_score(value, config.use)
            except TimeoutError:
                return Score(config.failure, {}, error=f"reward {config.use} gave no answer in {config.timeout_s:g} s")
            except Exception as error:
                return Score(config.failure, {}, error=f"reward {config.use} raised {short_trace(error)}")


class Scorer:
    """Scores rollouts by one reward of a recipe. A context manager."""

    def __init__(self, config: RewardConfig, search: Sequence[Path], workers: int, thinking_default: bool) -> None:
        self._reward = load_reward(config, search)
        self._thinking_default = thinking_default
        self._backend: AsyncCaller | RewardPool = (
            AsyncCaller(self._reward) if self._reward.is_async else RewardPool(config, search, workers)
        )

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, prompt: Prompt, rollout: Rollout) -> Future[Score]:
        """Start scoring one rollout; returns at once."""
        return self._backend.submit(
            ScoreCall(
                completion=rollout.text,
                messages=tuple(prompt.messages),
                truncated=rollout.truncated,
                thinking=self._thinking_default if prompt.thinking is None else prompt.thinking,
                columns=prompt.columns,
            )
        )

    def combine(self, groups: Sequence[Group]) -> list[Group]:
        """Let a class reward with ``combine(groups) -> [[value]]`` replace values by what depends on siblings.

        Raises RewardError when it returns another shape or values that are not finite.
        """
        if self._reward.combine is None:
            return list(groups)
        values = self._reward.combine(list(groups))
        shape = [len(group.scores) for group in groups]
        if [len(row) for row in values] != shape:
            raise RewardError(f"{self._reward.config.use}.combine must return one list per group, of lengths {shape}")
        if not all(math.isfinite(value) for row in values for value in row):
            raise RewardError(f"{self._reward.config.use}.combine returned a value that is not finite")
        return [
            dataclasses.replace(
                group,
                scores=[dataclasses.replace(s, value=float(v)) for s, v in zip(group.scores, row, strict=True)],
            )
            for group, row in zip(groups, values, strict=True)
        ]

    def close(self) -> None:
        self._backend.close()
