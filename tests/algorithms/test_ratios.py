"""Ratios at and beyond the ends of float32: exp(89) overflows, exp(-104) underflows."""

import math

import pytest
import torch

from cascade_rl.algorithms.distillation import mopd_loss, mopd_measures
from cascade_rl.algorithms.losses import clipped_surrogate, is_clipped, kl_penalty
from cascade_rl.algorithms.mismatch import band_mask, geometric_mask, mismatch_k3, truncated_weight
from cascade_rl.algorithms.objective import Objective
from cascade_rl.algorithms.ratios import ratio_of

EXTREMES = [89.0, -89.0, 1000.0, -1000.0, math.inf, -math.inf]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def tensor(*values, dtype=torch.float32, grad=False):
    return torch.tensor(values, dtype=dtype, requires_grad=grad)


def slopes(terms, of):
    return torch.autograd.grad(terms.sum(), of)[0].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_within_the_bound_a_ratio_is_exp(dtype):
    logs = torch.linspace(-20, 20, 41).to(dtype).requires_grad_()
    assert torch.equal(ratio_of(logs), logs.exp())
    assert torch.equal(torch.autograd.grad(ratio_of(logs).sum(), logs)[0], logs.exp())


@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_the_bound_it_is_flat(dtype):
    logs = tensor(*EXTREMES, dtype=dtype, grad=True)
    high, low = torch.tensor([20.0, -20.0], dtype=dtype).exp().tolist()
    assert ratio_of(logs).tolist() == [high, low] * 3
    assert slopes(ratio_of(logs), logs) == [0.0] * 6


class TestClippedSurrogate:
    # The ratio of each token, by its log-prob against an old one of -1, and what -min(r A, clip(r) A) says of it:
    #   r = inf, A = 1: clipped at 1.2, no gradient;  A = -1: unclipped, no gradient beyond the bound, or that of the cap
    #   r = 0,   A = 1: r A = 0, no gradient;         A = -1: clipped at 0.8, no gradient
    def found(self, log_ratio, advantage, dtype, **keys):
        new = tensor(0.0, dtype=dtype, grad=True)
        old, advantages = tensor(-log_ratio, dtype=dtype), tensor(advantage, dtype=dtype)
        terms = clipped_surrogate(new, old, advantages, clip_low=0.2, clip_high=0.2, **keys)
        return terms.tolist()[0], slopes(terms, new)[0]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("log_ratio", EXTREMES)
    def test_clipped_sides_have_no_gradient(self, log_ratio, dtype):
        rises = log_ratio > 0
        value, slope = self.found(log_ratio, 1.0 if rises else -1.0, dtype)
        assert value == pytest.approx(-1.2 if rises else 0.8, rel=0.01)
        assert slope == 0.0

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("log_ratio", EXTREMES)
    def test_open_sides_have_none_either(self, log_ratio, dtype):
        value, slope = self.found(log_ratio, -1.0 if log_ratio > 0 else 1.0, dtype)
        assert math.isfinite(value)
        assert slope == 0.0

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("log_ratio", [21.0, 89.0, 1000.0, math.inf])
    def test_the_cap_keeps_its_weight(self, log_ratio, dtype):
        assert self.found(log_ratio, -1.0, dtype, cap=2.0) == (2.0, 2.0)

    def test_what_is_clipped_is_told_of_extremes_too(self):
        ups, downs = torch.ones(6), -torch.ones(6)
        gaps = tensor(*EXTREMES)
        assert is_clipped(gaps, ups, clip_low=0.2, clip_high=0.2).tolist() == [True, False] * 3
        assert is_clipped(gaps, downs, clip_low=0.2, clip_high=0.2).tolist() == [False, True] * 3


BAND = {"mask": "band", "low": 0.5, "high": 2.0}
KINDS = [
    Objective(**BAND),
    Objective(cap=2.0, **BAND),
    Objective(on_policy=False, clip_low=0.2, clip_high=0.2, **BAND),
    Objective(on_policy=False, clip_low=0.2, clip_high=0.2, cap=2.0, **BAND),
]


