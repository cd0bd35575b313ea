"""From the newest state to the published checkpoint."""

from types import SimpleNamespace

from cascade_rl.stages.onpolicy import publish
from tests.e2e import cascade
from tests.stages.onpolicy.one_weight import Follower, OneWeight, make_run
from tests.stages.onpolicy.test_states import save


def resumed(folder, monkeypatch, step, train=None):
    """A run that starts from other weights than the state of ``step``, and ``train``s; returns it."""
    save(make_run(folder, OneWeight(2.0), Follower()), step)
    run = make_run(folder, OneWeight(1.0), Follower(weight=1.0))
    run.published = []
    monkeypatch.setattr(publish, "publish", lambda run: run.published.append(float(run.policy.weight)))
    if train:
        monkeypatch.setattr(publish, "train", lambda run, method, step: train(run, step))
    publish.carry_out(run, SimpleNamespace())
    return run


def test_after_a_resume_the_engine_serves_the_state_and_not_the_checkpoint(tmp_path, monkeypatch):
    seen = []
    run = resumed(tmp_path, monkeypatch, 3, lambda run, step: seen.append((step, run.engine.weight)))
    assert seen == [(3, 2.0)]
    assert cascade.resumed(run.out.getvalue()) == 3


def test_a_state_of_the_last_step_is_published_and_nothing_drawn(tmp_path, monkeypatch):
    run = resumed(tmp_path, monkeypatch, 4)
    assert run.engine.loads == 1, "by the check before the first step alone"
    assert run.published == [2.0]
