"""Rollouts of a step and their scores: rewards run while other rollouts still generate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cascade_rl.recipe import RlStage
from cascade_rl.rewarding import DomainScorer
from cascade_rl.rollout.engine import Engine, Request, request_seed
from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.prompts import Slot
from cascade_rl.tracking import Progress
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import Group, Rollout, Score


@dataclass(frozen=True)
class Collected:
    """This rank's groups of a step, in slot order."""

    groups: list[Group]
    aborted: bool
    """True when a stop request ended it early; the groups are then incomplete and must not be trained on."""


class Collector:
    """Draws a step's groups from an engine and has them scored as they finish."""

    def __init__(
        self,
        engine: Engine,
        scorer: DomainScorer,
        config: Any,  # RlStage: each kind of stage knows its own
        *,
        seed: int,
        stop: StopFlag,
        progress: Progress | None,
        gather: Callable[[Any], list[Any]],
    ) -> None:
        """``gather``: what every rank hands to it, in rank order."""
        self._engine = engine
        self._scorer = scorer
        self._config = config
        self._seed = seed
        self._stop = stop
        self._progress = progress
        self._gather = gather
        self._sampling = {
            True: config.rollout,
            False: config.rollout.model_copy(
                update={"max_new_tokens": config.instruct_max_new_tokens or config.rollout.max_new_tokens}
            ),
        }

    def collect(self, slots: Sequence[Slot], step: int, trace: Trace) -> Collected:
        """All groups of ``slots``; where the time went is added to ``trace``.

        Raises CascadeError when the engine fails.
        """
        config = self._config
        by_position = {str(slot.position): slot for slot in slots}
        requests = [
            Request(
                prompt_id=str(slot.position),
                index=index,
                prompt_token_ids=slot.prompt_token_ids,
                seed=request_seed(self._seed, config.name, step, slot.position, slot.prompt.id, index),
                sampling=self._sampling[bool(slot.prompt.thinking)],
            )
            for slot in slots
            for index in range(config.group_size)
        ]
        rollouts: dict[tuple[str, int], Rollout] = {}
        scores: dict[tuple[str, int], Future[Score]] = {}
        started = trace.now
        for drawn in self._engine.generate(requests, lambda: self._stop.is_set):
            prompt = by_position[drawn.prompt_id].prompt
            key = (drawn.prompt_id, drawn.index)
            rollouts[key] = dataclasses.replace(drawn, prompt_id=prompt.id)
            scores[key] = self._scorer.submit_whole(prompt, rollouts[key], config.overlong)
            if self._progress:
                self._progress.phase(f"generating {len(rollouts)}/{len(requests)}")
        trace.add("generate", started)
        if self._stop.is_set and len(rollouts) < len(requests):
            return Collected([], aborted=True)
        if self._progress:
            self._progress.phase("scoring")
        with trace.span("wait for rewards"):
            groups = [
                Group(
                    slot.prompt,
                    slot.prompt_token_ids,
                    [rollouts[str(slot.position), index] for index in range(config.group_size)],
                    [scores[str(slot.position), index].result() for index in range(config.group_size)],
                )
                for slot in slots
            ]
            groups = self._scorer.combine(groups, self._gather)
        return Collected(groups, aborted=False)


def members(group: Group, config: RlStage) -> list[int]:
    """Indices of the rollouts that count under ``config``."""
    return group.members(truncated_out=config.overlong == "filter")
