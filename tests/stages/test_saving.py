import errno
import io
from pathlib import Path

import pytest

from cascade_rl.stages.saving import save_together
from cascade_rl.store.files import read_json
from cascade_rl.training import state as states
from tests.e2e import cascade
from tests.stages.test_guards import make_context
from tests.training.sharded import launch


@pytest.fixture
def context(tmp_path):
    return make_context(tmp_path, io.StringIO())


def writing(text):
    def write(folder: Path) -> list[Path]:
        (folder / "part.txt").write_text(text)
        return [folder / "part.txt"]

    return write


def test_a_state_is_there_with_its_manifest_and_can_be_found(context):
    assert save_together(context, 4, writing("four"))
    step, folder = states.newest_valid(context.job.place.state, read_json, print)
    assert (step, (folder / "part.txt").read_text()) == (4, "four")


def test_a_full_disk_leaves_what_was_there_and_says_so(context):
    assert save_together(context, 2, writing("two"))

    def full(folder):
        (folder / "half.txt").write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not save_together(context, 4, full)
    assert [path.name for path in context.job.place.state.iterdir()] == ["step-000002"]
    assert cascade.unsaved(context.out.getvalue()) == [4]
    assert save_together(context, 4, writing("four"))


def test_other_faults_are_not_taken_for_a_full_disk(context):
    def broken(folder):
        raise KeyError("no such thing")

    with pytest.raises(KeyError):
        save_together(context, 2, broken)
    assert not list(context.job.place.state.glob("step-*"))


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_rank_is_for_all(tmp_path):
    found = launch("full_disk", tmp_path, 2)
    assert found["full"] == [False, False]
    assert found["left"] == []
    assert found["good"] == [True, True]
    assert found["manifest"] == ["rank-0.txt", "rank-1.txt"]
    assert found["whole"]
