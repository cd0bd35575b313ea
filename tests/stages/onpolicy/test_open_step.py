"""A step in progress: in which order things happen, seen from the parts it works with."""

import pytest

from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.onpolicy.open_step import OpenStep, StepParts
from cascade_rl.stages.onpolicy.options import RolloutOptions
from cascade_rl.stages.onpolicy.scoring import GroupScorer
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Stop
from tests.stages.fakes import FakeEngine, FakeScorer, Heard, Listener, feed, prompts, stage


def by_index(prompt, rollout):
    return float(rollout.index == 0)


def step_of(engine, scorer, options=None, listener=None, version=0):
    config = stage()
    options = options or RolloutOptions(overlong="score")
    parts = StepParts(
        config, options, 1, engine, feed(config, prompts(20)), GroupScorer(scorer), StopFlag(), None, Heard()
    )
    return OpenStep(parts, 0, version, listener, Trace())


def test_every_rollout_is_scored_once_and_joins_its_group():
    engine, scorer = FakeEngine(), FakeScorer(by_index)
    step = step_of(engine, scorer)
    assert step.run()
    assert len(scorer.scored) == len(set(scorer.scored)) == 8
    assert sorted(step.groups) == [0, 1, 2, 3]
    assert all(group.is_final and len(group.group.rollouts) == 2 for group in step.groups.values())
    assert (step.counts.asked, step.counts.lost, step.counts.kept) == (4, 0, 0)


@pytest.mark.parametrize(
    ("combines", "listens", "final"),
    [("never", False, True), ("group", False, False), ("group", True, True), ("step", True, False)],
)
def test_groups_are_final_here_unless_values_need_the_step(combines, listens, final):
    """A reward that looks at each group is asked group by group only where somebody waits for them."""
    step = step_of(FakeEngine(), FakeScorer(by_index, combines), listener=Listener() if listens else None)
    assert step.run()
    assert {group.is_final for group in step.groups.values()} == {final}
    assert all(group.group is not None for group in step.groups.values())


def test_groups_leave_with_their_positions_in_order():
    class Noting(Listener):
        def take(self, position, group):
            left.append(position)

    left = []
    engine = FakeEngine(pick=lambda waiting: len(waiting) - 1)
    assert step_of(engine, FakeScorer(by_index), listener=Noting()).run()
    assert left == [0, 1, 2, 3]


def test_lost_rollouts_are_counted_and_the_group_goes_on():
    engine = FakeEngine(stop_of=lambda request: Stop.ABORT if request.index else Stop.EOS)
    step = step_of(engine, FakeScorer(by_index))
    assert step.run()
    assert step.counts.lost == 4
    assert all(len(group.group.rollouts) == 1 for group in step.groups.values())


def test_an_error_leaves_nothing_in_the_engine():
    engine = FakeEngine(version=2)
    with pytest.raises(CascadeError, match="version 2.*version 3"):
        step_of(engine, FakeScorer(by_index), version=3).run()
    assert engine.in_flight == 0
