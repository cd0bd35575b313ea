"""REINFORCE++: advantages normalised over the whole batch instead of within each group (arXiv 2501.03262).

::

    advantage: "cascade_rl.algorithms.reinforce_pp:advantage"            # of rewards as they are
    advantage: "cascade_rl.algorithms.reinforce_pp:with_baseline"        # less the mean of their group

The paper's penalty for leaving the reference, which it takes off each token's reward, is here a term of the loss:
``loss: {kl: ..., kl_estimator: k2}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cascade_rl.algorithms.inputs import GroupInputs, whole_batch

EPSILON = 1e-8
"""Added to the standard deviation."""
Over = Literal["tokens", "rollouts"]


@whole_batch
def advantage(groups: Sequence[GroupInputs], *, over: Over = "tokens") -> list[Tensor]:
    """(r - mean) / std, mean and standard deviation over the batch (REINFORCE++). [G] of each group -> the same.

    ``over``: what mean and deviation are taken over; a rollout's tokens all have its reward, so that over ``tokens``
    long rollouts count more.
    """
    return normalised([group.rewards for group in groups], [group.lengths for group in groups], over)


@whole_batch
def with_baseline(groups: Sequence[GroupInputs], *, over: Over = "tokens") -> list[Tensor]:
    """The same of r - mean of the group (REINFORCE++ with baseline). [G] of each group -> the same."""
    centred = [group.rewards - group.rewards.mean() for group in groups]
    flat = [(group.rewards == group.rewards[0]).all() for group in groups]
    values = [torch.zeros_like(v) if equal else v for v, equal in zip(centred, flat, strict=True)]  # no rounding left
    return normalised(values, [group.lengths for group in groups], over)


def normalised(values: Sequence[Tensor], lengths: Sequence[Tensor], over: Over) -> list[Tensor]:
    """(v - mean) / (std + epsilon), each value weighing as much as its rollout has tokens, or 1.

    values, lengths: [G] of each group -> the same. The deviation is that of the batch itself (divided by its size, not
    by one less). Values that are all alike give zeros.
    """
    if not values:
        return []
    everything = torch.cat(list(values))
    if (everything == everything[0]).all():
        return [torch.zeros_like(group) for group in values]
    counts = torch.cat(list(lengths)).to(everything)
    weights = counts if over == "tokens" else torch.ones_like(counts)
    mean = (weights * everything).sum() / weights.sum()
    deviation = ((weights * (everything - mean).square()).sum() / weights.sum()).sqrt()
    return [(group - mean) / (deviation + EPSILON) for group in values]
