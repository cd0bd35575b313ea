import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.algorithms.losses import (
    clipped_surrogate,
    entropy_bonus,
    is_clipped,
    kl_penalty,
    policy_gradient,
    rollout_weight,
    step_denominator,
)


def float64(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def gradient(loss, of):
    return torch.autograd.grad(loss.sum(), of)[0].tolist()


def test_policy_gradient_by_hand():
    assert policy_gradient(float64(-1.0, -2.0), float64(0.5, -1.0)).tolist() == [0.5, -2.0]


class TestClippedSurrogate:
    # Ratios 1.5, 0.5, 1.1, 1.5, 0.5 with clip_low 0.2, clip_high 0.28:
    #   A =  2, r 1.5: clipped at 1.28, -2.56, no gradient
    #   A =  2, r 0.5: min(1, 1.6) = 1, so -1, gradient -r A = -1
    #   A =  2, r 1.1: inside, -2.2, gradient -2.2
    #   A = -1, r 1.5: min(-1.5, -1.28) = -1.5, so 1.5, gradient 1.5
    #   A = -1, r 0.5: min(-0.5, -0.8) = -0.8, so 0.8, no gradient
    ratios, advantages = (1.5, 0.5, 1.1, 1.5, 0.5), (2.0, 2.0, 2.0, -1.0, -1.0)

    def found(self, **keys):
        old = float64(-1.0, -2.0, -0.5, -3.0, -0.1)
        new = (old + float64(*self.ratios).log()).requires_grad_()
        loss = clipped_surrogate(new, old, float64(*self.advantages), **keys)
        return loss.tolist(), gradient(loss, new)

    def test_by_hand(self):
        loss, slope = self.found(clip_low=0.2, clip_high=0.28)
        assert loss == pytest.approx([-2.56, -1.0, -2.2, 1.5, 0.8], abs=1e-12)
        assert slope == pytest.approx([0.0, -1.0, -2.2, 1.5, 0.0], abs=1e-12)

    def test_a_side_without_bound_is_not_clipped(self):
        assert self.found(clip_high=0.28)[1] == pytest.approx([0.0, -1.0, -2.2, 1.5, 0.5], abs=1e-12)
        assert self.found(clip_low=0.2)[1] == pytest.approx([-3.0, -1.0, -2.2, 1.5, 0.0], abs=1e-12)
        assert self.found()[1] == pytest.approx([-3.0, -1.0, -2.2, 1.5, 0.5], abs=1e-12)

    def test_the_cap_bounds_the_weight_that_clipping_leaves_open(self):
        """A = -1, r 1.5, cap 1.2: value and gradient of 1.2; what is clipped stays clipped."""
        loss, slope = self.found(clip_low=0.2, clip_high=0.28, cap=1.2)
        assert loss == pytest.approx([-2.56, -1.0, -2.2, 1.2, 0.8], abs=1e-12)
        assert slope == pytest.approx([0.0, -1.0, -2.2, 1.2, 0.0], abs=1e-12)

    def test_a_cap_below_the_clip_acts_first(self):
        """A = 2, r 1.1, cap 1.05: 1.05 x 2; at r 1.5, beyond the clip, there is still no gradient."""
        loss, slope = self.found(clip_low=0.2, clip_high=0.28, cap=1.05)
        assert loss[2] == pytest.approx(-2.1, abs=1e-12)
        assert slope[:3] == pytest.approx([0.0, -1.0, -2.1], abs=1e-12)

    def test_on_policy_it_is_the_policy_gradient(self):
        new, advantages = float64(-1.0, -2.5, grad=True), float64(0.7, -1.3)
        surrogate = clipped_surrogate(new, new.detach(), advantages, clip_low=0.2, clip_high=0.2)
        assert surrogate.tolist() == [-0.7, 1.3]
        assert gradient(surrogate, new) == gradient(policy_gradient(new, advantages), new) == [-0.7, 1.3]

    @given(
        st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3)), min_size=1, max_size=8),
        st.floats(0.05, 0.9),
        st.floats(0.05, 3),
    )
    def test_is_clipped_says_where_there_is_no_gradient(self, tokens, low, high):
        # rounded: with an advantage of 1e-320 the products of two ratios are one number
        gap, advantages = (float64(*[round(v, 3) for v in column]) for column in zip(*tokens, strict=True))
        new = gap.clone().requires_grad_()
        loss = clipped_surrogate(new, torch.zeros_like(gap), advantages, clip_low=low, clip_high=high)
        slope = torch.autograd.grad(loss.sum(), new)[0]
        clipped = is_clipped(gap, advantages, clip_low=low, clip_high=high)
        assert torch.equal(clipped, (slope == 0) & (advantages != 0))


