"""From recipe sections to a loss over rows."""

import dataclasses

import pytest
import torch

from cascade_rl.algorithms.objective import Objective
from cascade_rl.recipe import RlStage
from cascade_rl.stages.rl import RlLoss
from cascade_rl.training.packing import pack, pack_row, training_sequence
from cascade_rl.training.update import Update
from tests.builders import scores_of
from tests.training.test_update import checkpoint, make_policy, sequences  # noqa: F401


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
    assert loss.screen(row(), scores_of(logprobs))["advantages"].tolist() == [2.0, 2.0, 0.0]
    assert loss.measures(row(), scores_of(logprobs))["mismatch/masked"].tolist() == [0.0, 0.0, 1.0]


def test_a_row_without_reference_is_refused_where_one_is_needed():
    loss = RlLoss.of(stage(loss={"kl": 0.1}))
    with pytest.raises(ValueError, match="reference"):
        loss(row(), slice(0, 3), torch.zeros(3), torch.zeros(3))


def custom(**keys):
    return RlLoss.of(stage(loss={"use": "cascade_rl.algorithms.gspo:loss", "aggregate": "sequence", **keys}))


def test_penalty_and_bonus_are_added_to_a_custom_loss():
    """At ratio 1 GSPO's term is -A (1 + log pi - [log pi]), of value -A."""
    given = dataclasses.replace(row(), reference_logprobs=torch.tensor([-1.0, -2.0, -1.0]))
    given = dataclasses.replace(given, from_rollouts=torch.zeros(3))
    logprobs, entropy = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([0.5, 0.5, 0.5])
    terms = custom(kl=0.1, kl_estimator="k2", entropy=0.2)(given, slice(0, 3), logprobs, entropy)
    # k2 of the second token: d = -2 - (-1), 1 / 2.
    assert terms.tolist() == pytest.approx([-2.0 - 0.1, -2.0 + 0.05 - 0.1, 1.0 - 0.1])


def test_what_a_custom_loss_says_of_itself_is_followed():
    plain, bonus = custom(), custom(entropy=0.1)
    assert plain.screen is not None
    assert (plain.zero_without_advantage, bonus.zero_without_advantage) == (True, False)
    assert not plain.needs_reference
    found = plain.screen(row(), scores_of(torch.tensor([-0.5, -1.5, -2.0])))
    assert found["from_rollouts"].tolist() == pytest.approx([0.0, 0.0, -1.0])
    measured = plain.measures(dataclasses.replace(row(), **found), scores_of(torch.tensor([-0.5, -1.5, -2.0])))
    assert set(measured) == {"mismatch/k3", "loss/clipped"}
    assert measured["loss/clipped"].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("budget", [1, 24, 1000])
def test_an_update_by_gspo_has_the_gradient_of_whole_sequences(checkpoint, budget):  # noqa: F811
    """Whatever the rows, and cut into chunks of 7 tokens; by plain transformers and autograd."""
    from transformers import AutoModelForCausalLM

    policy, loss = make_policy(checkpoint), custom(clip_low=0.05, clip_high=0.05)
    given, generator = [], torch.Generator().manual_seed(3)
    for sequence, shift in zip(sequences(), (0.03, -0.2, 0.2, -0.01), strict=True):
        bare = dataclasses.replace(sequence, weight=loss.weight(len(sequence.completion_ids)))
        ours = policy.score(pack_row([bare])).logprobs
        noise = 0.1 * torch.randn(len(ours), generator=generator)
        given.append(dataclasses.replace(bare, engine_logprobs=(ours - noise + noise.mean() - shift).numpy()))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    total, clipped = torch.tensor(0.0), 0
    for s in given:
        ids = torch.tensor([[*s.prompt_ids, *s.completion_ids]])
        table = torch.log_softmax(model(ids).logits[0], dim=-1)
        logp = table[torch.arange(len(s.prompt_ids) - 1, ids.shape[1] - 1), torch.from_numpy(s.completion_ids).long()]
        ratio = (logp - torch.from_numpy(s.engine_logprobs)).mean().exp()
        gain, bounded = ratio * float(s.advantages[0]), ratio.clamp(0.95, 1.05) * float(s.advantages[0])
        clipped += len(logp) * int(bounded < gain)
        total = total - torch.minimum(gain, bounded) / len(given)
    total.backward()
    reference = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    update = Update(
        policy, loss, engine_temperature=1.0, screen=loss.screen, measures=loss.measures, taught=loss.measured
    )
    update.add(pack(given, budget))
    stats = update.stats(loss.denominator(tokens=44, rollouts=4))
    ours = torch.cat([p.grad.reshape(-1) for p in policy.model.parameters()]) / stats.denominator
    assert 0 < clipped < 44
    assert stats.loss == pytest.approx(total.item(), abs=1e-5)
    assert stats.measures["loss/clipped"] == pytest.approx(clipped / 44)
    assert float((ours - reference).norm() / reference.norm()) < 1e-5
