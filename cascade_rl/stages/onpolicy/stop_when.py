"""When a stage has done its work before its steps are up: ``stop_when``, over a window of steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from cascade_rl.recipe.conditions import Condition
from cascade_rl.recipe.problems import suggestion
from cascade_rl.types import CascadeError


class Switch:
    """Looks at each step's metrics; ``reason`` once every condition holds for the window's mean."""

    def __init__(self, conditions: Sequence[Condition], window: int) -> None:
        self._conditions = conditions
        self._recent: dict[str, deque[float]] = {c.metric: deque(maxlen=window) for c in conditions}
        self._window = window

    def observe(self, metrics: Mapping[str, Any]) -> None:
        """Metrics of a step. Raises CascadeError for one that does not exist: it would never be met."""
        for metric, values in self._recent.items():
            if metric not in metrics:
                raise CascadeError(
                    f"stop_when: there is no metric {metric!r}; {suggestion(metric, metrics, 'the metrics are')}"
                )
            if math.isfinite(metrics[metric]):
                values.append(float(metrics[metric]))

    @property
    def reason(self) -> str | None:
        """Why the stage may end, or None."""
        if not self._conditions or any(len(values) < self._window for values in self._recent.values()):
            return None
        means = {metric: math.fsum(values) / len(values) for metric, values in self._recent.items()}
        if not all(condition.holds(means[condition.metric]) for condition in self._conditions):
            return None
        return ", ".join(f"{c} (mean of {self._window} steps: {means[c.metric]:.4g})" for c in self._conditions)

    def state(self) -> dict[str, list[float]]:
        """The window so far."""
        return {metric: list(values) for metric, values in self._recent.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Undo to ``state()``; of conditions that are new nothing is known yet."""
        for metric, values in self._recent.items():
            values.clear()
            values.extend(state.get(metric, ()))
