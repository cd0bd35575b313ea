"""Examples that are not trained on, so that the loss on them can be measured."""

from __future__ import annotations

from collections.abc import Sequence

from cascade_rl.data.order import epoch_order
from cascade_rl.types import CascadeError

_DRAW = -1
"""Which of the seed's orders held-out examples are drawn from; those of the epochs count from 0."""


def split(
    keys: Sequence[str], owners: Sequence[int], held_out: int, seed: int, what: str
) -> tuple[list[int], list[int]]:
    """(examples to train on, held-out examples), each in ascending order, drawn by the seed.

    keys: [N], equal for copies   owners: [N], numbers of what is drawn as a whole (a conversation has several examples)
    ``held_out`` different owners are drawn, one of each key; no copy of them is trained on. ``what``: what owners are
    called in the error. Raises CascadeError where that leaves nothing to train on.
    """
    if not held_out:
        return list(range(len(keys))), []
    first: dict[str, int] = {}
    for key, owner in zip(keys, owners, strict=True):
        first.setdefault(key, owner)
    if held_out >= len(first):
        raise CascadeError(
            f"held_out is {held_out}, but there are {len(first)} different {what}: nothing is left to train on"
        )
    names = list(first)
    drawn = {names[each] for each in epoch_order(len(names), seed, _DRAW)[:held_out]}
    owners_drawn = {first[key] for key in drawn}
    trained = [index for index, key in enumerate(keys) if key not in drawn]
    return trained, [index for index, owner in enumerate(owners) if owner in owners_drawn]
