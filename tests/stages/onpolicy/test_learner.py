"""When a step learns, in which rows and how many updates, with hand-made groups."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.models import tiny_qwen3
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.learner import Learner, full_row, means, overlapped, updates_of
from cascade_rl.stages.rl import Grpo
from cascade_rl.training.balance import NOTHING
from cascade_rl.training.packing import training_sequence
from tests.builders import group, make_context, run_of, sequences_of
from tests.builders import rl_config as config
from tests.training.test_update import make_policy


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 4))
def test_updates_are_even_and_the_same_for_any_ranks(teaches, asked, world):
    alone = updates_of(dict(enumerate(teaches)), asked)
    dealt = {position: taught for rank in range(world) for position, taught in list(enumerate(teaches))[rank::world]}
    assert updates_of(dealt, asked) == alone
    count = max(1, min(asked, sum(teaches)))
    for kind in (True, False):
        numbers = [alone[position] for position, taught in enumerate(teaches) if taught is kind]
        assert numbers == sorted(numbers)
        sizes = [numbers.count(number) for number in range(count)]
        assert sum(sizes) == len(numbers)  # in no other update
        assert max(sizes) - min(sizes) <= 1
        if kind and numbers:
            assert min(sizes) >= 1


def test_updates_by_hand():
    # 0 and 3 are flat. Teaching 1, 2 | 4, 5; flat 0 | 3.
    flat = {0: False, 2: True, 4: True, 1: True, 3: False, 5: True}
    assert updates_of(flat, 2) == {1: 0, 2: 0, 4: 1, 5: 1, 0: 0, 3: 1}
    # Two prompts on two ranks: the first update has one of them, and is not empty.
    assert updates_of({0: True, 1: True}, 2) == {0: 0, 1: 1}
    # One teaching group for four updates: one update, with the flat groups in its denominator. None: one all the same.
    assert updates_of({0: False, 2: True, 1: False}, 4) == {0: 0, 1: 0, 2: 0}
    assert updates_of({0: False, 2: False, 1: False}, 4) == {0: 0, 1: 0, 2: 0}
    assert updates_of({}, 4) == {}


def sequence(length):
    return training_sequence([1], [2] * (length - 1), [0.0] * (length - 1), 1.0)


@pytest.mark.parametrize(
    ("lengths", "count"),
    [([], 0), ([4], 0), ([4, 6], 0), ([4, 6, 1], 2), ([4, 7], 1), ([11], 1), ([11, 2], 1), ([2, 11], 1)],
)
def test_a_row_is_full_when_the_next_would_not_fit(lengths, count):
    assert full_row([sequence(n) for n in lengths], budget=10) == count


def test_metrics_of_several_updates():
    updates = [
        {"loss": 1.0, "tokens/trained": 10, "update/skipped": 0.0},
        {"loss": 3.0, "tokens/trained": 20, "update/skipped": 1.0},
    ]
    assert means(updates) == {"loss": 2.0, "tokens/trained": 30, "update/skipped": 1.0}
    assert means(updates[:1]) == updates[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def learner_of(ranks, policy, settings=None, **keys):
    """A learner of one rank."""
    settings = settings or config()
    context = SimpleNamespace(ranks=ranks, say=lambda text: None)
    return Learner(run_of(config=settings, policy=policy, context=context, max_gap=1e9, **keys), Grpo(settings))


def gradient_norm(checkpoint, groups, ranks_alike=1):
    """Of one step from ``groups``, on each of so many ranks."""
    ranks = SimpleNamespace(
        sum=lambda counts: counts * ranks_alike, device=torch.device("cpu"), world_size=2, gather=None
    )
    learner = learner_of(ranks, make_policy(checkpoint, grad_clip=1e9))
    return learner.learn(Collected(groups, list(range(len(groups)))), 0).metrics["grad_norm"]


def test_a_step_is_divided_by_all_its_tokens(checkpoint):
    """Those without a gradient and those of other ranks too."""
    varied, flat = group([1.0, 0.0]), group([1.0, 1.0])
    alone = gradient_norm(checkpoint, [varied])
    assert gradient_norm(checkpoint, [varied, flat]) == pytest.approx(alone / 2, rel=1e-5)
    assert gradient_norm(checkpoint, [varied], ranks_alike=4) == pytest.approx(alone / 4, rel=1e-5)


class Together:
    """Ranks in threads: what each hands in is handed to all."""

    def __init__(self, size):
        self._size, self._barrier, self._given = size, threading.Barrier(size, timeout=60), {}

    def rank(self, number):
        def gather(value):
            self._given[number] = value
            self._barrier.wait()
            everyone = [self._given[rank] for rank in range(self._size)]
            self._barrier.wait()
            return everyone

        return SimpleNamespace(gather=gather, world_size=self._size, device=torch.device("cpu"))

    def run(self, of_rank):
        with ThreadPoolExecutor(self._size) as pool:
            return list(pool.map(of_rank, range(self._size)))


def dedicated(**keys):
    return config(engine={"placement": "dedicated"}, **keys)


@pytest.mark.parametrize("meetings", [0, 1, 5])
def test_ranks_that_learn_together_train_on_the_same_rows(meetings):
    """However often they met. Rank 0 has five groups, rank 1 two; a row is two rollouts of a group."""
    together, groups = Together(2), [[group([1.0, 0.0], name=f"g{i}") for i in range(n)] for n in (5, 2)]
    settings = dedicated(tokens_per_micro_batch=2 * len(sequences_of(groups[0][:1], config())[0]))

    def of_rank(number):
        policy = SimpleNamespace(needs_lockstep=True, shares_rows=False, row=list)
        learner, early = learner_of(together.rank(number), policy, settings), []
        assert learner.listener is learner
        learner._train = early.extend
        for position, one in enumerate(groups[number]):
            learner.take(position, one)
        said = [learner.meet(number == 0, False) for _ in range(meetings)]
        assert said == [(False, False)] * meetings  # rank 1 is never done
        return [[len(s) for s in row] for row in early], early, learner._rows([])

    found = together.run(of_rank)
    early = [len(lengths) for lengths, _, _ in found]
    assert early[0] == early[1] == min(meetings, 1)  # of rank 1's four rollouts the last two fill no row that is over
    for (_, trained, rows), own in zip(found, groups, strict=True):
        everything = [*trained, *rows]
        assert len(everything) == 5
        whole = [row for row in everything if row != [NOTHING]]
        expected = sequences_of(own, config())
        assert [len(row) for row in whole] == [2] * len(own)
        assert [s.completion_ids.tolist() for row in whole for s in row] == [
            s.completion_ids.tolist() for s in expected
        ]


def test_one_rank_that_must_stop_is_enough():
    together = Together(2)

    def of_rank(number):
        learner = learner_of(
            together.rank(number), SimpleNamespace(needs_lockstep=True, shares_rows=False), dedicated()
        )
        return learner.meet(False, number == 1), learner.meet(True, False)

    assert together.run(of_rank) == [((False, True), (True, False))] * 2


@pytest.mark.parametrize(
    ("keys", "ranks", "shares_rows", "expected"),
    [
        ({}, 1, False, "scoring"),
        ({}, 2, False, None),  # several ranks share all groups out evenly
        ({"dynamic_sampling": {"max_factor": 2}}, 1, False, None),  # more rollouts may be called for
        ({"engine": {"placement": "dedicated"}}, 2, False, "generation"),
        ({"engine": {"placement": "dedicated"}}, 2, True, None),
        ({"updates_per_batch": 2, "loss": {"clip_high": 0.2}}, 1, False, None),
        ({"advantage": "cascade_rl.algorithms.reinforce_pp:advantage"}, 1, False, None),
        ({"advantage": "cascade_rl.algorithms.reinforce_pp:advantage", "engine": {"placement": "dedicated"}}, 1, False,
         None),
    ],
)  # fmt: skip
def test_when_groups_are_trained_on_early(keys, ranks, shares_rows, expected):
    run = SimpleNamespace(
        config=config(**keys),
        policy=SimpleNamespace(shares_rows=shares_rows),
        context=SimpleNamespace(ranks=SimpleNamespace(world_size=ranks)),
    )
    assert overlapped(run, Grpo(config(**keys))) == expected


def test_groups_taken_early_are_not_trained_on_twice(checkpoint):
    """Two equal groups are told apart by their positions."""
    ranks = make_context(checkpoint).ranks
    learner, whole = (learner_of(ranks, make_policy(checkpoint, grad_clip=1e9)) for _ in range(2))
    groups = [group([1.0, 0.0]), group([1.0, 0.0])]
    collected = Collected(groups, [0, 3])
    learner.take(3, groups[1])
    early, late = (one.learn(collected, 0).metrics for one in (learner, whole))
    assert early["grad_norm"] == pytest.approx(late["grad_norm"], rel=1e-5)
    assert early["tokens/trained"] == late["tokens/trained"] == 8


def test_fewer_teaching_groups_than_updates_make_fewer(checkpoint):
    """Three updates asked for, two groups with a gradient: two updates, all tokens counted once."""
    groups = [group([1.0, 1.0], name="a"), group([1.0, 0.0], name="b"), group([0.0, 1.0], name="c")]
    settings = config(updates_per_batch=3, loss={"clip_high": 0.2}, prompts_per_step=4)
    learner = learner_of(make_context(checkpoint).ranks, make_policy(checkpoint), settings)
    collected = Collected(groups, [0, 1, 2])
    sequences = Grpo(settings).sequences(collected.by_position, None)
    assert learner._updates(sequences) == [[0, 1], [2]]
    assert learner.learn(collected, 0).metrics["tokens/trained"] == 8


def test_a_gap_that_a_sync_cured_leaves_the_next_step_its_own_attempt(checkpoint):
    """The engine's log-probs of hand-made groups are far from the policy's: only the bound says whether that matters."""
    out = []
    context = SimpleNamespace(ranks=make_context(checkpoint).ranks, say=out.append)
    run = run_of(config=config(), policy=make_policy(checkpoint), context=context, max_gap=1e-3)
    collected = Collected([group([1.0, 0.0])], [0])
    for _ in range(2):
        run.max_gap = 1e-3
        assert Learner(run, Grpo(config())).learn(collected, 4) is None
        assert all(p.grad is None or not p.grad.any() for p in run.policy.model.parameters())
        run.max_gap = 1e9
        assert Learner(run, Grpo(config())).learn(collected, 4) is not None
    assert len(out) == 2


def test_an_update_that_measured_nothing_is_no_part_of_a_mean():
    """Under a KL penalty an update may consist of flat groups alone; its loss, where it is NaN, is to be seen."""
    first = {"loss": 1.0, "grad_norm": 2.0, "policy/entropy": 1.5, "mismatch/k3": math.nan, "tokens/trained": 3}
    second = {
        "loss": math.nan,
        "grad_norm": 4.0,
        "policy/entropy": math.nan,
        "mismatch/k3": math.nan,
        "tokens/trained": 5,
    }
    found = means([first, second])
    assert math.isnan(found["loss"])
    assert math.isnan(found["mismatch/k3"])
    assert (found["grad_norm"], found["policy/entropy"], found["tokens/trained"]) == (3.0, 1.5, 8)
