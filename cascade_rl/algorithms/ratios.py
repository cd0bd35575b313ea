"""Probability ratios from log-probs, without overflow.

exp(89) is infinite in float32, and infinity times zero, in a forward or a backward pass, is NaN: one such token would
ruin the gradient of the whole step, even where its advantage is 0 or a mask leaves it out. So every ratio that carries
a gradient, or is multiplied by something, is made here.
"""

from __future__ import annotations

from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""A ratio of e^20 (4.9e8) or e^-20 is no change of a policy but a fault of one of the two sides. The bound is far above
any clip, and so low that the square of a gradient is finite too, of which its norm is made."""


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio), the logarithm clamped to within +-``LOG_RATIO_BOUND``. Any shape -> the same.

    Within the bound, value and gradient are those of exp. Beyond it the ratio stays at the bound and has no gradient: a
    token whose two probabilities are e^20 apart teaches nothing, where its own weight would drown all others.
    """
    return log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
