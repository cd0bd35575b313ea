"""The one thing a stage uses: hand in rollouts, get scores, whatever kind of function gives them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cascade_rl.fingerprints import Watch, recorded
from cascade_rl.rewarding.loading import LoadedReward, fingerprint, load_reward
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.records import RewardError, RewardSettings, ScoreCall
from cascade_rl.rewarding.traces import short_trace
from cascade_rl.rewarding.verdict import plain
from cascade_rl.rows import present
from cascade_rl.types import CascadeError, Group, Prompt, Rollout, Score

if TYPE_CHECKING:
    from cascade_rl.recipe.parts import RewardConfig
    from cascade_rl.rewarding.asynchronous import AsyncCaller


AWAITS_COMBINE = "awaits_combine"
"""A detail of scores that ``combine`` has yet to give. They carry an error until then, so that where no groups are
combined (`cascade-rl score` on a file) nobody takes them for zeros."""


Combines = Literal["never", "group", "step"]
"""When the values of a reward are final: as each rollout is scored, with its group, or with all groups of the step."""


def awaiting(use: str) -> Score:
    """What ``score`` returns where only ``combine`` knows the value."""
    return Score(0.0, {AWAITS_COMBINE: True}, f"{use} scores whole groups of a step; it cannot score rows one by one")


def alone(value: Any) -> list[Any]:
    """The ``gather`` of a process without others."""
    return [value]


def _source(loaded: LoadedReward) -> Watch:
    with recorded() as files:
        fingerprint(loaded)
    return Watch(files)


class Scorer:
    """Scores rollouts by one reward of a recipe. A context manager.

    ``workers``: processes for rewards that are not async. ``thinking_default``: the mode of rows without their own.
    ``watched``: stop when the reward's source changes and a worker has to be started again.
    """

    def __init__(
        self,
        config: RewardConfig | RewardSettings,
        search: Sequence[Path],
        workers: int,
        thinking_default: bool,
        watched: bool = False,
    ) -> None:
        """Raises RewardError when the reward cannot be loaded, constructed or started."""
        loaded = load_reward(config, search)
        self._use = loaded.settings.use
        self._failure = loaded.settings.failure
        self._thinking_default = thinking_default
        self._backend: AsyncCaller | RewardPool
        if loaded.is_async:
            from cascade_rl.rewarding.asynchronous import AsyncCaller  # asyncio, which workers need not import

            self._backend = AsyncCaller(loaded)
            self._combine = loaded.combine
        else:
            self._combine = loaded.combine  # constructed here before any process is started, if it can be
            self._backend = RewardPool(loaded.settings, loaded.search, workers, _source(loaded) if watched else None)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, prompt: Prompt, rollout: Rollout) -> Future[Score]:
        """Start scoring one rollout; returns at once. The Future raises RewardError when no worker can be started."""
        return self._backend.submit(
            ScoreCall(
                completion=rollout.text,
                messages=tuple(prompt.messages),
                truncated=rollout.truncated,
                thinking=self._thinking_default if prompt.thinking is None else prompt.thinking,
                columns=present(prompt.columns),
            )
        )

    def submit_whole(self, prompt: Prompt, rollout: Rollout, overlong: str = "penalise") -> Future[Score]:
        """As ``submit``, but a truncated rollout has failed and is not shown to the reward, unless ``overlong`` of the
        stage is ``score``."""
        if not rollout.truncated or overlong == "score":
            return self.submit(prompt, rollout)
        settled: Future[Score] = Future()
        settled.set_result(Score(self._failure, {"truncated": True}))
        return settled

    @property
    def combines(self) -> Combines:
        """What ``combine`` has to see before values are final."""
        if self._combine is None:
            return "never"
        # An instance knows best: its options may make it a collective.
        reward = getattr(self._combine, "__self__", None)
        return "group" if getattr(reward, "combines_groups_alone", False) else "step"

    def combine(self, groups: Sequence[Group], gather: Callable[[Any], list[Any]] = alone) -> list[Group]:
        """Let a class reward with ``combine(groups) -> [[value]]`` replace values by what depends on siblings.

        ``groups`` are this rank's. A ``combine`` with a parameter ``gather`` is given a function that returns what
        every rank hands to it, in rank order: all ranks call it equally often. In place of a value it may return a
        Score, whose details are added to those there are. Errors stay.

        Raises RewardError when it fails, returns another shape than [P][G], or values that are not finite numbers.
        """
        if self._combine is None:
            return list(groups)
        takes_gather = "gather" in inspect.signature(self._combine).parameters
        try:
            rows = self._combine(list(groups), **({"gather": gather} if takes_gather else {}))
            new = [[value if isinstance(value, Score) else Score(float(value)) for value in row] for row in rows]
        except CascadeError:
            raise
        except Exception as error:
            raise RewardError(f"{self._use}.combine failed: {short_trace(error)}") from error
        self._check([[score.value for score in row] for row in new], groups)
        return [
            dataclasses.replace(group, scores=[_combined(s, n) for s, n in zip(group.scores, row, strict=True)])
            for group, row in zip(groups, new, strict=True)
        ]

    def combine_alone(self, group: Group) -> Group:
        """``combine`` of one group, where ``combines`` is not ``step``. No collective call."""
        return self.combine([group])[0]

    def summary(self) -> dict[str, int]:
        """Counters since the start: calls, timeouts, crashes, errors, restarts."""
        return self._backend.summary()

    def close(self) -> None:
        """End worker processes or the event loop; scores still awaited are cancelled."""
        self._backend.close()

    def _check(self, values: list[list[float]], groups: Sequence[Group]) -> None:
        shape, got = [len(group.scores) for group in groups], [len(row) for row in values]
        if got != shape:
            raise RewardError(
                f"{self._use}.combine must return one list per group, of lengths {shape}; it returned lengths {got}"
            )
        wrong: Any = next((value for row in values for value in row if not math.isfinite(value)), None)
        if wrong is not None:
            raise RewardError(f"{self._use}.combine returned {wrong}; values must be finite")


def _combined(before: Score, after: Score) -> Score:
    details = {**before.details, **plain(after.details)}
    if details.pop(AWAITS_COMBINE, False):
        return Score(after.value, details, after.error)
    return Score(after.value, details, after.error if before.error is None else before.error)
