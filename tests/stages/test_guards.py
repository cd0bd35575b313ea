"""Updates that would teach nonsense, by hand-made numbers and a policy that does as it is told."""

import io
import math
import re
from types import SimpleNamespace

import pytest
import torch

from cascade_rl.stages.collect import Collected
from cascade_rl.stages.guards import abandon_if_stopped, agree, apply, check_rewards, warn_if_flat
from cascade_rl.tracking.trace import Trace
from cascade_rl.training.policy import NonFinite
from cascade_rl.training.ranks import Ranks
from cascade_rl.training.update import UpdateStats
from cascade_rl.types import CascadeError, Preempted
from tests.stages.test_rl import config, group, make_context, training_sequences

NAN = float("nan")


class Told:
    """A policy whose steps come out as told."""

    learning_rate = 1e-6

    def __init__(self, *outcomes):
        self.outcomes, self.discarded, self.denominators = list(outcomes), 0, []

    def step(self, denominator):
        self.denominators.append(denominator)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def discard(self):
        self.discarded += 1

    state_bytes = 0

    def part(self, memory=None):
        return lambda folder: {}


@pytest.fixture
def run(tmp_path):
    out = io.StringIO()
    context = make_context(tmp_path, out)
    return SimpleNamespace(
        context=context, config=config(max_skipped_steps=1), max_gap=1e-3, engine=SimpleNamespace(version=3),
        policy=Told(), sampler=SimpleNamespace(state=dict), switch=SimpleNamespace(state=dict), position={"at": 4},
        skipped=0, flat=0, resyncs=0, trace=Trace(), out=out,
        place=tmp_path, journal=SimpleNamespace(drop_before=lambda step: None),
    )  # fmt: skip


def stats(loss=1.0, gap=0.0, largest=0.0):
    return UpdateStats(loss, 0.0, gap, largest, 4, 4.0, "token 7, log-prob -1 by the trainer, -3 by the engine")


def collected():
    return Collected([group([1.0, 0.0])], aborted=False)


def sequences():
    return training_sequences(collected().groups, config())


def test_a_small_gap_passes(run):
    assert agree(run, stats(gap=9e-4), collected(), sequences(), 4)
    assert run.policy.discarded == 0


@pytest.mark.parametrize("gap", [2e-3, NAN, math.inf])
def test_a_gap_is_looked_into_then_synced_away_then_stops_with_both_sides(run, gap):
    assert not agree(run, stats(gap=gap, largest=2.0), collected(), sequences(), 4)
    assert run.policy.discarded == 1, "the gradient of a step that is done again must not be counted twice"
    assert "all 2 " in run.out.getvalue()
    with pytest.raises(CascadeError) as caught:
        agree(run, stats(gap=gap, largest=2.0), collected(), sequences(), 4)
    text = str(caught.value)
    assert re.search(r"-1 .*-3\b", text)  # the token's log-prob by the trainer and by the engine
    assert re.search(r"\b3\b.*\b4\b.* version 0\b", text)  # of the engine, the trainer and the rollouts
    assert (run.place / "rollouts/step-000005.parquet").is_file()
    assert (run.place / "state/step-000004/state.pt").is_file()


def test_a_gap_that_a_sync_mends_leaves_the_next_step_its_own_attempt(run):
    for _ in range(3):
        assert not agree(run, stats(gap=1.0), collected(), sequences(), 4)
        assert agree(run, stats(), collected(), sequences(), 4)


def test_scored_tokens_that_nobody_generated_are_told(run):
    foreign = training_sequences([group([1.0, 0.0], name="x")], config())
    foreign[0].completion_ids[0] = 99
    agree(run, stats(gap=1.0), collected(), foreign, 4)
    assert "1 of 2 " in run.out.getvalue()


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_the_second_in_a_row_stops(run):
    run.policy = Told(NonFinite("the gradient is not finite (norm nan)"), 0.5)
    applied = apply(run, stats(), collected(), 4)
    assert applied["update/skipped"] == 1
    assert math.isnan(applied["grad_norm"])
    assert "skipped" in run.out.getvalue()
    assert apply(run, stats(), collected(), 5) == {"learning_rate": 1e-6, "grad_norm": 0.5, "update/skipped": 0.0}
    assert run.skipped == 0, "a good step starts the count anew"
    apply(run, stats(loss=NAN), collected(), 6)
    assert run.policy.denominators == [4.0, 4.0], "a loss that is no number takes no step at all"
    with pytest.raises(CascadeError, match=r"\binf\b.*\b1 steps"):
        apply(run, stats(loss=math.inf), collected(), 7)
    assert (run.place / "state/step-000007/state.pt").is_file()
    assert torch.load(run.place / "state/step-000007/state.pt", weights_only=False)["sampler"] == {"at": 4}


def test_failed_grading_stops_with_rollouts_and_state(run):
    broken = [group([0.0, 0.0], errors=["judge down", None])]
    with pytest.raises(CascadeError, match="step 5: .*a:b .*1 of 2"):
        check_rewards(run, broken, 4)
    assert (run.place / "rollouts/step-000005.parquet").is_file()
    assert (run.place / "state/step-000004/state.pt").is_file()


def test_a_stop_while_generating_saves_where_the_step_began(run):
    abandon_if_stopped(run, collected(), 4)
    with pytest.raises(Preempted):
        abandon_if_stopped(run, Collected([], aborted=True), 4)
    assert torch.load(run.place / "state/step-000004/state.pt", weights_only=False)["sampler"] == {"at": 4}


def test_nan_counts_as_infinity_when_ranks_are_compared():
    assert Ranks(0, 1, torch.device("cpu")).max(NAN) == math.inf


def test_steps_that_teach_nothing_are_told_once_and_then_every_tenth(run):
    metrics = {"groups/zero_variance": 1.0, "reward/mean": -1.0, "completions/truncated": 1.0}
    for step in range(11):
        warn_if_flat(run, metrics, step)
    told = run.out.getvalue()
    assert told.count("WARNING") == 2
    assert re.search("step 1: .* -1, .*100%", told)
    assert "step 11:" in told
    warn_if_flat(run, metrics | {"groups/zero_variance": 0.99}, 11)
    warn_if_flat(run, metrics, 12)
    assert run.out.getvalue().count("WARNING") == 3
