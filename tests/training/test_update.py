"""The update must not depend on how rollouts are cut into rows, and must equal the textbook computation."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import log_softmax

from cascade_rl.algorithms.losses import policy_gradient
from cascade_rl.algorithms.objective import Objective
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.stages.rl import RlLoss
from cascade_rl.training.packing import pack, training_sequence
from cascade_rl.training.policy import NonFinite, Policy, load_model
from cascade_rl.training.update import Update
from cascade_rl.types import CascadeError
from tests.builders import ALONE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def make_policy(checkpoint, dtype="float32", **keys):
    return Policy(
        checkpoint,
        OptimizerConfig(learning_rate=1e-3, **keys),
        ranks=ALONE,
        dtype=dtype,
        total_steps=10,
        gradient_checkpointing=False,
        chunk_tokens=7,
    )


def sequences():
    generator = torch.Generator().manual_seed(1)
    made = []
    for prompt, completion, advantage in ((5, 9, 1.5), (3, 20, -0.5), (12, 1, 0.25), (4, 14, -1.25)):
        ids = torch.randint(20, 300, (prompt + completion,), generator=generator).tolist()
        made.append(training_sequence(ids[:prompt], ids[prompt:], (-5.0,) * completion, advantage))
    return made


def at(temperature, items):
    """Sequences or rows, each with ``temperature``."""
    return [dataclasses.replace(item, temperature=temperature) for item in items]


def accumulate(policy, rows, temperature, engine_temperature):
    """The step's gradient as `policy.step` would apply it, left on the parameters."""
    update = Update(
        policy, lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part]),
        engine_temperature=engine_temperature,
    )  # fmt: skip
    update.add(at(temperature, rows))
    stats = update.stats()
    for parameter in policy.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= stats.denominator
    return stats


def gradient(policy):
    flat = torch.cat([p.grad.reshape(-1) for p in policy.model.parameters()])
    policy.optimizer.zero_grad()
    return flat


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_packed_rows_equal_one_sequence_at_a_time_in_plain_transformers(checkpoint, temperature):
    policy = make_policy(checkpoint)
    stats = accumulate(policy, pack(sequences(), 24), temperature=temperature, engine_temperature=temperature)
    ours = gradient(policy)

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    count = sum(len(s.completion_ids) for s in sequences())
    loss = torch.tensor(0.0)
    for s in sequences():
        ids = torch.tensor([[*s.prompt_ids, *s.completion_ids]])
        table = log_softmax(model(ids).logits[0] / temperature, dim=-1)
        for t, token in enumerate(s.completion_ids, start=len(s.prompt_ids)):
            loss = loss - float(s.advantages[0]) * table[t - 1, token] / count
    loss.backward()
    reference = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert stats.trained_tokens == count == 44
    assert stats.loss == pytest.approx(loss.item(), abs=1e-5)
    assert float((ours - reference).norm() / reference.norm()) < 1e-5


def test_the_cut_into_rows_changes_nothing(checkpoint):
    policy = make_policy(checkpoint)
    gradients = []
    for budget in (1, 24, 1000):
        accumulate(policy, pack(sequences(), budget), temperature=1.0, engine_temperature=1.0)
        gradients.append(gradient(policy))
    for other in gradients[1:]:
        assert float((other - gradients[0]).norm() / gradients[0].norm()) < 1e-6


def test_a_step_divides_once_by_what_it_is_told(checkpoint):
    def norm(denominator):
        policy = make_policy(checkpoint, grad_clip=1e9)
        loss = lambda row, part, logprobs, _: policy_gradient(logprobs, row.advantages[part])  # noqa: E731
        Update(policy, loss, engine_temperature=1.0).add(pack(sequences(), 24))
        return policy.step(denominator)

    assert norm(1.0) == pytest.approx(44 * norm(44.0), rel=1e-5)


