"""The pair loss against calculations by hand, in float64."""

import math

import pytest
import torch

from cascade_rl.algorithms.bradley_terry import pair_losses, pair_sums

SCORES = [2.0, 0.5, -1.0, 1.0, 3.0, 3.0]
"""Margins 1.5, -2 and a tie; sums 2.5, 0 and 6."""


def softplus(x):
    return math.log1p(math.exp(x))


def test_losses_by_hand():
    losses = pair_losses(torch.tensor(SCORES))
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx([softplus(-1.5), softplus(2.0), math.log(2)], rel=1e-15)
    centred = pair_losses(torch.tensor(SCORES), 0.01)
    assert (centred - losses).tolist() == pytest.approx([0.01 * 6.25, 0.0, 0.01 * 36.0], rel=1e-12)


def test_gradients_by_hand():
    """d/dc = -sigmoid(-margin) + 2 k (c + r), d/dr = sigmoid(-margin) + 2 k (c + r)."""
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    pair_losses(scores, 0.1).sum().backward()
    expected = []
    for chosen, rejected in zip(SCORES[::2], SCORES[1::2], strict=True):
        wrong = 1 / (1 + math.exp(chosen - rejected))
        expected += [-wrong + 0.2 * (chosen + rejected), wrong + 0.2 * (chosen + rejected)]
    assert scores.grad.tolist() == pytest.approx(expected, rel=1e-14)


def test_far_apart_scores_overflow_nothing():
    losses = pair_losses(torch.tensor([1000.0, -1000.0, -1000.0, 1000.0]))
    assert losses.tolist() == [0.0, 2000.0]


def test_a_tie_counts_as_wrong_and_sums_are_by_hand():
    sums = pair_sums(torch.tensor(SCORES), 0.01)
    assert sums["accuracy"] == 1.0
    assert sums["margin"] == pytest.approx(-0.5)
    assert sums["score/mean"] == pytest.approx((2.5 + 0.0 + 6.0) / 2)
    assert sums["loss"] == pytest.approx(softplus(-1.5) + softplus(2.0) + math.log(2) + 0.01 * 42.25)
    assert set(pair_sums(torch.empty(0)).values()) == {0.0}
