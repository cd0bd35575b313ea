"""MOPD by hand: student log-probs ln 0.5, ln 0.2, ln 0.4; the engine's ln 0.4, ln 0.5, ln 0.1."""

import math

import pytest
import torch

from cascade_rl.algorithms.distillation import mopd_loss, mopd_measures
from cascade_rl.algorithms.losses import rollout_weight, step_denominator


def logs(*values, grad=False):
    return torch.tensor([math.log(v) for v in values], dtype=torch.float64, requires_grad=grad)


ENGINE, TEACHER = logs(0.4, 0.5, 0.1), logs(0.8, 0.9, 0.3)


def test_value_and_gradient_by_hand():
    # r = 1.25 (kept), 0.4 (below 0.5: out), 4 (above 2: out); a = ln 1.6 = 0.47000363 for the first
    # value -1.25 * 0.47000363 * ln 0.5 = 0.40722711, gradient -1.25 * 0.47000363 = -0.58750454
    student = logs(0.5, 0.2, 0.4, grad=True)
    loss = mopd_loss(student, TEACHER, ENGINE)
    assert loss.tolist() == pytest.approx([0.40722711, 0.0, 0.0], abs=1e-8)
    assert torch.autograd.grad(loss.sum(), student)[0].tolist() == pytest.approx([-0.58750454, 0.0, 0.0], abs=1e-8)


def test_mean_over_each_response_counts_tokens_left_out():
    """Responses of two tokens and of one: (0.58750454 + 0) / 2 and 0 / 1, over two responses."""
    student = logs(0.5, 0.2, 0.4, grad=True)
    weights = torch.tensor([rollout_weight(n, "sequence") for n in (2, 2, 1)], dtype=torch.float64)
    loss = (weights * mopd_loss(student, TEACHER, ENGINE)).sum() / step_denominator("sequence", tokens=3, rollouts=2)
    assert torch.autograd.grad(loss, student)[0].tolist() == pytest.approx([-0.58750454 / 4, 0.0, 0.0], abs=1e-8)


def test_the_bounds_are_kept_themselves():
    student = logs(0.25, 0.5, grad=True)
    loss = mopd_loss(student, logs(0.5, 0.25), logs(0.5, 0.25))  # ratios exactly 0.5 and 2
    # gradients -0.5 ln 2 and -2 ln(1/2)
    expected = [-0.5 * math.log(2), 2 * math.log(2)]
    assert torch.autograd.grad(loss.sum(), student)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_a_ratio_beyond_all_floats_is_left_out():
    student = torch.tensor([-1.0], requires_grad=True)
    loss = mopd_loss(student, torch.tensor([-0.5]), torch.tensor([-900.0]))
    assert torch.autograd.grad(loss.sum(), student)[0].tolist() == [0.0]


def test_a_student_that_is_its_teacher_learns_nothing():
    student = logs(0.5, 0.2, grad=True)
    loss = mopd_loss(student, student.detach(), student.detach())
    assert torch.autograd.grad(loss.sum(), student)[0].tolist() == [0.0, 0.0]


def test_measures_by_hand():
    found = mopd_measures(logs(0.5, 0.2, 0.4), TEACHER, ENGINE)
    expected = [math.log(0.8 / 0.5), math.log(0.9 / 0.2), math.log(0.3 / 0.4)]
    assert found["distill/advantage_mean"].tolist() == pytest.approx(expected, abs=1e-12)
    assert found["distill/masked"].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("engine", [-900.0, 900.0])
@pytest.mark.parametrize("teacher", [-1000.0, float("-inf")])
def test_a_token_left_out_adds_nothing_whatever_its_teacher_says(engine, teacher):
    student = torch.tensor([-1.0, -1.0], requires_grad=True)
    loss = mopd_loss(student, torch.tensor([teacher, -0.5]), torch.tensor([engine, -1.0]))
    assert torch.autograd.grad(loss.sum(), student)[0].tolist() == [0.0, -0.5]