class TestKlPenalty:
    def test_by_hand(self):
        # log pi -1 and -2, reference -2 and -1.5: d = -1 and 0.5
        # k1 1, -0.5;  k2 0.5, 0.125;  k3 exp(-1) + 1 - 1 = 0.36787944, exp(0.5) - 0.5 - 1 = 0.14872127
        logprobs, reference = float64(-1.0, -2.0), float64(-2.0, -1.5)
        assert kl_penalty(logprobs, reference, "k1").tolist() == [1.0, -0.5]
        assert kl_penalty(logprobs, reference, "k2").tolist() == [0.5, 0.125]
        assert kl_penalty(logprobs, reference).tolist() == pytest.approx([0.36787944, 0.14872127], abs=1e-8)

    def test_the_estimator_must_exist(self):
        with pytest.raises(ValueError, match="k4"):
            kl_penalty(float64(-1.0), float64(-1.0), "k4")

    # A policy over three tokens and a reference; expectations over the policy are exact sums.
    logits = (0.3, -1.0, 0.9)
    reference = torch.log_softmax(float64(-0.2, 0.4, 0.1), 0)

    def mean(self, estimator):
        """(mean value, mean gradient in the logits) of the estimator over tokens drawn from the policy."""
        logits = float64(*self.logits, grad=True)
        logprobs = torch.log_softmax(logits, 0)
        values = kl_penalty(logprobs, self.reference, estimator)
        drawn = logprobs.detach().exp()  # tokens are drawn, not differentiated
        return (drawn * values).sum().item(), gradient(drawn * values, logits)

    def divergence(self, forward):
        """(KL, its gradient) of the policy from the reference, or the other way round."""
        logits = float64(*self.logits, grad=True)
        logprobs = torch.log_softmax(logits, 0)
        first, second = (self.reference, logprobs) if forward else (logprobs, self.reference)
        kl = (first.exp() * (first - second)).sum()
        return kl.item(), gradient(kl, logits)

    def test_k1_and_k3_are_unbiased_and_k2_is_not(self):
        true = self.divergence(forward=False)[0]
        assert self.mean("k1")[0] == pytest.approx(true, abs=1e-12)
        assert self.mean("k3")[0] == pytest.approx(true, abs=1e-12)
        assert abs(self.mean("k2")[0] - true) > 1e-3

    def test_gradients_are_those_that_the_docstring_names(self):
        assert self.mean("k1")[1] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
        assert self.mean("k2")[1] == pytest.approx(self.divergence(forward=False)[1], abs=1e-12)
        assert self.mean("k3")[1] == pytest.approx(self.divergence(forward=True)[1], abs=1e-12)

    @given(st.floats(-20, 0), st.floats(-20, 0))
    def test_k3_is_never_negative_and_zero_where_equal(self, ours, reference):
        assert float(kl_penalty(float64(ours), float64(reference))) >= 0
        assert float(kl_penalty(float64(ours), float64(ours))) == 0


def test_entropy_bonus_rewards_entropy():
    assert entropy_bonus(float64(0.5, 2.0)).tolist() == [-0.5, -2.0]


class TestAggregate:
    # Two rollouts of 1 and 3 tokens with terms (4) and (1, 2, 3):
    #   token: 10 / 4;  sequence: (4 / 1 + 6 / 3) / 2 = 3;  fixed at 8: 10 / 16
    @pytest.mark.parametrize(("aggregate", "loss"), [("token", 2.5), ("sequence", 3.0), ("fixed", 0.625)])
    def test_by_hand(self, aggregate, loss):
        total = sum(rollout_weight(len(terms), aggregate) * sum(terms) for terms in ([4.0], [1.0, 2.0, 3.0]))
        denominator = step_denominator(aggregate, tokens=4, rollouts=2, fixed_length=8)
        assert total / denominator == pytest.approx(loss, abs=1e-12)

    @pytest.mark.parametrize("aggregate", ["token", "sequence", "fixed"])
    def test_an_empty_step_can_be_divided(self, aggregate):
        assert step_denominator(aggregate, tokens=0, rollouts=0, fixed_length=8) >= 1

    def test_fixed_needs_its_length(self):
        with pytest.raises(ValueError, match="fixed_length"):
            step_denominator("fixed", tokens=1, rollouts=1)

    def test_a_rollout_has_tokens(self):
        with pytest.raises(ValueError, match="tokens"):
            rollout_weight(0, "sequence")

    @given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
    def test_equal_terms_give_that_mean_by_tokens_and_by_rollouts(self, lengths):
        for aggregate in ("token", "sequence"):
            total = sum(rollout_weight(n, aggregate) * n * math.pi for n in lengths)
            denominator = step_denominator(aggregate, tokens=sum(lengths), rollouts=len(lengths))
            assert total / denominator == pytest.approx(math.pi, abs=1e-9)
