"""What a step collects, whatever the order in which things finish."""

import random
import re
import threading
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.stages.context import StopFlag
from cascade_rl.stages.onpolicy.requests import sampling_of
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Prompt, Score, Stop
from tests.stages.fakes import FakeEngine, FakeScorer, Listener, collector, content, feed, prompts, stage

DYNAMIC = {"dynamic_sampling": {"max_factor": 3}}


def number(prompt):
    return int(prompt.id[1:])


def by_index(prompt, rollout):
    """The first of a group is right, the others are not."""
    return float(rollout.index == 0)


def odd_is_flat(prompt, rollout):
    return 0.0 if number(prompt) % 2 else by_index(prompt, rollout)


def ids(groups):
    return [number(group.prompt) for group in groups]


def drawn(config, steps=3, of=None):
    """The order in which a sampler draws, without any step that asks more."""
    source = feed(config, of or prompts(100))
    order = []
    for _ in range(steps):
        slots = source.open_step()
        order += [slot.index for slot in slots]
        source._backlog.close_step(slot.position for slot in slots)
        source._before = None
    return order


def test_a_plain_step_has_all_its_groups_in_slot_order_whatever_ends_first():
    config = stage()
    first = collector(FakeEngine(), FakeScorer(by_index), config).collect(0, 0)
    assert ids(first.groups) == drawn(config, 1)
    assert [[s.value for s in g.scores] for g in first.groups] == [[1.0, 0.0]] * 4
    last = collector(FakeEngine(pick=lambda waiting: len(waiting) - 1), FakeScorer(by_index), config).collect(0, 0)
    assert content(last.groups) == content(first.groups)
    assert first.metrics == {"rollouts/lost": 0.0}
    assert not first.unused


def test_flat_groups_are_replaced_by_the_next_prompts_and_the_rest_is_asked_next():
    config = stage(**DYNAMIC)
    order = drawn(config, 5)
    collect = collector(FakeEngine(), FakeScorer(odd_is_flat), config)
    got = collect.collect(0, 0)
    even = [i for i in order if i % 2 == 0]
    assert ids(got.groups) == even[:4]
    until = order.index(even[3]) + 1
    assert ids(got.unused) == [i for i in order[:until] if i % 2]
    assert got.metrics["groups/replaced"] == until - 4
    # The next step goes on where this one stopped: nothing was skipped, nothing is asked twice.
    following = collect.collect(1, 0)
    assert sorted(ids(following.everything)) == sorted(order[until : until + len(following.everything)])
    assert ids(following.groups) == even[4:8]


