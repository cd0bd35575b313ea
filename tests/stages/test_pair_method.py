"""Bradley-Terry on packed pairs: numbers by hand, and step for step those of TRL's RewardTrainer."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import OptimizerConfig
from cascade_rl.stages.offline.method import StepStats
from cascade_rl.stages.pair_method import PairMethod, PairUpdate
from cascade_rl.stages.pairs import TokenPair
from cascade_rl.training.packing import pack_row
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.reward_model import load_reward_model
from cascade_rl.training.scoring import TrainedRewardModel, pair_sequences, scored_row
from tests.training.sharded import distance, some_pairs

ALONE = Ranks(0, 1, torch.device("cpu"))
PAIRS = [TokenPair(*sides, "") for seed in (1, 2) for sides in some_pairs(12, seed)]
BATCH, STEPS, CENTERING = 8, 3, 0.05


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def method_of(checkpoint, trained=range(24), held_out=(), budget=100):
    model = TrainedRewardModel(
        str(checkpoint),
        OptimizerConfig(learning_rate=1e-3, grad_clip=0.5, weight_decay=0.1),
        ranks=ALONE, dtype="float32", pad_token_id=0, total_steps=STEPS, seed=4,
    )  # fmt: skip
    context = SimpleNamespace(ranks=ALONE, stop=SimpleNamespace(is_set=False))
    return model, PairMethod(context, model, PAIRS, trained, held_out, budget=budget, centering=CENTERING)


def steps(model, method):
    found = []
    for step in range(STEPS):
        model.begin_step(step)
        update = method.update()
        for row in method.rows(range(step * BATCH, (step + 1) * BATCH)):
            update.add(row)
        stats = update.stats()
        found.append({"loss": stats.loss, "grad_norm": model.step(stats.denominator), **stats.metrics})
    return found


def by_trl(checkpoint, folder):
    """The same steps by TRL's RewardTrainer, in two passes of four pairs each."""
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    trainer = InOrder(
        model=load_reward_model(str(checkpoint), ALONE.device, 4, 0),
        args=RewardConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=None,
            per_device_train_batch_size=BATCH // 2, gradient_accumulation_steps=2, max_steps=STEPS, logging_steps=1,
            learning_rate=1e-3, lr_scheduler_type="constant", warmup_steps=0, adam_beta1=0.9, adam_beta2=0.95,
            weight_decay=0.1, max_grad_norm=0.5, center_rewards_coefficient=CENTERING, save_strategy="no",
            report_to="none", disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids} for pair in PAIRS]
        ),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
    )  # fmt: skip
    trainer.train()
    return trainer.model.state_dict(), [row for row in trainer.state.log_history if "grad_norm" in row]


def test_steps_are_those_of_trls_trainer(checkpoint, tmp_path):
    model, method = method_of(checkpoint)
    ours = steps(model, method)
    weights, theirs = by_trl(checkpoint, tmp_path)
    names = {"loss": "loss", "grad_norm": "grad_norm", "accuracy": "accuracy", "margin": "margin", "score/mean": "mean_reward"}  # fmt: skip
    for mine, other in zip(ours, theirs, strict=True):
        for name, their_name in names.items():
            assert mine[name] == pytest.approx(float(other[their_name]), rel=2e-4, abs=1e-4), name  # logs have 4 digits
    assert distance(weights, model.whole_state_dict(torch.float32)) < 2e-6


@pytest.mark.parametrize("budget", [1, 70, 10_000])
def test_rows_of_any_size_make_the_same_steps(checkpoint, budget):
    model, method = method_of(checkpoint)
    expected = steps(model, method)
    other, method = method_of(checkpoint, budget=budget)
    for mine, theirs in zip(steps(other, method), expected, strict=True):
        del mine["tokens/total"], theirs["tokens/total"]  # neighbouring pairs may begin alike
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert distance(model.whole_state_dict(torch.float32), other.whole_state_dict(torch.float32)) < 2e-6


def test_metrics_by_hand_over_rows():
    """Two rows with two pairs and one: sums over all three, whatever the row."""
    scores = {2: torch.tensor([2.0, 0.5, -1.0, 1.0]), 1: torch.tensor([3.0, 3.0])}
    model = SimpleNamespace(ranks=ALONE, reports=True, backward=lambda row, terms: scores[len(row.labels) // 2])
    update = PairUpdate(model, 0.0)
    rows = [[[1, 2, 3], [1, 4]], [[5], [6, 7]]], [[[8], [9]]]
    for pairs in rows:
        update.add(scored_row(pack_row([side for pair in pairs for side in pair_sequences(*pair)])))
    stats = update.stats()
    assert isinstance(stats, StepStats)
    assert stats.denominator == 3
    assert stats.loss == pytest.approx((0.2014132779827524 + 2.1269280110429727 + 0.6931471805599453) / 3)
    assert stats.metrics == pytest.approx(
        {"accuracy": 1 / 3, "margin": -0.5 / 3, "score/mean": 8.5 / 6, "tokens/total": 10, "tokens/trained": 10}
    )


def test_held_out_pairs_are_measured_once_until_the_weights_move(checkpoint):
    _, method = method_of(checkpoint, trained=range(20), held_out=[20, 23])
    assert method.count == 20
    found = method.evaluate()
    judged = method.judged()
    assert judged is method.judged()
    plain = load_reward_model(str(checkpoint), ALONE.device, 4, 0)
    sides = [side for number in (20, 23) for side in (PAIRS[number].chosen_ids, PAIRS[number].rejected_ids)]
    with torch.no_grad():
        expected = [plain(input_ids=torch.tensor([side])).logits.item() for side in sides]
    assert [score for pair in judged for score in (pair.chosen, pair.rejected)] == pytest.approx(expected, abs=1e-5)
    assert found["eval/margin"] == pytest.approx(sum(pair.margin for pair in judged) / 2)
    assert found["eval/accuracy"] == sum(pair.margin > 0 for pair in judged) / 2
    method.update()
    assert method.judged() is not judged
