"""Means over the rollouts of a packed row."""

from __future__ import annotations

import torch
from torch import Tensor


def rollout_means(values: Tensor, lengths: Tensor) -> Tensor:
    """The mean of ``values`` over each rollout, repeated for each of its tokens.

    values: [N], of a packed row's trained tokens; lengths: [rollouts] int, tokens of each rollout in the row's order,
    their sum N -> [N] float64.
    """
    lengths = lengths.to(values.device)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=values.device), lengths)  # [N]
    sums = torch.zeros(len(lengths), dtype=torch.float64, device=values.device).index_add_(0, owner, values.double())
    return (sums / lengths.clamp(min=1))[owner]