def test_the_next_prompt_is_asked_while_others_generate():
    """No barrier: a flat group is replaced although another group has not ended, which waits for the very last."""
    config = stage(**DYNAMIC)
    order = drawn(config, 3)
    slow = next(i for i in order[:4] if i % 2 == 0)

    def slow_last(waiting):
        return next((k for k, r in enumerate(waiting) if r.prompt_token_ids != (slow,)), 0)

    engine = FakeEngine(pick=slow_last)
    seen = []
    engine.before_poll = lambda: seen.append(
        (len(engine.submitted) // 2, {r.prompt_token_ids[0] for r in engine.waiting})
    )
    got = collector(engine, FakeScorer(odd_is_flat), config).collect(0, 0)
    assert len(got.unused) > 0
    asked_meanwhile = max(count for count, waiting in seen if slow in waiting)
    assert asked_meanwhile == len(got.everything)


@pytest.mark.parametrize(("keys", "listens", "longest"), [(DYNAMIC, False, 0.05), ({}, True, 0.05), ({}, False, 0.5)])
def test_a_score_that_decides_what_comes_next_is_looked_for_often(keys, listens, longest):
    engine, scorer = FakeEngine(), FakeScorer(by_index)
    scorer.held = []
    over = release_when_idle(engine, scorer)
    collector(engine, scorer, stage(**keys)).collect(0, 0, listener=Listener() if listens else None)
    over.set()
    assert max(engine.timeouts[1:8]) == longest


def test_short_answers_are_not_favoured():
    """Groups that end first are not taken first: the quota is filled in the order of drawing."""
    config = stage(**DYNAMIC)
    even = [i for i in drawn(config, 3) if i % 2 == 0][:4]
    for pick in (lambda waiting: 0, lambda waiting: len(waiting) - 1, lambda waiting: len(waiting) // 2):
        got = collector(FakeEngine(pick=pick), FakeScorer(odd_is_flat), config).collect(0, 0)
        assert ids(got.groups) == even


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(["thinking", "half"]), st.sampled_from([1, 2]), st.integers(0, 4),
    st.booleans(),
)  # fmt: skip
def test_timing_changes_nothing(seed, modes, world_size, flat_of_five, late_rewards):
    config = stage(prompts_per_step=4, modes=modes, overlong="filter", **DYNAMIC)

    def value(prompt, rollout):
        return 0.0 if number(prompt) % 5 < flat_of_five else by_index(prompt, rollout)

    def run(shuffler):
        pick = (lambda waiting: shuffler.randrange(len(waiting))) if shuffler else (lambda _: 0)
        ranks = [[], []][:world_size]

        def one(rank, gather):
            engine = FakeEngine(pick, stop_of=lambda r: Stop.LENGTH if r.seed % 7 == 0 else Stop.EOS)
            scorer = FakeScorer(value)
            if shuffler and late_rewards:
                scorer.held = []
                engine.before_poll = lambda: scorer.release(shuffler.randrange(3))
            source = feed(config, prompts(60, modes), rank, world_size, gather)
            collect = collector(engine, scorer, config, source=source, gather=gather)
            if scorer.held is not None:
                releasing = release_when_idle(engine, scorer)
            for step in range(3):
                got = collect.collect(step, 0)
                state = source.state()
                ranks[rank].append((content(got.groups), content(got.unused), got.metrics, state))
            if scorer.held is not None:
                releasing.set()

        together(one, world_size)
        return ranks

    plain = run(None)
    assert run(random.Random(seed)) == plain
    if world_size == 2:
        assert [state for *_, state in plain[0]] == [state for *_, state in plain[1]]  # alike on all ranks


def release_when_idle(engine, scorer):
    """Scores that are held come at last once nothing is generated any more."""
    over = threading.Event()

    def watch():
        while not over.wait(0.001):
            if not engine.in_flight and scorer.held:
                scorer.release(1)

    threading.Thread(target=watch, daemon=True).start()
    return over


def together(one, world_size):
    """Run ``one(rank, gather)`` on as many threads, with a gather between them."""
    barrier = threading.Barrier(world_size)
    shared = [None] * world_size
    errors = []

    def rank_of(rank):
        def gather(value):
            shared[rank] = value
            barrier.wait(30)
            values = list(shared)
            barrier.wait(30)
            return values

        try:
            one(rank, gather)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_stand_in_has_the_mode_of_the_group_it_replaces():
    config = stage(modes="half", prompts_per_step=8, **DYNAMIC)
    got = collector(FakeEngine(), FakeScorer(odd_is_flat), config, prompts(100, "half")).collect(0, 0)
    assert got.unused
    assert [g.prompt.thinking for g in got.groups].count(True) == 4
    assert len(got.groups) == 8


def test_at_the_bound_it_trains_on_what_there_is_and_says_so():
    said = []
    config = stage(**DYNAMIC)
    good = drawn(config, 1)[2]
    scorer = FakeScorer(lambda prompt, rollout: by_index(prompt, rollout) if number(prompt) == good else 0.0)
    got = collector(FakeEngine(), scorer, config, say=said.append).collect(0, 0)
    assert ids(got.groups) == [good]
    assert len(got.everything) == 12  # max_factor 3 times 4
    assert got.metrics["groups/replaced"] == 8
    assert "12 prompts" in said[0]
    assert "3 of 4" in said[0]


def test_a_broken_grader_is_not_taken_for_prompts_that_teach_nothing():
    """Asking ten times as many prompts would not mend it, and would cost ten steps before the stage stops."""
    scorer = FakeScorer(lambda *_: Score(0.0, {}, "judge down"))
    engine = FakeEngine()
    got = collector(engine, scorer, stage(**DYNAMIC)).collect(0, 0)
    assert len(engine.submitted) == 8
    assert not got.groups
    assert len(got.unused) == 4


def test_values_known_only_with_the_whole_step_cannot_be_sampled_dynamically():
    with pytest.raises(CascadeError, match=r"dynamic_sampling.*combines_groups_alone = True"):
        collector(FakeEngine(), FakeScorer(by_index, combines="step"), stage(**DYNAMIC))
    collector(FakeEngine(), FakeScorer(by_index, combines="step"), stage())
    collector(FakeEngine(), FakeScorer(by_index, combines="group"), stage(**DYNAMIC))


class Lifted(FakeScorer):
    """Values that only ``combine`` knows: odd prompts are flat by them, though their first scores differ."""

    def combine(self, groups, gather=None):
        self.combined.append(len(groups))
        threads.add(threading.current_thread().name)
        return [
            type(g)(g.prompt, g.prompt_token_ids, g.rollouts, [Score(odd_is_flat(g.prompt, r)) for r in g.rollouts])
            for g in groups
        ]


threads: set[str] = set()


def test_the_final_value_decides_what_is_flat():
    threads.clear()
    config = stage(**DYNAMIC)
    scorer = Lifted(by_index, combines="group")
    got = collector(FakeEngine(), scorer, config).collect(0, 0)
    assert ids(got.groups) == [i for i in drawn(config, 3) if i % 2 == 0][:4]
    assert set(scorer.combined) == {1}
    assert len(scorer.combined) == len(got.everything)
    assert threads == {"combine_0"}  # not the thread that the engine works in


def test_without_need_a_step_is_combined_at_once():
    scorer = Lifted(by_index, combines="group")
    got = collector(FakeEngine(), scorer, stage()).collect(0, 0)
    assert scorer.combined == [4]
    assert [g.is_flat(False) for g in got.groups] == [i % 2 == 1 for i in ids(got.groups)]


def test_shape_comes_last_and_decides_what_is_flat():
    def shape(group):
        return type(group)(group.prompt, group.prompt_token_ids, group.rollouts, [Score(1.0) for _ in group.scores])

    got = collector(FakeEngine(), FakeScorer(by_index), stage(dynamic_sampling={"max_factor": 1}), shape=shape).collect(
        0, 0
    )
    assert not got.groups
    assert [s.value for g in got.unused for s in g.scores] == [1.0] * 8


@pytest.mark.parametrize("combines", ["never", "group", "step"])
def test_groups_are_handed_on_in_slot_order_as_soon_as_they_are_final(combines):
    config = stage()
    events = []
    order = drawn(config, 1)

    def backwards(waiting):
        return len(waiting) - 1

    engine = FakeEngine(pick=backwards)
    engine.before_poll = lambda: events.append("poll")
    got = collector(engine, FakeScorer(by_index, combines), config).collect(
        0, 0, listener=Listener(lambda group: events.append(number(group.prompt)))
    )
    assert [event for event in events if event != "poll"] == order == ids(got.groups)
    # Backwards, the first slot is the last to end, and all others wait for it.
    assert events.index(order[0]) > max(i for i, event in enumerate(events) if event == "poll")
    events.clear()
    engine.pick = lambda _: 0
    collector(engine, FakeScorer(by_index, combines), config).collect(0, 0, listener=Listener(events.append))
    assert (events[-1] != "poll" and events.count("poll") == 8) is True
    early = [i for i, event in enumerate(events) if event != "poll"]
    if combines == "never":
        assert early[0] == 2  # after the two rollouts of the first group
    if combines == "step":
        assert early == [8, 9, 10, 11]


def test_after_generation_groups_are_handed_on_while_others_are_scored():
    """Here a group is scored only once the one before it was handed on."""
    engine, scorer, seen, polls = FakeEngine(), FakeScorer(by_index), [], []
    scorer.held = []

    def poll():
        polls.append(1)
        if len(polls) == 8:
            scorer.release(2)

    def hand_on(group):
        seen.append(group)
        scorer.release(2)

    engine.before_poll = poll
    patience = threading.Timer(20, lambda: (polls.append("in vain"), scorer.release()))
    patience.start()
    got = collector(engine, scorer, stage()).collect(0, 0, listener=Listener(hand_on, after_generation=True))
    patience.cancel()
    assert "in vain" not in polls
    assert content(seen) == content(got.groups)
    assert engine.naps > 0


def test_after_generation_nothing_is_handed_on_before():
    config, events = stage(), []
    engine = FakeEngine()
    engine.before_poll = lambda: events.append("poll")
    collector(engine, FakeScorer(by_index), config).collect(
        0, 0, listener=Listener(events.append, after_generation=True)
    )
    assert events[:8] == ["poll"] * 8
    assert len(events) == 12


def test_what_is_handed_on_is_what_is_returned_with_stand_ins_too():
    config = stage(modes="half", prompts_per_step=4, **DYNAMIC)
    for seed in range(60):
        shuffler, seen = random.Random(seed), []
        engine = FakeEngine(pick=lambda waiting, s=shuffler: s.randrange(len(waiting)))
        source = feed(config, prompts(100, "half"), seed=seed)
        got = collector(engine, FakeScorer(odd_is_flat), config, source=source).collect(
            0, 0, listener=Listener(seen.append)
        )
        assert content(seen) == content(got.groups)


def test_lost_rollouts_count_nowhere():
    lost = FakeEngine(stop_of=lambda r: Stop.ABORT if r.index == 1 else Stop.EOS)
    got = collector(lost, FakeScorer(by_index), stage(group_size=3)).collect(0, 0)
    assert got.metrics["rollouts/lost"] == 4
    assert [[r.index for r in g.rollouts] for g in got.groups] == [[0, 2]] * 4
    assert all(len(g.scores) == 2 for g in got.groups)


def test_a_group_that_is_lost_whole_is_none_of_the_rewards_business():
    config = stage()
    first = drawn(config, 1)[0]
    engine = FakeEngine(stop_of=lambda r: Stop.ABORT if r.prompt_token_ids == (first,) else Stop.EOS)
    scorer = FakeScorer(by_index, combines="step")
    got = collector(engine, scorer, config).collect(0, 0)
    assert scorer.combined == [3]
    assert [len(g.rollouts) for g in got.groups] == [0, 2, 2, 2]


def test_rollouts_of_other_weights_are_refused():
    with pytest.raises(CascadeError, match="version 3.*version 4"):
        collector(FakeEngine(version=3), FakeScorer(by_index), stage()).collect(4, 4)


def test_a_stop_request_cuts_the_step_short_and_leaves_nothing_behind():
    stop = StopFlag()
    engine = FakeEngine()
    polls = []

    def ask_after_three():
        polls.append(1)
        stop.is_set = len(polls) >= 3

    engine.before_poll = ask_after_three
    config = stage()
    source = feed(config, prompts(100))
    before = source.state()
    got = collector(engine, FakeScorer(by_index), config, source=source, stop=stop).collect(0, 0)
    assert got.aborted
    assert not got.groups
    assert engine.in_flight == 0
    assert len(polls) == 3
    assert source.state() == before  # the step is drawn again
    stop.is_set = False
    engine.before_poll = lambda: None
    again = collector(engine, FakeScorer(by_index), config, source=source, stop=stop).collect(0, 0)
    assert ids(again.groups) == drawn(config, 1)


def test_one_stopped_rank_stops_all_before_any_other_collective():
    config = stage()
    calls = []

    def gather(value):
        calls.append(value)
        other = type(value)(**{**vars(value), "aborted": True}) if hasattr(value, "aborted") else value
        return [value, other]

    got = collector(FakeEngine(), FakeScorer(by_index), config, gather=gather).collect(0, 0)
    assert got.aborted
    assert len(calls) == 1


def test_the_engine_is_cleared_when_a_reward_fails_for_good():
    def broken(prompt, rollout):
        raise CascadeError("no worker can be started")

    engine = FakeEngine()
    with pytest.raises(CascadeError, match="no worker"):
        collector(engine, FakeScorer(broken), stage()).collect(0, 0)
    assert engine.in_flight == 0


def test_an_engine_that_forgets_is_noticed():
    engine = FakeEngine()
    engine.poll = lambda timeout_s: engine.waiting.clear() or []
    with pytest.raises(CascadeError, match="lost .*4 prompts"):
        collector(engine, FakeScorer(by_index), stage()).collect(0, 0)


def test_longest_expected_first():
    """Second epoch: the prompt with the longest answers goes first; what is sampled is the same as without."""
    config = stage(prompts_per_step=3)
    engine = FakeEngine()
    collect = collector(engine, FakeScorer(by_index), config, prompts(3))
    first = collect.collect(0, 0)
    lengths = {number(g.prompt): sum(len(r.token_ids) for r in g.rollouts) for g in first.groups}
    assert len(set(lengths.values())) == 3  # or else this test shows nothing
    assert [position for position, index in engine.submitted if index == 0] == [0, 1, 2]
    engine.submitted.clear()
    second = collect.collect(1, 0)
    slots = [number(g.prompt) for g in second.groups]
    asked = [slots[position] for position, index in engine.submitted if index == 0]
    assert asked == sorted(lengths, key=lambda i: -lengths[i])


@pytest.mark.parametrize(
    ("overlong", "cut", "cancelled"),
    [
        ("filter", {0, 1}, 1),  # one is left of three: whatever it brings, it has no sibling
        ("filter", {0}, 0),  # two are left
        ("penalise", {0, 1}, 0),  # they count as failures, and the third may be right
    ],
)
def test_hopeless_groups_are_given_up(overlong, cut, cancelled):
    config = stage(group_size=3, overlong=overlong, abort_hopeless=True)
    engine = FakeEngine(stop_of=lambda r: Stop.LENGTH if r.index in cut else Stop.EOS)
    got = collector(engine, FakeScorer(by_index), config).collect(0, 0)
    assert len(engine.cancelled) == 4 * cancelled
    assert got.metrics["rollouts/cancelled"] == 4 * cancelled
    assert [len(g.rollouts) for g in got.groups] == [3 - cancelled] * 4
    without = stage(group_size=3, overlong=overlong)
    plain = collector(FakeEngine(stop_of=engine.stop_of), FakeScorer(by_index), without).collect(0, 0)
    trained = [[s.value for s in g.scores] for g in plain.groups if len(g.members(overlong == "filter")) > 1]
    assert [[s.value for s in g.scores] for g in got.groups if len(g.members(overlong == "filter")) > 1] == trained


def test_faults_of_the_grader_make_a_group_hopeless_too():
    config = stage(group_size=3, abort_hopeless=True)
    engine = FakeEngine()
    collector(engine, FakeScorer(lambda *_: Score(0.0, {}, "down")), config).collect(0, 0)
    assert len(engine.cancelled) == 4


def test_rows_may_ask_for_fewer_tokens():
    config = stage(rollout={"max_new_tokens": 100}, instruct_max_new_tokens=50)

    def limit(thinking, **columns):
        return sampling_of(config, Prompt("p", (), columns, thinking)).max_new_tokens

    assert (limit(True), limit(False)) == (100, 50)
    assert (limit(True, max_new_tokens=70), limit(False, max_new_tokens=70)) == (70, 50)
    assert (limit(True, max_new_tokens=200), limit(True, max_new_tokens=None)) == (100, 100)


def test_where_the_time_went():
    engine, scorer = FakeEngine(), FakeScorer(by_index)
    scorer.held = []
    over = release_when_idle(engine, scorer)
    trace = Trace()
    collector(engine, scorer, stage()).collect(0, 0, trace=trace)
    over.set()
    spans = {
        lane: (
            min(s for name, s, _ in trace.spans if name == lane),
            max(e for name, _, e in trace.spans if name == lane),
        )
        for lane in ("generate", "reward", "wait for rewards")
    }
    assert spans["generate"][0] <= spans["reward"][0] < spans["generate"][1] < spans["reward"][1]
    assert spans["wait for rewards"][0] >= spans["generate"][1]
    assert trace.seconds("wait for rewards") > 0


def test_the_tail_says_what_is_waited_for():
    shown = []
    engine = FakeEngine()
    engine.longest_running = lambda: 812
    config = stage(group_size=8)  # 32 rollouts: three are a tail
    collector(engine, FakeScorer(by_index), config, finished=shown.append).collect(0, 0)
    assert "generating 1/32" in shown
    assert any(re.search("3 rollouts.* 1 prompt.* 812 tokens", text) for text in shown)


def test_nothing_finished_is_no_sign_of_life():
    engine = FakeEngine()
    plain = engine.poll
    calls = []

    def every_other(timeout_s):
        calls.append(1)
        return plain(timeout_s) if len(calls) % 2 else []

    engine.poll = every_other
    phases, shown = [], []
    collector(engine, FakeScorer(by_index), stage(), finished=phases.append, waiting=shown.append).collect(0, 0)
    generating = [text for text in phases if not text.startswith("scoring")]
    assert len(generating) == 7
    assert len(shown) == 7


def test_futures_are_used_as_promised():
    """A score that is a real Future of a thread arrives too."""
    scorer = FakeScorer(by_index)
    plain = scorer.submit_whole

    def later(prompt, rollout, overlong="penalise"):
        inner, outer = plain(prompt, rollout, overlong), Future()
        threading.Timer(0.01, lambda: outer.set_result(inner.result())).start()
        return outer

    scorer.submit_whole = later
    assert len(collector(FakeEngine(), scorer, stage(**DYNAMIC)).collect(0, 0).groups) == 4


def test_ranks_that_learn_together_meet_until_all_have_their_groups():
    met = []

    def meet(done, stopped):
        met.append((done, stopped))
        return met.count((True, False)) == 3, False

    engine = FakeEngine()
    got = collector(engine, FakeScorer(by_index), stage()).collect(0, 0, listener=Listener(meet=meet))
    assert met[0] == (False, False)
    assert met[-3:] == [(True, False)] * 3  # ours were all there, another rank's were not
    assert not got.aborted
    assert len(engine.timeouts) == len(met) - 3


def test_a_rank_that_must_stop_takes_the_others_along():
    met = []

    def meet(done, stopped):
        met.append((done, stopped))
        return False, len(met) == 3

    engine = FakeEngine()
    got = collector(engine, FakeScorer(by_index), stage()).collect(0, 0, listener=Listener(meet=meet))
    assert got.aborted
    assert engine.in_flight == 0
