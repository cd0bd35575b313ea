"""Probabilities over the tokens that top-k and top-p kept, against a dense calculation."""

import math

import numpy
import pytest
import torch

from cascade_rl.algorithms.logprobs import chunked_logprobs, fused_token_loss
from cascade_rl.algorithms.objective import Objective
from cascade_rl.rollout.sampling import kept_of

TOKENS, HIDDEN, VOCABULARY, WIDTH = 23, 8, 31, 6


def case(dtype=torch.float64):
    """Hidden states, head, targets, kept ids: of 1 to 6 tokens, the target among them in any place."""
    generator = torch.Generator().manual_seed(11)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    kept = torch.full((TOKENS, WIDTH), -1)
    targets = torch.empty(TOKENS, dtype=torch.int64)
    for token in range(TOKENS):
        count = token % WIDTH + 1
        ids = torch.randperm(VOCABULARY, generator=generator)[:count]
        if token == 5:
            ids = torch.where(ids == ids.min(), 0, ids)  # id 0 is also where -1 is looked up
        kept[token, :count] = ids
        targets[token] = ids[token % count]
    return hidden, weight, targets, kept


def dense(hidden, weight, targets, kept, temperature):
    """(log-probs, entropy) [T] by masking a whole table."""
    logits = hidden @ weight.T / temperature
    mask = torch.zeros_like(logits, dtype=torch.bool)
    for token, ids in enumerate(kept.tolist()):
        mask[token, [i for i in ids if i >= 0]] = True
    table = torch.log_softmax(logits.masked_fill(~mask, -torch.inf), 1)
    entropy = -(table.exp() * table.masked_fill(~mask, 0.0)).sum(1)
    return table.gather(1, targets[:, None]).squeeze(1), entropy


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_scores_equal_the_dense_ones(temperature, chunk):
    hidden, weight, targets, kept = case()
    expected, entropy = dense(hidden, weight, targets, kept, temperature)
    scores = chunked_logprobs(hidden, weight, targets, temperature=temperature, chunk_tokens=chunk, kept=kept)
    assert torch.allclose(scores.logprobs, expected, atol=1e-12)
    assert torch.allclose(scores.entropy, entropy, atol=1e-12)
    alone = (kept >= 0).sum(1) == 1
    assert scores.logprobs[alone].tolist() == [0.0] * int(alone.sum())  # drawn from one token: certain
    whole = chunked_logprobs(hidden, weight, targets, temperature=temperature)
    assert bool((scores.logprobs >= whole.logprobs).all())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_gradients_equal_the_dense_ones(temperature, with_entropy):
    hidden, weight, targets, kept = case()
    hidden.requires_grad_(), weight.requires_grad_()
    old = torch.linspace(-2.0, -0.1, TOKENS, dtype=torch.float64)
    advantages = torch.linspace(-1.0, 2.0, TOKENS, dtype=torch.float64)
    objective = Objective(on_policy=False, clip_low=0.2, clip_high=0.3, cap=3.0, entropy=0.1 * with_entropy)
    logprobs, entropy = dense(hidden, weight, targets, kept, temperature)
    plain = objective(advantages, old, None, logprobs, entropy).sum()
    expected = torch.autograd.grad(plain, (hidden, weight))
    loss, scores = fused_token_loss(
        hidden, weight, targets, lambda part, ours, h, _: objective(advantages[part], old[part], None, ours, h),
        temperature=temperature, chunk_tokens=5, kept=kept,
    )  # fmt: skip
    assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
    assert torch.allclose(scores.logprobs, logprobs.detach(), atol=1e-12)
    assert torch.allclose(scores.entropy, entropy.detach(), atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_in_half_precision_too():
    hidden, weight, targets, kept = case(torch.bfloat16)
    expected, entropy = dense(hidden.double(), weight.double(), targets, kept, 0.8)
    scores = chunked_logprobs(hidden, weight, targets, temperature=0.8, kept=kept)
    assert torch.allclose(scores.logprobs.double(), expected, atol=1e-5)
    assert torch.allclose(scores.entropy.double(), entropy, atol=1e-5)


def test_keeping_all_is_keeping_nothing_out():
    hidden, weight, targets, _ = case(torch.float32)
    everything = torch.arange(VOCABULARY).expand(TOKENS, -1)
    ours = chunked_logprobs(hidden, weight, targets, temperature=0.7, kept=everything)
    theirs = chunked_logprobs(hidden, weight, targets, temperature=0.7)
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.entropy, theirs.entropy)


class TestKeptOf:
    INF = -math.inf

    def test_by_hand(self):
        # Two tokens, three likeliest asked for. The first was drawn from {4, 7}; the second, 9, was alone.
        logs = [math.log(0.25), math.log(0.75), math.log(0.25), self.INF, 0.0, 0.0, self.INF, self.INF]
        own, kept = kept_of([4, 7, 4, 2, 9, 9, 1, 3], logs, 2)
        assert own == (math.log(0.25), 0.0)
        assert kept.tolist() == [[4, 7], [9, -1]]
        assert kept.dtype == numpy.int32

    def test_a_draw_from_more_than_were_asked_for(self):
        """Four equally likely ones, of which the drawn one and two others came: a third each."""
        own, kept = kept_of([5, 6, 7], [math.log(0.25)] * 3, 1)
        assert own[0] == pytest.approx(math.log(1 / 3))
        assert sorted(kept[0].tolist()) == [5, 6, 7]

    def test_no_tokens(self):
        own, kept = kept_of([], [], 0)
        assert own == ()
        assert kept.shape[0] == 0
