"""Stage processes forked from a warm one: their ends and signals are those of a process of one's own."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cascade_rl.orchestrator.children import Children, WarmChild, child_environment, may_be_warm
from tests.e2e.cascade import children, wait_for


class Scripted:
    """The warm process's side of a child, played by the test."""

    def __init__(self):
        self.reports, self.write = os.pipe()
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.child = WarmChild(self.reports, self.process)

    def say(self, number):
        os.write(self.write, f"{number}\n".encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture
def stranger():
    """A process that signals may be sent to."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_the_exit_code_is_the_second_number(stranger):
    with Scripted() as warm:
        assert warm.child.poll() is None
        warm.say(stranger.pid)
        assert warm.child.poll() is None
        warm.say(75)
        assert (warm.child.poll(), warm.child.wait(), warm.child.returncode) == (75, 75, 75)


def test_a_signal_reaches_the_process(stranger):
    with Scripted() as warm:
        warm.say(stranger.pid)
        warm.child.terminate()
        assert stranger.wait(60) == -signal.SIGTERM
        warm.say(-signal.SIGTERM)
        assert warm.child.wait() == -signal.SIGTERM
        warm.child.kill()  # nothing is left to be killed


def test_a_signal_before_the_process_exists_is_sent_when_it_does(stranger):
    with Scripted() as warm:
        warm.child.kill()
        warm.say(stranger.pid)
        assert warm.child.poll() is None
        assert stranger.wait(60) == -signal.SIGKILL


def test_the_end_of_the_warm_process_is_the_end_of_its_child(stranger):
    with Scripted() as warm:
        warm.say(stranger.pid)
        warm.process.kill()
        os.close(warm.write)
        assert warm.child.wait() == -signal.SIGKILL


def test_fresh_imports_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("CASCADE_RL_WARM", "0")
    assert not may_be_warm()


@pytest.mark.slow
@pytest.mark.skipif(not may_be_warm(), reason="stage processes are fresh on a machine with a GPU")
def test_jobs_are_forked_one_after_another_and_die_with_their_parents(tmp_path):
    """A job that fails, one that is killed, one whose warm process is killed; then one that is done by a new one."""
    folder = tmp_path / "stage"
    job = {
        "task": "base", "run": "r", "name": "model", "identity": "0" * 12, "folder": str(folder), "seed": 1,
        "recipe_path": str(tmp_path / "r.yaml"), "model": "nothing-like-it", "template": {}, "dtype": "float32",
    }  # fmt: skip
    environment = {**child_environment(0, 1, 0, "127.0.0.1", 29500), "CASCADE_RL_THREADS": "1"}
    (tmp_path / "bad.json").write_text(json.dumps(job))
    (tmp_path / "good.json").write_text(
        json.dumps({**job, "model": "tiny-qwen3", "model_args": {"hidden_size": 64, "layers": 1}})
    )
    started = Children(tmp_path)
    try:
        failed = started.start(tmp_path / "bad.json", tmp_path / "bad-outcome.json", environment)
        assert failed.wait() == 1
        assert "nothing-like-it" in json.loads((tmp_path / "bad-outcome.json").read_text())["message"]

        killed = started.start(tmp_path / "good.json", tmp_path / "outcome.json", environment)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert not (folder / "checkpoint").exists()

        orphan = started.start(tmp_path / "good.json", tmp_path / "outcome.json", environment)
        started._warm._process.kill()
        assert orphan.wait() == -signal.SIGKILL
        wait_for(lambda: not children(os.getpid()))

        done = started.start(tmp_path / "good.json", tmp_path / "outcome.json", environment)
        assert done.wait() == 0
        assert (folder / "checkpoint/model.safetensors").is_file()
        assert not (tmp_path / "outcome.json").exists()
    finally:
        started.close()
    assert not children(os.getpid())
