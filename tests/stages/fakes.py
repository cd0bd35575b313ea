"""An engine and a scorer that do as they are told: nothing here generates, times or threads anything by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from cascade_rl.recipe import DataSource, RlStage
from cascade_rl.rollout.engine import Request
from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.onpolicy.collect import Collector
from cascade_rl.stages.onpolicy.feed import Feed
from cascade_rl.stages.onpolicy.open_step import StepParts
from cascade_rl.stages.onpolicy.prompts import Prompts
from cascade_rl.stages.onpolicy.scoring import GroupScorer
from cascade_rl.stages.rl import Grpo
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop


class FakeEngine:
    """Finishes one request a poll: the one that ``pick`` chooses among those in flight (default: first come).

    A rollout's tokens are a function of its seed, as a real engine's are.
    """

    def __init__(
        self,
        pick: Callable[[list[Request]], int] = lambda _: 0,
        stop_of: Callable[[Request], Stop] = lambda _: Stop.EOS,
        version: int = 0,
    ) -> None:
        self.pick, self.stop_of, self.version = pick, stop_of, version
        self.waiting: list[Request] = []
        self.submitted: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int]] = []
        self.timeouts: list[float] = []
        self.before_poll: Callable[[], object] = lambda: None
        self.naps = 0

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    def submit(self, request: Request) -> None:
        self.submitted.append((int(request.prompt_id), request.index))
        self.waiting.append(request)

    def cancel(self, prompt_id: str, index: int) -> None:
        self.cancelled.append((int(prompt_id), index))
        self.waiting = [r for r in self.waiting if (r.prompt_id, r.index) != (prompt_id, index)]

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        self.before_poll()
        self.timeouts.append(timeout_s)
        if not self.waiting:
            return []
        request = self.waiting.pop(self.pick(self.waiting))
        stop = self.stop_of(request)
        draws = random.Random(request.seed)
        length = 0 if stop is Stop.ABORT else draws.randint(1, 5)
        ids = tuple(draws.randrange(100) for _ in range(length))
        logprobs = tuple(-draws.random() for _ in ids)
        return [Rollout(request.prompt_id, request.index, ids, logprobs, f"t{ids}", stop, self.version)]

    def clear(self) -> None:
        self.waiting = []

    def sleep(self) -> None:
        assert not self.waiting
        self.naps += 1


class FakeScorer:
    """``value(prompt, rollout)`` at once, or once ``release`` is called."""

    def __init__(self, value: Callable[[Prompt, Rollout], float | Score], combines: str = "never") -> None:
        self.value, self.combines = value, combines
        self.held: list[tuple[Future[Score], Score]] | None = None
        self.scored: list[tuple[str, int]] = []
        self.combined: list[int] = []
        """Groups of each call of ``combine``."""

    def submit_whole(self, prompt: Prompt, rollout: Rollout, overlong: str = "penalise") -> Future[Score]:
        self.scored.append((prompt.id, rollout.index))
        given = self.value(prompt, rollout)
        score = given if isinstance(given, Score) else Score(float(given), {"of": rollout.index})
        future: Future[Score] = Future()
        if self.held is None:
            future.set_result(score)
        else:
            self.held.append((future, score))
        return future

    def release(self, number: int | None = None) -> None:
        assert self.held is not None
        now, self.held = self.held[:number], self.held[len(self.held[:number]) :]
        for future, score in now:
            future.set_result(score)

    def combine_alone(self, group: Group) -> Group:
        return self.combine([group])[0]

    def combine(self, groups: Sequence[Group], gather=None) -> list[Group]:
        self.combined.append(len(groups))
        return list(groups)


def stage(**keys) -> RlStage:
    base = {"name": "m", "data": [{"source": "x"}], "reward": {"use": "a:b"}, "learning_rate": 1e-6, "steps": 4,
            "prompts_per_step": 4, "group_size": 2}  # fmt: skip
    return RlStage.model_validate({**base, **keys})


def prompts(count: int, modes: str = "thinking", columns: Callable[[int], dict] = lambda _: {}) -> Prompts:
    rows = [Prompt(f"p{i}", ({"role": "user", "content": str(i)},), columns(i), thinking=True) for i in range(count)]
    ids = [(i,) for i in range(count)]
    return Prompts(rows, {True: ids, False: ids}, modes, [(DataSource(source="x"), range(count))])


def feed(config: RlStage, of: Prompts, rank=0, world_size=1, gather=lambda value: [value], say=lambda _: None, seed=1):
    return Feed(
        of, config.prompts_per_step, seed=seed, curriculum=config.curriculum, rank=rank, world_size=world_size,
        gather=gather, say=say,
    )  # fmt: skip


@dataclass
class Heard:
    """A reporter that hands on what it is told."""

    finished: Callable[[str], object] = lambda _: None
    waiting: Callable[[str], object] = lambda _: None


@dataclass
class Listener:
    """A ``GroupListener`` that hands groups to ``on_group``."""

    on_group: Callable[[Group], object] = lambda _: None
    meet: Callable[[bool, bool], tuple[bool, bool]] = lambda done, stopped: (done, stopped)
    after_generation: bool = False

    def take(self, position: int, group: Group) -> None:
        self.on_group(group)


def collector(engine, scorer, config, of=None, **keys) -> Collector:
    gather = keys.pop("gather", lambda value: [value])
    source = keys.pop("source", None) or feed(config, of or prompts(100), gather=gather)
    options = Grpo(config).options
    reporter = Heard(keys.pop("finished", lambda _: None), keys.pop("waiting", lambda _: None))
    shape = keys.pop("shape", lambda group: group)
    parts = StepParts(
        config, options, 1, engine, source, GroupScorer(scorer, options.overlong, shape), keys.pop("stop", StopFlag()),
        keys.pop("journal", None), reporter,
    )  # fmt: skip
    return Collector(parts, gather=gather, **keys)


def content(groups: Sequence[Group]) -> list:
    """Everything about groups that could differ."""
    return [
        (g.prompt.id, g.prompt.thinking, [(r.index, r.token_ids, r.logprobs) for r in g.rollouts], list(g.scores))
        for g in groups
    ]
