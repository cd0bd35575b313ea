"""How long answers to a prompt have been: those expected to be longest are asked for first, which shortens the wait for
the last one (longest processing time first) and changes nothing in what is sampled."""

from __future__ import annotations

from typing import Any


class Lengths:
    """Mean tokens per rollout of each prompt over all times it was asked."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int]] = {}  # index -> tokens, rollouts
        self._total = (0, 0)

    def record(self, index: int, tokens: int, rollouts: int) -> None:
        """``rollouts`` answers to a prompt had ``tokens`` in all."""
        self._of[index] = _plus(self._of.get(index, (0, 0)), (tokens, rollouts))
        self._total = _plus(self._total, (tokens, rollouts))

    def expected(self, index: int) -> float:
        """Mean of the prompt; of all prompts where it was never asked; 0 before the first."""
        tokens, rollouts = self._of.get(index, (0, 0))
        if not rollouts:
            tokens, rollouts = self._total
        return tokens / rollouts if rollouts else 0.0

    def state(self) -> dict[str, Any]:
        return {"of": dict(self._of), "total": self._total}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo to ``state()``."""
        self._of, self._total = dict(state["of"]), state["total"]


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]
