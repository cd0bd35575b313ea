"""REINFORCE++ by hand."""

import math

import pytest
import torch

from cascade_rl.algorithms.inputs import GroupInputs
from cascade_rl.algorithms.reinforce_pp import advantage, with_baseline


def group(rewards, lengths=None):
    return GroupInputs(torch.tensor(rewards, dtype=torch.float64), torch.tensor(lengths or [1] * len(rewards)))


def values(found):
    return [group.tolist() for group in found]


def test_over_rollouts_by_hand():
    """Rewards 1, 0, 0, 3: mean 1, squared distances 0, 1, 1, 4, deviation sqrt(6 / 4)."""
    found = values(advantage([group([1.0, 0.0]), group([0.0, 3.0])], over="rollouts"))
    unit = 1 / math.sqrt(1.5)
    assert found[0] == pytest.approx([0.0, -unit])
    assert found[1] == pytest.approx([-unit, 2 * unit])


def test_over_tokens_long_rollouts_count_more():
    """Rewards 1 over three tokens, 0 over one: mean 3/4, variance (3 / 16 + 9 / 16) / 4 = 3/16."""
    found = values(advantage([group([1.0], [3]), group([0.0], [1])]))
    deviation = math.sqrt(3) / 4
    assert found == [pytest.approx([0.25 / deviation]), pytest.approx([-0.75 / deviation])]


def test_with_baseline_each_group_is_centred_before():
    """Groups 1, 0 and 10, 4: less their means 0.5, -0.5, 3, -3; mean 0, deviation sqrt(18.5 / 4)."""
    found = values(with_baseline([group([1.0, 0.0]), group([10.0, 4.0])]))
    unit = 1 / math.sqrt(18.5 / 4)
    assert found[0] == pytest.approx([0.5 * unit, -0.5 * unit])
    assert found[1] == pytest.approx([3 * unit, -3 * unit])


def test_a_flat_group_has_no_advantage_over_its_baseline_but_over_the_batch():
    groups = [group([0.1, 0.1, 0.1]), group([1.0, 0.0])]
    assert values(with_baseline(groups))[0] == pytest.approx([0.0] * 3, abs=1e-12)
    assert all(value < 0 for value in values(advantage(groups))[0])


@pytest.mark.parametrize("function", [advantage, with_baseline])
def test_where_all_is_alike_nothing_is_learned(function):
    assert values(function([group([0.1, 0.1]), group([0.1] * 3)])) == [[0.0, 0.0], [0.0] * 3]
    assert values(function([])) == []
