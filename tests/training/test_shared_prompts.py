"""Prompts that rollouts have in common: laid out by hand, and no different from whole sequences to the policy."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.training.attention import segment_attention
from cascade_rl.training.balance import TokenCost, balanced_rows
from cascade_rl.training.packing import pack_row, training_sequence
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.shared_prompts import bundles, shared_row
from cascade_rl.training.update import Update

ALONE = Ranks(0, 1, torch.device("cpu"))


def rollout(prompt, completion, advantage=1.0, label=""):
    return training_sequence(prompt, completion, [-1.0] * len(completion), advantage, label=label)


def test_a_row_by_hand():
    row = shared_row(
        [
            rollout([1, 2], [11, 12, 13], 0.5, "a"),
            rollout([1, 2], [21, 22], -0.5, "a"),
            rollout([3], [31], 1.0, "b"),
            rollout([1, 2], [41], 2.0, "a"),  # its siblings are no neighbours: a prompt of its own
        ]
    )
    assert row.input_ids.tolist() == [[1, 2, 11, 12, 13, 21, 22, 3, 31, 1, 2, 41]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 0, 1, 0, 1, 2]]
    assert row.cu_seq_lens.tolist() == [0, 5, 7, 9, 12]
    assert row.prefixes == ((0, 0), (0, 2), (7, 7), (9, 9))
    assert row.predictors.tolist() == [1, 2, 3, 1, 5, 7, 10]  # the prompt's last token predicts the first of each
    assert row.targets.tolist() == [11, 12, 13, 21, 22, 31, 41]
    assert row.lengths.tolist() == [3, 2, 1, 1]
    assert row.advantages.tolist() == [0.5] * 3 + [-0.5] * 2 + [1.0, 2.0]
    assert row.labels == ("a", "a", "b", "a")
    assert row.max_length == 5


def test_a_row_without_siblings_is_a_row_as_ever():
    sequences = [rollout([1], [2, 3]), rollout([4, 5], [6])]
    shared, plain = shared_row(sequences), pack_row(sequences)
    assert shared.input_ids.tolist() == plain.input_ids.tolist()
    assert shared.prefixes == ()


def test_rollouts_without_tokens_add_none():
    row = shared_row([rollout([1, 2], []), rollout([1, 2], [3]), rollout([1, 2], [])])
    assert row.input_ids.tolist() == [[1, 2, 3]]
    assert row.cu_seq_lens.tolist() == [0, 2, 3]
    assert row.prefixes == ((0, 0), (0, 2))
    assert row.predictors.tolist() == [1]
    assert row.lengths.tolist() == [0, 1, 0]


def test_a_segment_sees_its_prefix_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    borders, prefixes = torch.tensor([0, 5, 9], dtype=torch.int32), ((0, 0), (0, 3))
    out, _ = segment_attention(None, query, key, value, None, scaling=0.3, cu_seq_lens_q=borders, prefixes=prefixes)
    places = [0, 1, 2, 5, 6, 7, 8]  # what the second segment is the end of
    whole, _ = segment_attention(None, *(t[:, :, places] for t in (query, key, value)), None, scaling=0.3)
    assert torch.allclose(out[:, 5:], whole[:, 3:], atol=1e-6)
    with pytest.raises(ValueError, match="window of 6"):
        segment_attention(
            None, query, key, value, None, cu_seq_lens_q=borders, prefixes=prefixes, sliding_window=6
        )  # fmt: skip


def test_bundles_by_hand():
    prompts = [b"a", b"a", b"a", b"b", b"b"]
    # Three of "a" are 10 + 3 * 5 tokens together: 25. One that does not fit begins another bundle.
    assert bundles(prompts, [10] * 5, [15] * 5, parts=1, budget=25) == [[0, 1, 2], [3, 4]]
    assert bundles(prompts, [10] * 5, [15] * 5, parts=1, budget=24) == [[0, 1], [2], [3, 4]]
    assert bundles(prompts, [10] * 5, [15] * 5, parts=1, budget=1) == [[0], [1], [2], [3], [4]]
    # Two parts of 37 tokens cannot be made even out of bundles of 25.
    assert bundles(prompts, [10] * 5, [15] * 5, parts=2, budget=25) == [[0], [1], [2], [3], [4]]


def test_prompts_that_are_little_beside_their_rollouts_are_not_shared():
    # Of 2 x (10 + 41) tokens 10 could be saved: less than a tenth. With rollouts of 40 it is just that.
    assert bundles([b"a", b"a"], [10, 10], [51, 51], parts=1, budget=1000) == [[0], [1]]
    assert bundles([b"a", b"a"], [10, 10], [50, 50], parts=1, budget=1000) == [[0, 1]]
    assert shared_row([rollout([7] * 10, [1] * 41), rollout([7] * 10, [2] * 41)]).input_ids.shape[1] == 102
    assert shared_row([rollout([7] * 10, [1] * 40), rollout([7] * 10, [2] * 40)]).input_ids.shape[1] == 90


groups = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=4
)


def drawn(shape, seed=0):
    rng = numpy.random.default_rng(seed)
    made = []
    for prompt_length, lengths in shape:
        prompt = rng.integers(20, 300, prompt_length).tolist()
        made += [rollout(prompt, rng.integers(20, 300, n).tolist(), float(rng.normal())) for n in lengths]
    return made


@settings(max_examples=50, deadline=None)
@given(groups, st.integers(1, 60), st.randoms())
def test_every_rollout_once_and_every_prompt_as_often_as_it_must(shape, budget, random):
    sequences = drawn(shape)
    random.shuffle(sequences)
    rows = balanced_rows(ALONE, sequences, TokenCost(1.0, 0.1), budget, share_prompts=True)
    trained = sorted(tuple(part) for row in rows for part in row.targets.split(row.lengths.tolist()))
    assert [[int(token) for token in part] for part in trained] == sorted(s.completion_ids.tolist() for s in sequences)
    assert all(
        row.input_ids.shape[1] <= budget or len(row.lengths) == 1 for row in rows
    )  # one that is too long has a row of its own


def test_siblings_share_a_row_where_it_has_room():
    sequences = drawn([(8, [3, 4, 5]), (6, [2, 2])])
    (row,) = balanced_rows(ALONE, sequences, TokenCost(1.0, 0.1), 100, share_prompts=True)
    assert row.input_ids.shape[1] == 8 + 3 + 4 + 5 + 6 + 2 + 2


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return Policy(
        folder, OptimizerConfig(learning_rate=1e-3), ranks=ALONE, dtype="float32", total_steps=10,
        gradient_checkpointing=False, chunk_tokens=7,
    )  # fmt: skip


def gradients(policy, rows):
    update = Update(policy, lambda row, part, logprobs, _: -logprobs * row.advantages[part], engine_temperature=1.0)
    update.add(rows)
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    policy.discard()
    return found, update.stats()


def test_the_policy_learns_the_same_from_shared_prompts(policy):
    sequences = drawn([(9, [12, 1, 7, 30]), (4, [3, 3]), (15, [5])])
    expected, plain = gradients(policy, [pack_row([sequence]) for sequence in sequences])
    found, shared = gradients(policy, [policy.row(sequences)])
    assert policy.row(sequences).input_ids.shape[1] < sum(map(len, sequences))
    assert shared.loss == pytest.approx(plain.loss, rel=1e-6)
    assert shared.logprob_gap_mean == pytest.approx(plain.logprob_gap_mean, rel=1e-6)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-7, name


def test_attention_that_knows_nothing_of_prefixes_is_refused(policy):
    row = policy.row(drawn([(4, [3, 3])]))
    policy.model.set_attn_implementation("sdpa")
    try:
        with pytest.raises(AssertionError, match="prompts"):
            policy.score(row)
    finally:
        policy.model.set_attn_implementation("cascade_segments")
