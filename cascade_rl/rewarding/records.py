"""What passes between this room's modules: settings, one call, and the room's exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cascade_rl.types import CascadeError, Message

if TYPE_CHECKING:
    # Only for the type: pydantic would cost every worker process an eighth of a second at its start.
    from cascade_rl.recipe.parts import RewardConfig

DEFAULT_CONCURRENCY = 64
"""Calls of an async reward under way at once."""
DEFAULT_MEMORY_LIMIT_MIB = 4096
"""Address space of a worker process."""
DEFAULT_TIMEOUT_S = 10.0
"""Of a reward that names none for itself."""


class RewardError(CascadeError):
    """A reward that cannot be loaded, bound or started."""


@dataclass(frozen=True)
class RewardSettings:
    """The part of a ``RewardConfig`` that worker processes need, free of pydantic."""

    use: str
    params: Mapping[str, Any]
    """Keyword arguments from the recipe."""
    timeout_s: float
    """Of computing for a plain reward, which runs in a worker process; of clock time for an async one."""
    failure: float
    concurrency: int = DEFAULT_CONCURRENCY
    memory_limit_mib: int = DEFAULT_MEMORY_LIMIT_MIB
    """0 sets no limit."""
    names_its_timeout: bool = False
    """Whether ``timeout_s`` is only what stands in until the reward is known, and can name its own."""
    blocked_s: float | None = None
    """Clock time that a call of a plain reward may be blocked; None is ``deadline.longest_blocked(timeout_s)``."""

    @classmethod
    def of(cls, config: RewardConfig | RewardSettings) -> RewardSettings:
        """The settings of a section, or those given."""
        if isinstance(config, RewardSettings):
            return config
        timeout_s = DEFAULT_TIMEOUT_S if config.timeout_s is None else config.timeout_s
        own = config.timeout_s is None
        return cls(
            config.use, config.params, timeout_s, config.failure,
            DEFAULT_CONCURRENCY if config.concurrency is None else config.concurrency,
            DEFAULT_MEMORY_LIMIT_MIB if config.memory_limit_mib is None else config.memory_limit_mib,
            names_its_timeout=own, blocked_s=config.blocked_s,
        )  # fmt: skip


@dataclass(frozen=True)
class ScoreCall:
    """One rollout to score, as it crosses to a worker process."""

    completion: str
    messages: tuple[Message, ...]
    truncated: bool
    thinking: bool
    """Whether the completion was asked to think; decides what ``response`` is without ``</think>``."""
    columns: Mapping[str, Any]
