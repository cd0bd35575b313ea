"""Which rank asks what, and what is learned of prompts over all ranks."""

import pytest

from cascade_rl.types import CascadeError, Group, Rollout, Score, Stop
from tests.stages.fakes import FakeEngine, FakeScorer, collector, feed, prompts, stage
from tests.stages.onpolicy.test_collect import ids, number, together


def group(slot, values, stops=None):
    stops = stops or ["eos"] * len(values)
    rollouts = [Rollout(slot.prompt.id, i, (1, 2), (0.0, 0.0), "", Stop(s), 0) for i, s in enumerate(stops)]
    return Group(slot.prompt, slot.prompt_token_ids, rollouts, [Score(v) for v in values])


def test_ranks_share_out_positions_and_stand_ins():
    config = stage(prompts_per_step=4)
    alone = feed(config, prompts(50))
    order = [slot.index for slot in alone.open_step()]
    order += [slot.index for slot in [alone.stand_in(alone._slot(0), 3) for _ in range(8)]]
    assert alone.stand_in(alone._slot(0), 3) is None  # 3 times 4 were asked
    for rank in (0, 1):
        one = feed(config, prompts(50), rank, 2)
        slots = one.open_step()
        assert [slot.position for slot in slots] == [rank, rank + 2]
        more = [one.stand_in(slots[0], 3) for _ in range(4)]
        assert [slot.position for slot in more] == [4 + rank, 6 + rank, 8 + rank, 10 + rank]
        assert [slot.index for slot in [*slots, *more]] == [order[slot.position] for slot in [*slots, *more]]
        assert one.stand_in(slots[0], 3) is None


def test_the_bound_counts_whole_prompts_exactly():
    config = stage(prompts_per_step=100)
    one = feed(config, prompts(300))
    slots = one.open_step()
    more = 0
    while one.stand_in(slots[0], 1.15):
        more += 1
    assert more == 15  # 1.15 * 100 is 114.99999999999999


def test_stand_ins_of_a_mode_do_not_take_places_of_the_other():
    config = stage(prompts_per_step=4, modes="half")
    one = feed(config, prompts(50, "half"))
    slots = one.open_step()
    assert [slot.prompt.thinking for slot in slots] == [True, True, False, False]
    thinking = [one.stand_in(slots[0], 3) for _ in range(3)]
    instruct = [one.stand_in(slots[3], 3) for _ in range(2)]
    assert [slot.position for slot in thinking] == [4, 5, 8]
    assert [slot.position for slot in instruct] == [6, 7]
    assert {slot.prompt.thinking for slot in thinking} == {True}
    assert {slot.prompt.thinking for slot in instruct} == {False}


def test_within_a_step_the_state_is_that_of_its_start():
    one = feed(stage(), prompts(50))
    before = one.state()
    slots = one.open_step()
    one.stand_in(slots[0], 3)
    assert one.state() == before
    assert [slot.index for slot in one.open_step()] == [slot.index for slot in slots]  # begun again
    one.close_step([(slot, group(slot, [0.0, 1.0])) for slot in slots], False)
    assert one.state() != before
    one.restore(before)
    assert [slot.index for slot in one.open_step()] == [slot.index for slot in slots]


def test_the_curriculum_hears_of_all_ranks():
    config = stage(curriculum={"readmit_hard": 0.0, "readmit_easy": 0.0}, prompts_per_step=4)
    metrics, asked = [None, None], [[], []]

    def one(rank, gather):
        source = feed(config, prompts(8), rank, 2, gather)
        collect = collector(FakeEngine(), FakeScorer(lambda p, r: float(number(p) < 2)), config, source=source,
                            gather=gather)  # fmt: skip
        for step in range(2):
            asked[rank] += ids(collect.collect(step, 0).everything)
        metrics[rank] = source.metrics()
        assert source.state()["curriculum"]["dropped"] == {i: "easy" if i < 2 else "hard" for i in range(8)}

    together(one, 2)
    assert sorted(asked[0] + asked[1]) == list(range(8))
    assert metrics[0] == metrics[1] == {
        "curriculum/active": 0, "curriculum/dropped_easy": 2, "curriculum/dropped_hard": 6,
    }  # fmt: skip


def test_a_prompt_asked_twice_in_a_step_is_judged_by_its_later_place_on_any_number_of_ranks():
    """Two prompts and four places: the second epoch of each is what counts."""
    config = stage(curriculum={"readmit_hard": 0.0, "readmit_easy": 0.0}, prompts_per_step=4)
    dropped = []
    for world_size in (1, 2, 4):
        states = [None] * world_size

        def one(rank, gather, states=states, world_size=world_size):
            source = feed(config, prompts(2), rank, world_size, gather)
            slots = source.open_step()
            source.close_step([(s, group(s, [1.0, 1.0] if s.position < 2 else [1.0, 0.0])) for s in slots], False)
            states[rank] = source.state()

        together(one, world_size)
        dropped += [state["curriculum"]["dropped"] for state in states]
    assert dropped == [{}] * 7


@pytest.mark.parametrize(("truncated_out", "dropped"), [(True, {}), (False, {3: "hard"})])
def test_filtered_rollouts_say_nothing_of_a_prompt(truncated_out, dropped):
    config = stage(curriculum={"readmit_hard": 0.0, "readmit_easy": 0.0}, prompts_per_step=4)
    one = feed(config, prompts(4))
    slots = one.open_step()
    groups = [
        (slot, group(slot, [0.0, 0.0], ["length", "length"]) if slot.index == 3 else group(slot, [1.0, 0.0]))
        for slot in slots
    ]
    one.close_step(groups, truncated_out)
    assert one.state()["curriculum"]["dropped"] == dropped


def test_right_is_what_the_curriculum_calls_solved():
    config = stage(curriculum={"solved": 0.5, "readmit_hard": 0.0, "readmit_easy": 0.0}, prompts_per_step=1)
    one = feed(config, prompts(1))
    slots = one.open_step()
    one.close_step([(slots[0], group(slots[0], [0.5, 0.7]))], False)
    assert one.state()["curriculum"]["dropped"] == {0: "easy"}


def test_a_position_in_other_data_is_refused():
    one = feed(stage(), prompts(50))
    with pytest.raises(CascadeError, match="other data"):
        feed(stage(), prompts(51)).restore(one.state())