def test_the_gap_compares_the_same_temperature(checkpoint):
    """With raw engine log-probs the gap is taken at temperature 1 whatever the sampling temperature."""
    policy = make_policy(checkpoint)
    batch = pack(at(0.6, sequences()), 1000)[0]
    scores = policy.score(batch)
    exact = [
        dataclasses.replace(sequence, engine_logprobs=part.numpy())
        for sequence, part in zip(sequences(), scores.raw_logprobs.split(batch.lengths.tolist()), strict=True)
    ]
    stats = accumulate(policy, pack(exact, 1000), temperature=0.6, engine_temperature=1.0)
    assert stats.logprob_gap_max < 1e-5
    wrong = accumulate(policy, pack(exact, 1000), temperature=0.6, engine_temperature=0.6)
    assert wrong.logprob_gap_mean > 0.05


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(checkpoint):
    policy = make_policy(checkpoint)
    before = [p.detach().clone() for p in policy.model.parameters()]
    accumulate(policy, pack(sequences(), 1000), temperature=1.0, engine_temperature=1.0)
    next(policy.model.parameters()).grad[0, 0] = math.nan
    with pytest.raises(NonFinite, match="not finite"):
        policy.step()
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


def test_resumed_policy_goes_on_bit_for_bit(checkpoint, tmp_path):
    def steps(policy, count, first=0):
        for step in range(first, first + count):
            policy.begin_step(step)
            accumulate(policy, pack(sequences(), 24), temperature=1.0, engine_temperature=1.0)
            policy.step()

    whole = make_policy(checkpoint, warmup_steps=3)
    steps(whole, 4)
    first = make_policy(checkpoint, warmup_steps=3)
    steps(first, 2)
    second = make_policy(checkpoint, warmup_steps=3)
    first.save(tmp_path)
    second.load(tmp_path)
    steps(second, 2, first=2)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_inherited_optimizer_brings_moments_but_not_rates(checkpoint, tmp_path):
    parent = make_policy(checkpoint)
    accumulate(parent, pack(sequences(), 24), temperature=1.0, engine_temperature=1.0)
    parent.step()
    child = make_policy(checkpoint, weight_decay=0.5)
    parent.save_optimizer(tmp_path / "optimizer.pt")
    child.inherit_optimizer(tmp_path / "optimizer.pt")
    key = next(iter(child.optimizer.state))
    assert torch.equal(child.optimizer.state[key]["exp_avg"], next(iter(parent.optimizer.state.values()))["exp_avg"])
    assert child.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert child.learning_rate == 1e-3


def test_a_tied_head_is_sent_to_the_engine(checkpoint):
    policy = make_policy(checkpoint)
    names = [name for name, _ in policy.named_weights()]
    assert names.count("lm_head.weight") == 1
    assert len(names) == len(set(names))


def test_unreadable_checkpoints_name_themselves(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CascadeError, match=str(tmp_path)):
        load_model(tmp_path, torch.device("cpu"))


def with_engine_logprobs(policy, temperature, of):
    """Sequences whose engine log-probs are the policy's own, ``of`` (raw or at the sampling temperature)."""
    batch = pack(at(temperature, sequences()), 1000)[0]
    values = getattr(policy.score(batch), of).split(batch.lengths.tolist())
    # pack keeps the order within the one row
    return [dataclasses.replace(s, engine_logprobs=v.numpy()) for s, v in zip(sequences(), values, strict=True)]


def run_update(policy, rows, loss, engine_temperature, temperature=0.6, **keys):
    update = Update(policy, loss, engine_temperature=engine_temperature, **keys)
    update.add(at(temperature, rows))
    return update.stats(), gradient(policy)


