import torch

from cascade_rl.training.packing import pack_row, training_sequence
from cascade_rl.training.ulysses import cut


def row():
    return pack_row(
        [
            training_sequence([1, 2], [3, 4, 5], [-0.1, -0.2, -0.3], [0.1, 0.2, 0.3]),
            training_sequence([6], [7], [-0.4], 0.4, weight=0.5),
        ]
    )


def test_the_cut_by_hand():
    # Tokens 1..7 and one of nothing: [1 2 3 4] [5 6 7 0]. Predictors 1, 2, 3 (of 3, 4, 5) and 5 (of 7).
    first, second = cut(row(), 0, 2), cut(row(), 1, 2)
    assert first.input_ids.tolist() == [[1, 2, 3, 4]]
    assert second.input_ids.tolist() == [[5, 6, 7, 0]]
    assert first.position_ids.tolist() == [[0, 1, 2, 3]]
    assert second.position_ids.tolist() == [[4, 0, 1, 0]]
    assert (first.predictors.tolist(), first.targets.tolist()) == ([1, 2, 3], [3, 4, 5])
    assert (second.predictors.tolist(), second.targets.tolist()) == ([1], [7])
    assert second.advantages.tolist() == [torch.tensor(0.4).item()]
    assert (first.weights.tolist(), second.weights.tolist()) == ([1.0, 1.0, 1.0], [0.5])
    for part in (first, second):  # borders of the whole row: attention sees it whole
        assert part.cu_seq_lens.tolist() == [0, 5, 7, 8]
        assert part.max_length == 5
    assert first.lengths.tolist() == [3, 0, 0]
    assert second.lengths.tolist() == [0, 1, 0]


def test_a_row_that_divides_is_not_filled_up():
    parts = [cut(row(), rank, 7) for rank in range(7)]
    assert [part.input_ids.tolist() for part in parts] == [[[i]] for i in range(1, 8)]
    assert parts[0].cu_seq_lens.tolist() == [0, 5, 7]
    assert sum(len(part.predictors) for part in parts) == 4
    assert [part.targets.tolist() for part in parts] == [[], [3], [4], [5], [], [7], []]