class TestObjective:
    @pytest.mark.parametrize("objective", KINDS)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("advantage", [1.0, -1.0])
    def test_masked_tokens_are_zero_whatever_they_hold(self, objective, dtype, advantage):
        """The first token is in the band (ratio 1): its gradient must be what it is alone."""
        new = tensor(-1.0, *[-1.0] * 6, -math.inf, math.nan, dtype=dtype, grad=True)
        old = tensor(-1.0, *[-1.0 - extreme for extreme in EXTREMES], -1.0, -1.0, dtype=dtype)
        advantages = torch.full((9,), advantage, dtype=dtype)
        terms = objective(advantages, old, None, new, torch.zeros_like(new))
        assert terms.tolist()[1:] == [0.0] * 8
        assert slopes(terms, new) == [-advantage] + [0.0] * 8

    @pytest.mark.parametrize("keys", [{}, {"cap": 2.0}, {"on_policy": False, "clip_high": 0.2}])
    def test_no_advantage_is_no_term(self, keys):
        """As rollouts that ``mask: geometric`` leaves out come to the loss."""
        new = tensor(-math.inf, -1.0, -1.0, math.nan, grad=True)
        old = tensor(-1.0, -90.0, -math.inf, -1.0)
        terms = Objective(**keys)(torch.zeros(4), old, None, new, torch.zeros(4))
        assert terms.tolist() == [0.0] * 4
        assert slopes(terms, new) == [0.0] * 4

    def test_a_nan_that_counts_stays_visible(self):
        """A step whose loss is NaN is skipped and counted; a NaN swept under would train on noise."""
        terms = Objective(on_policy=False, clip_high=0.2)(
            torch.ones(1), tensor(-1.0), None, tensor(math.nan), torch.zeros(1)
        )
        assert math.isnan(terms.item())

    def test_metrics_of_extremes_are_finite(self):
        objective = Objective(on_policy=False, clip_low=0.2, clip_high=0.2, kl=0.1, cap=2.0, **BAND)
        new, far = torch.full((4,), -1.0), tensor(-90.0, 88.0, -1001.0, 999.0)
        found = objective.measures(torch.ones(4), far, far, new)
        assert all(bool(values.isfinite().all()) for values in found.values())
        assert found["mismatch/cut"].tolist() == [1.0, 0.0, 1.0, 0.0]
        assert found["mismatch/masked"].tolist() == [1.0] * 4
        assert found["loss/clipped"].tolist() == [1.0, 0.0, 1.0, 0.0]


class TestKl:
    def test_far_above_the_policy(self):
        """d = 89, 1000: exp would overflow. Value of d = 20, no gradient."""
        new = tensor(-90.0, -1001.0, grad=True)
        terms = kl_penalty(new, tensor(-1.0, -1.0))
        assert terms.tolist() == pytest.approx([math.exp(20) - 21] * 2)
        assert slopes(terms, new) == [0.0, 0.0]

    @pytest.mark.parametrize(("estimator", "slope"), [("k1", 1.0), ("k2", 89.0), ("k3", 1.0)])
    def test_far_below_it_the_penalty_stays(self, estimator, slope):
        """d = -89: k1 89, k2 89^2 / 2, k3 0 + 89 - 1; gradients 1, 89, 1 - exp(-89)."""
        new = tensor(-1.0, grad=True)
        terms = kl_penalty(new, tensor(-90.0), estimator)
        assert terms.item() == pytest.approx({"k1": 89.0, "k2": 3960.5, "k3": 88.0}[estimator])
        assert slopes(terms, new) == pytest.approx([slope])


def test_weights_masks_and_k3_of_the_mismatch():
    gaps = tensor(*EXTREMES)
    assert truncated_weight(gaps, 2.0).tolist() == pytest.approx([2.0, math.exp(-20)] * 3)
    assert band_mask(tensor(*EXTREMES, math.nan), 0.5, 1e30).tolist() == [False] * 7
    assert band_mask(tensor(60.0), 0.5, 1e30).tolist() == [
        True
    ]  # a band may be wider than any ratio that is trained on
    assert geometric_mask(tensor(math.inf, -math.inf, 0.0), torch.tensor([2, 1]), 0.5, 2.0).tolist() == [
        False,
        False,
        True,
    ]
    assert mismatch_k3(tensor(89.0, -89.0)).tolist() == pytest.approx([math.exp(20) - 21, 88.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_distillation_leaves_extremes_out(dtype):
    """The last token has ratio 1 and a teacher at -0.5: gradient -0.5."""
    student = tensor(*[-1.0] * 6, -math.inf, math.nan, -1.0, dtype=dtype, grad=True)
    engine = tensor(*[-1.0 - extreme for extreme in EXTREMES], -1.0, -1.0, -1.0, dtype=dtype)
    teacher = tensor(*[-math.inf] * 8, -0.5, dtype=dtype)
    terms = mopd_loss(student, teacher, engine)
    assert terms.tolist()[:8] == [0.0] * 8
    assert slopes(terms, student) == [0.0] * 8 + [-0.5]
    assert mopd_measures(student, teacher, engine)["distill/masked"].tolist() == [1.0] * 8 + [0.0]
