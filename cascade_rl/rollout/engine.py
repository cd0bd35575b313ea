"""What generates completions, seen from the training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cascade_rl.recipe import SamplingConfig
from cascade_rl.types import Rollout


@dataclass(frozen=True)
class Request:
    """One completion to sample. ``seed`` makes it reproducible by itself, whatever it is batched with."""

    prompt_id: str
    index: int
    prompt_token_ids: tuple[int, ...]
    seed: int
    sampling: SamplingConfig


def request_seed(*key: object) -> int:
    """A 63-bit seed from what names a rollout, e.g. (run seed, stage, step, prompt id, index).

    Seeds are functions, not streams: a rollout can be drawn again anywhere, in any order, and comes out the same.
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Engine(Protocol):
    """Implementations: ``cascade_rl.rollout.vllm_engine.VllmEngine`` (in the trainer's process)."""

    def generate(self, requests: Iterable[Request], should_abort: Callable[[], bool] = ...) -> Iterator[Rollout]:
        """Yield each rollout as it finishes. Once ``should_abort`` returns True, the unfinished ones are dropped."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Serve these weights from now on; cached prefixes of older ones are forgotten. Wakes a sleeping engine:
        what it held is stale by then, so waking without new weights would mean nothing."""
        ...

    def sleep(self) -> None:
        """Give device memory back while the trainer works."""
        ...

    def close(self) -> None: ...
