import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.algorithms.advantages import advantages_of_groups, group_advantages, group_mean_advantages

groups = st.lists(st.floats(-100, 100), min_size=2, max_size=16)


def test_by_hand():
    # mean 0.5; sample variance of (1,0,0,1) is 4 * 0.25 / 3, so the deviation is sqrt(1/3)
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    values = group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)).tolist()
    assert values == pytest.approx([expected, -expected, -expected, expected], abs=1e-12)


def test_three_of_one():
    # mean 0.25, squared distances 3 * 0.0625 + 0.5625 = 0.75, / 3 = 0.25, deviation 0.5
    values = group_advantages(torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)).tolist()
    assert values == pytest.approx([-0.5, -0.5, 1.5, -0.5], abs=1e-5)


def test_equal_rewards_teach_nothing():
    third = 1 / 3  # its mean over seven floats is not exactly itself
    assert group_advantages(torch.full((7,), third)).tolist() == [0.0] * 7


def test_mean_only_keeps_the_scale():
    assert group_mean_advantages(torch.tensor([2.0, 4.0])).tolist() == [-1.0, 1.0]


def test_ragged_groups_and_groups_without_baseline():
    assert advantages_of_groups([[1.0], [], [0.0, 2.0]], "group_mean") == [[0.0], [], [-1.0, 1.0]]


@given(groups)
def test_sums_to_zero(rewards):
    assert abs(float(group_advantages(torch.tensor(rewards, dtype=torch.float64)).sum())) < 1e-6


@given(groups, st.floats(-10, 10))
def test_a_constant_added_to_all_changes_nothing(rewards, shift):
    base = torch.tensor([round(r, 3) for r in rewards], dtype=torch.float64)
    moved = group_advantages(base + round(shift, 3))
    # 1e-6 in the denominator amplifies rounding where the spread itself is tiny
    if float(base.std()) > 1e-2 or float(base.std()) == 0:
        assert torch.allclose(group_advantages(base), moved, atol=1e-6)
