import math
import random

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.models import tiny_qwen3
from cascade_rl.training.balance import (
    NOTHING,
    TokenCost,
    assign,
    balanced_rows,
    imbalance,
    imbalance_of_rows,
    plan,
)
from cascade_rl.training.model import load_model
from cascade_rl.training.packing import pack_row, training_sequence
from cascade_rl.training.ranks import Ranks
from tests.training.sharded import launch

ALONE = Ranks(0, 1, torch.device("cpu"))
EIGHT_B = TokenCost(7.57e9, 36 * 32 * 128)
lengths = st.lists(st.integers(1, 60), max_size=40)


def log_normal(count, seed=0):
    """Lengths as reasoning has them: mean about 11K tokens, up to 40K."""
    rng = random.Random(seed)
    return [min(40_000, max(50, int(math.exp(rng.gauss(math.log(8000), 0.8))))) for _ in range(count)]


@given(lengths, st.integers(1, 6), st.integers(1, 80))
def test_every_sequence_once_as_many_rows_everywhere_and_within_the_budget(lengths, parts, budget):
    rows_of_parts = plan(lengths, parts, budget, TokenCost(3.0, 0.1))
    assert len(rows_of_parts) == parts
    assert sorted(i for rows in rows_of_parts for row in rows for i in row) == list(range(len(lengths)))
    assert len({len(rows) for rows in rows_of_parts}) == 1
    for row in (row for rows in rows_of_parts for row in rows):
        assert len(row) <= 1 or sum(lengths[i] for i in row) <= budget
        assert row == sorted(row)


@given(lengths, st.integers(1, 6), st.integers(1, 80))
def test_an_empty_row_only_where_a_part_has_fewer_sequences_than_rows(lengths, parts, budget):
    for rows in plan(lengths, parts, budget, TokenCost(1.0, 0.0)):
        if [] in rows:
            assert all(len(row) <= 1 for row in rows)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 8))
def test_no_part_has_more_than_the_least_loaded_one_and_one_sequence(costs, parts):
    loads = [sum(costs[i] for i in share) for share in assign(costs, parts)]
    assert max(loads) <= min(loads) + max(costs)


def test_the_assignment_by_hand():
    # 9 to part 0; 7 to part 1; 6 to part 1 (7 < 9): 13; 5 to part 0: 14; 1 to part 1 (13 < 14)
    assert assign([5, 9, 1, 7, 6], 2) == [[0, 1], [2, 3, 4]]


def test_rows_are_split_where_others_have_more():
    # Costs are lengths. Part 0: the 10 and nothing else; part 1: 4, 3, 3. Budget 10 gives one row each.
    assert plan([10, 4, 3, 3], 2, 10, TokenCost(1.0, 0.0)) == [[[0]], [[1, 2, 3]]]
    # Budget 6: part 1 needs two rows, [4] and [3, 3]; part 0 has one sequence only, so its second row is empty.
    assert plan([10, 4, 3, 3], 2, 6, TokenCost(1.0, 0.0)) == [[[0], []], [[2, 3], [1]]]


def test_costs_by_hand():
    cost = TokenCost(2.0, 0.5)
    assert cost(4) == 2.0 * 4 + 0.5 * 16
    assert imbalance([[[0]], [[1]]], [1, 3], TokenCost(1.0, 0.0)) == pytest.approx(3 / 2 - 1)
    # Rows side by side: max(4, 1) + max(1, 2) = 6 where each part has 5 and 3: mean 4.
    assert imbalance_of_rows([[[0], [1]], [[2], [3]]], [4, 1, 1, 2], TokenCost(1.0, 0.0)) == pytest.approx(6 / 4 - 1)


def test_the_cost_of_a_model_is_its_matrices_and_its_heads(tmp_path):
    tiny_qwen3.build(tmp_path, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    model = load_model(tmp_path, ALONE.device)
    # By hand: 2 heads of 32 and 1 key-value head; q and o 64 x 64, k and v 32 x 64, three MLP matrices of 64 x 96.
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96
    vocabulary = model.config.vocab_size
    assert TokenCost.of(model) == TokenCost(2 * layer + vocabulary * 64, 2 * 2 * 32)


def test_published_share_of_the_quadratic_part():
    """Shared notes "training", section 3.4: at 8B, 14% of the work at mean context 4K, 40% at 16K (lengths twice that)."""
    for context, share in ((4096, 0.14), (16384, 0.40)):
        length = 2 * context
        assert EIGHT_B.quadratic * length**2 / EIGHT_B(length) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("parts", [2, 8, 64])
def test_lengths_of_reasoning_are_spread_within_three_per_cent(parts):
    drawn = log_normal(1024)
    as_they_come = [[[i] for i in range(part, 1024, parts)] for part in range(parts)]
    assert imbalance(plan(drawn, parts, 65536, EIGHT_B), drawn, EIGHT_B) <= 0.03
    assert imbalance(as_they_come, drawn, EIGHT_B) > imbalance(plan(drawn, parts, 65536, EIGHT_B), drawn, EIGHT_B)
    assert imbalance_of_rows(plan(drawn, parts, 65536, EIGHT_B), drawn, EIGHT_B) <= 0.03


def some(count, seed=0):
    rng = numpy.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, completion = rng.integers(1, 5), rng.integers(1, 30)
        ids = rng.integers(20, 300, prompt + completion)
        made.append(training_sequence(ids[:prompt], ids[prompt:], rng.normal(size=completion), float(rng.normal())))
    return made


def content(rows):
    return [(row.input_ids.tolist(), row.advantages.tolist(), row.cu_seq_lens.tolist()) for row in rows]


@settings(max_examples=20)
@given(st.permutations(range(9)))
def test_rows_do_not_depend_on_the_order_handed_in(order):
    given_ = some(9)
    expected = content(balanced_rows(ALONE, given_, TokenCost(1.0, 0.1), 40))
    assert content(balanced_rows(ALONE, [given_[i] for i in order], TokenCost(1.0, 0.1), 40)) == expected


def test_advantages_of_tokens_arrive_as_they_were():
    """One number for all tokens travels as one; numbers of their own as they are; twins are both kept."""
    varied = training_sequence([1], [2, 3, 4], [-1.0, -2.0, -3.0], [0.1, 0.2, 0.3], weight=0.5)
    equal = training_sequence([1], [2, 3], [-1.0, -2.0], 0.7)
    rows = balanced_rows(ALONE, [varied, equal, equal], TokenCost(1.0, 0.0), 1)
    assert sorted(row.advantages.tolist() for row in rows) == [
        pytest.approx([0.1, 0.2, 0.3]),
        pytest.approx([0.7, 0.7]),
        pytest.approx([0.7, 0.7]),
    ]
    assert sorted(row.weights.tolist() for row in rows)[0] == [0.5] * 3


def test_nothing_to_train_gives_no_rows():
    assert balanced_rows(ALONE, [], TokenCost(1.0, 0.0), 10) == []


def test_the_empty_row_has_a_token_and_nothing_to_learn():
    row = pack_row([NOTHING])
    assert (row.input_ids.shape, row.predictors.tolist(), row.targets.tolist()) == ((1, 1), [], [])


@pytest.mark.slow
def test_one_two_and_three_ranks_get_the_same_whole(tmp_path):
    """Whoever handed what in: together the ranks train on all of it, in as many rows each; neighbours can share."""
    for world in (1, 2, 3):
        found = launch("shares", tmp_path, world, count=11)
        assert found["tokens"] == [found["expected"]] * 2, world
        assert all(found["equal_rows"])
        assert found["independent"]
    assert launch("shares_together", tmp_path, 2, count=5)["same"]
