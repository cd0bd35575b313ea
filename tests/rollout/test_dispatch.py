from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.rollout.dispatch import Dispatcher


def start_all(dispatcher):
    started = []
    while (chosen := dispatcher.next()) is not None:
        started.append(chosen)
    return started


def test_rollouts_of_a_prompt_share_a_server_and_prompts_are_spread():
    dispatcher = Dispatcher(servers=2, slots=10)
    for ticket, prompt in enumerate("aaabbbcc"):
        dispatcher.add(ticket, prompt)
    assert sorted(start_all(dispatcher)) == [(0, 0), (0, 1), (0, 2), (0, 6), (0, 7), (1, 3), (1, 4), (1, 5)]


def test_slots_limit_what_runs_and_lines_keep_their_order():
    dispatcher = Dispatcher(servers=1, slots=2)
    for ticket in range(4):
        dispatcher.add(ticket, "a")
    assert start_all(dispatcher) == [(0, 0), (0, 1)]
    dispatcher.finished(1)
    assert start_all(dispatcher) == [(0, 2)]


def test_an_idle_server_takes_from_the_end_of_the_longest_line():
    dispatcher = Dispatcher(servers=2, slots=1)
    for ticket in range(4):
        dispatcher.add(ticket, "a")  # all at home on server 0
    assert start_all(dispatcher) == [(0, 0), (1, 3)]


def test_what_waits_at_a_dead_server_moves_and_what_is_asked_again_avoids_the_one_that_failed():
    dispatcher = Dispatcher(servers=2, slots=1)
    for ticket in range(3):
        dispatcher.add(ticket, "a")
    assert start_all(dispatcher) == [(0, 0), (1, 2)]
    dispatcher.bury(0)
    assert dispatcher.living == [1]
    dispatcher.finished(2)
    assert start_all(dispatcher) == [(1, 1)]

    pair = Dispatcher(servers=2, slots=5)
    pair.add(0, "a", avoid=0)
    assert start_all(pair) == [(1, 0)]
    alone = Dispatcher(servers=1, slots=5)
    alone.add(0, "a", avoid=0)
    assert start_all(alone) == [(0, 0)]


def test_ranks_begin_at_different_servers():
    dispatcher = Dispatcher(servers=3, slots=5, first=2)
    for ticket in range(3):
        dispatcher.add(ticket, f"p{ticket}")
    assert sorted(start_all(dispatcher)) == [(0, 1), (1, 2), (2, 0)]


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["add", "finish", "cancel", "bury"]), st.integers(0, 30)), max_size=60),
)
def test_every_request_runs_once_and_slots_are_never_exceeded(servers, slots, steps):
    dispatcher = Dispatcher(servers, slots)
    waiting, running, ran, next_ticket = set(), {}, set(), 0
    for what, number in steps:
        if what == "add":
            dispatcher.add(next_ticket, f"p{number % 5}")
            waiting.add(next_ticket)
            next_ticket += 1
        elif what == "finish" and running:
            ticket = sorted(running)[number % len(running)]
            dispatcher.finished(ticket)
            del running[ticket]
        elif what == "cancel" and waiting:
            ticket = sorted(waiting)[number % len(waiting)]
            assert dispatcher.cancel(ticket)
            waiting.remove(ticket)
        elif what == "bury" and len(dispatcher.living) > 1:
            dispatcher.bury(dispatcher.living[number % len(dispatcher.living)])
        for server, ticket in start_all(dispatcher):
            assert ticket in waiting
            assert ticket not in ran
            assert server in dispatcher.living
            waiting.remove(ticket)
            ran.add(ticket)
            running[ticket] = server
        for server in dispatcher.living:
            assert sum(each == server for each in running.values()) <= slots
            busy = sum(each == server for each in running.values())
            assert busy == slots or not waiting  # nobody waits beside a free slot
