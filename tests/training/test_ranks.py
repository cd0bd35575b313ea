"""The same rollouts give the same update however they are spread over processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from tests.training.sharded import launch

SCRIPT = """
import sys, torch
from pathlib import Path
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import join, leave
from cascade_rl.training.update import Update

checkpoint, out = sys.argv[1:3]
ranks = join()
policy = Policy(Path(checkpoint), OptimizerConfig(learning_rate=1e-3, grad_clip=0.5), ranks=ranks, dtype="float32",
                total_steps=9, gradient_checkpointing=False, chunk_tokens=16)
generator = torch.Generator().manual_seed(1)
sequences = []
for index in range(7):
    ids = torch.randint(20, 300, (3 + 5 * index + 2,), generator=generator).tolist()
    sequences.append(training_sequence(ids[:3], ids[3:], (-5.0,) * (len(ids) - 3), (-1) ** index * 0.7))

def accumulate(mine):
    update = Update(policy, lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
                    engine_temperature=1.0)
    update.add(pack(mine, 40))
    return update.stats()

for _ in range(3):
    mine = sequences[ranks.rank :: ranks.world_size]
    stats = accumulate(mine)
    norm = policy.step(stats.denominator)
assert len(set(ranks.gather(stats.worst))) == 1  # whichever rank had that token
before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
nothing = accumulate([])  # all rollouts filtered out
assert nothing.trained_tokens == 0 and policy.step(nothing.denominator) == 0.0
assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())
if ranks.is_main:
    torch.save({"model": policy.model.state_dict(), "loss": stats.loss, "tokens": stats.trained_tokens, "norm": norm}, out)
leave()
"""


def run(checkpoint, out, world):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(checkpoint), str(out)],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": repository},
            cwd=repository,
        )
        for rank in range(world)
    ]  # fmt: skip
    assert [p.wait(300) for p in processes] == [0] * world
    return torch.load(out)


@pytest.mark.slow
def test_one_two_and_three_processes_make_the_same_update(tmp_path):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    alone = run(tmp_path / "model", tmp_path / "1.pt", 1)
    for world in (2, 3):
        several = run(tmp_path / "model", tmp_path / f"{world}.pt", world)
        assert several["tokens"] == alone["tokens"]
        assert several["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert several["norm"] == pytest.approx(alone["norm"], rel=1e-4)
        for name, tensor in alone["model"].items():
            # Adam divides by the gradient's own size: float noise in a near-zero gradient moves a weight by up to
            # the learning rate, so the bar is on the bulk of the weights.
            difference = (several["model"][name] - tensor).abs()
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