@pytest.mark.parametrize(("of", "engine_temperature"), [("logprobs", 0.6), ("raw_logprobs", 1.0)])
def test_ratios_are_taken_on_one_support(checkpoint, of, engine_temperature):
    """Sampled at 0.6: whether the engine reports raw log-probs or those at 0.6, one that agrees gives ratio 1, and the
    off-policy gradient is the on-policy one. Fails where raw ones are compared with those at 0.6."""
    policy = make_policy(checkpoint)
    rows = pack(with_engine_logprobs(policy, 0.6, of), 24)
    objective = Objective(on_policy=False, clip_low=0.01, clip_high=0.01)
    loss = RlLoss(objective, "token", 1)
    stats, ours = run_update(policy, rows, loss, engine_temperature, measures=loss.measures)
    _, expected = run_update(policy, rows, RlLoss(Objective(), "token", 1), engine_temperature)
    assert float((ours - expected).norm() / expected.norm()) < 1e-5
    assert stats.measures == {"mismatch/k3": pytest.approx(0.0, abs=1e-9), "loss/clipped": 0.0}
    assert stats.metrics()["loss/clipped"] == 0.0


@pytest.mark.parametrize(("of", "engine_temperature"), [("logprobs", 0.6), ("raw_logprobs", 1.0)])
def test_masked_rollouts_teach_nothing(checkpoint, of, engine_temperature):
    """One of four rollouts comes from an engine that is off by 0.5 a token: the gradient is that of the others."""
    policy = make_policy(checkpoint)
    exact = with_engine_logprobs(policy, 0.6, of)
    off = [*exact[:1], dataclasses.replace(exact[1], engine_logprobs=exact[1].engine_logprobs + 0.5), *exact[2:]]
    masked = RlLoss(Objective(mask="geometric", low=0.9, high=1.1), "token", 1)
    stats, ours = run_update(
        policy, pack(off, 24), masked, engine_temperature, screen=masked.screen, measures=masked.measures
    )
    plain = RlLoss(Objective(), "token", 1)
    _, expected = run_update(policy, pack([exact[0], *exact[2:]], 24), plain, engine_temperature)
    assert float((ours - expected).norm() / expected.norm()) < 1e-5
    assert stats.measures["mismatch/masked"] == pytest.approx(20 / 44)
    assert stats.trained_tokens == 44  # in the denominator they stay


def test_a_skipped_step_does_not_hold_up_the_schedule(checkpoint):
    """Warm-up over 4 steps: the third is at 3/4, whatever became of the second."""
    policy = make_policy(checkpoint, warmup_steps=4)
    policy.begin_step(1)
    accumulate(policy, pack(sequences(), 1000), temperature=1.0, engine_temperature=1.0)
    next(policy.model.parameters()).grad[0, 0] = math.nan
    with pytest.raises(NonFinite):
        policy.step()
    policy.begin_step(2)
    assert policy.learning_rate == pytest.approx(7.5e-4)


def test_the_rate_belongs_to_the_step_not_to_its_updates(checkpoint):
    """4 steps of a linear decay from 1e-3: 1, 3/4, 1/2, 1/4 of it, for each of the two updates of a step."""
    policy, rates = make_policy(checkpoint, lr_schedule="linear", lr_horizon_steps=4), []
    for step in range(4):
        policy.begin_step(step)
        for _ in range(2):
            accumulate(policy, pack(sequences(), 1000), temperature=1.0, engine_temperature=1.0)
            rates.append(policy.learning_rate)
            policy.step()
    assert rates == pytest.approx([1e-3, 1e-3, 7.5e-4, 7.5e-4, 5e-4, 5e-4, 2.5e-4, 2.5e-4])
    assert {group["lr"] for group in policy.optimizer.param_groups} == {rates[-1]}


