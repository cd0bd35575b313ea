"""GSPO: the importance ratio of a whole rollout instead of one for each token (arXiv 2507.18071).

::

    loss: {use: "cascade_rl.algorithms.gspo:loss", aggregate: sequence}
"""

from __future__ import annotations

import torch
from torch import Tensor

from cascade_rl.algorithms.inputs import LossInputs, loss_function
from cascade_rl.algorithms.ratios import ratio_of


def sequence_log_ratios(inputs: LossInputs) -> Tensor:
    """log s of each token's rollout, s = (pi(y | x) / pi_old(y | x)) ^ (1 / |y|) (section 4.1, equation 7). -> [n]"""
    return inputs.mean_over_rollouts(inputs.logprobs - inputs.engine_logprobs)


def clipped(inputs: LossInputs, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> dict[str, Tensor]:
    """Where clipping leaves a rollout no gradient. -> {name: [n]}"""
    return {"clipped": _is_clipped(inputs, clip_low, clip_high).to(inputs.logprobs)}


@loss_function(whole_rollouts=sequence_log_ratios, measures=clipped, zero_without_advantage=True)
def loss(inputs: LossInputs, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Tensor:
    """-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A) for each token (section 4.1, equation 5). -> [n]

    The ranges are the paper's (section 5.1). With ``aggregate: sequence`` the mean over the tokens of a rollout, then
    over rollouts, is the paper's objective. A token sees its rollout's s as a number, so its gradient is that of

        s A (1 + log pi(token) - [log pi(token)])     [...]: without gradient

    whose mean over the tokens of a rollout has the value s A and the gradient s A (1 / |y|) sum_t grad log pi(y_t),
    that of s itself (section 4.2, and the token form of section 4.3).
    """
    assert inputs.from_rollouts is not None
    ratio = ratio_of(inputs.from_rollouts)
    unclipped = ratio * inputs.advantages * (1 + inputs.logprobs - inputs.logprobs.detach())
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * inputs.advantages
    return -torch.where(_is_clipped(inputs, clip_low, clip_high), bounded, unclipped)


def _is_clipped(inputs: LossInputs, clip_low: float, clip_high: float) -> Tensor:
    assert inputs.from_rollouts is not None
    ratio, advantages = ratio_of(inputs.from_rollouts), inputs.advantages
    return ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))
