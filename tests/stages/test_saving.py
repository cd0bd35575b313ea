import errno
import io
import re
import threading
from pathlib import Path

import pytest

from cascade_rl.processes import grace_s
from cascade_rl.stages import saving
from cascade_rl.stages.state_writer import Writing
from cascade_rl.store.files import read_json
from cascade_rl.training import state as states
from cascade_rl.types import CascadeError, Preempted
from tests.e2e import cascade
from tests.stages.onpolicy.test_guards import make_context
from tests.training.sharded import launch


@pytest.fixture
def context(tmp_path):
    return make_context(tmp_path, io.StringIO())


def writing(text, name="part.txt"):
    def write(folder: Path) -> states.Manifest:
        (folder / name).write_text(text)
        return states.manifest_of(folder)

    return write


def test_a_state_is_there_with_its_manifest_and_can_be_found(context):
    assert context.saver.save(4, writing("four"))
    step, folder = states.newest_valid(context.job.stage_folder.state, read_json, print)
    assert (step, (folder / "part.txt").read_text()) == (4, "four")


def test_a_full_disk_leaves_what_was_there_and_says_so(context):
    assert context.saver.save(2, writing("two"))

    def full(folder):
        (folder / "half.txt").write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not context.saver.save(4, full)
    assert [path.name for path in context.job.stage_folder.state.iterdir()] == ["step-000002"]
    assert cascade.unsaved(context.out.getvalue()) == [4]
    assert context.saver.save(4, writing("four"))


def test_other_faults_are_not_taken_for_a_full_disk(context):
    def broken(folder):
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        context.saver.save(2, broken)
    assert not list(context.job.stage_folder.state.glob("step-*"))


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_rank_is_for_all(tmp_path):
    found = launch("full_disk", tmp_path, 2)
    assert found["full"] == [False, False]
    assert found["left"] == []
    assert found["good"] == [True, True]
    assert found["manifest"] == ["rank-0.txt", "rank-1.txt"]
    assert found["whole"]
    assert found["damaged"] == ["refused", "refused"], "each rank reads its share of the files, all have the answer"


@pytest.mark.slow
def test_a_rank_that_does_not_write_its_part_is_named(tmp_path):
    found = launch("slow_rank", tmp_path, 2)
    assert found["early"] == [False, False], "a state is not there before all parts are"
    assert found["manifest"] == ["rank-0.txt", "rank-1.txt"]
    late, busy, full = found["said"]
    assert re.search(r"step 2 .*rank 1 .*\b0 s", late)
    assert re.search(r"step 3 .*rank 1 ", busy)
    assert re.search(r"step 4 .*rank 1: .*No space left", full)
    assert found["left"] == ["step-000001"]


class Held:
    """A source whose thread writes once it is ``let``; ``trained`` is what training changes meanwhile."""

    state_bytes = 8

    def __init__(self, trained="two"):
        self.trained, self.let, self.error = trained, threading.Event(), None

    def part(self, memory):
        copy = self.trained if memory is not None else None

        def write(folder):
            assert self.let.wait(60)
            if self.error:
                raise self.error
            (folder / "part.txt").write_text(self.trained if copy is None else copy)
            return states.manifest_of(folder)

        return write


def published(context):
    return sorted(path.name for path in context.job.stage_folder.state.glob("step-*"))


def test_training_goes_on_while_a_state_is_written(context):
    source, dropped = Held(), []
    context.saver.take(2, source, published=dropped.append)
    source.trained = "three"
    assert not context.saver.due(3, 100, 1e9)
    assert (published(context), dropped) == ([], []), "rollouts since the state before are still needed"
    source.let.set()
    context.saver.settle()
    assert (published(context), dropped) == (["step-000002"], [2])
    assert (context.job.stage_folder.state / "step-000002/part.txt").read_text() == "two"
    assert set(context.saver.metrics()) == {"time/save_s", "time/state_write_s"}
    assert context.saver.metrics() == {}, "told once"


def test_a_state_is_due_by_steps_or_by_time(context):
    saver = context.saver
    assert [saver.due(done, 3, 1e9) for done in range(1, 7)] == [False, False, True, False, False, True]
    assert saver.due(7, 100, 0.0)


