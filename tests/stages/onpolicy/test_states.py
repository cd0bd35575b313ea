"""States, and the beginning of a step."""

from types import SimpleNamespace

from cascade_rl.stages.onpolicy import states
from cascade_rl.stages.onpolicy.states import begin_again, begin_step, resume
from tests.builders import run_of
from tests.stages.onpolicy.one_weight import Follower, OneWeight, make_run


def save(run, step):
    """A state that is there when this returns."""
    states.save(run, step)
    run.context.saver.settle()


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


def test_a_step_begins_with_its_own_rate_and_can_begin_again():
    begun, restored, dropped = [], [], []
    run = run_of(
        policy=SimpleNamespace(begin_step=begun.append),
        sampler=SimpleNamespace(state=lambda: {"at": 3}, restore=restored.append),
        journal=SimpleNamespace(discard=dropped.append), position=None,
    )  # fmt: skip
    begin_step(run, 5)
    assert begun == [5]
    assert run.position == {"at": 3}
    begin_again(run, 5)
    assert (restored, dropped) == ([{"at": 3}], [5])
