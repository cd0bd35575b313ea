"""Conditions on metrics, as ``stop_when`` has them: ``truncation_rate: "< 0.10"``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

SPOKEN = {
    "truncation_rate": "completions/truncated",
    "mean_length": "completions/mean_length",
    "reward": "reward/mean",
    "entropy": "policy/entropy",
    "zero_variance": "groups/zero_variance",
    "advantage": "distill/advantage_mean",
}
"""Short name in a recipe -> name in metrics.jsonl, which may be written as well."""
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """``metric sign bound``."""

    metric: str
    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Never for NaN."""
        return _SIGNS[self.sign](value, self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"


def condition(metric: str, text: str) -> Condition:
    """Read ``"< 0.10"``. Raises ValueError that says what it should look like."""
    found = re.fullmatch(r"\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", text)
    if not found:
        raise ValueError(f'stop_when.{metric}: {text!r} is no condition; write a sign and a number, like "< 0.10"')
    return Condition(SPOKEN.get(metric, metric), found[1], float(found[2]))
