"""Prompts drawn and not asked come first in the next step; lengths are remembered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.data.backlog import Backlog
from cascade_rl.data.lengths import Lengths
from cascade_rl.data.order import PromptSampler
from cascade_rl.types import CascadeError


def make(count=50):
    return Backlog(PromptSampler("f", count, 1), 4)


def test_a_step_that_asks_a_few_more_leaves_the_rest_to_the_next():
    order = PromptSampler("f", 50, 1).next(20)
    backlog = make()
    assert [backlog.prompt(i) for i in (0, 1, 2, 3, 5)] == [*order[:4], order[5]]
    backlog.close_step([0, 1, 2, 3, 5])
    assert [backlog.prompt(i) for i in range(5)] == [order[4], order[6], order[7], order[8], order[9]]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 11)), max_size=6), st.integers(0, 11))
def test_nothing_is_lost_or_asked_twice_and_looking_ahead_changes_nothing(steps, looks_to):
    order = PromptSampler("f", 200, 1).next(100)
    backlog, other = make(200), make(200)
    asked = []
    for used in steps:
        asked += [backlog.prompt(position) for position in sorted(used)]
        if used:  # another rank looked less far, or not at all
            other.prompt(min(looks_to, max(used)))
        backlog.close_step(used)
        other.close_step(used)
        assert other.state() == backlog.state()
    assert len(asked) == len(set(asked))
    everything = set(asked) | set(backlog.state()["waiting"])
    assert everything == set(order[: len(everything)])


def test_state_goes_on_where_it_was():
    backlog = make()
    backlog.prompt(9)
    backlog.close_step([0, 1, 2, 3, 9])
    again = make()
    again.restore(backlog.state())
    assert [again.prompt(i) for i in range(12)] == [backlog.prompt(i) for i in range(12)]
    with pytest.raises(CascadeError, match="data"):
        make(51).restore(backlog.state())


def test_expected_lengths_by_hand():
    lengths = Lengths()
    assert lengths.expected(0) == 0
    lengths.record(0, tokens=30, rollouts=2)
    lengths.record(1, tokens=10, rollouts=2)
    lengths.record(0, tokens=20, rollouts=2)
    assert (lengths.expected(0), lengths.expected(1), lengths.expected(2)) == (12.5, 5.0, 10.0)
    lengths.record(3, tokens=0, rollouts=0)  # all lost
    assert lengths.expected(3) == 10.0
    again = Lengths()
    again.restore(lengths.state())
    assert [again.expected(i) for i in range(4)] == [lengths.expected(i) for i in range(4)]
