"""A stage process that does not leave when it is asked to."""

import subprocess
import sys

import pytest

from cascade_rl.orchestrator import supervisor
from cascade_rl.orchestrator.session import RankInfo, open_session
from cascade_rl.orchestrator.supervisor import Stopped, StopRequest, Supervisor
from tests.stages.test_rl import make_context

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(("saved", "named"), [([2, 4], r"step 4\b"), ([], "first step")])
def test_a_stop_that_saved_nothing_says_what_is_resumed(tmp_path, monkeypatch, saved, named):
    job = make_context(tmp_path / "stage").job
    for step in saved:
        (job.stage_folder.state / f"step-{step:06d}").mkdir(parents=True)
    stop = StopRequest()

    def start(*_):
        child = subprocess.Popen([sys.executable, "-c", DEAF], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()  # it is deaf by now
        stop._handle()
        return child

    monkeypatch.setattr(supervisor.Children, "start", start)
    monkeypatch.setenv("CASCADE_RL_GRACE_S", "0.2")
    session = open_session(tmp_path / "session", RankInfo(0, 1, 0, "127.0.0.1"), patience_s=20)
    with pytest.raises(Stopped, match=rf"rank 0 .*0\.2 s .*{named}"):
        Supervisor(session, stop).run_job(job)
