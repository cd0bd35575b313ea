"""Prompts that are solved or missed by all leave, and come back by chance."""

import random

import pytest

from cascade_rl.data.curriculum import CurriculumFilter, chance
from cascade_rl.data.mixing import MixedSampler, Share
from cascade_rl.data.order import PromptSampler
from cascade_rl.recipe.methods import Curriculum
from cascade_rl.types import CascadeError

NEVER = {"readmit_hard": 0.0, "readmit_easy": 0.0}


def make(count=10, say=lambda _: None, seed=1, fingerprint="f", **keys):
    return CurriculumFilter(fingerprint, [f"p{i}" for i in range(count)], seed, Curriculum(**{**NEVER, **keys}), say)


def test_solved_and_hopeless_leave_after_their_epoch_and_the_rest_stays():
    known = make(4)
    sampler = PromptSampler("f", 4, 1, known)
    assert sorted(sampler.next(4)) == [0, 1, 2, 3]
    known.record(0, right=8, counted=8)
    known.record(1, right=0, counted=8)
    known.record(2, right=3, counted=8)
    known.record(3, right=0, counted=0)  # all filtered: nothing is known of it
    assert sorted(sampler.next(2)) == [2, 3]
    assert sorted(sampler.next(4)) == [2, 2, 3, 3]
    assert known.metrics() == {"curriculum/active": 2, "curriculum/dropped_easy": 1, "curriculum/dropped_hard": 1}


def test_a_verdict_matters_from_the_next_epoch_on():
    known = make(4)
    sampler = PromptSampler("f", 4, 1, known)
    first = sampler.next(2)
    known.record(first[0], 8, 8)
    assert set(sampler.next(2)) == {0, 1, 2, 3} - set(first)  # the epoch asks the others as ever
    assert first[0] not in sampler.next(3)


def test_returns_are_drawn_anew_each_epoch_by_kind_and_do_not_depend_on_each_other():
    known = make(2000, readmit_hard=0.1, readmit_easy=0.01)
    for index in range(2000):
        known.record(index, right=8 * (index % 2), counted=8)
    epochs = [{i for i in range(2000) if known.asks(i, epoch)} for epoch in range(1, 9)]
    hard = [len([i for i in back if i % 2 == 0]) for back in epochs]
    easy = [len([i for i in back if i % 2]) for back in epochs]
    # Binomial of 1000: within 4.5 standard deviations (9.5 and 3.1) of 100 and 10.
    assert all(57 < n < 143 for n in hard)
    assert all(n < 25 for n in easy)
    assert sum(easy) > 30
    both = len(epochs[0] & epochs[1])
    assert both < 30  # 1% of the hard ones, if independent; 100 if one draw served for all epochs
    assert known.asks(0, 3) == known.asks(0, 3)


def test_the_chance_is_a_function_of_seed_epoch_and_prompt():
    assert chance(1, 2, "a") == chance(1, 2, "a")
    assert len({chance(1, 2, "a"), chance(2, 2, "a"), chance(1, 3, "a"), chance(1, 2, "b")}) == 4
    draws = [chance(0, 0, str(i)) for i in range(10_000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert abs(sum(draws) / 10_000 - 0.5) < 0.015


def test_one_that_came_back_and_gives_signal_stays():
    known = make(1, readmit_hard=1.0)
    known.record(0, 0, 8)
    assert known.metrics()["curriculum/dropped_hard"] == 1
    assert known.asks(0, 1)
    known.record(0, 2, 8)
    assert known.metrics()["curriculum/dropped_hard"] == 0


def test_an_epoch_without_anyone_brings_all_back_with_a_warning():
    said = []
    known = make(3, said.append)
    sampler = PromptSampler("f", 3, 1, known)
    for index in sampler.next(3):
        known.record(index, 8, 8)
    assert sorted(sampler.next(3)) == [0, 1, 2]
    assert len(said) == 1
    assert "WARNING: curriculum: all 3 prompts" in said[0]
    assert known.metrics()["curriculum/active"] == 3


def test_an_epoch_that_asked_someone_before_a_restart_was_not_empty():
    said = []
    known = make(3, said.append)
    sampler = PromptSampler("f", 3, 1, known)
    order = sampler.next(3)
    known.record(order[0], 8, 8)
    known.record(order[1], 8, 8)
    assert sampler.next(1) == [order[2]]  # all of the second epoch
    again = PromptSampler("f", 3, 1, known)
    again.restore(sampler.state())
    assert again.next(2) == [order[2]] * 2
    assert not said


def test_each_source_of_a_mixture_has_its_own_epochs():
    said = []
    known = make(6, said.append)
    shares = [Share("small", 1.0, [0, 1]), Share("large", 1.0, [2, 3, 4, 5])]
    sampler = MixedSampler("f", shares, 1, known)
    assert sorted(sampler.next(4)) == sorted({0, 1} | set(range(2, 6)) & set(sampler_large(known, shares)))
    known.record(0, 8, 8)
    drawn = [i for _ in range(4) for i in sampler.next(4)]
    small = [i for i in drawn if i < 2]
    assert set(drawn) == {1, 2, 3, 4, 5}  # nobody of the other is taken for one of it
    known.record(5, 8, 8)
    assert set(small) == {1}
    assert len(small) == 8
    known.record(1, 0, 8)
    small = [i for i in sampler.next(4) if i < 2]
    assert sorted(small) == [0, 1]
    assert "all 2 prompts" in said[0]
    assert known.metrics()["curriculum/dropped_easy"] == 1


def sampler_large(known, shares):
    return MixedSampler("f", shares, 1, known).next(4)


def test_state_goes_on_where_it_was_and_knows_its_data():
    def walk(known, sampler, steps, draws):
        asked = []
        for _ in range(steps):
            for index in sampler.next(3):
                asked.append(index)
                known.record(index, draws.choice([0, 1, 8]), 8)
        return asked

    known = make(20, readmit_hard=0.3, readmit_easy=0.1)
    sampler = PromptSampler("f", 20, 1, known)
    walk(known, sampler, 11, random.Random(0))
    saved = known.state(), sampler.state()
    expected = walk(known, sampler, 15, random.Random(1))
    again = make(20, readmit_hard=0.3, readmit_easy=0.1)
    other = PromptSampler("f", 20, 1, again)
    again.restore(saved[0])
    other.restore(saved[1])
    assert walk(again, other, 15, random.Random(1)) == expected
    with pytest.raises(CascadeError, match="fingerprint"):
        make(20, fingerprint="g").restore(saved[0])
    with pytest.raises(CascadeError, match="seed"):
        make(20, seed=2).restore(saved[0])


def test_the_share_of_prompts_that_teach_rises():
    """400 prompts that are solved with a probability of their own, most of them always or never, as in real sets."""

    def shares(config):
        draws = random.Random(0)
        ability = [draws.choice([0.0, 0.0, 1.0, 1.0, draws.random()]) for _ in range(400)]
        known = make(400, **config) if config is not None else None
        sampler = PromptSampler("f", 400, 1, known)
        teaching = []
        for _ in range(60):
            step = sampler.next(40)
            right = [sum(draws.random() < ability[i] for _ in range(8)) for i in step]
            teaching.append(sum(0 < n < 8 for n in right) / len(step))
            if known is not None:
                for index, n in zip(step, right, strict=True):
                    known.record(index, n, 8)
        return sum(teaching[:10]) / 10, sum(teaching[-10:]) / 10

    before, plain = shares(None)
    start, filtered = shares({"readmit_hard": 0.1, "readmit_easy": 0.01})
    assert abs(start - before) < 0.05
    assert filtered > 2 * plain
