"""GSPO against the formula of a whole sequence, and by hand."""

import math

import pytest
import torch

from cascade_rl.algorithms.custom import CustomLoss
from cascade_rl.algorithms.gspo import clipped, loss, sequence_log_ratios
from cascade_rl.algorithms.inputs import LossInputs

CHUNK = 3


def inputs(logprobs, engine, advantages, lengths=None, from_rollouts=None):
    return LossInputs(logprobs, torch.zeros_like(logprobs), advantages, engine, None, from_rollouts, lengths)


def in_two_passes(logprobs, engine, advantages, lengths, **keys):
    """As an update does it: whole rollouts without gradient, then chunks that cut through rollouts. -> [n] terms"""
    found = sequence_log_ratios(inputs(logprobs.detach(), engine, advantages, lengths))
    parts = [slice(start, start + CHUNK) for start in range(0, len(logprobs), CHUNK)]
    return torch.cat([loss(inputs(logprobs[p], engine[p], advantages[p], None, found[p]), **keys) for p in parts])


def sequence_level(logprobs, engine, advantages, lengths, clip_low, clip_high):
    """-1 / G sum_i min(s_i A_i, clip(s_i) A_i), s_i by autograd (arXiv 2507.18071, equations 5 and 7)."""
    total, start = torch.zeros((), dtype=logprobs.dtype), 0
    for length in lengths.tolist():
        own = slice(start, start + length)
        ratio = ((logprobs[own] - engine[own]).sum() / length).exp()
        gain = advantages[start]
        total = total - torch.minimum(ratio * gain, ratio.clamp(1 - clip_low, 1 + clip_high) * gain)
        start += length
    return total / len(lengths)


@pytest.mark.parametrize("clips", [(0.05, 0.07), (0.5, 0.9), (3e-4, 4e-4)])
def test_value_and_gradient_are_those_of_the_sequence_level_formula(clips):
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([5, 1, 8, 3, 7, 2])
    n = int(lengths.sum())
    engine = -torch.rand(n, generator=generator, dtype=torch.float64) * 3
    logprobs = engine + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    advantages = torch.repeat_interleave(torch.tensor([1.5, -0.5, 0.0, -2.0, 0.7, -1.0], dtype=torch.float64), lengths)
    one, other = (logprobs.clone().requires_grad_() for _ in range(2))
    terms = in_two_passes(one, engine, advantages, lengths, clip_low=clips[0], clip_high=clips[1])
    weights = torch.repeat_interleave(1 / lengths.double(), lengths)  # aggregate: sequence
    ours = (weights * terms).sum() / len(lengths)
    theirs = sequence_level(other, engine, advantages, lengths, *clips)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    ours.backward()
    theirs.backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-14, rtol=1e-12)
    assert bool(other.grad.any()) or clips[0] < 1e-3


def test_by_hand():
    """Two rollouts: mean gaps (0.2 + 0.0) / 2 = 0.1 and -0.3; A 2 and -1; clipping at 10%."""
    logprobs, engine = torch.tensor([-0.8, -1.0, -1.3]), torch.tensor([-1.0, -1.0, -1.0])
    advantages, lengths = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([2, 1])
    terms = in_two_passes(logprobs, engine, advantages, lengths, clip_low=0.1, clip_high=0.1)
    # e^0.1 = 1.105 is above 1.1: clipped to it; e^-0.3 = 0.741 with A < 0 is below 0.9: clipped to it.
    assert terms.tolist() == pytest.approx([-2.2, -2.2, 0.9])
    terms = in_two_passes(logprobs, engine, advantages, lengths, clip_low=0.3, clip_high=0.2)
    assert terms.tolist() == pytest.approx([-2 * math.exp(0.1)] * 2 + [math.exp(-0.3)])


def test_clipped_rollouts_are_counted():
    found = torch.log(torch.tensor([1.2, 1.2, 0.8, 1.0]))
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    zeros = torch.zeros(4)
    given = inputs(zeros, zeros, advantages, None, found)
    assert clipped(given, clip_low=0.1, clip_high=0.1)["clipped"].tolist() == [1.0, 0.0, 1.0, 0.0]
    bound = CustomLoss("cascade_rl.algorithms.gspo:loss", loss, {"clip_low": 0.3})
    assert bound.measures(given)["loss/clipped"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_ratio_without_bound_stays_finite():
    far = torch.full((2,), 500.0, requires_grad=True)
    terms = in_two_passes(far, torch.zeros(2), torch.tensor([-1.0, -1.0]), torch.tensor([2]))
    terms.sum().backward()
    assert bool(terms.isfinite().all())
    assert bool(far.grad.isfinite().all())
