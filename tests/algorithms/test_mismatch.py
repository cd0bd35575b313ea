import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.algorithms.mismatch import (
    band_mask,
    difference_mask,
    geometric_mask,
    logprob_gap,
    mismatch_k3,
    truncated_weight,
)


def float64(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_gap_by_hand_and_without_gradient():
    gap = logprob_gap(float64(-1.0, -2.0, grad=True), float64(-1.5, -1.0))
    assert gap.tolist() == [0.5, -1.0]
    assert not gap.requires_grad


def test_weights_are_cut_from_above_only():
    # ratios 3, 2, 0.1 with cap 2
    assert truncated_weight(float64(3.0, 2.0, 0.1).log(), cap=2.0).tolist() == pytest.approx([2.0, 2.0, 0.1])


def test_a_ratio_beyond_all_floats_weighs_the_cap():
    assert truncated_weight(torch.tensor([1000.0]), cap=2.0).tolist() == [2.0]


def test_the_band_has_two_sides():
    # ratios 0.4, 0.6, 1, 4.9, 5.1 in [0.5, 5]
    kept = band_mask(float64(0.4, 0.6, 1.0, 4.9, 5.1).log(), low=0.5, high=5.0)
    assert kept.tolist() == [False, True, True, True, False]


def test_differences_of_probabilities_of_either_sign():
    # trainer 0.9, 0.2, 0.5, engine 0.5, 0.6, 0.4: differences 0.4, -0.4, 0.1; and 1e-6 against 1e-3, a ratio of 1000
    trainer, engine = float64(0.9, 0.2, 0.5, 1e-6).log(), float64(0.5, 0.6, 0.4, 1e-3).log()
    assert difference_mask(trainer, engine, high=0.3).tolist() == [False, False, True, True]
    assert band_mask(logprob_gap(trainer, engine), low=0.5, high=5.0).tolist() == [True, False, True, False]


class TestGeometric:
    def test_by_hand(self):
        # Rollout of 2 tokens with ratios 4 and 1/4: mean ratio 1. Of 1 token with ratio 2. Of 3 with 1.1 each.
        gap = float64(4.0, 0.25, 2.0, 1.1, 1.1, 1.1).log()
        kept = geometric_mask(gap, torch.tensor([2, 1, 3]), low=0.9, high=1.5)
        assert kept.tolist() == [True, True, False, True, True, True]
        assert geometric_mask(gap, torch.tensor([2, 1, 3]), low=0.9, high=1.05).tolist() == [True, True] + [False] * 4

    def test_length_alone_masks_nothing(self):
        """A gap of 1e-4 over 32,768 tokens: its product is e^3.3 = 26, its geometric mean 1.0001."""
        gap = torch.full((32768,), 1e-4)
        assert float(gap.sum().exp()) > 20
        assert geometric_mask(gap, torch.tensor([32768]), low=0.999, high=1.001).all()

    def test_an_empty_row(self):
        assert geometric_mask(torch.empty(0), torch.empty(0, dtype=torch.int64), 0.5, 2.0).tolist() == []

    @given(st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=6), min_size=1, max_size=5))
    def test_rollouts_do_not_see_one_another(self, rollouts):
        together = geometric_mask(
            float64(*[g for rollout in rollouts for g in rollout]), torch.tensor([len(r) for r in rollouts]), 0.5, 2.0
        )
        alone = [geometric_mask(float64(*rollout), torch.tensor([len(rollout)]), 0.5, 2.0) for rollout in rollouts]
        assert together.tolist() == torch.cat(alone).tolist()


class TestK3:
    def test_by_hand(self):
        # ratios 2 and 1/2: 2 - 1 - ln 2 = 0.30685282, 0.5 - 1 + ln 2 = 0.19314718
        assert mismatch_k3(float64(2.0, 0.5).log()).tolist() == pytest.approx([0.30685282, 0.19314718], abs=1e-8)

    def test_its_mean_over_the_engines_tokens_is_the_divergence(self):
        engine, trainer = float64(0.2, 0.3, 0.5), float64(0.25, 0.35, 0.4)
        estimate = float((engine * mismatch_k3((trainer / engine).log())).sum())
        assert estimate == pytest.approx(float((engine * (engine / trainer).log()).sum()), abs=1e-12)

    @given(st.floats(-10, 10))
    def test_is_never_negative(self, gap):
        assert float(mismatch_k3(float64(gap))) >= 0

    def test_small_gaps_are_not_lost_in_rounding(self):
        """gap^2 / 2 in float32, where exp(gap) - 1 would have no digit left."""
        assert float(mismatch_k3(torch.tensor(1e-3))) == pytest.approx(5e-7, rel=1e-3)
        assert not math.isnan(float(mismatch_k3(torch.tensor(0.0))))
