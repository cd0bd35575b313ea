"""The distillation stage's pure parts, by hand and against the textbook sum."""

import dataclasses
import json
import math

import numpy
import pytest
import torch
from torch.nn.functional import log_softmax

from cascade_rl.models import tiny_qwen3
from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.distill import Distillation, DistillLoss, by_domain
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.learner import Learner
from cascade_rl.training.packing import pack, pack_row, training_sequence
from cascade_rl.training.reference import FrozenModel
from cascade_rl.training.update import Update
from cascade_rl.types import CascadeError
from tests.builders import NothingToSave, group, run_of, scores_of
from tests.builders import distill_config as config
from tests.training.test_update import make_policy

CPU = torch.device("cpu")


def sequence(engine, teacher, label=""):
    made = training_sequence([1], [5] * len(engine), engine, 0.0, 1 / len(engine), label)
    return dataclasses.replace(made, reference_logprobs=numpy.array(teacher, numpy.float32))


LOSS = DistillLoss(0.5, 2.0)


def means(row, logprobs):
    """As an update over this row alone has them."""
    return by_domain({name: float(values.mean()) for name, values in LOSS.measures(row, scores_of(logprobs)).items()})


def test_terms_and_metrics_by_hand():
    """Three tokens of one rollout, one of another: ratio 1, e^0.5 = 1.65, e^-1 = 0.37 (out of the band), e^0.7 = 2.01
    (out); teacher - trainer: 1, -0.5, 2, 3."""
    row = pack_row([sequence([-1.0, -2.5, -1.0], [0.0, -2.5, 0.0], "math"), sequence([-3.7], [0.0], "code")])
    logprobs = torch.tensor([-1.0, -2.0, -2.0, -3.0], requires_grad=True)
    terms = torch.cat(
        [LOSS(row, part, logprobs[part], torch.zeros(2)) for part in (slice(0, 2), slice(2, 4))]  # two chunks
    )
    e = 2.718281828
    assert terms.tolist() == pytest.approx([1.0, -(e**0.5) * -0.5 * -2.0, 0.0, 0.0], abs=1e-6)
    terms.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([-1.0, e**0.5 * 0.5, 0.0, 0.0], abs=1e-6)
    assert means(row, logprobs) == pytest.approx(
        {
            "distill/advantage_mean": 5.5 / 4, "distill/masked": 0.5,
            "domain/math/distill/advantage_mean": 2.5 / 3, "domain/math/distill/masked": 1 / 3,
            "domain/code/distill/advantage_mean": 3.0, "domain/code/distill/masked": 1.0,
        }
    )  # fmt: skip


def test_one_domain_has_no_metrics_of_its_own():
    row = pack_row([sequence([-1.0], [0.0], "math")])
    assert set(means(row, torch.tensor([-1.0]))) == {"distill/advantage_mean", "distill/masked"}


def test_a_step_without_rollouts_has_no_advantage():
    assert all(math.isnan(value) for value in by_domain({}).values())


def method(teachers=None):
    return Distillation(config(), teachers)


def test_every_rollout_weighs_the_same_and_lost_ones_nothing():
    cut = group([0.0, 0.0, 0.0], ["eos", "length", "abort"], domain="math")
    (found,) = method().sequences({0: cut}, alone).values()
    assert [(len(s.completion_ids), s.weight, s.label) for s in found] == [(2, 0.5, "math"), (2, 0.5, "math")]


