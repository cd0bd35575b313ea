"""What a step learns from, with hand-made groups."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from cascade_rl.stages.learning import Learner, _means, filled, informative, shaped, training_sequences, updates_of
from cascade_rl.training.stage_loss import StageLoss
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.models import tiny_qwen3
from cascade_rl.stages.collect import Collected
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.balance import NOTHING
from cascade_rl.training.packing import training_sequence
from tests.stages.test_rl import config, group
from tests.training.test_update import make_policy

LOSS = StageLoss.of(config())


def test_soft_overlong_takes_off_over_the_buffer():
    # at most 10 tokens, buffer 4: 7 tokens lose 1/4, 10 lose 1, 6 nothing
    settings = config(overlong="soft", overlong_buffer=4, rollout={"max_new_tokens": 10})
    before = group([1.0, 1.0, 1.0])
    lengths = [6, 7, 10]
    rollouts = [
        type(r)(r.prompt_id, r.index, (5,) * n, (0.0,) * n, r.text, r.stop, r.version)
        for r, n in zip(before.rollouts, lengths, strict=True)
    ]
    after = shaped(type(before)(before.prompt, before.prompt_token_ids, rollouts, before.scores), settings)
    assert [score.value for score in after.scores] == [1.0, 0.75, 0.0]
    assert [score.details["overlong_penalty"] for score in after.scores] == [0.0, -0.25, -1.0]
    assert shaped(before, config()) is before


def test_without_a_gradient_a_rollout_is_left_out_but_for_kl_and_entropy():
    flat, mixed = group([1.0, 1.0], name="flat"), group([1.0, 0.0], name="mixed")
    for extra, expected in (({}, 2), ({"loss": {"kl": 0.1}}, 4), ({"loss": {"entropy": 0.1}}, 4)):
        settings = config(**extra)
        loss = StageLoss.of(settings)
        sequences = training_sequences([flat, mixed], settings, loss)
        assert len(sequences) == 4  # all are in the denominator
        assert len(informative(sequences, loss)) == expected


def test_each_token_weighs_by_the_aggregate():
    settings = config(loss={"aggregate": "sequence"})
    sequences = training_sequences([group([1.0, 0.0])], settings, StageLoss.of(settings))
    assert [s.weight for s in sequences] == [0.5, 0.5]  # two tokens each


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 4))
def test_updates_are_even_and_the_same_for_any_ranks(teaches, asked, world):
    def dealt(values):
        return [list(values)[rank::world] for rank in range(world)]

    alone = updates_of([range(len(teaches))], [teaches], asked)
    assert updates_of(dealt(range(len(teaches))), dealt(teaches), asked) == alone
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
    # Rank 0 has prompts 0, 2, 4, rank 1 has 1, 3, 5; 0 and 3 are flat. Teaching 1, 2 | 4, 5; flat 0 | 3.
    found = updates_of([[0, 2, 4], [1, 3, 5]], [[False, True, True], [True, False, True]], 2)
    assert found == {1: 0, 2: 0, 4: 1, 5: 1, 0: 0, 3: 1}
    # Two prompts on two ranks: the first update has one of them, and is not empty.
    assert updates_of([[0], [1]], [[True], [True]], 2) == {0: 0, 1: 1}
    # One teaching group for four updates: one update, the flat groups in its denominator. None: one update all the same.
    assert updates_of([[0, 2], [1]], [[False, True], [False]], 4) == {0: 0, 1: 0, 2: 0}
    assert updates_of([[0, 2], [1]], [[False, False], [False]], 4) == {0: 0, 1: 0, 2: 0}
    assert updates_of([[]], [[]], 4) == {}


def sequence(length):
    return training_sequence([1], [2] * (length - 1), [0.0] * (length - 1), 1.0)


@pytest.mark.parametrize(
    ("lengths", "count"),
    [([], 0), ([4], 0), ([4, 6], 0), ([4, 6, 1], 2), ([4, 7], 1), ([11], 1), ([11, 2], 1), ([2, 11], 1)],
)
def test_a_row_is_full_when_the_next_would_not_fit(lengths, count):
    assert filled([sequence(n) for n in lengths], budget=10) == count


def test_metrics_of_several_updates():
    updates = [
        {"loss": 1.0, "tokens/trained": 10, "update/skipped": 0.0},
        {"loss": 3.0, "tokens/trained": 20, "update/skipped": 1.0},
    ]
    assert _means(updates) == {"loss": 2.0, "tokens/trained": 30, "update/skipped": 1.0}
    assert _means(updates[:1]) == updates[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96)
    return folder


def gradient_norm(checkpoint, groups, ranks_alike=1):
    """Of one step from ``groups``, on each of so many ranks."""
    ranks = SimpleNamespace(sum=lambda counts: counts * ranks_alike, device=torch.device("cpu"))
    run = SimpleNamespace(
        config=config(), policy=make_policy(checkpoint, grad_clip=1e9), context=SimpleNamespace(ranks=ranks),
        engine=SimpleNamespace(logprob_temperature=1.0), reference=None, trace=Trace(), phase=lambda text: None,
        max_gap=1e9, resyncs=0, skipped=0,
    )  # fmt: skip
    return Learner(run).learn(Collected(groups), 0)["grad_norm"]


def test_a_step_is_divided_by_all_its_tokens_those_without_a_gradient_and_of_other_ranks_too(checkpoint):
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

        return SimpleNamespace(gather=gather, world_size=self._size)

    def run(self, of_rank):
        with ThreadPoolExecutor(self._size) as pool:
            return list(pool.map(of_rank, range(self._size)))


@pytest.mark.parametrize("meetings", [0, 1, 5])
def test_ranks_that_learn_together_train_on_the_same_rows_however_often_they_met(meetings):
    """Rank 0 has five groups, rank 1 two; a row is two rollouts of a group."""
    together, groups = Together(2), [[group([1.0, 0.0], name=f"g{i}") for i in range(n)] for n in (5, 2)]

    def of_rank(number):
        policy = SimpleNamespace(needs_lockstep=True, row=list)
        run = SimpleNamespace(
            config=config(tokens_per_micro_batch=2 * len(training_sequences(groups[0][:1], config(), LOSS)[0])),
            policy=policy, context=SimpleNamespace(ranks=together.rank(number)), trains_while_generating=True,
            engine=SimpleNamespace(logprob_temperature=1.0), reference=None,
        )  # fmt: skip
        learner, early = Learner(run), []
        learner._train = early.extend
        for one in groups[number]:
            learner.take(one)
        said = [learner.meet(number == 0, False) for _ in range(meetings)]
        assert said == [(False, False)] * meetings  # rank 1 is never done
        return [[len(s) for s in row] for row in early], early, learner._rows(groups[number])

    found = together.run(of_rank)
    early = [len(lengths) for lengths, _, _ in found]
    assert early[0] == early[1] == min(meetings, 1)  # of rank 1's four rollouts the last two fill no row that is over
    for (_, trained, rows), own in zip(found, groups, strict=True):
        everything = [*trained, *rows]
        assert len(everything) == 5
        whole = [row for row in everything if row != [NOTHING]]
        expected = training_sequences(own, config(), LOSS)
        assert [len(row) for row in whole] == [2] * len(own)
        assert [s.completion_ids.tolist() for row in whole for s in row] == [
            s.completion_ids.tolist() for s in expected
        ]


def test_one_rank_that_must_stop_is_enough():
    together = Together(2)

    def of_rank(number):
        run = SimpleNamespace(
            config=config(), policy=SimpleNamespace(needs_lockstep=True), trains_while_generating=True, reference=None,
            context=SimpleNamespace(ranks=together.rank(number)), engine=SimpleNamespace(logprob_temperature=1.0),
        )  # fmt: skip
        return Learner(run).meet(False, number == 1), Learner(run).meet(True, False)

    assert together.run(of_rank) == [((False, True), (True, False))] * 2


def test_fewer_teaching_groups_than_updates_make_fewer(checkpoint):
    """Three updates asked for, two groups with a gradient: two updates, all tokens counted once."""
    groups = [group([1.0, 1.0], name="a"), group([1.0, 0.0], name="b"), group([0.0, 1.0], name="c")]
    settings = config(updates_per_batch=3, loss={"clip_high": 0.2}, prompts_per_step=4)
    ranks = SimpleNamespace(
        sum=lambda counts: counts, device=torch.device("cpu"), gather=lambda value: [value], world_size=1
    )
    run = SimpleNamespace(
        config=settings, policy=make_policy(checkpoint), context=SimpleNamespace(ranks=ranks),
        engine=SimpleNamespace(logprob_temperature=1.0), reference=None, trace=Trace(), phase=lambda text: None,
        max_gap=1e9, resyncs=0, skipped=0,
    )  # fmt: skip
    learner = Learner(run)
    parts = learner._parts(Collected(groups, [0, 1, 2]))
    assert [[g.prompt.id for g in part] for part in parts] == [["a", "b"], ["c"]]
    assert learner.learn(Collected(groups, [0, 1, 2]), 0)["tokens/trained"] == 8


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
    found = _means([first, second])
    assert math.isnan(found["loss"])
    assert math.isnan(found["mismatch/k3"])
    assert (found["grad_norm"], found["policy/entropy"], found["tokens/trained"]) == (3.0, 1.5, 8)
