import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.data.order import PromptSampler, epoch_order
from cascade_rl.types import CascadeError

draws = st.lists(st.integers(1, 9), max_size=12)


def test_epochs_are_permutations_that_differ():
    first, second = epoch_order(50, 1, 0), epoch_order(50, 1, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(50, 1, 0)
    assert first != epoch_order(50, 2, 0)


@given(st.integers(1, 12), draws)
def test_no_row_is_dropped_or_repeated_within_an_epoch(count, sizes):
    sampler = PromptSampler("f", count, 3)
    drawn = [i for size in sizes for i in sampler.next(size)]
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count]) == list(range(count))


@given(st.integers(1, 12), draws, draws)
def test_a_restored_position_goes_on_as_if_nothing_had_been(count, before, after):
    """Exact epoch ends included: with count 3 and draws of 3 the cursor stands on the border."""
    whole, first = PromptSampler("f", count, 3), PromptSampler("f", count, 3)
    for size in before:
        whole.next(size)
        first.next(size)
    second = PromptSampler("f", count, 3)
    second.restore(first.state())
    assert [whole.next(size) for size in after] == [second.next(size) for size in after]


def test_a_position_in_other_data_is_refused():
    state = PromptSampler("old", 5, 1).state()
    with pytest.raises(CascadeError, match="fingerprint"):
        PromptSampler("new", 5, 1).restore(state)
    with pytest.raises(CascadeError, match="count"):
        PromptSampler("old", 6, 1).restore(state)


def test_nothing_to_draw_from():
    with pytest.raises(CascadeError, match="prompts"):
        PromptSampler("f", 0, 1)
