"""How the rollouts of a step are collected, where a method has more to say than the keys of every such stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cascade_rl.recipe import Curriculum, DynamicSampling


@dataclass(frozen=True)
class RolloutOptions:
    """Keys of a recipe that only some methods have. The defaults are those of a method without them."""

    overlong: Literal["filter", "penalise", "score", "soft"] = "score"
    """What becomes of truncated rollouts."""
    dynamic_sampling: DynamicSampling | None = None
    """None: groups whose values are all alike stay."""
    abort_hopeless: bool = False
    """Whether generation stops for groups of which fewer than two rollouts can count."""
    curriculum: Curriculum | None = None

    @property
    def drops_truncated(self) -> bool:
        """Whether truncated rollouts count nowhere."""
        return self.overlong == "filter"
