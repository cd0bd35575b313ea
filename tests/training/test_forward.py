"""From hidden states to the predictors of a row's trained tokens, and back."""

from types import SimpleNamespace

import pytest
import torch

from cascade_rl.training.attention import SEGMENT_ATTENTION
from cascade_rl.training.forward import hidden_and_head
from cascade_rl.training.packing import training_sequence
from cascade_rl.training.shared_prompts import shared_row


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_gradient_of_a_shared_predictor_does_not_depend_on_threads(two_threads):
    """1,000 rollouts of one prompt share the predictor of their first token: their gradients are added up in the same
    order each time. Indexing adds them in the order that threads come in, which gave about 20 sums in 60 tries."""
    row = shared_row([training_sequence([1, 2, 3], [i % 50], [-1.0], 1.0) for i in range(1000)])
    assert row.predictors.tolist() == [2] * 1000
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(row.input_ids.shape[1], 64, generator=generator)
    weights = torch.randn(1000, 64, generator=generator)

    def gradient():
        hidden = values.clone().requires_grad_()
        model = SimpleNamespace(
            base_model=lambda **_: SimpleNamespace(last_hidden_state=hidden[None]),
            get_output_embeddings=lambda: SimpleNamespace(weight=torch.zeros(1)),
            config=SimpleNamespace(_attn_implementation=SEGMENT_ATTENTION),
        )
        states, _ = hidden_and_head(model, row, half=False)
        assert torch.equal(states, values[row.predictors])
        (states * weights).sum().backward()
        return hidden.grad

    first = gradient()
    assert first[2].tolist() == pytest.approx(weights.sum(0).tolist(), abs=1e-3)
    assert all(torch.equal(gradient(), first) for _ in range(30))
