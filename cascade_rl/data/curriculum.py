"""Epoch-based filter (P1 section 4.3, Math RL): prompts that were solved or missed by all rollouts are left out.

After an epoch, a prompt whose accuracy in it was 1 ("easy") or 0 ("hard") is dropped. Each later epoch re-admits each
prompt that is dropped by chance, whenever that happened: an independent draw seeded by (seed, epoch, prompt id). A
prompt that came back stays until an epoch drops it again.

An epoch asks a prompt once, so its accuracy is that of one group, known as soon as the step of that group has ended;
and it matters only when the prompt's turn comes in the next epoch. So verdicts are noted at once and looked up as late
as possible: there are no statistics of an open epoch, and a step that crosses the end of one knows all but its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cascade_rl.recipe.methods import Curriculum
from cascade_rl.types import CascadeError


class CurriculumFilter:
    """Knows which prompts are dropped, and draws who comes back: the ``EpochFilter`` of a stage's sampler."""

    def __init__(
        self, fingerprint: str, ids: Sequence[str], seed: int, config: Curriculum, say: Callable[[str], object]
    ) -> None:
        """``ids``: of all prompts of the stage, ``fingerprint`` of their rows; ``say`` is told of an empty epoch."""
        self._fingerprint, self._ids, self._seed, self._say = fingerprint, ids, seed, say
        self._chances = {"easy": config.readmit_easy, "hard": config.readmit_hard}
        self._dropped: dict[int, str] = {}  # index -> easy or hard

    def asks(self, index: int, epoch: int) -> bool:
        """Whether ``epoch`` asks this prompt: it is not dropped, or drew its return."""
        kind = self._dropped.get(index)
        return kind is None or chance(self._seed, epoch, self._ids[index]) < self._chances[kind]

    def readmit(self, indices: Iterable[int]) -> None:
        """All of ``indices`` come back: an epoch has asked none of them, and went by without a draw."""
        back = [index for index in indices if self._dropped.pop(index, None)]
        self._say(
            f"WARNING: curriculum: all {len(back)} prompts are solved or missed by all rollouts, and none drew its "
            "return: all come back. The data has nothing left to teach at this length and group size; let the stage "
            "end earlier (`steps`, `stop_when`), or give it other rows."
        )

    def record(self, index: int, right: int, counted: int) -> None:
        """A prompt was asked: ``right`` of its ``counted`` rollouts were. Without any that counts it stays."""
        self._dropped.pop(index, None)
        if counted and right in (0, counted):
            self._dropped[index] = "hard" if right == 0 else "easy"

    def metrics(self) -> dict[str, float]:
        """How many prompts the next epoch asks for certain, and how many are dropped, by kind."""
        kinds = list(self._dropped.values())
        return {
            "curriculum/active": float(len(self._ids) - len(kinds)),
            "curriculum/dropped_easy": float(kinds.count("easy")),
            "curriculum/dropped_hard": float(kinds.count("hard")),
        }

    def state(self) -> dict[str, Any]:
        """Who is dropped, and of which data."""
        return {"fingerprint": self._fingerprint, "seed": self._seed, "dropped": dict(self._dropped)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. Raises CascadeError when it was taken over other data."""
        for key, mine in (("fingerprint", self._fingerprint), ("seed", self._seed)):
            if state[key] != mine:
                raise CascadeError(
                    f"the saved curriculum belongs to other data: {key} was {state[key]!r}, is {mine!r}. The data "
                    "changed since this stage was interrupted; put it back, or delete the stage's state folder."
                )
        self._dropped = dict(state["dropped"])


def chance(seed: int, epoch: int, prompt_id: str) -> float:
    """A number from 0 to below 1, evenly spread, the same for the same arguments on every machine."""
    digest = hashlib.sha256(f"{seed}\x1freadmit\x1f{epoch}\x1f{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
