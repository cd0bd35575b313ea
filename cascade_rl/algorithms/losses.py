"""Losses over flat token tensors, unnormalised: the caller divides their sum once by the step's denominator.

All are element-wise in the token's log-prob and entropy, so that they can be taken chunk by chunk
(``cascade_rl.algorithms.logprobs``). The signs are those of a loss: lower is better.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cascade_rl.algorithms.ratios import LOG_RATIO_BOUND, ratio_of

KlEstimator = Literal["k1", "k2", "k3"]
Aggregate = Literal["token", "sequence", "fixed"]


def policy_gradient(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A * log pi per token: strictly on-policy GRPO, where the importance ratio is 1 (P1 section 4.1).

    logprobs, advantages: [T], the advantage of a rollout repeated over its tokens -> [T]. Sum, and divide by the number
    of response tokens of the whole step (all ranks, all micro-batches) to get the loss; a per-rank or per-micro-batch
    count would give more weight to the tokens of ranks that drew short rollouts.
    """
    return -logprobs * advantages


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float | None = None,
    clip_high: float | None = None,
    cap: float | None = None,
) -> Tensor:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) per token, r = exp(logprobs - old_logprobs).

    PPO (arXiv 1707.06347, equation 7); with clip_high above clip_low, DAPO's clip-higher (arXiv 2503.14476, equation
    10). None leaves that side unclipped. logprobs (with gradient), old_logprobs, advantages: [T] -> [T].

    Clipping bounds what can be gained, so it leaves one case open: a token with A < 0 that has become likelier weighs r
    without bound. ``cap`` truncates every weight: where r > cap and the token is not clipped, value and gradient are
    those of cap instead of r (d loss = -min(r, cap) A d log pi; truncated importance sampling).

    r is bounded (``ratio_of``): an unclipped, uncapped token has no gradient where r is above e^20. With ``cap`` it has
    that of cap, however large r is.
    """
    log_ratio = logprobs - old_logprobs
    ratio = ratio_of(log_ratio)
    bounded = ratio.clamp(0.0 if clip_low is None else 1 - clip_low, None if clip_high is None else 1 + clip_high)
    gain, clipped = ratio * advantages, bounded * advantages
    if cap is None:
        return -torch.minimum(gain, clipped)
    truncated = gain * (cap / ratio.detach()).clamp(max=1.0)
    # Where the ratio is beyond its bound it has no gradient, but the cap still has one.
    at_cap = cap * advantages * (1 + logprobs - logprobs.detach())
    truncated = torch.where(log_ratio > LOG_RATIO_BOUND, at_cap, truncated)
    return -torch.where(clipped < gain, clipped, truncated)


def is_clipped(
    log_ratio: Tensor, advantages: Tensor, *, clip_low: float | None = None, clip_high: float | None = None
) -> Tensor:
    """Where clipping leaves ``clipped_surrogate`` no gradient: A > 0 above 1 + clip_high, A < 0 below 1 - clip_low.

    log_ratio, advantages: [T] -> [T] bool.
    """
    ratio = ratio_of(log_ratio)
    above = torch.zeros_like(ratio, dtype=torch.bool) if clip_high is None else ratio > 1 + clip_high
    below = torch.zeros_like(ratio, dtype=torch.bool) if clip_low is None else ratio < 1 - clip_low
    return (above & (advantages > 0)) | (below & (advantages < 0))


def kl_penalty(logprobs: Tensor, reference_logprobs: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """Estimate of KL(pi || reference) from the sampled token (Schulman, "Approximating KL divergence", 2020).

    logprobs (with gradient), reference_logprobs: [T], of the same tokens at the same temperature -> [T].
    With d = reference - log pi, for tokens drawn from pi:

        k1 = -d              value unbiased, of either sign; its gradient grad log pi has mean zero: as a loss term it
                             penalises nothing (to look at, not to train on)
        k2 = d^2 / 2         value biased; the mean of its gradient, -d grad log pi, is that of KL(pi || reference)
        k3 = exp(d) - d - 1  value unbiased and never negative; the mean of its gradient, (1 - exp(d)) grad log pi, is
                             that of the other divergence, KL(reference || pi); for small d it is k2's

    k3 is what TRL's ``beta`` and verl's ``low_var_kl`` add to the loss; k1 and k2 are verl's ``kl`` and ``mse``.

    In k3, d is bounded from above at 20, since exp(89) overflows in float32: beyond it the value is that of the bound
    and the gradient is 0 (see ``ratio_of``). A negative d, where pi has left the reference, is not bounded: k3 grows
    linearly there, with a gradient of 1 - exp(d).
    """
    difference = reference_logprobs - logprobs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        difference = difference.clamp(max=LOG_RATIO_BOUND)
        return difference.expm1() - difference
    raise ValueError(f"no KL estimator {estimator!r}; there are k1, k2 and k3")


def entropy_bonus(entropy: Tensor) -> Tensor:
    """-H per token: the term whose weight in the loss is the entropy coefficient. entropy: [T], nats -> [T]."""
    return -entropy


def rollout_weight(length: int, aggregate: Aggregate) -> float:
    """What each of a rollout's ``length`` trained tokens counts before the division by ``step_denominator``.

    token: 1 (P1 section 4.1); sequence: 1 / length, so that every rollout counts alike (GRPO's own form, P1 section
    4.4); fixed: 1 (Dr. GRPO, arXiv 2503.20783). Raises ValueError for a rollout without tokens.
    """
    if length < 1:
        raise ValueError("a rollout without trained tokens has no place in a loss")
    return 1.0 / length if aggregate == "sequence" else 1.0


def step_denominator(aggregate: Aggregate, *, tokens: int, rollouts: int, fixed_length: int | None = None) -> float:
    """What the sum of a step's weighed terms is divided by; the counts are of all ranks and micro-batches together.

    token: tokens; sequence: rollouts; fixed: rollouts * fixed_length. Rollouts that were filtered out are in neither
    count; tokens that a mask leaves out of the loss are in both. At least 1, so that an empty step can be divided.
    """
    if aggregate == "token":
        return float(max(1, tokens))
    if aggregate == "sequence":
        return float(max(1, rollouts))
    if fixed_length is None:
        raise ValueError("aggregate: fixed needs fixed_length")
    return float(max(1, rollouts) * fixed_length)
