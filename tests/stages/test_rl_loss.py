"""From recipe sections to a loss over rows."""

import pytest
import torch

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.algorithms.objective import Objective
from cascade_rl.recipe import RlStage
from cascade_rl.stages.rl import RlLoss
from cascade_rl.training.packing import pack_row, training_sequence


def stage(**keys):
    return RlStage.model_validate(
        {
            "name": "s",
            "kind": "rl",
            "steps": 1,
            "learning_rate": 1e-6,
            "data": [{"source": "x"}],
            "reward": {"use": "rewards.math:verify"},
            "rollout": {"max_new_tokens": 64},
        }
        | keys
    )


def row():
    return pack_row([training_sequence([1, 2], [3, 4], [-1.0, -1.0], 2.0), training_sequence([1], [5], [-1.0], -1.0)])


def scores(logprobs):
    return TokenScores(logprobs, torch.zeros_like(logprobs), logprobs)


def test_without_sections_it_is_the_published_loss():
    loss = RlLoss.of(stage())
    assert loss.objective == Objective()
    assert loss.weight(7) == 1.0
    assert loss.denominator(tokens=10, rollouts=3) == 10
    assert not loss.needs_reference
    assert loss.screen is None


def test_every_key_arrives():
    loss = RlLoss.of(
        stage(
            loss={"aggregate": "fixed", "clip_low": 0.2, "clip_high": 0.28, "kl": 0.5, "kl_estimator": "k2",
                  "entropy": 0.25},
            mismatch={"cap": 2.0, "mask": "band", "low": 0.5, "high": 5.0},
            updates_per_batch=2,
        )
    )  # fmt: skip
    assert loss.objective == Objective(
        on_policy=False, clip_low=0.2, clip_high=0.28, kl=0.5, kl_estimator="k2", entropy=0.25, cap=2.0, mask="band",
        low=0.5, high=5.0,
    )  # fmt: skip
    assert loss.denominator(tokens=10, rollouts=3) == 3 * 64  # max_new_tokens
    assert loss.needs_reference


def test_lengths_of_the_aggregates():
    assert RlLoss.of(stage(loss={"aggregate": "sequence"})).weight(4) == 0.25
    assert RlLoss.of(stage(loss={"aggregate": "fixed", "fixed_length": 8})).denominator(tokens=1, rollouts=2) == 16


def test_a_part_of_a_row_meets_its_own_values():
    loss = RlLoss.of(stage())
    terms = loss(row(), slice(1, 3), torch.tensor([-0.5, -0.25]), torch.zeros(2))
    assert terms.tolist() == [1.0, -0.25]  # -A log pi with A 2 and -1


def test_masked_rollouts_lose_their_advantage():
    loss = RlLoss.of(stage(mismatch={"mask": "geometric", "low": 0.9, "high": 1.1}))
    logprobs = torch.tensor([-0.5, -1.5, -2.0])  # gaps 0.5 and -0.5, mean ratio 1; gap -1, ratio 0.37
    assert loss.screen is not None
    assert loss.screen(row(), scores(logprobs))["advantages"].tolist() == [2.0, 2.0, 0.0]
    assert loss.measures(row(), scores(logprobs))["mismatch/masked"].tolist() == [0.0, 0.0, 1.0]


def test_a_row_without_reference_is_refused_where_one_is_needed():
    loss = RlLoss.of(stage(loss={"kl": 0.1}))
    with pytest.raises(ValueError, match="reference"):
        loss(row(), slice(0, 3), torch.zeros(3), torch.zeros(3))
