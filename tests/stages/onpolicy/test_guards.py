"""Updates that would teach nonsense, by hand-made numbers and a policy that does as it is told."""

import math
import re
from types import SimpleNamespace

import pytest
import torch

from cascade_rl.rewarding.scorer import alone
from cascade_rl.stages.onpolicy.collect import Collected
from cascade_rl.stages.onpolicy.guards import abandon_if_stopped, agrees, apply, check_rewards, drop_gradient
from cascade_rl.stages.rl import Grpo
from cascade_rl.training.policy import NonFinite
from cascade_rl.training.update import UpdateStats
from cascade_rl.types import CascadeError, Preempted
from tests.builders import ALONE, group, make_context, rl_config, run_of  # noqa: F401

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
    return run_of(
        tmp_path, config=rl_config(max_skipped_steps=1), engine=SimpleNamespace(version=3), policy=Told()
    )  # fmt: skip


def stats(loss=1.0, gap=0.0, largest=0.0):
    return UpdateStats(loss, 0.0, gap, largest, 4, 4.0, "token 7, log-prob -1 by the trainer, -3 by the engine")


GROUPS = [group([1.0, 0.0])]


def sequences(groups=GROUPS):
    return Grpo(rl_config()).sequences(dict(enumerate(groups)), alone)


@pytest.mark.parametrize(("gap", "loss", "expected"), [(9e-4, 1.0, True), (2e-3, 1.0, False), (NAN, 1.0, False),
                                                       (math.inf, 1.0, False), (NAN, NAN, True)])  # fmt: skip
def test_a_small_gap_agrees_and_a_loss_that_is_nan_is_no_gap(gap, loss, expected):
    assert agrees(stats(loss, gap), 1e-3) is expected


@pytest.mark.parametrize("gap", [2e-3, NAN, math.inf])
def test_a_gap_is_looked_into_then_synced_away_then_stops_with_both_sides(run, gap):
    drop_gradient(run, stats(gap=gap, largest=2.0), GROUPS, sequences(), 4)
    assert run.policy.discarded == 1, "the gradient of a step that is done again must not be counted twice"
    assert "all 2 " in run.out.getvalue()
    with pytest.raises(CascadeError) as caught:
        drop_gradient(run, stats(gap=gap, largest=2.0), GROUPS, sequences(), 4)
    text = str(caught.value)
    assert re.search(r"-1 .*-3\b", text)  # the token's log-prob by the trainer and by the engine
    assert re.search(r"\b3\b.*\b4\b.* version 0\b", text)  # of the engine, the trainer and the rollouts
    assert (run.context.job.folder / "rollouts/step-000005.parquet").is_file()
    assert (run.context.job.folder / "state/step-000004/state.pt").is_file()


def test_scored_tokens_that_nobody_generated_are_told(run):
    foreign = sequences([group([1.0, 0.0], name="x")])
    foreign[0][0].completion_ids[0] = 99
    drop_gradient(run, stats(gap=1.0), GROUPS, foreign, 4)
    assert "1 of 2 " in run.out.getvalue()


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_the_second_in_a_row_stops(run):
    run.policy = Told(NonFinite("the gradient is not finite (norm nan)"), 0.5)
    applied = apply(run, stats(), GROUPS, 4)
    assert applied["update/skipped"] == 1
    assert math.isnan(applied["grad_norm"])
    assert "skipped" in run.out.getvalue()
    assert apply(run, stats(), GROUPS, 5) == {"learning_rate": 1e-6, "grad_norm": 0.5, "update/skipped": 0.0}
    assert run.skipped == 0, "a good step starts the count anew"
    apply(run, stats(loss=NAN), GROUPS, 6)
    assert run.policy.denominators == [4.0, 4.0], "a loss that is no number takes no step at all"
    with pytest.raises(CascadeError, match=r"\binf\b.*\b1 steps"):
        apply(run, stats(loss=math.inf), GROUPS, 7)
    assert (run.context.job.folder / "state/step-000007/state.pt").is_file()
    assert torch.load(run.context.job.folder / "state/step-000007/state.pt", weights_only=False)["sampler"] == {"at": 4}


def test_failed_grading_stops_with_rollouts_and_state(run):
    broken = [group([0.0, 0.0], errors=["judge down", None])]
    with pytest.raises(CascadeError, match="step 5: .*a:b .*1 of 2"):
        check_rewards(run, Grpo(rl_config()), broken, 4)
    assert (run.context.job.folder / "rollouts/step-000005.parquet").is_file()
    assert (run.context.job.folder / "state/step-000004/state.pt").is_file()


def test_a_stop_while_generating_saves_where_the_step_began(run):
    abandon_if_stopped(run, Collected(GROUPS), 4)
    with pytest.raises(Preempted):
        abandon_if_stopped(run, Collected([], aborted=True), 4)
    assert torch.load(run.context.job.folder / "state/step-000004/state.pt", weights_only=False)["sampler"] == {"at": 4}


def test_nan_counts_as_infinity_when_ranks_are_compared():
    assert ALONE.max(NAN) == math.inf
