"""Metrics of a step's rollouts, by hand."""

import math

import pytest

from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.onpolicy.step_metrics import completion_metrics, rollout_metrics
from tests.builders import group


def test_metrics_by_hand():
    groups = [group([1.0, 0.0], ["eos", "length"]), group([1.0, 1.0]), group([0.0, 9.0], errors=[None, "x"])]
    metrics = rollout_metrics(alone, groups, False)
    assert metrics["reward/mean"] == pytest.approx(3 / 5)
    assert metrics["reward/error_rate"] == pytest.approx(1 / 6)
    assert metrics["completions/truncated"] == pytest.approx(1 / 6)
    assert metrics["groups/zero_variance"] == pytest.approx(2 / 3)  # the third has one member left
    assert metrics["tokens/rollout"] == 12
    assert (metrics["completions/mean_length"], metrics["completions/max_length"]) == (2, 2)
    assert not any(key.startswith(("domain/", "thinking/", "instruct/")) for key in metrics)


def test_metrics_of_domains_modes_and_parts_by_hand():
    groups = [
        group([1.0, 0.0], domain="math", details={"parts": {"right": 1.0}}),
        group([0.5, 0.5], domain="chat", thinking=False, details={"parts": {"right": 0.5, "brief": 2}}),
    ]
    metrics = rollout_metrics(alone, groups, False)
    assert metrics["domain/math/reward/mean"] == 0.5
    assert metrics["domain/chat/reward/std"] == 0.0
    assert metrics["thinking/reward/std"] == 0.5
    assert metrics["instruct/completions/mean_length"] == 2
    assert metrics["reward/parts/right"] == 0.75
    assert metrics["reward/parts/brief"] == 2
    everyone = rollout_metrics(lambda mine: [mine, mine], groups, False)
    assert everyone["tokens/rollout"] == 2 * metrics["tokens/rollout"]
    assert everyone["reward/mean"] == metrics["reward/mean"]


def test_metrics_of_rollouts_without_rewards():
    groups = [group([0.0, 0.0], ["eos", "length"], domain="a"), group([0.0], domain="b", thinking=False)]
    metrics = completion_metrics(alone, groups)
    assert metrics["tokens/rollout"] == 6
    assert metrics["completions/truncated"] == pytest.approx(1 / 3)
    assert metrics["domain/b/completions/mean_length"] == 2
    assert metrics["instruct/completions/truncated"] == 0
    assert not any("reward" in name or "groups" in name for name in metrics)


def test_truncated_rollouts_make_a_group_flat_where_they_are_dropped():
    groups = [group([1.0, 0.0, 0.0], ["eos", "length", "length"])]
    assert rollout_metrics(alone, groups, False)["groups/zero_variance"] == 0.0
    assert rollout_metrics(alone, groups, True)["groups/zero_variance"] == 1.0


def test_a_step_without_rollouts_has_no_means():
    metrics = rollout_metrics(alone, [], False)
    assert math.isnan(metrics["reward/mean"])
    assert metrics["tokens/rollout"] == 0
