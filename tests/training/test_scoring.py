"""Reward models in training: scores on packed rows are the classifier's own, and so is the gradient of a step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.algorithms.bradley_terry import pair_losses
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import LoraConfig
from cascade_rl.training.balance import TokenCost, balanced_rows
from cascade_rl.training.packing import pack_row
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.reward_model import load_reward_model
from cascade_rl.training.scoring import WholeRewardModel, pair_sequences, scored_row
from cascade_rl.training.shared_prompts import shared_row
from cascade_rl.training.ulysses import cut
from cascade_rl.types import CascadeError
from tests.training.sharded import launch, scored_model, some_pairs

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    tiny_qwen3.build(folder / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


@pytest.fixture(scope="module")
def plain(folder):
    """The classifier as transformers computes it, a sequence at a time."""
    return load_reward_model(str(folder / "model"), ALONE.device, 4, 0)


def sequences(pairs):
    return [side for number, pair in enumerate(pairs) for side in pair_sequences(*pair, label=str(number))]


def test_a_pair_shares_what_both_sides_begin_with():
    chosen, rejected = pair_sequences([1, 2, 3, 4, 5], [1, 2, 3, 9], label="p")
    assert (chosen.prompt_ids.tolist(), chosen.completion_ids.tolist()) == ([1, 2, 3], [4, 5])
    assert (rejected.prompt_ids.tolist(), rejected.completion_ids.tolist()) == ([1, 2, 3], [9])
    # One side is the beginning of the other: its last token, where it is scored, stays its own.
    chosen, rejected = pair_sequences([1, 2], [1, 2, 3])
    assert (chosen.completion_ids.tolist(), rejected.completion_ids.tolist()) == ([2], [2, 3])
    chosen, rejected = pair_sequences([7], [8, 9])
    assert (len(chosen.prompt_ids), len(rejected.prompt_ids)) == (0, 0)


def test_scores_are_read_at_the_ends_by_hand():
    those = [*pair_sequences([1, 2, 3, 4, 5], [1, 2, 3, 9]), *pair_sequences([6], [7, 8])]
    packed = scored_row(pack_row(those))
    assert packed.predictors.tolist() == [4, 8, 9, 11]
    assert packed.sequence_lengths.tolist() == [5, 4, 1, 2]
    shared = scored_row(shared_row(those))
    assert shared.input_ids.tolist() == [[1, 2, 3, 4, 5, 9, 6, 7, 8]]
    assert shared.predictors.tolist() == [4, 5, 6, 8]
    assert shared.sequence_lengths.tolist() == [5, 4, 1, 2]
    first, second = cut(shared, 0, 2), cut(shared, 1, 2)  # 9 tokens and one of nothing: [0, 5) and [5, 10)
    assert (first.predictors.tolist(), second.predictors.tolist()) == ([4], [0, 1, 3])
    assert first.labels == second.labels == ("", "", "", "")


def test_a_row_of_nothing_has_no_score(folder):
    model = scored_model(folder, ALONE, strategy="ddp")
    (row,) = balanced_rows(ALONE, sequences(some_pairs(1)), TokenCost(1.0, 0.0), 1, unit=2, make=model.row)
    from cascade_rl.training.balance import NOTHING

    nothing = model.row([NOTHING])
    assert (len(nothing.predictors), nothing.labels) == (0, ())
    assert model.score(nothing).shape == (0,)
    assert model.score(row).shape == (2,)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 120), st.booleans())
def test_sides_stay_together_and_in_order(lengths, prefix, budget, share):
    pairs = [
        (list(range(prefix)) + [100 + n] * length, list(range(prefix)) + [200 + n] * 3)
        for n, length in enumerate(lengths)
    ]
    rows = balanced_rows(
        ALONE, sequences(pairs), TokenCost(1.0, 0.1), budget, unit=2, share_prompts=share,
        make=lambda those: scored_row(shared_row(those) if share else pack_row(those)),
    )  # fmt: skip
    found = []
    for row in rows:
        assert row.labels[::2] == row.labels[1::2]
        ends = row.input_ids[0, row.predictors].tolist()
        assert all(end == 100 + int(label) for end, label in zip(ends[::2], row.labels[::2], strict=True))
        assert all(end == 200 + int(label) for end, label in zip(ends[1::2], row.labels[::2], strict=True))
        assert len(row.labels) == 2 or row.input_ids.shape[1] <= budget
        found += row.labels[::2]
    assert sorted(map(int, found)) == list(range(len(lengths)))


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_scores_are_the_classifiers_own(folder, plain, budget):
    pairs = some_pairs(7)
    model = scored_model(folder, ALONE, strategy="ddp")
    whole = WholeRewardModel(load_reward_model(str(folder / "model"), ALONE.device, 4, 0), ALONE, half=False)
    for scorer in (model, whole):
        found = {}
        for row in scorer.rows(sequences(pairs), budget):
            found |= zip(
                zip(row.labels, (0, 1) * len(row.labels), strict=False), scorer.score(row).tolist(), strict=True
            )
        with torch.no_grad():
            expected = {
                (str(number), side): plain(input_ids=torch.tensor([pair[side]])).logits.item()
                for number, pair in enumerate(pairs)
                for side in (0, 1)
            }
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_that_of_the_mean_over_all_pairs(folder):
    """By autograd over the plain classifier, a pair at a time, in float64."""
    pairs = some_pairs(5)
    exact = load_reward_model(str(folder / "model"), ALONE.device, 4, 0).double()
    losses = []
    for pair in pairs:
        chosen, rejected = (exact(input_ids=torch.tensor([side])).logits.squeeze() for side in pair)
        losses.append(-torch.nn.functional.logsigmoid(chosen - rejected) + 0.3 * (chosen + rejected) ** 2)
    torch.stack(losses).mean().backward()
    norm = torch.stack([p.grad.norm() for p in exact.parameters()]).norm().item()

    model = scored_model(folder, ALONE, strategy="ddp", gradient_checkpointing=True)
    for row in model.rows(sequences(pairs), 60):
        model.backward(row, lambda scores: pair_losses(scores, 0.3).sum())
    theirs = dict(exact.named_parameters())
    for name, parameter in model.model.named_parameters():
        assert torch.allclose(parameter.grad / 5, theirs[name].grad.float(), rtol=1e-4, atol=1e-6), name
    assert model.step(5.0) == pytest.approx(norm, rel=1e-5)


def test_scores_stay_in_float32_under_autocast(folder):
    model = scored_model(folder, ALONE, dtype="bfloat16", strategy="ddp")
    (row,) = model.rows(sequences(some_pairs(2)), 10_000)
    scores = model.score(row)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_the_cost_counts_no_embedding_that_is_only_looked_up(folder, plain):
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96
    assert TokenCost.of(plain) == TokenCost(2 * layer + 64, 2 * 2 * 32)


def test_with_adapters_the_head_is_trained_as_a_whole(folder):
    model = scored_model(folder, ALONE, strategy="ddp", lora=LoraConfig(rank=2, alpha=4.0))
    trained = [name for name, p in model.model.named_parameters() if p.requires_grad]
    assert [name for name in trained if "lora_" not in name] == ["score.weight"]
    before = model.whole_state_dict(torch.float32)
    for row in model.rows(sequences(some_pairs(4)), 60):
        model.backward(row, lambda scores: pair_losses(scores).sum())
    model.step(4.0)
    after, adapter = model.whole_state_dict(torch.float32), model.adapter_state_dict()
    assert not torch.equal(before["score.weight"], after["score.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(adapter["base_model.model.score.weight"], after["score.weight"])
    with pytest.raises(CascadeError, match="score"):
        scored_model(folder, ALONE, strategy="ddp", lora=LoraConfig(target_modules=["score"]))


def alike(ours, theirs):
    """The metrics of the same steps, up to rounding."""
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=5e-6, abs=5e-6)


STRATEGIES = [
    *({"strategy": strategy} for strategy in ("ddp", "zero2", "zero3", "fsdp2")),
    {"strategy": "fsdp2", "offload_optimizer": True, "offload_parameters": True},
]


def train_as_one_process_does(folder, kind, world, ways, bound, hidden_size=64):
    """Steps of ``kind`` (``tests.training.sharded.KINDS``) on ``world`` ranks in each of ``ways``: those of one."""
    tiny_qwen3.build(folder / "model", seed=3, hidden_size=hidden_size, layers=2, intermediate_size=96)
    (alone,) = launch("offline", folder, 1, kind=kind, ways=[{"strategy": "ddp"}])["found"]
    for how, found in zip(ways, launch("offline", folder, world, kind=kind, ways=ways)["found"], strict=True):
        alike(found["metrics"], alone["metrics"])
        assert found["distance"] < bound, how
        assert found["bitwise"], how


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_strategy_trains_as_one_process_does(tmp_path, world):
    train_as_one_process_does(tmp_path, "pairs", world, STRATEGIES, 1e-7)


@pytest.mark.slow
def test_ranks_that_share_rows_train_as_one_process_does(tmp_path):
    """Ulysses: the ends of a pair's sides may lie on different ranks."""
    ways = [
        {"strategy": "ddp", "sequence_parallel": 2},
        {"strategy": "zero3", "sequence_parallel": 2},
        {"strategy": "fsdp2", "sequence_parallel": 2, "offload_activations": True},
    ]
    train_as_one_process_does(tmp_path, "pairs", 2, ways, 5e-7, hidden_size=128)


@pytest.mark.slow
def test_a_state_goes_on_with_other_ranks_and_strategies(tmp_path):
    tiny_qwen3.build(tmp_path / "model", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    (first,) = launch("offline", tmp_path, 2, kind="pairs", ways=[{"strategy": "zero3"}])["found"]
    for world, strategy in ((1, "ddp"), (3, "fsdp2")):
        found = launch("pairs_resumed", tmp_path, world, how={"strategy": strategy}, state=first["state"])
        assert found["distance"] < 1e-7
        alike(found["metrics"], first["metrics"][2:])
        assert found["moments"] == pytest.approx(first["moments"], rel=1e-6)
