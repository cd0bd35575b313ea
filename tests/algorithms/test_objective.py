"""Tokens by hand: policy 0.5, 0.2, 0.4; engine 0.4, 0.5, 0.1, so ratios 1.25, 0.4, 4; reference 0.25, 0.4, 0.4."""

import math

import pytest
import torch

from cascade_rl.algorithms.logprobs import fused_token_loss
from cascade_rl.algorithms.losses import clipped_surrogate, policy_gradient
from cascade_rl.algorithms.objective import Objective, on_support


def logs(*values, grad=False):
    return torch.tensor([math.log(v) for v in values], dtype=torch.float64, requires_grad=grad)


POLICY, ENGINE, REFERENCE = logs(0.5, 0.2, 0.4), logs(0.4, 0.5, 0.1), logs(0.25, 0.4, 0.4)
ADVANTAGES = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64)
ENTROPY = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)


def found(objective, engine=ENGINE, reference=REFERENCE):
    """(terms, d / d log-prob, d / d entropy or None)."""
    logprobs, entropy = POLICY.clone().requires_grad_(), ENTROPY.clone().requires_grad_()
    terms = objective(ADVANTAGES, engine, reference, logprobs, entropy)
    slopes = torch.autograd.grad(terms.sum(), (logprobs, entropy), allow_unused=True)
    return [terms.tolist(), *(None if slope is None else slope.tolist() for slope in slopes)]


def test_the_default_is_the_policy_gradient_and_does_not_touch_the_entropy():
    terms, slope, by_entropy = found(Objective(), reference=None)
    assert terms == policy_gradient(POLICY, ADVANTAGES).tolist()
    assert slope == [-2.0, -1.0, 1.0]
    assert by_entropy is None  # else every step would pay for a product with the head


def test_clipping_acts_off_policy_only():
    assert found(Objective(clip_low=0.1, clip_high=0.1)) == found(Objective())


def test_on_policy_with_a_cap_the_gradient_is_the_detached_weight_times_the_plain_one():
    # weights min(r, 2) = 1.25, 0.4, 2
    terms, slope, _ = found(Objective(cap=2.0))
    assert slope == pytest.approx([-2.5, -0.4, 2.0], abs=1e-12)
    assert terms == pytest.approx([-2.5 * math.log(0.5), -0.4 * math.log(0.2), 2 * math.log(0.4)], abs=1e-12)


@pytest.mark.parametrize(
    ("mask", "slope"),
    [
        ({"mask": "band", "low": 0.5, "high": 5.0}, [-2.0, 0.0, 1.0]),  # ratio 0.4 is out
        ({"mask": "band", "low": 0.2, "high": 3.0}, [-2.0, -1.0, 0.0]),  # ratio 4 is out
        ({"mask": "difference", "high": 0.25}, [-2.0, 0.0, 0.0]),  # differences 0.1, -0.3, 0.3
        ({"mask": "geometric", "low": 0.9, "high": 1.1}, [-2.0, -1.0, 1.0]),  # not a matter of single tokens
    ],
)
def test_masked_tokens_have_no_gradient(mask, slope):
    terms, ours, _ = found(Objective(**mask))
    assert ours == pytest.approx(slope, abs=1e-12)
    assert [term == 0 for term in terms] == [part == 0 for part in slope]


def test_cap_and_band_together_are_icepop():
    """The ratio itself inside the band, 0 outside."""
    assert found(Objective(cap=5.0, mask="band", low=0.5, high=5.0))[1] == pytest.approx([-2.5, 0.0, 4.0], abs=1e-12)


