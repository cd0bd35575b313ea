"""What the engine serves: the trainer's weights, from the first token on and after every resume, or the stage stops."""

import io
import re
from types import SimpleNamespace

import pytest
import torch

from cascade_rl.algorithms.logprobs import TokenScores
from cascade_rl.stages import rl, rollout_run
from cascade_rl.stages.rollout_run import carry_out, check_engine, resume, save, sync
from cascade_rl.stages.switching import Switch
from cascade_rl.tracking.trace import Trace
from cascade_rl.types import CascadeError, Rollout, Stop
from tests.e2e import cascade
from tests.stages.test_rl import config, make_context


class OneWeight:
    """A policy of a single weight, which is minus the log-prob of every token."""

    def __init__(self, weight):
        self.weight = torch.tensor([weight])

    def named_weights(self, bucket_mib):
        yield "w", self.weight

    def score(self, row):
        logprobs = -self.weight.expand(len(row.targets))
        return TokenScores(logprobs, logprobs, logprobs, logprobs == 0)

    def save(self, folder):
        torch.save(self.weight, folder / "weight.pt")
        return [folder / "weight.pt"]

    def load(self, folder):
        self.weight = torch.load(folder / "weight.pt")


class Follower:
    """An engine that serves what it was sent last, but does not hear the first ``deaf`` times."""

    logprob_temperature = 1.0

    def __init__(self, weight=9.0, deaf=0):
        self.weight, self.deaf, self.version, self.loads = weight, deaf, -1, 0

    def load_weights(self, weights, version):
        ((_, sent),) = weights
        self.loads += 1
        if self.loads > self.deaf:
            self.weight = float(sent)
        self.version = version

    def generate(self, requests):
        for request in requests:
            logprobs = (-self.weight, -self.weight)
            yield Rollout(request.prompt_id, request.index, (5, 6), logprobs, "", Stop.EOS, self.version)


def make_run(folder, policy, engine):
    out, begun = io.StringIO(), []
    return SimpleNamespace(
        context=make_context(folder, out), config=config(), policy=policy, engine=engine, max_gap=1e-3, out=out,
        prompts=SimpleNamespace(probes=lambda count: [(1, 2, 3)] * count), phase=lambda text: None, trace=Trace(),
        journal=SimpleNamespace(begun=begun, begin=lambda step, _: begun.append(step), drop_before=lambda step: None),
        sampler=SimpleNamespace(state=dict, restore=lambda state: None), switch=Switch([], 5), skipped=0, saved=-1,
        progress=None,
    )  # fmt: skip


def test_the_engine_is_filled_from_the_trainer_before_anything_is_asked(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=9.0))
    check_engine(run)
    assert (run.engine.weight, run.engine.version) == (1.0, 0)
    assert "log-prob gap 0.0e+00" in run.out.getvalue()


@pytest.mark.parametrize("weight", [1.1, float("nan")])
def test_an_engine_that_reads_the_checkpoint_differently_is_refused(tmp_path, weight):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight, deaf=1))
    with pytest.raises(CascadeError, match=r"log-probs .*bound 0\.01"):
        check_engine(run)


def test_weights_that_did_not_arrive_are_sent_again(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=2.0, deaf=1))
    sync(run, 3)
    assert (run.engine.weight, run.engine.loads) == (1.0, 2)
    assert run.journal.begun == [3]
    assert re.search("WARNING: .*step 3 .* 1 per token", run.out.getvalue())
    sync(run, 4)
    assert run.engine.loads == 3, "weights that arrive are sent once"


def test_an_engine_that_goes_on_with_stale_weights_stops_the_stage(tmp_path):
    run = make_run(tmp_path, OneWeight(1.0), Follower(weight=2.0, deaf=9))
    with pytest.raises(CascadeError, match=r"twice.* version 3\b.* 3\b"):
        sync(run, 3)
    assert run.journal.begun == [], "nothing is kept of weights that are not served"


def resumed(folder, monkeypatch, step, train):
    """A run that starts from other weights than the state of ``step``, and ``train``s; returns it."""
    save(make_run(folder, OneWeight(2.0), Follower()), step)
    run = make_run(folder, OneWeight(1.0), Follower(weight=1.0))
    run.published = []
    monkeypatch.setattr(rollout_run, "finish", lambda run: run.published.append(float(run.policy.weight)))
    carry_out(run, train)
    return run


def test_after_a_resume_the_engine_serves_the_state_and_not_the_checkpoint(tmp_path, monkeypatch):
    seen = []
    run = resumed(tmp_path, monkeypatch, 3, lambda run, step: seen.append((step, run.engine.weight)))
    assert seen == [(3, 2.0)]
    assert cascade.resumed(run.out.getvalue()) == 3


def test_a_state_of_the_last_step_is_published_and_nothing_drawn(tmp_path, monkeypatch):
    run = resumed(tmp_path, monkeypatch, 4, rl.train)
    assert run.engine.loads == 1, "by the check before the first step alone"
    assert run.published == [2.0]


def test_a_damaged_state_is_passed_over_and_written_anew_when_its_step_comes(tmp_path):
    for step in (2, 4):
        save(make_run(tmp_path, OneWeight(float(step)), Follower()), step)
    (tmp_path / "state/step-000004/weight.pt").write_bytes(b"torn")
    run = make_run(tmp_path, OneWeight(1.0), Follower())
    assert resume(run) == 2
    run.policy.weight += 1
    save(run, 4)
    assert resume(make_run(tmp_path, OneWeight(1.0), Follower())) == 4


def test_a_state_that_is_there_is_not_written_twice(tmp_path):
    save(make_run(tmp_path, OneWeight(2.0), Follower()), 2)
    before = (tmp_path / "state/step-000002").stat().st_ino
    run = make_run(tmp_path, OneWeight(1.0), Follower())
    resume(run)
    save(run, 2)
    assert (tmp_path / "state/step-000002").stat().st_ino == before


def test_a_step_begins_with_its_own_learning_rate():
    begun = []
    policy = SimpleNamespace(begin_step=begun.append)
    run = SimpleNamespace(policy=policy, sampler=SimpleNamespace(state=lambda: {"at": 3}), trace=None, position=None)
    rollout_run.begin_step(run, 5)
    assert begun == [5]
    assert run.position == {"at": 3}
