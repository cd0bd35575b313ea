"""Two runs that share stages: one works on a stage at a time, and the other goes on from what came of it."""

import dataclasses
import threading

import pytest

from cascade_rl.orchestrator.run import Wishes, _carry_out, forget, set_aside
from cascade_rl.orchestrator.supervisor import StageFailed, StopRequest
from cascade_rl.store.files import write_json
from cascade_rl.store.inspection import stage_faults
from cascade_rl.store.locks import hold
from cascade_rl.types import EXIT_RESUME, CascadeError
from tests.orchestrator.test_run import complete, folder, go, plan_of  # noqa: F401


class Instant:
    """A supervisor whose jobs end at once; ``fails``: names of those that fail."""

    def __init__(self, fails=()):
        self.done, self.fails = [], fails

    def run_job(self, job):
        self.done.append((job.task, job.name))
        if job.name in self.fails:
            raise StageFailed(f"{job.name} went wrong")
        if job.task != "evaluate":
            job.stage_folder.checkpoint.mkdir(parents=True)


def carry_out(plan, supervisor, say=lambda _: None, stop=None):
    return _carry_out(plan, Wishes(), supervisor, stop or StopRequest(), say)


def held_until_waited_for(plan, name, act):
    """Hold the lock of a stage in a thread; once another run waits for it, ``act`` on the stage and let go.

    Returns what that run has to be given as ``say``, and the thread.
    """
    held, waiting, said = threading.Event(), threading.Event(), []
    stage = plan.stage(name)

    def work():
        with hold(stage.folder.lock, name, run="first"):
            held.set()
            assert waiting.wait(60)
            act(stage)

    def say(text):
        said.append(text)
        if "Waiting" in text:
            waiting.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(60)
    return say, said, thread


def test_a_stage_that_another_run_finishes_is_used(folder):  # noqa: F811
    plan, _ = go(folder)
    say, said, thread = held_until_waited_for(plan, "b", complete)
    supervisor = Instant()
    assert carry_out(plan, supervisor, say) == 0
    thread.join()
    assert supervisor.done == [("base", "model"), ("stage", "a"), ("stage", "c")]
    (told,) = [text for text in said if "Waiting" in text]
    assert "stage b" in told
    assert "'first'" in told
    assert len(plan.stage("b").folder.read()["attempts"]) == 1


@pytest.mark.parametrize("outcome", ["failed", "killed"])
def test_a_stage_left_unfinished_by_another_run_is_taken_over(folder, outcome):  # noqa: F811
    plan, _ = go(folder)

    def act(stage):
        stage.folder.begin({"name": stage.name, "inputs": {}}, {})
        if outcome == "failed":
            stage.folder.finish("failed", "failed", error="why")

    say, _, thread = held_until_waited_for(plan, "b", act)
    supervisor = Instant()
    assert carry_out(plan, supervisor, say) == 0
    thread.join()
    assert ("stage", "b") in supervisor.done
    assert [attempt["outcome"] for attempt in plan.stage("b").folder.read()["attempts"]] == [outcome, "complete"]


def test_a_stop_asked_for_while_waiting_ends_the_run(folder):  # noqa: F811
    plan, _ = go(folder)
    stop, supervisor = StopRequest(), Instant()
    with hold(plan.base.folder.lock, "base", run="first"):
        stop_at = lambda text: stop._handle() if "Waiting" in text else None  # noqa: E731
        assert carry_out(plan, supervisor, stop_at, stop) == EXIT_RESUME
    assert supervisor.done == []


def test_a_failed_stage_is_free_for_others_at_once(folder):  # noqa: F811
    plan, _ = go(folder)
    with pytest.raises(StageFailed):
        carry_out(plan, Instant(fails=["b"]))
    with hold(plan.stage("b").folder.lock, "b"):
        assert plan.stage("b").folder.status == "failed"


def test_two_runs_at_once_do_each_shared_job_once(folder):  # noqa: F811
    plans = [plan_of(folder), plan_of(folder, "name=other")]
    done = [Instant(), Instant()]
    threads = [threading.Thread(target=carry_out, args=pair) for pair in zip(plans, done, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    jobs = done[0].done + done[1].done
    assert sorted(jobs) == [("base", "model"), ("stage", "a"), ("stage", "b"), ("stage", "c")]


def test_a_stage_in_use_is_not_set_aside(folder):  # noqa: F811
    plan, _ = go(folder)
    complete(plan.stage("b"))
    with hold(plan.stage("b").folder.lock, "b", run="first"), pytest.raises(CascadeError, match="'first'"):
        set_aside(plan, "b", lambda _: None)
    assert plan.stage("b").folder.is_complete


def test_a_result_that_another_run_trains_on_is_not_set_aside(folder):  # noqa: F811
    plan, _ = go(folder)

    class Training(Instant):
        def run_job(self, job):
            super().run_job(job)
            if job.name == "b":  # which starts from a
                with pytest.raises(CascadeError, match=plan.run):
                    set_aside(plan, "a", lambda _: None)
                assert plan.stage("a").folder.is_complete

    assert carry_out(plan, Training()) == 0
    set_aside(plan, "a", lambda _: None)
    assert plan.stage("a").folder.status == "pending"


def test_two_runs_train_on_one_result_at_the_same_time(folder):  # noqa: F811
    plans = [plan_of(folder), plan_of(folder, "name=other", "stages.b.steps=5")]
    carry_out(plans[0], Instant(), lambda text: None)
    met = threading.Barrier(2)

    class Training(Instant):
        def run_job(self, job):
            super().run_job(job)
            met.wait(60)

    again = plan_of(folder, "name=third", "stages.b.steps=6")
    done = [Training(), Training()]
    threads = [threading.Thread(target=carry_out, args=pair) for pair in zip([plans[1], again], done, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [supervisor.done for supervisor in done] == [[("stage", "b")], [("stage", "b")]]


def test_a_result_set_aside_just_before_it_is_used_is_told(folder):  # noqa: F811
    plan, _ = go(folder)
    complete(plan.stage("a"))
    supervisor = Instant()

    def say(text):
        if text.startswith("[base]"):
            set_aside(plan, "a", lambda _: None)

    # As if this run had passed a already: c, which starts from it, comes first.
    late = dataclasses.replace(plan, stages=(plan.stage("c"), plan.stage("a")))
    with pytest.raises(CascadeError, match="not complete"):
        carry_out(late, supervisor, say)
    assert supervisor.done == [("base", "model")]


def test_fresh_leaves_a_stage_that_another_run_works_on(folder):  # noqa: F811
    plan, _ = go(folder)
    complete(plan.stage("b"))
    with hold(plan.stage("b").folder.lock, "b", run="first"), pytest.raises(CascadeError, match="'first'"):
        forget(plan, lambda _: None)
    assert plan.stage("b").folder.is_complete


def test_measurements_are_noted_and_missed_when_they_are_gone(folder):  # noqa: F811
    plan, _ = go(folder)
    path = plan.stage("b").folder.evals / "m-1.json"

    class Measuring(Instant):
        def run_job(self, job):
            super().run_job(job)
            if job.name == "b":
                write_json(path, {"value": 0.5, "stderr": 0.1, "ci95": [0.3, 0.7], "rows": 4, "samples": 1})

    assert carry_out(plan, Measuring()) == 0
    assert not any(str(path) in fault for fault in stage_faults(plan.stage("b").folder, finished=True))
    path.unlink()
    assert carry_out(plan, Measuring()) == 0  # a run that measures nothing forgets nothing
    (*_, fault) = stage_faults(plan.stage("b").folder, finished=True)
    assert str(path) in fault
