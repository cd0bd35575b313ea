"""Where the engine that drew the tokens and the trainer that learns from them disagree about their probabilities.

Two programs compute the same policy with other kernels, and the ratio pi_trainer / pi_engine is not 1 as the algorithm
assumes. Weights and masks here correct for that; none carries a gradient. ``gap`` is the logarithm of that ratio, per
token. Both of its sides must describe the same distribution: the same temperature and the same support. Where top-p or
top-k truncate sampling, that is the whole vocabulary on both sides, or with ``mismatch.support: kept`` the tokens that
were kept, on both sides.

Nothing here multiplies ratios over a rollout: over 32K tokens a mean gap of 1e-4 makes a product of e^3, so that such a
weight or mask would measure length (shared notes "training", section 4).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from cascade_rl.algorithms.ratios import LOG_RATIO_BOUND, ratio_of
from cascade_rl.algorithms.rollout_means import rollout_means

Mask = Literal["none", "band", "difference", "geometric"]


def logprob_gap(trainer_logprobs: Tensor, engine_logprobs: Tensor) -> Tensor:
    """log(pi_trainer / pi_engine) per token, detached. [T], [T] -> [T]."""
    return trainer_logprobs.detach() - engine_logprobs


def truncated_weight(gap: Tensor, cap: float) -> Tensor:
    """min(pi_trainer / pi_engine, cap): truncated importance sampling, token by token. gap: [T] -> [T]."""
    return ratio_of(gap).clamp(max=cap)


def band_mask(gap: Tensor, low: float, high: float) -> Tensor:
    """True where low <= pi_trainer / pi_engine <= high. gap: [T] -> [T] bool.

    IcePop (arXiv 2510.18855) weighs these tokens by the ratio itself and the others by 0: that is this mask together
    with ``truncated_weight`` at cap = high, which within the band never acts. A gap that is NaN is out of the band.
    """
    # Not ``ratio_of``: nothing is multiplied here, infinity compares as it should, and ``high`` may be above any bound.
    ratio = gap.exp()
    return (ratio >= low) & (ratio <= high)


def difference_mask(trainer_logprobs: Tensor, engine_logprobs: Tensor, high: float) -> Tensor:
    """True where |pi_trainer - pi_engine| <= high, of either sign (prime-rl's IPO). log-probs [T], [T] -> [T] bool.

    Unlike a ratio it does not mind what two programs make of a token of probability 1e-6.
    """
    return (trainer_logprobs.detach().exp() - engine_logprobs.exp()).abs() <= high


def geometric_mask(gap: Tensor, lengths: Tensor, low: float, high: float) -> Tensor:
    """True for all tokens of rollouts whose geometric mean ratio, exp(mean gap), is within [low, high].

    gap: [N], of a packed row's trained tokens; lengths: [sequences] int, tokens of each rollout in the row's order,
    their sum N -> [N] bool. It needs whole rollouts, and a loss sees chunks: the row is scored first, which costs one
    more forward pass, for this option only.
    """
    mean_ratio = rollout_means(gap, lengths).exp()
    return (mean_ratio >= low) & (mean_ratio <= high)


def mismatch_k3(gap: Tensor) -> Tensor:
    """k3 estimate of KL(pi_engine || pi_trainer) per token: r - 1 - log r with r = pi_trainer / pi_engine.

    gap: [T], log r -> [T], never negative; the mean over tokens that the engine drew is unbiased. Published: 1e-5 to
    1e-3 for dense models, 1e-3 to 1e-1 for mixtures of experts (shared notes "training", section 4). The gap is bounded
    from above as in ``ratio_of``, so that one token cannot make the mean infinite.
    """
    gap = gap.clamp(max=LOG_RATIO_BOUND)
    return gap.expm1() - gap
