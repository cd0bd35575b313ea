"""Killed, stopped or starved at every place of a step, a run that is started again ends in the same weights.

Each scenario is one RL stage (8 steps, states every 2) that is struck once per step, each time at another place, and
started again until it ends. The SFT stages before it are those of an undisturbed run, which is also what it is compared
with.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e import cascade

pytestmark = pytest.mark.slow
INJECT = Path(__file__).parent / "inject"
PLACES = ["sync", "generate", "reward", "pack", "forward", "step", "record", "save"]
SAVED = 5
"""A state is saved after steps 2, 4, 6 and 8: after the step that begins as step 5 of 0 to 7, for one."""


@pytest.fixture
def prepared(undisturbed, tmp_path):
    """A root with the SFT stages done."""
    cascade.copy_fine_tuned(undisturbed, tmp_path)
    (tmp_path / "marks").mkdir()
    return tmp_path


def start(root, faults, *arguments, launcher=(), **environment):
    """One start with ``faults`` lying in wait; returns (exit code, what it printed)."""
    before = len((root / "output.txt").read_text()) if (root / "output.txt").exists() else 0
    with open(root / "output.txt", "a") as output:
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "cascade_rl", cascade.RECIPE, "--root", str(root), *cascade.NO_BENCHMARKS, *arguments],
            cwd=cascade.REPOSITORY, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**cascade.environment(), "PYTHONPATH": f"{INJECT}:{cascade.REPOSITORY}",
                 "CASCADE_TEST_FAULTS": json.dumps(faults), "CASCADE_TEST_MARKS": str(root / "marks"), **environment},
        )  # fmt: skip
    return_code = _wait(process)
    return return_code, (root / "output.txt").read_text()[before:]


def _wait(process):
    try:
        return process.wait(300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def until_done(root, faults, expected_codes, *arguments, **keys):
    """Start again and again; returns everything that was printed. Each start but the last ends by a fault."""
    outputs = []
    for _ in range(len(faults) + 1):
        code, output = start(root, faults, *arguments, **keys)
        outputs.append(output)
        if code == 0:
            break
        assert code in expected_codes, output
    assert code == 0, "\n".join(outputs)
    assert len(list((root / "marks").iterdir())) == len(faults), "a fault did not strike"
    return outputs


def same_as_undisturbed(root, undisturbed):
    assert cascade.weights(root) == cascade.weights(undisturbed)
    assert cascade.metrics(root, "math-rl") == cascade.metrics(undisturbed, "math-rl")
    assert not list(root.rglob("*.tmp*"))


def faults_at(places, action):
    """One for each step from 0 on, in the order in which they strike. ``save`` is within a state's writing, so it needs a
    step after which there is one: it strikes at ``SAVED`` wherever it stands."""
    steps = [SAVED if place == "save" else step for step, place in enumerate(places)]
    return [{"place": place, "step": step, "action": action} for place, step in zip(places, steps, strict=True)]


def test_a_rank_killed_at_every_place_of_a_step(undisturbed, prepared):
    outputs = until_done(prepared, faults_at([*PLACES[:SAVED], "save", *PLACES[SAVED:-1]], "kill"), {1})
    assert sum("ended by SIGKILL" in output for output in outputs) == len(PLACES)
    same_as_undisturbed(prepared, undisturbed)


def test_stopped_where_a_stop_has_something_to_keep(undisturbed, prepared):
    """SIGTERM, as before a pre-emption: exit code 75, and the same command goes on. Rollouts under way, scores under way,
    gradients of half a step, and a state that is being written."""
    until_done(prepared, faults_at(["generate", "reward", "forward", "save"], "term"), {75})
    same_as_undisturbed(prepared, undisturbed)


def test_the_engine_dies(undisturbed, prepared):
    outputs = until_done(prepared, [{"place": "engine", "step": 3, "action": "raise"}], {1})
    assert "EngineCore died" in outputs[0]
    assert "Traceback" not in outputs[0]
    same_as_undisturbed(prepared, undisturbed)


def test_the_disk_is_full_while_a_state_is_saved(undisturbed, prepared):
    """Saving pauses with a warning; the run itself goes on to its end."""
    outputs = until_done(prepared, [{"place": "save", "step": SAVED, "action": "disk"}], {1})
    assert len(outputs) == 1
    assert 6 in cascade.unsaved(outputs[0])
    same_as_undisturbed(prepared, undisturbed)


TWO_RANKS = ("-m", "accelerate.commands.launch", "--config_file", "launch/accelerate/cpu-2.yaml")


def test_one_of_two_ranks_killed_while_it_generates_and_the_other_while_it_trains(
    undisturbed, prepared, tmp_path_factory
):
    """Two ranks: compared with two undisturbed ones, since sums over ranks round differently."""
    whole = tmp_path_factory.mktemp("whole")
    shutil.copytree(prepared, whole, dirs_exist_ok=True)
    code, output = start(whole, [], launcher=TWO_RANKS)
    assert code == 0, output
    faults = [
        {"place": "generate", "step": 1, "action": "kill", "rank": 1},
        {"place": "forward", "step": 2, "action": "kill", "rank": 0},
    ]
    until_done(prepared, faults, {1}, launcher=TWO_RANKS)
    same_as_undisturbed(prepared, whole)


def test_a_reward_worker_is_killed_from_outside(undisturbed, prepared):
    """Its call is made again on another worker: nobody earns a zero for it."""
    code, output = start(prepared, [], "--set", "stages.math-rl.reward.use=tests.e2e.faults.rewards:murdered_once",
                         "--set", "name=murder", CASCADE_TEST_MURDER=str(prepared / "murdered"))  # fmt: skip
    assert code == 0, output
    assert (prepared / "murdered").exists()
    assert cascade.metrics(prepared, "math-rl", "murder") == cascade.metrics(undisturbed, "math-rl")


class Judge(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        from tests.e2e.digits import share

        text = json.dumps(share(body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_the_network_of_a_judge_fails(undisturbed, prepared):
    """No answer is no zero: the stage stops, says so, and goes on once the judge is back."""
    arguments = ("--set", "stages.math-rl.reward.use=tests.e2e.faults.rewards:judged", "--set", "name=judged")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    port = server.server_address[1]
    server.server_close()
    code, output = start(prepared, [], *arguments, CASCADE_TEST_JUDGE=str(port))
    assert code == 1
    assert "max_error_rate" in output
    server = ThreadingHTTPServer(("127.0.0.1", port), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code, output = start(prepared, [], *arguments, CASCADE_TEST_JUDGE=str(port))
    finally:
        server.shutdown()
        server.server_close()
    assert code == 0, output
    assert cascade.weights(prepared, "judged")["math-rl"] == cascade.weights(undisturbed)["math-rl"]
