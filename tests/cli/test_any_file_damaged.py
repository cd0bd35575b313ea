"""Every file of a finished store is damaged in turn: each command that reads stores ends with a result or with a message
that a user can act on, never with another exception."""

import io
import os
import shutil
from concurrent.futures import Future

import pytest
from rich.console import Console

from cascade_rl.cli.diffing import show_diff
from cascade_rl.cli.main import known_run
from cascade_rl.cli.rescoring import rescore, show
from cascade_rl.cli.showing import show_rollouts, show_status, status_of
from cascade_rl.recipe import RewardConfig
from cascade_rl.report import write_report
from cascade_rl.report.compare import compare_runs
from cascade_rl.store import Store
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.store.inspection import note_results, stage_faults
from cascade_rl.types import CascadeError, Score
from tests.cli.test_damaged_store import root  # noqa: F401
from tests.report.test_missing import no_figures  # noqa: F401


class FakeScorer:
    """Every rollout earns 1, in this process."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit_whole(self, *_):
        future = Future()
        future.set_result(Score(1.0))
        return future

    def combine(self, groups):
        return groups


@pytest.fixture
def whole(root, no_figures, monkeypatch):  # noqa: F811
    """A store with all that a run of this version leaves, its page too."""
    monkeypatch.setattr("cascade_rl.cli.rescoring.Scorer", FakeScorer)
    for name in ("rl", "other"):
        folder = Store(root).stage(name, "1")
        with publishing_checkpoint(folder) as checkpoint:
            (checkpoint / "config.json").write_text("{}")
            (checkpoint / "model.safetensors").write_bytes(b"weights")
        folder.trace.write_text('{"step": 1, "rank": 0, "spans": [["train", 0, 1]]}\n')
        note_results(folder)
    write_report(root, "r")
    return root


def rescored(root):  # noqa: F811
    config = RewardConfig(use="constant:score")
    show(Store(root), "r", "rl", config.use, rescore(Store(root), "r", "rl", config, 1))


READERS = {
    "status": lambda root: show_status(status_of(Store(root), known_run(Store(root), "r"))),  # noqa: F811
    "rollouts": lambda root: show_rollouts(Store(root), known_run(Store(root), "r"), "rl", None, 4, True),  # noqa: F811
    "score": rescored,
    "diff": lambda root: show_diff(compare_runs(root, "r", "r"), Console(file=io.StringIO())),  # noqa: F811
    "report": lambda root: write_report(root, "r"),  # noqa: F811
    "verify": lambda root: stage_faults(Store(root).stage("rl", "1"), finished=True, hashes=True),  # noqa: F811
}


def replace(path, make):
    path.unlink()
    make(path)


DAMAGE = {
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[1, {}, null]"),
    "object": lambda path: path.write_text("{}"),
    "deep": lambda path: path.write_text("[" * 5_000),
    "flipped": lambda path: path.write_bytes(bytes(b ^ (0x15 if i % 97 == 50 else 0) for i, b in enumerate(path.read_bytes()))),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: replace(path, lambda path: path.mkdir()),
    "link to itself": lambda path: replace(path, lambda path: path.symlink_to(path.name)),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_no_damaged_file_ends_a_command_in_a_trace(whole, tmp_path_factory, how):
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.suffix != ".py")
    files = [file for file in files if "other-1" not in file.parts]  # another stage of the same kind
    assert len(files) > 14
    refused = []
    for file in files:
        copy = tmp_path_factory.mktemp("copy") / "root"
        shutil.copytree(whole, copy)
        DAMAGE[how](copy / file)
        for name, read in READERS.items():
            try:
                read(copy)
            except (CascadeError, OSError) as error:  # what the command line turns into a message
                refused.append(name)
                assert str(error)
            except Exception as error:
                raise AssertionError(f"{name}, {file} {how}: {type(error).__name__}: {error}") from error
        shutil.rmtree(copy)
    # Most files are of one stage or step: a command shows the rest.
    assert refused.count("status") <= 2


@pytest.mark.parametrize("how", ["gone", "file"])
def test_no_missing_folder_ends_a_command_in_a_trace(whole, tmp_path_factory, how):
    folders = sorted(
        path.relative_to(whole) for path in whole.rglob("*") if path.is_dir() and "other-1" not in path.parts
    )
    for folder in folders:
        copy = tmp_path_factory.mktemp("copy") / "root"
        shutil.copytree(whole, copy)
        shutil.rmtree(copy / folder)
        if how == "file":
            (copy / folder).touch()
        for name, read in READERS.items():
            try:
                read(copy)
            except (CascadeError, OSError) as error:
                assert str(error)
            except Exception as error:
                raise AssertionError(f"{name}, {folder} {how}: {type(error).__name__}: {error}") from error
