import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.algorithms import logprobs as module
from cascade_rl.algorithms.logprobs import chunk_size, chunked_logprobs, fused_token_loss


def problem(tokens=13, hidden=6, vocabulary=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(tokens, hidden, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, hidden, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    weights = torch.randn(tokens, generator=generator, dtype=torch.float64)
    return states, head, targets, weights


def plain(states, head, targets, temperature):
    table = torch.log_softmax(states @ head.T / temperature, dim=1)
    return table.gather(1, targets[:, None]).squeeze(1), torch.special.entr(table.exp()).sum(1)


def gradients(loss, *tensors):
    loss.backward()
    found = [None if tensor.grad is None else tensor.grad.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    return found


LOSSES = {
    # not linear in either, so that a gradient taken at the wrong place shows
    "logprob": lambda weights: lambda part, logprobs, entropy, raw: weights[part] * logprobs.exp(),
    "entropy": lambda weights: lambda part, logprobs, entropy, raw: weights[part] * entropy.square(),
    "both": lambda weights: lambda part, logprobs, entropy, raw: weights[part] * logprobs.exp() + 0.3 * entropy**2,
    "raw": lambda weights: lambda part, logprobs, entropy, raw: weights[part] * raw.exp() * logprobs,
}


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.2])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100, None])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_plain_computation(temperature, chunk, name):
    states, head, targets, weights = problem()
    terms = LOSSES[name](weights)
    loss, scores = fused_token_loss(states, head, targets, terms, temperature=temperature, chunk_tokens=chunk)
    ours = gradients(loss, states, head)
    logprobs, entropy = plain(states, head, targets, temperature)
    raw = plain(states, head, targets, 1.0)[0].detach()
    expected = terms(slice(None), logprobs, entropy, raw).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for found, reference in zip(ours, gradients(expected, states, head), strict=True):
        assert torch.allclose(found, reference, atol=1e-12)
    for found in (scores, chunked_logprobs(states, head, targets, temperature=temperature, chunk_tokens=chunk)):
        assert torch.allclose(found.logprobs, logprobs, atol=1e-12)
        assert torch.allclose(found.entropy, entropy, atol=1e-12)
        assert torch.allclose(found.raw_logprobs, raw, atol=1e-12)


@pytest.mark.parametrize("name", ["logprob", "entropy", "both"])
def test_equals_finite_differences(name):
    """torch's gradcheck goes backward through one graph several times, which is refused here: the same by hand."""
    states, head, targets, weights = problem(tokens=5, hidden=3, vocabulary=4)

    def loss():
        return fused_token_loss(states, head, targets, LOSSES[name](weights), temperature=0.7, chunk_tokens=2)[0]

    ours = gradients(loss(), states, head)
    for tensor, gradient in zip((states, head), ours, strict=True):
        for place, slope in enumerate(gradient.flatten().tolist()):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    tensor.view(-1)[place] += step
                    values.append(loss().item())
                    tensor.view(-1)[place] -= step
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, abs=1e-8)


