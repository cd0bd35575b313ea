import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.training.packing import assign_rows, pack, pack_row, training_sequence

lengths = st.lists(st.integers(1, 50), max_size=40)


@given(lengths, st.integers(1, 64))
def test_every_sequence_once_and_rows_within_budget(lengths, budget):
    rows = assign_rows(lengths, budget)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= budget


@given(lengths, st.integers(50, 64))
def test_no_two_rows_could_be_one(lengths, budget):
    """First-fit: a later row's every member failed to fit in an earlier row."""
    sums = [sum(lengths[i] for i in row) for row in assign_rows(lengths, budget)]
    assert sum(2 * s <= budget for s in sums) <= 1


def test_order_by_hand():
    # 7 opens a row (free 3), 6 opens one (free 4), 4 fits beside 6, 3 beside 7
    assert assign_rows([3, 7, 4, 6], 10) == [[0, 1], [2, 3]]


def test_the_row_by_hand():
    row = pack(
        [training_sequence((1, 2), (3, 4), (-0.1, -0.2), 2.0), training_sequence((5,), (6,), (-0.3,), -1.0)], budget=99
    )
    assert len(row) == 1
    batch = row[0]
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.cu_seq_lens.tolist() == [0, 4, 6]
    assert batch.predictors.tolist() == [1, 2, 4]  # token 2 predicts 3, 3 predicts 4, 5 predicts 6
    assert batch.targets.tolist() == [3, 4, 6]
    assert batch.advantages.tolist() == [2.0, 2.0, -1.0]
    assert batch.engine_logprobs.tolist() == pytest.approx([-0.1, -0.2, -0.3])
    assert batch.max_length == 4
    assert batch.weights.tolist() == [1.0, 1.0, 1.0]
    assert batch.lengths.tolist() == [2, 1]
    assert batch.cu_seq_lens.dtype == torch.int32


def test_a_budget_must_hold_a_token():
    with pytest.raises(ValueError, match="budget"):
        assign_rows([1], 0)


def test_a_row_has_the_temperature_of_its_sequences():
    cool = training_sequence((1,), (2,), (0.0,), 1.0, temperature=0.6)
    assert [row.temperature for row in pack([cool, cool], 99)] == [0.6]
    assert pack_row([training_sequence((1,), (), (), 0.0), cool]).temperature == 0.6  # no trained token: any will do
    with pytest.raises(AssertionError, match="temperature"):
        pack_row([cool, training_sequence((1,), (2,), (0.0,), 1.0)])
