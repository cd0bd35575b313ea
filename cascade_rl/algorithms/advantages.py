"""Advantages of grouped rollouts: how much better than its siblings each one was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to the standard deviation (P1 leaves it open; verl's value)."""


def group_advantages(rewards: Tensor) -> Tensor:
    """(r - mean) / (std + 1e-6) with the sample standard deviation (P1 section 4.1).

    rewards: [G] of one group -> [G]. A group of equal rewards teaches nothing: all zero.
    """
    centred = group_mean_advantages(rewards)
    return centred / (rewards.std(correction=1) + EPSILON)


def group_mean_advantages(rewards: Tensor) -> Tensor:
    """r - mean (no division by the spread, as in Dr. GRPO). rewards: [G] -> [G]."""
    if (rewards == rewards[0]).all():
        return torch.zeros_like(rewards)  # exactly zero: the mean of equal floats can be off by a rounding
    return rewards - rewards.mean()


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """r_i - mean of the other members (RLOO, arXiv 2402.14740): a baseline that the rollout itself has no part in.

    rewards: [G], G at least 2 -> [G]. Equals G / (G - 1) * (r - mean), which is how it is computed.
    """
    members = len(rewards)
    return group_mean_advantages(rewards) * (members / (members - 1))


def group_tanh_advantages(rewards: Tensor) -> Tensor:
    """tanh of ``group_advantages``: shaped rewards in (-1, 1), against outliers of a reward model (P1 section 4.4).

    rewards: [G] -> [G].
    """
    return torch.tanh(group_advantages(rewards))


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "group": group_advantages,
    "group_mean": group_mean_advantages,
    "leave_one_out": leave_one_out_advantages,
    "group_tanh": group_tanh_advantages,
}
"""Name in a recipe -> function."""


def advantages_of_groups(rewards: Sequence[Sequence[float]], name: str = "group") -> list[list[float]]:
    """Advantages of ragged groups, computed in float64.

    rewards: [P][G'], G' the members that count (filtered rollouts have left the group) -> [P][G'].
    A group with fewer than two members has no baseline: its advantages are zero.
    """
    compute = ADVANTAGES[name]
    return [
        compute(torch.tensor(group, dtype=torch.float64)).tolist() if len(group) > 1 else [0.0] * len(group)
        for group in rewards
    ]