@settings(max_examples=40)
@given(
    tokens=st.integers(0, 9), hidden=st.integers(1, 4), vocabulary=st.integers(1, 9), chunk=st.integers(1, 9),
    temperature=st.floats(0.3, 3.0), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_and_any_cut(tokens, hidden, vocabulary, chunk, temperature, seed):
    states, head, targets, weights = problem(tokens, hidden, vocabulary, seed=seed)
    terms = LOSSES["both"](weights)
    loss, _ = fused_token_loss(states, head, targets, terms, temperature=temperature, chunk_tokens=chunk)
    ours = gradients(loss, states, head)
    expected = terms(slice(None), *plain(states, head, targets, temperature), None).sum()
    assert torch.allclose(loss, expected, atol=1e-10)
    for found, reference in zip(ours, gradients(expected, states, head), strict=True):
        assert torch.allclose(found, reference, atol=1e-10)


def test_two_by_hand():
    # logits (0, ln 3): probabilities 1/4 and 3/4
    states = torch.tensor([[1.0]])
    head = torch.tensor([[0.0], [1.0986122886681098]])
    scores = chunked_logprobs(states, head, torch.tensor([1]), chunk_tokens=8)
    assert scores.logprobs.item() == pytest.approx(-0.2876820724, abs=1e-6)
    assert scores.entropy.item() == pytest.approx(0.5623351446, abs=1e-6)


def test_gradient_by_hand():
    # d log p(1) / d hidden = w_1 - sum p w = ln 3 - 0.75 ln 3;  d / d w = h (onehot - p) = (-1/4, 1/4)
    states = torch.tensor([[1.0]], requires_grad=True)
    head = torch.tensor([[0.0], [1.0986122886681098]], requires_grad=True)
    loss, _ = fused_token_loss(states, head, torch.tensor([1]), lambda part, logprobs, *_: 2 * logprobs)
    by_states, by_head = gradients(loss, states, head)
    assert by_states.item() == pytest.approx(2 * 0.25 * math.log(3), abs=1e-6)
    assert by_head.flatten().tolist() == pytest.approx([-0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("name", ["logprob", "both"])
def test_float32_is_as_exact_as_float32_can_be(name):
    states, head, targets, weights = problem(tokens=40, hidden=16, vocabulary=300, dtype=torch.float32)
    terms = LOSSES[name](weights)
    loss, scores = fused_token_loss(states, head, targets, terms, chunk_tokens=7)
    ours = gradients(loss, states, head)
    exact = [tensor.detach().double().requires_grad_() for tensor in (states, head)]
    logprobs, entropy = plain(*exact, targets, 1.0)
    assert torch.allclose(scores.logprobs.double(), logprobs, atol=5e-6)
    assert torch.allclose(scores.entropy.double(), entropy, atol=5e-6)
    reference = gradients(terms(slice(None), logprobs, entropy, None).sum(), *exact)
    for found, expected in zip(ours, reference, strict=True):
        assert found.dtype == torch.float32
        assert float((found.double() - expected).norm() / expected.norm()) < 5e-6


@pytest.mark.parametrize("name", ["logprob", "both"])
def test_bfloat16_inputs_are_computed_in_float32(name):
    """The only rounding is that of the inputs and of the gradients handed back, whatever the number of chunks."""
    states, head, targets, weights = problem(tokens=96, hidden=16, vocabulary=50, dtype=torch.bfloat16)
    terms = LOSSES[name](weights)
    loss, scores = fused_token_loss(states, head, targets, terms, chunk_tokens=1)
    ours = gradients(loss, states, head)
    exact = [tensor.detach().double().requires_grad_() for tensor in (states, head)]
    logprobs, entropy = plain(*exact, targets, 1.0)
    assert scores.logprobs.dtype == loss.dtype == torch.float32
    assert torch.allclose(scores.logprobs.double(), logprobs, atol=1e-5)
    reference = gradients(terms(slice(None), logprobs, entropy, None).sum(), *exact)
    for found, expected in zip(ours, reference, strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), expected, rtol=2**-8, atol=1e-5)  # half a unit in the last place is 2^-9


def check_halves(device, dtype):
    """Halves as factors: within what rounding p to a half must cost (2^-9 a factor in bfloat16), of the true value."""
    states, head, targets, weights = problem(tokens=96, hidden=16, vocabulary=64, dtype=dtype)
    weights = weights.to(device)
    inputs = [tensor.detach().to(device).requires_grad_() for tensor in (states, head)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    for name in ("logprob", "both"):
        loss, scores = fused_token_loss(*inputs, targets.to(device), LOSSES[name](weights), chunk_tokens=7)
        logprobs, entropy = plain(*exact, targets.to(device), 1.0)
        reference = LOSSES[name](weights)(slice(None), logprobs, entropy, None).sum()
        assert scores.logprobs.dtype == loss.dtype == torch.float32
        assert torch.allclose(scores.logprobs.double(), logprobs, atol=2e-5)
        assert torch.allclose(scores.entropy.double(), entropy, atol=5e-3)
        assert bool((scores.entropy > -1e-5).all())
        for found, expected in zip(gradients(loss, *inputs), gradients(reference, *exact), strict=True):
            assert found.dtype == dtype
            assert float((found.double() - expected).norm() / expected.norm()) < 5e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_on_a_gpu(dtype):
    check_halves("cuda", dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_as_on_a_gpu(monkeypatch, dtype):
    """The path of a GPU, its two products replaced by ones that a CPU can do."""
    wide = torch.float32
    monkeypatch.setattr(module, "_sums_halves_in_float32", lambda device: True)
    monkeypatch.setattr(module, "_product", lambda a, b, _, out=None: torch.mm(a.to(wide), b.to(wide), out=out))
    monkeypatch.setattr(module, "_add_product", lambda total, a, b: total.addmm_(a.to(wide), b.to(wide)))
    check_halves("cpu", dtype)


def test_probabilities_that_underflow():
    """Logits 1e4 apart: p is exactly 0 and 1, the entropy 0, and no 0 times infinity is met."""
    states = torch.tensor([[1.0], [1.0]], requires_grad=True)
    head = torch.tensor([[1e4], [0.0], [-1e4]], requires_grad=True)
    targets = torch.tensor([0, 2])
    loss, scores = fused_token_loss(states, head, targets, lambda part, logprobs, entropy, _: logprobs + entropy)
    assert scores.logprobs.tolist() == [0.0, -2e4]
    assert scores.entropy.tolist() == chunked_logprobs(states, head, targets).entropy.tolist() == [0.0, 0.0]
    by_states, by_head = gradients(loss, states, head)
    assert by_states.flatten().tolist() == [0.0, -2e4]
    assert by_head.flatten().tolist() == [-1.0, 0.0, 1.0]


def test_a_frozen_head_gets_no_gradient_and_costs_none():
    """LoRA: the weight [V, H] has no gradient, so none is made."""
    states, head, targets, weights = problem(vocabulary=50)
    terms = LOSSES["both"](weights)
    frozen = head.detach()
    loss, _ = fused_token_loss(states, frozen, targets, terms, chunk_tokens=4)
    assert loss.grad_fn.gradients[1] is None
    ours = gradients(loss, states)
    expected = gradients(terms(slice(None), *plain(states, frozen, targets, 1.0), None).sum(), states)
    assert torch.allclose(ours[0], expected[0], atol=1e-12)


def test_hidden_states_without_gradient():
    states, head, targets, weights = problem()
    terms = LOSSES["both"](weights)
    loss, _ = fused_token_loss(states.detach(), head, targets, terms, chunk_tokens=4)
    ours = gradients(loss, head)
    expected = gradients(terms(slice(None), *plain(states.detach(), head, targets, 1.0), None).sum(), head)
    assert torch.allclose(ours[0], expected[0], atol=1e-12)


def test_no_tokens_still_give_a_gradient():
    """A rank whose rollouts were all filtered out takes part in the collectives of the others."""
    states, head, targets, weights = problem(tokens=0)
    loss, scores = fused_token_loss(states, head, targets, LOSSES["both"](weights))
    by_states, by_head = gradients(loss, states, head)
    assert loss.item() == 0
    assert len(scores.logprobs) == 0
    assert by_states.shape == (0, 6)
    assert by_head.abs().sum() == 0


def test_terms_without_gradient_give_zero():
    states, head, targets, _ = problem()
    loss, _ = fused_token_loss(states, head, targets, lambda part, logprobs, *_: torch.ones_like(logprobs).detach())
    assert loss.item() == 13
    assert all(gradient.abs().sum() == 0 for gradient in gradients(loss, states, head))


def test_the_loss_may_be_scaled_afterwards():
    states, head, targets, weights = problem()
    terms = LOSSES["logprob"](weights)
    single = gradients(fused_token_loss(states, head, targets, terms)[0], states, head)
    scaled = gradients(fused_token_loss(states, head, targets, terms)[0] * -2.5, states, head)
    assert all(torch.allclose(-2.5 * one, other, atol=1e-12) for one, other in zip(single, scaled, strict=True))


def test_a_second_backward_pass_is_refused():
    """The gradient was handed over; silence would train on nothing."""
    states, head, targets, weights = problem()
    loss, _ = fused_token_loss(states, head, targets, LOSSES["logprob"](weights))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_autocast_around_it_changes_nothing():
    states, head, targets, weights = problem(dtype=torch.float32)
    terms = LOSSES["both"](weights)
    outside = fused_token_loss(states, head, targets, terms)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = fused_token_loss(states, head, targets, terms)[0]
        scores = chunked_logprobs(states, head, targets)
    assert inside.item() == outside.item()
    assert torch.equal(scores.logprobs, chunked_logprobs(states, head, targets).logprobs)


def test_the_vocabulary_table_is_never_kept():
    """Nothing is saved for the backward pass but the gradients of hidden states and head, and no temporary is larger
    than a chunk's table."""
    states, head, targets, _ = problem(tokens=64, vocabulary=50, dtype=torch.float32)
    sizes = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t),
        torch.profiler.profile(profile_memory=True) as profile,
    ):
        fused_token_loss(states, head, targets, lambda part, logprobs, *_: logprobs, chunk_tokens=8)
    assert max(sizes, default=0) < 64 * 50
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 8 * 50 * 4


def test_the_table_is_not_copied_at_a_time(monkeypatch):
    """Where temporaries are needed (temperature, entropy) they are a few rows each."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 500 * 8)
    states, head, targets, weights = problem(tokens=64, vocabulary=500)
    with torch.profiler.profile(profile_memory=True) as profile:
        fused_token_loss(states, head, targets, LOSSES["both"](weights), chunk_tokens=32, temperature=0.6)
    sizes = sorted((event.self_cpu_memory_usage for event in profile.events()), reverse=True)
    assert sizes[0] == 32 * 500 * 8  # the one table
    assert sizes[1] < 8 * 500 * 8


def test_the_chunk_fits_its_budget():
    cpu = torch.device("cpu")
    assert chunk_size(151_936, torch.float32, cpu) == 192  # 128 MiB / 607,744 B a token = 220, in 64s
    assert chunk_size(32_000, torch.float32, cpu) == 1024  # 1,048
    assert chunk_size(10_000_000, torch.float32, cpu) == 3
    assert chunk_size(10**9, torch.float32, cpu) == 1
    assert chunk_size(151_936, torch.float32, torch.device("cuda")) == 1728  # 1 GiB: 1,766


def test_temperature_must_be_positive():
    states, head, targets, weights = problem()
    with pytest.raises(ValueError, match="temperature"):
        chunked_logprobs(states, head, targets, temperature=0.0)
    with pytest.raises(ValueError, match="temperature"):
        fused_token_loss(states, head, targets, LOSSES["both"](weights), temperature=-1.0)