def test_a_kl_penalty_does_not_change_whose_tokens_are_measured(checkpoint):
    """Beside two rollouts with an advantage, a KL penalty has two without go through the policy: entropy, gap and
    mismatch stay those of the first two; ``loss/kl`` and the guard's own gap are over all."""
    policy = make_policy(checkpoint)
    given = with_engine_logprobs(policy, 1.0, "logprobs")
    flat = [
        dataclasses.replace(s, advantages=0 * s.advantages, engine_logprobs=s.engine_logprobs - 3) for s in given[2:]
    ]
    plain = RlLoss(Objective(cap=2.0), "token", 1)
    alone, _ = run_update(
        policy, pack(given[:2], 1000), plain, 1.0, 1.0, measures=plain.measures, taught=plain.measured
    )
    penalised = RlLoss(Objective(cap=2.0, kl=0.1), "token", 1)
    every = [dataclasses.replace(s, reference_logprobs=s.engine_logprobs) for s in (*given[:2], *flat)]
    with_kl, _ = run_update(
        policy, pack(every, 1000), penalised, 1.0, 1.0, measures=penalised.measures, taught=penalised.measured
    )
    for name in ("policy/entropy", "mismatch/k3", "mismatch/cut"):
        assert with_kl.metrics()[name] == pytest.approx(alone.metrics()[name], abs=1e-6), name
    assert with_kl.metrics()["sampling/logprob_gap_max"] < 1e-4
    assert (alone.trained_tokens, with_kl.trained_tokens) == (29, 44)
    assert with_kl.logprob_gap_mean == pytest.approx(3 * 15 / 44, rel=1e-4)
    # k3 of d = -3 on 15 of 44 tokens, 0 on the others
    assert with_kl.measures["loss/kl"] == pytest.approx((math.exp(-3) + 3 - 1) * 15 / 44, rel=1e-4)


def test_nothing_measured_is_no_number(checkpoint):
    """A step without any advantage has no entropy: 0 would look like a policy that has collapsed."""
    policy = make_policy(checkpoint)
    loss = RlLoss(Objective(), "token", 1)
    flat = [dataclasses.replace(s, advantages=0 * s.advantages) for s in sequences()]
    stats, _ = run_update(policy, pack(flat, 1000), loss, 1.0, 1.0, measures=loss.measures, taught=loss.measured)
    assert stats.trained_tokens == 44
    for name in ("policy/entropy", "sampling/logprob_gap_mean", "sampling/logprob_gap_max", "mismatch/k3"):
        assert math.isnan(stats.metrics()[name]), name


def test_kept_tokens_travel_with_their_sequence(checkpoint):
    """Rows cut anyhow score each token over its own kept ids; a policy that says the same as the engine has ratio 1."""
    policy, generator = make_policy(checkpoint), torch.Generator().manual_seed(2)
    given = []
    for s in sequences():
        n, width = len(s.completion_ids), 3 + len(s.completion_ids) % 3
        kept = torch.randint(0, 300, (n, width), generator=generator, dtype=torch.int32).numpy()
        kept[:, 0] = s.completion_ids
        kept[:, -1] = -1
        given.append(dataclasses.replace(s, kept=kept))

    def scored(rows):
        values = {}
        for row in rows:
            parts = policy.score(row).logprobs.split(row.lengths.tolist())
            for ids, part in zip(row.targets.split(row.lengths.tolist()), parts, strict=True):
                values[tuple(ids.tolist())] = part
        return [values[tuple(s.completion_ids.tolist())] for s in given]

    together, apart = (scored(at(0.7, pack(given, budget))) for budget in (1000, 24))
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    whole = policy.score(*at(0.7, pack(sequences(), 1000))).logprobs
    assert float((torch.cat(together) - whole).min()) > 1.0  # 3 to 5 tokens instead of some 400
    agreeing = [dataclasses.replace(s, engine_logprobs=v.numpy()) for s, v in zip(given, together, strict=True)]
    objective = Objective(on_policy=False, clip_low=0.01, clip_high=0.01)
    loss = RlLoss(objective, "token", 1)
    stats, _ = run_update(policy, pack(agreeing, 24), loss, 0.7, 0.7, measures=loss.measures)
    assert stats.logprob_gap_max < 1e-5
    assert stats.measures == {"mismatch/k3": pytest.approx(0.0, abs=1e-9), "loss/clipped": 0.0}
