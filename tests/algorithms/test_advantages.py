import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.algorithms.advantages import (
    ADVANTAGES,
    advantages_of_groups,
    group_advantages,
    group_mean_advantages,
    group_tanh_advantages,
    leave_one_out_advantages,
)
from cascade_rl.recipe.methods import AdvantageName

groups = st.lists(st.floats(-100, 100), min_size=2, max_size=16)


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand():
    # mean 0.5; sample variance of (1,0,0,1) is 4 * 0.25 / 3, so the deviation is sqrt(1/3)
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    values = group_advantages(float64(1.0, 0.0, 0.0, 1.0)).tolist()
    assert values == pytest.approx([expected, -expected, -expected, expected], abs=1e-12)


def test_three_of_one():
    # mean 0.25, squared distances 3 * 0.0625 + 0.5625 = 0.75, / 3 = 0.25, deviation 0.5
    values = group_advantages(float64(0.0, 0.0, 1.0, 0.0)).tolist()
    assert values == pytest.approx([-0.5, -0.5, 1.5, -0.5], abs=1e-5)


def test_leave_one_out_by_hand():
    # 1 - (2 + 6) / 2 = -3;  2 - (1 + 6) / 2 = -1.5;  6 - (1 + 2) / 2 = 4.5
    assert leave_one_out_advantages(float64(1.0, 2.0, 6.0)).tolist() == pytest.approx([-3.0, -1.5, 4.5], abs=1e-12)


def test_tanh_by_hand():
    # z-scores of (0, 0, 1, 0) are -0.5 and 1.5 (above): tanh 0.5 = 0.46211716, tanh 1.5 = 0.90514825
    values = group_tanh_advantages(float64(0.0, 0.0, 1.0, 0.0)).tolist()
    assert values == pytest.approx([-0.46211716, -0.46211716, 0.90514825, -0.46211716], abs=1e-5)


@pytest.mark.parametrize("name", sorted(ADVANTAGES))
def test_equal_rewards_teach_nothing(name):
    third = 1 / 3  # its mean over seven floats is not exactly itself
    assert ADVANTAGES[name](torch.full((7,), third)).tolist() == [0.0] * 7


def test_every_name_of_the_recipe_is_there():
    assert set(get_args(AdvantageName)) == set(ADVANTAGES)


def test_mean_only_keeps_the_scale():
    assert group_mean_advantages(torch.tensor([2.0, 4.0])).tolist() == [-1.0, 1.0]


def test_ragged_groups_and_groups_without_baseline():
    assert advantages_of_groups([[1.0], [], [0.0, 2.0]], "group_mean") == [[0.0], [], [-1.0, 1.0]]
    assert advantages_of_groups([[1.0], [], [0.0, 2.0]], "leave_one_out") == [[0.0], [], [-2.0, 2.0]]


@given(groups)
def test_sums_to_zero(rewards):
    assert abs(float(group_advantages(torch.tensor(rewards, dtype=torch.float64)).sum())) < 1e-6


@given(groups)
def test_leave_one_out_is_each_reward_less_the_mean_of_the_others(rewards):
    expected = [r - (sum(rewards[:i]) + sum(rewards[i + 1 :])) / (len(rewards) - 1) for i, r in enumerate(rewards)]
    assert leave_one_out_advantages(float64(*rewards)).tolist() == pytest.approx(expected, abs=1e-9)


@given(groups)
def test_tanh_keeps_order_and_sign_within_one(rewards):
    plain, shaped = group_advantages(float64(*rewards)), group_tanh_advantages(float64(*rewards))
    assert (shaped.abs() <= 1).all()
    assert torch.equal(plain.sign(), shaped.sign())
    assert (shaped[plain.argsort()].diff() >= 0).all()


@given(groups, st.floats(-10, 10))
def test_a_constant_added_to_all_changes_nothing(rewards, shift):
    base = torch.tensor([round(r, 3) for r in rewards], dtype=torch.float64)
    moved = group_advantages(base + round(shift, 3))
    # 1e-6 in the denominator amplifies rounding where the spread itself is tiny
    if float(base.std()) > 1e-2 or float(base.std()) == 0:
        assert torch.allclose(group_advantages(base), moved, atol=1e-6)