def test_off_policy_by_hand():
    # -r A: A 2, r 1.25 is clipped at 1.2; A 1, r 0.4 stays (a gain clips from above only); A -1, r 4 stays, or is capped
    clip = {"on_policy": False, "clip_low": 0.2, "clip_high": 0.2}
    terms, slope, _ = found(Objective(**clip))
    assert terms == pytest.approx([-2.4, -0.4, 4.0], abs=1e-12)
    assert slope == pytest.approx([0.0, -0.4, 4.0], abs=1e-12)
    terms, slope, _ = found(Objective(**clip, cap=2.0))
    assert terms == pytest.approx([-2.4, -0.4, 2.0], abs=1e-12)
    assert slope == pytest.approx([0.0, -0.4, 2.0], abs=1e-12)
    assert found(Objective(**clip, mask="band", low=0.5, high=3.0))[1] == [0.0, 0.0, 0.0]


def test_off_policy_on_the_engines_own_log_probs_is_the_policy_gradient():
    """Where nothing has changed yet and both sides agree, the first of several updates is strictly on-policy."""
    ours = found(Objective(on_policy=False, clip_low=0.2, clip_high=0.2), engine=POLICY)
    assert ours[1] == found(Objective())[1]


def test_kl_and_entropy_are_added_with_their_weights():
    # k2: d = ln 0.5, ln 2, 0; slope 0.1 * -d = 0.1 ln 2, -0.1 ln 2, 0, whatever weight or mask the token has
    objective = Objective(kl=0.1, kl_estimator="k2", entropy=0.01, mask="band", low=0.5, high=5.0)
    terms, slope, by_entropy = found(objective)
    step = 0.1 * math.log(2)
    assert slope == pytest.approx([-2.0 + step, -step, 1.0], abs=1e-12)
    assert by_entropy == [-0.01] * 3
    half = 0.05 * math.log(2) ** 2
    assert terms == pytest.approx([2 * math.log(2) + half - 0.005, half - 0.015, math.log(0.4) - 0.01], abs=1e-12)


def test_a_kl_penalty_needs_a_reference():
    with pytest.raises(ValueError, match="reference"):
        found(Objective(kl=0.1), reference=None)


@pytest.mark.parametrize(
    "keys", [{"mask": "band", "high": 2.0}, {"mask": "difference"}, {"mask": "geometric", "low": 1}]
)
def test_masks_need_their_bounds(keys):
    with pytest.raises(ValueError, match="bounds"):
        Objective(**keys)


class TestKept:
    def test_whole_rollouts(self):
        # ratios 1.25 * 0.4 = 0.5, geometric mean 0.707, and 4
        objective = Objective(mask="geometric", low=0.5, high=2.0)
        assert objective.masks_rollouts
        assert objective.kept(POLICY, ENGINE, torch.tensor([2, 1])).tolist() == [True, True, False]
        assert objective.kept(POLICY, ENGINE, torch.tensor([3])).tolist() == [True] * 3  # mean ratio 2^(1/3) = 1.26

    def test_all_without_a_mask(self):
        assert not Objective().masks_rollouts
        assert Objective().kept(POLICY, ENGINE).tolist() == [True] * 3


class TestMeasures:
    def test_by_hand(self):
        objective = Objective(
            on_policy=False, clip_low=0.2, clip_high=0.2, kl=0.1, kl_estimator="k1", cap=2.0, mask="band", low=0.5,
            high=5.0,
        )  # fmt: skip
        values = {k: v.tolist() for k, v in objective.measures(ADVANTAGES, ENGINE, REFERENCE, POLICY).items()}
        assert values["mismatch/cut"] == [0.0, 0.0, 1.0]
        assert values["mismatch/masked"] == [0.0, 1.0, 0.0]
        assert values["loss/clipped"] == [1.0, 0.0, 0.0]
        # r - 1 - ln r for 1.25, 0.4, 4
        assert values["mismatch/k3"] == pytest.approx([0.02685645, 0.31629073, 1.61370564], abs=1e-8)
        # k3 for d = ln 0.5, ln 2, 0: 0.5 + ln 2 - 1, 2 - ln 2 - 1, 0
        assert values["loss/kl"] == pytest.approx([0.19314718, 0.30685282, 0.0], abs=1e-8)

    def test_only_what_the_settings_make_meaningful(self):
        assert set(Objective().measures(ADVANTAGES, ENGINE, None, POLICY)) == {"mismatch/k3"}

    def test_masked_rollouts(self):
        objective = Objective(mask="geometric", low=0.5, high=2.0)
        values = objective.measures(ADVANTAGES, ENGINE, None, POLICY, torch.tensor([2, 1]))
        assert values["mismatch/masked"].tolist() == [0.0, 0.0, 1.0]