def test_one_that_falls_due_while_another_is_written_follows_it(context):
    source = Held()
    context.saver.take(2, source)
    assert not context.saver.due(4, 2, 1e9)
    source.let.set()
    assert context.saver._writing.wait(60)
    assert context.saver.due(5, 2, 1e9)
    assert not context.saver.due(5, 2, 1e9)


def test_a_state_that_is_being_written_is_not_begun_again(context):
    source = Held()
    context.saver.take(2, source)
    context.saver.take(2, Held("other"))
    source.let.set()
    context.saver.settle()
    assert (context.job.stage_folder.state / "step-000002/part.txt").read_text() == "two"


def test_a_disk_that_fills_up_in_the_background_is_reported(context):
    source, dropped = Held(), []
    source.let.set()
    source.error = OSError(errno.ENOSPC, "No space left on device")
    context.saver.take(2, source, published=dropped.append)
    context.saver.settle()
    assert (cascade.unsaved(context.out.getvalue()), published(context), dropped) == ([2], [], [])
    source.error = None
    context.saver.take(2, source)  # asked for again, the same state is written
    context.saver.settle()
    assert published(context) == ["step-000002"]


def test_a_fault_of_ours_in_the_background_ends_the_stage(context):
    source = Held()
    source.let.set()
    source.error = KeyError("no such thing")
    context.saver.take(2, source)
    with pytest.raises(KeyError):
        context.saver.settle()
    assert published(context) == []


def test_a_host_without_memory_for_a_copy_waits_for_its_states(context, monkeypatch):
    monkeypatch.setattr(saving, "available_bytes", lambda: 8)
    source = Held()
    source.let.set()
    for step in (2, 4):
        context.saver.take(step, source)
        assert f"step-{step:06d}" in published(context)
    assert context.out.getvalue().count("memory") == 1


def asked_to_stop(context, source, step, grace_s, monkeypatch):
    """The stage is asked to stop at ``step``; returns what it says."""
    monkeypatch.setenv("CASCADE_RL_GRACE_S", str(grace_s))
    context.stop.is_set = True
    before = len(context.out.getvalue())
    with pytest.raises(Preempted):
        context.stop_if_asked(lambda: context.saver.take(step, source))
    return context.out.getvalue()[before:]


def test_a_stop_saves_within_the_grace_period(context, monkeypatch):
    source = Held()
    source.let.set()
    assert asked_to_stop(context, source, 2, 25, monkeypatch) == ""
    assert published(context) == ["step-000002"]


def test_a_stop_without_time_relies_on_the_last_state(context, monkeypatch):
    source = Held()
    source.let.set()
    context.saver.take(2, source)
    context.saver.settle()
    monkeypatch.setattr(Writing, "seconds", property(lambda self: 90.0))
    context.saver.take(3, source)
    context.saver.settle()
    said = asked_to_stop(context, source, 4, 40, monkeypatch)
    assert re.search(r"step 4 .*\b90 s .*\b37 s .*\b40 s .*step 3", said)
    assert published(context) == ["step-000002", "step-000003"]


def test_a_stop_without_time_still_waits_for_the_state_in_hand(context, monkeypatch):
    source = Held()
    monkeypatch.setattr(Writing, "seconds", property(lambda self: 90.0))
    for step in (2, 3):
        source.let.set()
        context.saver.take(step, source)
        if step == 2:
            context.saver.settle()
    said = asked_to_stop(context, source, 4, 40, monkeypatch)
    assert re.search(r"step 4 .*\b90 s .*step 3", said), "3 was published after it was found that 4 would not fit"


def test_a_stop_waits_no_longer_than_the_grace_period(context, monkeypatch):
    source = Held()
    said = asked_to_stop(context, source, 2, 3.2, monkeypatch)
    assert re.search(r"step 2 .*3\.2 s .*first step", said)
    journals = context.job.stage_folder.rollouts / "open"
    journals.mkdir(parents=True)
    (journals / "step-000001-rank-0.jsonl").touch()
    assert "rollouts" in asked_to_stop(context, source, 2, 3.2, monkeypatch)
    source.let.set()


@pytest.mark.parametrize("value", ["soon", "0", "-3", "nan", "inf"])
def test_a_grace_period_that_is_no_time_is_refused(monkeypatch, value):
    monkeypatch.setenv("CASCADE_RL_GRACE_S", value)
    with pytest.raises(CascadeError, match="CASCADE_RL_GRACE_S"):
        grace_s()
