"""Several sources in fixed shares: exact numbers, own epochs, fair places, resumable anywhere."""

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rl.data.mixing import MixedSampler, Share, deal, quotas
from cascade_rl.types import CascadeError

weight = st.one_of(st.integers(1, 12), st.sampled_from([0.1, 0.15, 0.3, 0.5, 1.5, 2.25, 7.0]), st.floats(0.01, 50.0))
weights = st.lists(weight, min_size=1, max_size=7)


def shares_of(weights):
    fractions = [Fraction(str(w)) for w in weights]
    return [w / sum(fractions) for w in fractions]


def mixed(sizes, weights=None, seed=3, fingerprint="f"):
    start, shares = 0, []
    for i, size in enumerate(sizes):
        shares.append(Share(f"s{i}", (weights or [1.0] * len(sizes))[i], range(start, start + size)))
        start += size
    return MixedSampler(fingerprint, shares, seed)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), weights, st.integers(1, 60))
def test_every_step_and_every_total_is_within_one_prompt_of_its_share(count, weights, steps):
    shares = shares_of(weights)
    given_ = [0] * len(shares)
    for step in range(1, steps + 1):
        counts = quotas(count, shares, given_)
        assert sum(counts) == count
        given_ = [a + b for a, b in zip(given_, counts, strict=True)]
        for share, n, total in zip(shares, counts, given_, strict=True):
            assert abs(n - count * share) < 1
            assert abs(total - step * count * share) < 1


def test_a_mixture_that_defeats_simpler_rules():
    """Rounding up the largest remainder, or the earliest deadline without PD2's tie-breaks, is a prompt off here."""
    shares = shares_of([2, 2, 3, 2, 2, 2, 3, 9])
    given_ = [0] * len(shares)
    for step in range(1, 80):
        given_ = [a + b for a, b in zip(given_, quotas(8, shares, given_), strict=True)]
        assert all(abs(total - step * 8 * share) < 1 for total, share in zip(given_, shares, strict=True))


def test_shares_are_exact_in_the_long_run():
    given_ = [0, 0, 0]
    shares = shares_of([0.5, 0.3, 0.2])
    for _ in range(1000):
        given_ = [a + b for a, b in zip(given_, quotas(7, shares, given_), strict=True)]
    assert given_ == [3500, 2100, 1400]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), weights)
def test_steps_of_changing_size_are_rounded_down_or_up_too(sizes, weights):
    shares = shares_of(weights)
    given_ = [0] * len(shares)
    for count in sizes:
        counts = quotas(count, shares, given_)
        assert sum(counts) == count
        assert all(abs(n - count * share) < 1 for n, share in zip(counts, shares, strict=True))
        given_ = [a + b for a, b in zip(given_, counts, strict=True)]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 99))
def test_halves_and_ranks_have_all_sources(counts, seed):
    order = deal(counts, random.Random(seed))
    assert Counter(order) == {source: n for source, n in enumerate(counts) if n}
    assert order == deal(counts, random.Random(seed))
    size = len(order)
    for source, n in enumerate(counts):
        if size % 2 == 0:
            assert abs(order[: size // 2].count(source) - n / 2) < 1
        for ranks in (2, 4):
            if size % (2 * ranks) == 0:
                for rank in range(ranks):
                    assert abs(order[rank::ranks].count(source) - n / ranks) < 2


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data(), st.lists(st.integers(1, 12), max_size=10))
def test_each_source_goes_through_its_own_epochs(sizes, data, draws):
    sampler = mixed(sizes, data.draw(st.lists(weight, min_size=len(sizes), max_size=len(sizes))))
    drawn = [i for size in draws for i in sampler.next(size)]
    start = 0
    for size in sizes:
        own = Counter(i for i in drawn if start <= i < start + size)
        times = {own.get(i, 0) for i in range(start, start + size)}
        assert max(times) - min(times) <= 1
        start += size


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=2),
    st.lists(weight, min_size=2, max_size=2),
    st.lists(st.integers(1, 12), max_size=8),
    st.lists(st.integers(1, 12), max_size=8),
)
def test_a_restored_position_goes_on_as_if_nothing_had_been(sizes, weights, before, after):
    whole, first = mixed(sizes, weights), mixed(sizes, weights)
    for count in before:
        assert whole.next(count) == first.next(count)
    second = mixed(sizes, weights)
    second.restore(first.state())
    assert [whole.next(count) for count in after] == [second.next(count) for count in after]


def test_a_state_does_not_change_with_what_is_drawn_later():
    sampler = mixed([3, 5], [1.0, 2.0])
    state = sampler.state()
    drawn = sampler.next(6)
    sampler.restore(state)
    assert sampler.next(6) == drawn


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"fingerprint": "new"}, "fingerprint"),
        ({"weights": [1.0, 3.0]}, "weights"),
        ({"seed": 4}, "seed"),
    ],
)
def test_a_position_in_another_mixture_is_refused(other, key):
    state = mixed([3, 5], [1.0, 2.0]).state()
    with pytest.raises(CascadeError, match=key):
        mixed([3, 5], **{"weights": [1.0, 2.0], **other}).restore(state)


def test_a_position_of_a_stage_without_weights_is_refused():
    from cascade_rl.data.order import PromptSampler

    with pytest.raises(CascadeError, match="data"):
        mixed([3, 5]).restore(PromptSampler("f", 8, 3).state())


def test_a_source_without_prompts_is_named():
    with pytest.raises(CascadeError, match="s1"):
        mixed([3, 0])


def test_orders_differ_between_sources_and_seeds():
    sampler = mixed([50, 50])
    drawn = sampler.next(100)
    assert [i for i in drawn if i < 50] != [i - 50 for i in drawn if i >= 50]
    assert drawn != mixed([50, 50], seed=4).next(100)
