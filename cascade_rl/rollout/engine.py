"""What generates completions, seen from the training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cascade_rl.recipe import SamplingConfig
from cascade_rl.types import Rollout

POLL_S = 0.5
"""How long ``generate`` waits at most before it looks at ``should_abort`` again."""


@dataclass(frozen=True)
class Request:
    """One completion to sample. ``seed`` makes it reproducible by itself, whatever it is batched with."""

    prompt_id: str
    index: int
    prompt_token_ids: tuple[int, ...]
    seed: int
    sampling: SamplingConfig

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt_id, self.index


def request_seed(*key: object) -> int:
    """A 63-bit seed from what names a rollout, e.g. (run seed, stage, step, prompt id, index).

    Seeds are functions, not streams: a rollout can be drawn again anywhere, in any order, and comes out the same.
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Engine(Protocol):
    """Implementations: ``vllm_engine.VllmEngine`` (in the trainer's process), ``server_engine.ServerEngine`` (HTTP).

    Requests may be added and cancelled while others are being generated::

        engine.submit(request)                # any number, at any time
        for rollout in engine.poll(0.5):      # what has finished
            ...
        engine.cancel(prompt_id, index)       # nothing comes back for it
        engine.clear()                        # nor for any other
    """

    @property
    def version(self) -> int:
        """Version of the weights being served; -1 before the first ``load_weights``."""
        ...

    @property
    def logprob_temperature(self) -> float:
        """Temperature of the log-probs in rollouts: that of sampling, or 1 where top-p or top-k truncate it."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests submitted whose rollouts have neither come out of ``poll`` nor been cancelled."""
        ...

    def submit(self, request: Request) -> None:
        """Ask for one rollout. Raises ValueError when one of this prompt id and index is in flight already."""
        ...

    def cancel(self, prompt_id: str, index: int) -> None:
        """Give up one rollout: ``poll`` will not return it. One that is not in flight (any more) is ignored."""
        ...

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        """Rollouts that finished, in order of finishing; waits up to ``timeout_s`` for the first of them. Empty at
        once when nothing is in flight. An engine in this process works while it is being polled, and only then.

        Raises CascadeError when the engine is gone: what came before stays valid, what is in flight is lost.
        """
        ...

    def clear(self) -> None:
        """Cancel whatever is in flight."""
        ...

    def generate(self, requests: Iterable[Request], should_abort: Callable[[], bool] = ...) -> Iterator[Rollout]:
        """Yield each rollout as it finishes. Once ``should_abort`` returns True, the unfinished ones are dropped."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Serve these weights from now on; cached prefixes of older ones are forgotten. Wakes a sleeping engine:
        what it held is stale by then, so waking without new weights would mean nothing. Nothing may be in flight."""
        ...

    def sleep(self) -> None:
        """Give device memory back while the trainer works."""
        ...

    def close(self) -> None: ...


class EngineBase:
    """What all engines share: what is in flight, numbered in the order of asking, and ``generate``."""

    def __init__(self) -> None:
        self._version = -1
        self._asked = 0
        self._requests: dict[int, Request] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    @property
    def version(self) -> int:
        """See ``Engine``."""
        return self._version

    @property
    def in_flight(self) -> int:
        """See ``Engine``."""
        return len(self._requests)

    def _enlist(self, request: Request) -> int:
        """The number of a new request. Raises ValueError when it is in flight already."""
        if request.key in self._numbers:
            raise ValueError(f"rollout {request.index} of prompt {request.prompt_id} is in flight already")
        self._asked += 1
        self._requests[self._asked] = request
        self._numbers[request.key] = self._asked
        return self._asked

    def _strike(self, key: tuple[str, int]) -> int | None:
        """Take the request of (prompt id, index) off the list; returns its number, None where it is not in flight."""
        number = self._numbers.pop(key, None)
        if number is not None:
            del self._requests[number]
        return number

    def _finished(self, number: int) -> Request | None:
        """Take a request off the list; None where it was struck off before."""
        request = self._requests.pop(number, None)
        if request is not None:
            del self._numbers[request.key]
        return request

    def generate(
        self: Engine, requests: Iterable[Request], should_abort: Callable[[], bool] = lambda: False
    ) -> Iterator[Rollout]:
        """Yield each rollout as it finishes (see ``Engine``)."""
        try:
            for request in requests:
                self.submit(request)
            while self.in_flight and not should_abort():
                yield from self.poll(POLL_S)
        finally:
            self.clear()  # after an abort, or a caller that stopped listening, nothing may linger into the next step
