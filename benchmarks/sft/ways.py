"""The settings in which TRL's SFTTrainer runs, by the names of the sides.

Padding-free, a pass is one long row. Transformers' own attention computes it under a mask of all its tokens by all its
tokens, in which no row sees another; the attention of our trainer, which ``trainer: trl`` uses as well, computes each
row by itself, as FlashAttention does on a GPU (``segments``). By the mask a pass costs the square of its tokens, so
passes of fewer tokens are faster there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    padding_free: bool = False
    packing: bool = False
    """Rows are packed into bins of the longest row's length, before training (``bfd``). None is cut, none sees another
    one, and the loss is the same mean; but a step has other rows than those of the other sides."""
    segments: bool = False
    """With our attention."""
    passes: int = 1
    """That the batch is taken in; a bin is never halved."""


EACH = 1_000_000
"""As many passes as there are bins."""
WAYS = {
    "trl-padded": Way(),
    "trl-padded-quarter": Way(passes=4),
    "trl-free": Way(padding_free=True),
    "trl-free-quarter": Way(padding_free=True, passes=4),
    "trl-packed": Way(padding_free=True, packing=True, passes=EACH),
    "trl-free-segments": Way(padding_free=True, segments=True),
    "trl-free-segments-quarter": Way(padding_free=True, segments=True, passes=4),
    "trl-packed-segments-quarter": Way(padding_free=True, packing=True, segments=True, passes=4),
}
OTHER_EXAMPLES = [name for name, way in WAYS.items() if way.packing]
BORROWING = [name for name, way in WAYS.items() if way.segments]