def test_values_are_how_much_likelier_the_teacher_finds_a_token():
    cut = group([0.0, 0.0], ["abort", "eos"])  # engine log-probs are -0.1 and -0.2
    (only,) = method().sequences({7: cut}, alone)[7]
    filled = dataclasses.replace(only, reference_logprobs=numpy.array([-1.1, -0.6], numpy.float32))
    (shown,) = method().recorded(Collected([cut], [7]), {7: [filled]})
    assert [score.value for score in shown.scores] == pytest.approx([0.0, -0.7])
    assert shown.rollouts is cut.rollouts


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    for seed in (3, 4):
        tiny_qwen3.build(folder / str(seed), seed=seed, hidden_size=64, layers=2, intermediate_size=96)
    return folder / "3", folder / "4"


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_gradient_is_that_of_the_textbook_whatever_the_rows(checkpoints, temperature):
    """L = - mean over rollouts of the mean over tokens of w a log pi, w and a from whole models in transformers."""
    from transformers import AutoModelForCausalLM

    student, teacher = checkpoints
    generator = torch.Generator().manual_seed(1)
    given = []
    policy = make_policy(student)
    for prompt, completion in ((5, 9), (3, 20), (12, 1)):
        ids = torch.randint(20, 300, (prompt + completion,), generator=generator).tolist()
        bare = training_sequence(
            ids[:prompt], ids[prompt:], (0.0,) * completion, 0.0, 1 / completion, temperature=temperature
        )
        ours = policy.score(pack_row([bare])).logprobs
        # An engine that is off by up to e^1, so that some ratios leave the band.
        noise = 2 * torch.rand(completion, generator=generator) - 1
        given.append(dataclasses.replace(bare, engine_logprobs=(ours + noise).numpy()))
    models = [AutoModelForCausalLM.from_pretrained(c, dtype=torch.float32, attn_implementation="eager") for c in checkpoints]  # fmt: skip
    total, masked = torch.tensor(0.0), 0
    for s in given:
        ids = torch.tensor([[*s.prompt_ids, *s.completion_ids]])
        tables = [log_softmax(model(ids).logits[0] / temperature, dim=-1) for model in models]
        where = torch.arange(len(s.prompt_ids) - 1, ids.shape[1] - 1)
        tokens = torch.from_numpy(s.completion_ids).long()
        logp, target = (table[where, tokens] for table in tables)
        ratio = (logp - torch.from_numpy(s.engine_logprobs)).exp().detach()
        weight = torch.where((ratio >= 0.5) & (ratio <= 2.0), ratio, 0.0)
        masked += int((weight == 0).sum())
        total = total - (weight * (target - logp).detach() * logp).mean() / len(given)
    total.backward()
    reference = torch.cat([p.grad.reshape(-1) for p in models[0].parameters()])
    assert 0 < masked < 30
    frozen = FrozenModel(teacher, device=CPU, dtype="float32", chunk_tokens=7, row_tokens=30)
    filled = frozen.fill(given)
    for budget in (1, 1000):
        update = Update(policy, LOSS, engine_temperature=temperature, measures=LOSS.measures)
        update.add(pack(filled, budget))
        stats = update.stats(denominator=len(given))
        assert stats.loss == pytest.approx(total.item(), abs=1e-5)
        assert by_domain(stats.measures)["distill/masked"] == pytest.approx(masked / 30)
        ours = torch.cat([p.grad.reshape(-1) for p in policy.model.parameters()]) / stats.denominator
        policy.discard()
        assert float((ours - reference).norm() / reference.norm()) < 1e-5


def test_a_teacher_that_fails_stops_the_stage_with_state_and_rollouts_kept(tmp_path):
    class Down:
        def fill(self, sequences):
            raise CascadeError("the teacher is down")

    run = run_of(tmp_path, config=config(), policy=NothingToSave())
    with pytest.raises(CascadeError, match=r"(?s)step 5: the teacher is down.*/rollouts"):
        Learner(run, method(Down())).learn(Collected([group([0.0])], [0]), 4)
    assert (tmp_path / "rollouts/step-000005.parquet").is_file()
    payload = torch.load(tmp_path / "state/step-000004/state.pt", weights_only=False)
    assert (payload["step"], payload["sampler"]) == (4, {"at": 4})  # the step's prompts are drawn again
    assert json.loads((tmp_path / "state/step-000004/manifest.json").read_text())
