"""The loss of reward models on preference pairs (Bradley-Terry), and what is said about it."""

from __future__ import annotations

import torch
from torch import Tensor


def sides(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen [P] and rejected [P] in float64, of ``scores`` [2 P] in which the two sides of a pair alternate."""
    chosen, rejected = scores.double().view(-1, 2).unbind(1)
    return chosen, rejected


def pair_losses(scores: Tensor, centering: float = 0.0) -> Tensor:
    """Loss of each pair [P] in float64: -log sigmoid(chosen - rejected) + centering * (chosen + rejected)^2.

    scores: [2 P], chosen and rejected in turns, differentiable. The second term keeps scores near zero, which the
    first leaves free to drift together (arXiv 2312.09244, section 3; TRL's ``center_rewards_coefficient``).
    """
    chosen, rejected = sides(scores)
    losses = -torch.nn.functional.logsigmoid(chosen - rejected)
    return losses + centering * (chosen + rejected).square() if centering else losses


def pair_sums(scores: Tensor, centering: float = 0.0) -> dict[str, float]:
    """Sums over the pairs of ``scores`` [2 P], to be divided by their number: the loss, the share of pairs whose chosen
    side scores strictly higher (``accuracy``: a tie counts as wrong), chosen - rejected (``margin``), and the mean of
    both scores (``score/mean``)."""
    chosen, rejected = sides(scores.detach())
    return {
        "loss": float(pair_losses(scores.detach(), centering).sum()),
        "accuracy": float((chosen > rejected).sum()),
        "margin": float((chosen - rejected).sum()),
        "score/mean": float((chosen + rejected).sum()) / 2,
    }
