"""When the held-out loss ends a stage."""

from __future__ import annotations

import math
from typing import Any

from cascade_rl.recipe import EarlyStopConfig


class EarlyStop:
    """Watches the held-out loss. Without ``config`` it never stops a stage, and nothing is the best."""

    def __init__(self, config: EarlyStopConfig | None) -> None:
        self._config = config
        self.best_step: int | None = None
        """Steps done at the best measurement so far."""
        self._best, self._waited = math.inf, 0

    def observe(self, loss: float, step: int) -> bool:
        """Take note of the loss after ``step`` steps. Returns whether it is the best so far; NaN never is."""
        if self._config is None:
            return False
        if loss < self._best - (self._config.min_delta if self.best_step is not None else 0.0):
            self._best, self.best_step, self._waited = loss, step, 0
            return True
        self._waited += 1
        return False

    @property
    def reason(self) -> str:
        """Why the stage ends, in words; empty while it goes on."""
        if self._config is None or self._waited < self._config.patience:
            return ""
        best = "was never a number" if self.best_step is None else f"is best after step {self.best_step}"
        return f"the held-out loss {best}, {self._waited} measurements ago (`early_stop`)"

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes."""
        return {"best": self._best, "best_step": self.best_step, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self._best, self.best_step, self._waited = state["best"], state["best_step"], state["waited"]