def test_raw_engine_log_probs_give_the_raw_ratio_and_the_gradient_at_the_sampling_temperature():
    # log pi -1 at the sampling temperature, -0.7 raw; engine -0.9 raw: ratio exp(0.2)
    logprobs = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    raw, engine = torch.tensor([-0.7], dtype=torch.float64), torch.tensor([-0.9], dtype=torch.float64)
    old = on_support(engine, logprobs, raw)
    assert old.tolist() == pytest.approx([-1.2], abs=1e-12)
    assert not old.requires_grad
    loss = clipped_surrogate(logprobs, old, torch.ones(1, dtype=torch.float64))
    assert loss.item() == pytest.approx(-math.exp(0.2), abs=1e-12)
    assert torch.autograd.grad(loss, logprobs)[0].item() == pytest.approx(-math.exp(0.2), abs=1e-12)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(cap=1.5, kl=0.2, entropy=0.1),
        Objective(on_policy=False, clip_low=0.2, clip_high=0.3, cap=1.5, kl=0.2, kl_estimator="k2"),
        Objective(on_policy=False, clip_high=0.3, mask="band", low=0.5, high=2.0, entropy=0.1),
        Objective(mask="difference", high=0.05, kl=0.1, kl_estimator="k1"),
    ],
)
def test_through_the_fused_head_it_equals_plain_autograd(objective):
    """From hidden states and head to both gradients, in chunks, against log_softmax over the whole table."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    states, head, targets = normal(17, 4).requires_grad_(), normal(9, 4).requires_grad_(), torch.arange(17) % 9
    table = torch.log_softmax(states @ head.T / 0.8, dim=1)
    logprobs, entropy = table.gather(1, targets[:, None]).squeeze(1), -(table.exp() * table).sum(1)
    near = logprobs.detach() + 0.5 * normal(17)
    advantages, reference = normal(17), logprobs.detach() + 0.5 * normal(17)
    plain = objective(advantages, near, reference, logprobs, entropy).sum()
    expected = torch.autograd.grad(plain, (states, head))
    loss, _ = fused_token_loss(
        states, head, targets, lambda part, ours, h, _: objective(advantages[part], near[part], reference[part], ours, h),
        temperature=0.8, chunk_tokens=5,
    )  # fmt: skip
    assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(loss, (states, head)), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("gap", [89.0, -89.0, 1000.0, -1000.0, float("inf"), float("-inf")])
@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize(
    "mask",
    [
        {"mask": "band", "low": 0.5, "high": 5.0},
        {"mask": "difference", "high": 1e-3},
        {"mask": "band", "low": 0.5, "high": 5.0, "cap": 5.0, "clip_low": 0.2},
    ],
)
def test_a_masked_token_has_a_gradient_of_zero(gap, on_policy, mask):
    """However far trainer and engine are apart: nothing of the token reaches the others, and no NaN."""
    objective = Objective(on_policy=on_policy, **mask)
    logprobs = torch.tensor([-0.01, -1.0], requires_grad=True)
    engine = torch.tensor([-0.01 - gap, -1.0])
    terms = objective(torch.tensor([-1.0, -1.0]), engine, None, logprobs, torch.zeros(2))
    assert terms.tolist() == [0.0, -1.0 if on_policy else 1.0]
    assert torch.autograd.grad(terms.sum(), logprobs)[0].tolist() == [0.0, 1.0]
    measured = objective.measures(torch.tensor([-1.0, -1.0]), engine.nan_to_num(neginf=-1e4), None, logprobs)
    assert all(torch.isfinite(values).all() for values in measured.values())
