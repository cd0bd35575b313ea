"""What a reward started ends with its worker and with the trainer, wherever it moved to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.records import RewardSettings, ScoreCall
from tests.rewarding.conftest import state, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2) is Linux")

REWARDS = """
import os, signal, subprocess, time
from pathlib import Path

KINDS = 4
def live(folder):
    (Path(folder) / str(os.getpid())).touch()
    while True: signal.pause()

def child(folder):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    live(folder)

def child_in_a_session_of_its_own(folder):
    os.setsid()
    live(folder)

def daemon(folder):
    os.setsid()
    if os.fork() == 0: live(folder)

def score(response, folder):
    for start in (child, child_in_a_session_of_its_own, daemon):
        if os.fork() == 0:
            try: start(folder)
            finally: os._exit(0)
    program = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    (Path(folder) / str(program.pid)).touch()
    while len(os.listdir(folder)) % KINDS: time.sleep(0.01)
    if response == "dies": os.kill(os.getpid(), signal.SIGKILL)
    if response == "waits": time.sleep(3600)
    return 1.0
"""
KINDS = 4
TRAINER = """
import os, sys, time
from pathlib import Path
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.records import RewardSettings, ScoreCall
project, module, response, folder = sys.argv[1:]
pool = RewardPool(RewardSettings(f"{module}:score", {}, 3600.0, 0.0), [Path(project)], 1)
answer = pool.submit(ScoreCall(response, (), False, False, {"folder": folder}))
if response == "returns": answer.result(120)
while len(os.listdir(folder)) < 4: time.sleep(0.01)
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def started(project, tmp_path):
    """A folder where each process that the reward starts leaves a file named by its pid."""
    project.write(REWARDS)
    folder = tmp_path / "started"
    folder.mkdir()
    yield folder
    for pid in pids(folder):
        if state(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


@pytest.mark.parametrize("response", ["waits", "returns"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_trainer(project, started, response, number):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(project.folder), project.module, response, str(started)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as trainer:
        assert trainer.stdout.readline() == "ready\n"
        running = pids(started)
        assert len(running) == KINDS
        assert all(state(pid) not in (None, "Z") for pid in running)
        trainer.send_signal(number)
        trainer.wait(60)
    assert wait_until(lambda: all(state(pid) is None for pid in running))


def test_nothing_outlives_a_worker_that_dies(project, started):
    settings = RewardSettings(f"{project.module}:score", {}, 60.0, -1.0)
    with RewardPool(settings, [project.folder], 1) as pool:
        call = ScoreCall("dies", (), False, False, {"folder": str(started)})
        assert pool.submit(call).result(120).details == {"crashed": True}
        assert len(pids(started)) == 2 * KINDS, "it was tried twice"
        assert wait_until(lambda: all(state(pid) is None for pid in pids(started)))
