import pytest
import torch

from cascade_rl.algorithms.logprobs import chunked_logprobs, fused_token_loss
from cascade_rl.algorithms.losses import policy_gradient


def problem(tokens=13, hidden=6, vocabulary=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(tokens, hidden, generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn(vocabulary, hidden, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    weights = torch.randn(tokens, generator=generator)
    return states, head, targets, weights


def plain(states, head, targets, temperature):
    table = torch.log_softmax(states @ head.T / temperature, dim=1)
    return table.gather(1, targets[:, None]).squeeze(1), -(table.exp() * table).sum(1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.2])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_equals_the_plain_computation(temperature, chunk):
    """Loss of log-prob and entropy, not linear in either; gradients of both."""
    states, head, targets, weights = problem()

    def terms(part, logprobs, entropy):
        return weights[part] * logprobs.exp() + 0.3 * entropy.square()

    loss, scores = fused_token_loss(states, head, targets, terms, temperature=temperature, chunk_tokens=chunk)
    loss.backward()
    ours = states.grad.clone(), head.grad.clone()
    states.grad = head.grad = None
    logprobs, entropy = plain(states, head, targets, temperature)
    expected = terms(slice(None), logprobs, entropy).sum()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(ours[0], states.grad, atol=2e-6)
    assert torch.allclose(ours[1], head.grad, atol=2e-6)
    for found in (scores, chunked_logprobs(states, head, targets, temperature=temperature, chunk_tokens=chunk)):
        assert torch.allclose(found.logprobs.double(), logprobs, atol=1e-6)
        assert torch.allclose(found.entropy.double(), entropy, atol=1e-5)
        assert torch.allclose(found.raw_logprobs.double(), plain(states, head, targets, 1.0)[0], atol=1e-6)


def test_two_by_hand():
    # logits (0, ln 3): probabilities 1/4 and 3/4
    states = torch.tensor([[1.0]])
    head = torch.tensor([[0.0], [1.0986122886681098]])
    scores = chunked_logprobs(states, head, torch.tensor([1]), chunk_tokens=8)
    assert scores.logprobs.item() == pytest.approx(-0.2876820724, abs=1e-6)
    assert scores.entropy.item() == pytest.approx(0.5623351446, abs=1e-6)


def test_the_vocabulary_table_is_never_kept():
    """Nothing is saved for the backward pass but the gradients of hidden states and head."""
    states, head, targets, _ = problem(tokens=64, vocabulary=50, dtype=torch.float32)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        fused_token_loss(states, head, targets, lambda part, logprobs, _: logprobs, chunk_tokens=8)
    assert max(sizes, default=0) < 64 * 50


def test_temperature_must_be_positive():
    states, head, targets, _ = problem()
    with pytest.raises(ValueError, match="temperature"):
        chunked_logprobs(states, head, targets, temperature=0.0)


def test_loss_by_hand():
    assert policy_gradient(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, -1.0])).tolist() == [0.5, -2.0]
