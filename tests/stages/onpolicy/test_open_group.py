"""A group while its rollouts come in."""

import pytest

from cascade_rl.stages.onpolicy.open_group import OpenGroup, is_broken
from cascade_rl.stages.onpolicy.prompts import Slot
from tests.builders import group


def open_group(stops=("eos", "eos", "eos"), size=4):
    """A group of four of which these rollouts are back."""
    back = group([0.0] * len(stops), list(stops))
    made = OpenGroup(Slot(6, 0, back.prompt, back.prompt_token_ids), size)
    made.rollouts.update(enumerate(back.rollouts))
    return made, back.scores


def test_it_is_whole_once_all_are_scored_or_gone():
    made, scores = open_group()
    assert (made.position, made.outstanding, made.is_whole) == (6, [3], False)
    made.gone.add(3)
    assert made.outstanding == []
    for index, score in enumerate(scores):
        assert not made.is_whole
        made.scores[index] = score
    assert made.is_whole


def test_it_is_assembled_in_rollout_order_without_the_lost():
    made, scores = open_group()
    made.rollouts = dict(reversed(made.rollouts.items()))
    made.scores = dict(enumerate(scores))
    del made.rollouts[1], made.scores[1]
    made.gone |= {1, 3}
    assert [rollout.index for rollout in made.assemble().rollouts] == [0, 2]


@pytest.mark.parametrize(
    ("stops", "drops_truncated", "gone", "hopeless"),
    [
        (("length", "length", "length"), True, (), True),  # the fourth alone has no sibling
        (("length", "length", "eos"), True, (), False),
        (("length", "length", "eos"), True, (3,), True),
        (("length", "length", "length"), False, (3,), False),
    ],
)
def test_hopeless_is_what_cannot_have_two_that_count(stops, drops_truncated, gone, hopeless):
    made, _ = open_group(stops)
    made.gone |= set(gone)
    assert made.is_hopeless(drops_truncated) is hopeless


def test_broken_is_what_faults_of_the_grader_left_without_a_pair():
    assert is_broken(group([0.0, 0.0], errors=["down", None]), False)
    assert not is_broken(group([0.0, 0.0, 1.0], errors=["down", None, None]), False)
    assert not is_broken(group([0.0, 0.0], ["length", "eos"]), True)  # cut off: another prompt may do better
