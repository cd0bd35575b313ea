"""The same rollouts give the same update however they are spread over processes."""

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from tests.training.sharded import launch


@pytest.mark.slow
def test_one_two_and_three_processes_make_the_same_update(tmp_path):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    alone, *others = (launch("same_update", tmp_path, world) for world in (1, 2, 3))
    expected = torch.load(tmp_path / "same-update-1.pt")
    for world, several in zip((2, 3), others, strict=True):
        assert several["tokens"] == alone["tokens"]
        assert several["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert several["norm"] == pytest.approx(alone["norm"], rel=1e-4)
        weights = torch.load(tmp_path / f"same-update-{world}.pt")
        for name, tensor in expected.items():
            # Adam divides by the gradient's own size: float noise in a near-zero gradient moves a weight by up to
            # the learning rate, so the bar is on the bulk of the weights.
            difference = (weights[name] - tensor).abs()
            assert float(difference.mean()) < 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "updates"), [(2, 2), (7, 3)])
def test_ranks_cut_a_batch_into_the_same_updates(tmp_path, prompts, updates):
    """Two prompts, two updates: on two ranks each has one of the prompts, on three one has none at all. Of seven prompts
    one group is flat, and each of three updates has two of the others."""
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    alone, *several = (launch("learn", tmp_path, world, prompts=prompts, updates=updates) for world in (1, 2, 3))
    expected, *others = (torch.load(tmp_path / f"learned-{world}-{prompts}-{updates}.pt") for world in (1, 2, 3))
    assert [step["grad_norm"] > 0 for step in alone["metrics"]] == [True, True]
    for found, weights in zip(several, others, strict=True):
        for ours, theirs in zip(found["metrics"], alone["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
        for name, tensor in expected.items():
            assert float((weights[name] - tensor).abs().mean()) < 1e-6, name
