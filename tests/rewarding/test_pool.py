"""Whatever a reward does, a verdict comes, nothing hangs, the next response is judged rightly, no process stays."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.process import CannotStart, WorkerProcess
from cascade_rl.rewarding.records import RewardError, RewardSettings, ScoreCall
from tests.rewarding.conftest import state, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are watched through /proc")

REWARDS = """
import os, signal, subprocess, sys, time
from pathlib import Path
from cascade_rl.types import Score

def score(response, n=0, place=None):
    if response == "prints":
        print("noise" * 50_000); sys.stdout.flush(); os.write(1, b"\\x00" * 1000); sys.stderr.write("more\\n")
    if response == "reads": return float(len(sys.stdin.read()))
    if response == "closes": os.closerange(0, 50)
    if response == "stops taking":
        for number in (signal.SIGTERM, signal.SIGINT): os.kill(os.getpid(), number)
    # hangs
    if response == "loop":
        while True: pass
    if response == "masked":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); time.sleep(3600)
    if response == "c call": return float(len(str(3 ** 10 ** 9)))
    if response == "stopped": os.kill(os.getpid(), signal.SIGSTOP)
    # crashes
    if response == "exit": os._exit(0)
    if response == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if response == "segfault":
        import ctypes; ctypes.string_at(0)
    if response == "leaves a child":
        if os.fork() == 0: time.sleep(3600)
        os._exit(1)
    if response == "starts a program":
        program = subprocess.Popen(["sleep", "3600"]); Path(place).write_text(str(program.pid)); time.sleep(3600)
    if response == "first time":
        if not Path(place).exists():
            Path(place).touch(); time.sleep(3600)
        return 0.5
    # faults
    if response == "raises": raise KeyError("column")
    if response == "quits": sys.exit(3)
    if response == "nan": return float("nan")
    if response == "none": return None
    if response == "text": return "1.0"
    if response == "memory": return float(len(bytearray(8 << 30)))
    if response == "deep": return score_deep(0)
    # odd but fine
    if response == "alarm":
        left = signal.alarm(0); signal.alarm(1000); return float(left)
    if response == "hash": return Score(1.0, {"hash": hash("a" * 10), "order": list({"a", "b", "c"})})
    if response == "large": return Score(1.0, {"text": "x" * 3_000_000})
    if response == "odd details": return Score(1.0, {"set": {3, 1}, "object": object, 5: b"x"})
    if response == "surrogate": return Score(1.0, {"text": chr(0xD800)})
    return n + float(len(response))

def score_deep(n): return score_deep(n + 1)
"""


def call(response: str, **columns) -> ScoreCall:
    return ScoreCall(response, ({"role": "user", "content": "q"},), False, False, columns)


@pytest.fixture
def pool(project):
    """``pool(workers=1, source=REWARDS, **settings)``, closed at the end."""
    made = []

    def make(workers=1, source=REWARDS, **settings):
        project.write(source)
        settings = {"params": {}, "timeout_s": 30.0, "failure": -1.0, "blocked_s": 60.0, **settings}
        made.append(RewardPool(RewardSettings(f"{project.module}:score", **settings), [project.folder], workers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def score(pool, response, **columns):
    return pool.submit(call(response, **columns)).result(120)


def fine(pool) -> bool:
    return score(pool, "four", n=1).value == 5.0


# --- Scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_scores_belong_to_their_calls_however_many_workers(pool, workers):
    one = pool(workers)
    texts = ["x" * (i * 7 % 13) for i in range(300)]
    scores = [future.result(60) for future in [one.submit(call(text, n=i)) for i, text in enumerate(texts)]]
    assert [s.value for s in scores] == [i + len(text) for i, text in enumerate(texts)]
    assert one.summary() == {"calls": 300, "timeouts": 0, "crashes": 0, "errors": 0, "restarts": 0}


def test_calls_from_many_threads(pool):
    one, values = pool(2), {}

    def ask(i):
        values[i] = [score(one, "x" * i, n=j).value for j in range(20)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert values == {i: [float(i + j) for j in range(20)] for i in range(8)}


def test_prints_cannot_forge_a_verdict(pool, capfd):
    one = pool()
    assert score(one, "prints").value == 6.0
    assert fine(one)
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise" in err
    assert "more" in err


@pytest.mark.parametrize(("response", "value"), [("reads", 0.0), ("closes", 6.0), ("stops taking", 12.0)])
def test_descriptors_and_signals_do_no_harm(pool, response, value):
    one = pool()
    assert score(one, response).value == value
    assert fine(one)
    assert one.summary()["restarts"] == 0


def test_large_messages_in_both_directions(pool):
    one = pool()
    assert score(one, "y" * 5_000_000).value == 5_000_000
    assert len(score(one, "large").details["text"]) == 3_000_000
    assert score(one, "surrogate").details["text"] == chr(0xD800)


def test_details_come_back_plain(pool):
    details = score(pool(), "odd details").details
    assert details == {"set": [1, 3], "object": "<class 'object'>", "5": "b'x'"}


def test_workers_agree_on_hashes(pool):
    one, other = pool(), pool()
    assert score(one, "hash").details == score(other, "hash").details


def test_an_alarm_left_behind_does_not_reach_the_next_call(pool):
    one = pool()
    assert [score(one, "alarm").value for _ in range(3)] == [0.0, 0.0, 0.0]


# --- Responses that hang or kill -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "mark", "counter"),
    [
        ("loop", "timeout", "timeouts"),
        ("masked", "timeout", "timeouts"),
        ("c call", "timeout", "timeouts"),
        ("stopped", "timeout", "timeouts"),
        ("exit", "crashed", "crashes"),
        ("killed", "crashed", "crashes"),
        ("segfault", "crashed", "crashes"),
        ("leaves a child", "crashed", "crashes"),  # which holds the worker's socket open
    ],
)
def test_a_response_that_hangs_or_kills_has_earned_its_failure(pool, response, mark, counter):
    one = pool(timeout_s=0.5, blocked_s=0.5)
    before = one.pids
    verdict = score(one, response)
    assert (verdict.value, verdict.details, verdict.error) == (-1.0, {mark: True}, None)
    assert one.summary() == {"calls": 1, "timeouts": 0, "crashes": 0, "errors": 0, "restarts": 2} | {counter: 1}
    assert fine(one)
    assert not set(before) & set(one.pids)
    assert [state(pid) for pid in before] == [None]  # reaped: not even a zombie


def test_it_is_tried_again_once_on_a_fresh_worker(pool, tmp_path):
    one = pool(blocked_s=0.5)
    verdict = score(one, "first time", place=str(tmp_path / "mark"))
    assert (verdict.value, verdict.details, verdict.error) == (0.5, {}, None)
    assert one.summary() == {"calls": 1, "timeouts": 0, "crashes": 0, "errors": 0, "restarts": 1}


def test_no_zombies_after_many_kills(pool):
    one = pool(2, timeout_s=5.0)
    futures = [one.submit(call(r)) for r in ["killed", "fine", "exit", "ok"] * 4]
    assert [f.result(120).value for f in futures] == [-1.0, 4.0, -1.0, 2.0] * 4
    mine = [p for p in Path("/proc").glob("[0-9]*") if _parent(p) == os.getpid()]
    assert not [p for p in mine if state(int(p.name)) == "Z"]
    assert {int(p.name) for p in mine} >= set(one.pids)


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def test_what_a_reward_started_is_killed_with_it(pool, tmp_path):
    one, place = pool(blocked_s=1.0), tmp_path / "pid"
    assert score(one, "starts a program", place=str(place)).details == {"timeout": True}
    assert wait_until(lambda: state(int(place.read_text())) in (None, "Z"))


# --- Faults of the grader --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "part"),
    [
        ("raises", r"(?s)KeyError: 'column'.*reward_under_test_\d+\.py:\d+"),
        ("quits", "SystemExit: 3"),
        ("nan", "nan"),
        ("none", "NoneType"),
        ("text", "str"),
        ("deep", "RecursionError"),
        ("memory", r"memory_limit_mib: 1024\b.*MemoryError"),
    ],
)
def test_a_fault_of_the_grader_is_an_error_not_a_zero(pool, project, response, part):
    one = pool(memory_limit_mib=1024)
    verdict = score(one, response)
    assert verdict.value == -1.0
    assert re.search(part, verdict.error)
    assert f"reward {project.module}:score" in verdict.error
    assert one.summary()["errors"] == 1
    assert fine(one)


def test_a_column_that_cannot_travel_is_an_error(pool):
    one = pool()
    assert "sent" in score(one, "x", n=lambda: 0).error
    assert fine(one)


def test_a_missing_column_is_an_error_that_names_it(pool):
    one = pool(source="def score(response, answer): return 1.0")
    assert "`answer`" in score(one, "x", n=1).error


# --- Starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def other(): pass", "'score'"),
        ("import os; os._exit(1)", "died"),
        ("class score:\n    def __init__(self): raise OSError('no key')\n    def score(self): pass", "no key"),
        ("hold = bytearray(8 << 30)\ndef score(): return 0", "MemoryError"),
    ],
)
def test_a_worker_that_cannot_start_is_reported_at_once(pool, source, message):
    with pytest.raises(RewardError, match=message):
        pool(2, source=source, memory_limit_mib=1024)


def test_no_endless_respawn(pool, tmp_path):
    """The reward loads once; when its worker is killed, it no longer does."""
    log = tmp_path / "starts"
    source = f"""
        from pathlib import Path
        log = Path({str(log)!r})
        starts = len(log.read_text()) if log.exists() else 0
        log.write_text("x" * (starts + 1))
        if starts: raise ConnectionError("the table is gone")
        def score(response):
            import os
            os._exit(1)
    """
    one = pool(source=source)
    futures = [one.submit(call("x")) for _ in range(50)]
    errors = {future.exception(60) for future in futures}
    assert len(errors) == 1  # one and the same for all
    assert isinstance(error := errors.pop(), RewardError)
    assert "ConnectionError: the table is gone" in str(error)
    assert len(log.read_text()) == 2


def test_starting_does_not_count_against_the_deadline(pool):
    one = pool(source="import time; time.sleep(1.0)\ndef score(response): return 1.0", blocked_s=0.5)
    assert score(one, "x").value == 1.0
    assert one.summary()["restarts"] == 0


def test_standing_in_line_does_not_count_against_the_deadline(pool):
    """Scoring begins when many rollouts end at once; each call has all of its time, from when a worker takes it."""
    one = pool(source="import time\ndef score(response): time.sleep(0.4); return 1.0", blocked_s=1.0)
    assert [future.result(60).value for future in [one.submit(call("x")) for _ in range(4)]] == [1.0] * 4
    assert one.summary()["restarts"] == 0, "a second try would have hidden it"


def test_starting_has_a_budget_of_its_own(project):
    project.write("import time; time.sleep(3600)")
    process = WorkerProcess(RewardSettings(f"{project.module}:score", {}, 1.0, 0.0), [project.folder])
    with pytest.raises(CannotStart, match="not ready"):
        process.get_ready(blocked_s=0.5)
    process.reap()
    process.reap()  # harmless
    assert state(process.pid) is None


def test_a_pool_made_in_a_passing_thread_lives_on(pool):
    """Linux kills a child when the thread that started it ends: it must not be the thread that made the pool."""
    made = []
    thread = threading.Thread(target=lambda: made.append(pool(2)))
    thread.start()
    thread.join(60)
    time.sleep(0.2)
    assert fine(made[0])
    assert made[0].summary()["restarts"] == 0


# --- Ending ----------------------------------------------------------------------------------------------------------


def test_closing_reaps_everything_even_in_mid_call(pool):
    one = pool(2, timeout_s=3600)
    futures = [one.submit(call("loop")) for _ in range(5)]
    assert wait_until(lambda: sum(f.running() for f in futures) == 2)
    pids = one.pids
    one.close()
    assert len(pids) == 2
    assert [state(pid) for pid in pids] == [None, None]
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)
    with pytest.raises(RuntimeError, match="closed"):
        one.submit(call("x"))
    one.close()  # harmless


def test_closing_while_workers_start(project):
    project.write(
        "import time, sys\nfrom pathlib import Path\n"
        f"mark, again = Path({str(project.folder / 'mark')!r}), Path({str(project.folder / 'again')!r})\n"
        "if mark.exists(): again.touch(); time.sleep(3600)\nmark.touch()\n"
        "def score(response): return 1.0"
    )
    settings = RewardSettings(f"{project.module}:score", {}, 5.0, 0.0)
    try:
        with RewardPool(settings, [project.folder], 1) as one:
            os.killpg(one.pids[0], signal.SIGKILL)  # the worker and its supervisor
            future = one.submit(call("x"))
            assert wait_until((project.folder / "again").exists)  # the new worker takes an hour to start
    finally:
        (project.folder / "mark").unlink()
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_cancelled_call_is_left_out(pool):
    one = pool(1, timeout_s=0.5)
    first, second, third = (one.submit(call(r)) for r in ("loop", "two", "three"))
    assert second.cancel()
    assert (first.result(60).details, third.result(60).value) == ({"timeout": True}, 5.0)
    assert one.summary()["calls"] == 2


PARENT = """
import json, os, sys, time
from pathlib import Path
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.rewarding.records import RewardSettings, ScoreCall
pool = RewardPool(RewardSettings(sys.argv[2] + ":score", {}, 3600.0, 0.0), [Path(sys.argv[1])], 3)
pool.submit(ScoreCall("loop", (), False, False, {}))
pool.submit(ScoreCall("masked", (), False, False, {}))
while len(pool.pids) < 3: time.sleep(0.01)
pool.submit(ScoreCall("x", (), False, False, {})).result(60)
print(json.dumps(pool.pids), flush=True)
if sys.argv[3] == "returns": sys.exit(0)
time.sleep(3600)
"""


@pytest.mark.parametrize("ending", ["killed", "terminated", "returns"])
def test_workers_go_with_their_parent(project, ending):
    project.write(REWARDS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(project.folder), project.module, ending],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as parent:
        pids = json.loads(parent.stdout.readline())
        assert len(pids) == 3
        if ending != "returns":
            assert all(state(pid) not in (None, "Z") for pid in pids)
            parent.send_signal(signal.SIGKILL if ending == "killed" else signal.SIGTERM)
        parent.wait(60)
    assert wait_until(lambda: all(state(pid) in (None, "Z") for pid in pids))  # Z: waits for init, not for us


def test_a_worker_without_its_parent_ends_by_the_closed_socket(project):
    """The way that is left where there is no PR_SET_PDEATHSIG."""
    project.write(REWARDS)
    process = WorkerProcess(RewardSettings(f"{project.module}:score", {}, 5.0, 0.0), [project.folder])
    process.get_ready()
    assert process.score(pickle.dumps(call("abc"))).value == 3.0
    process._channel.close()
    assert wait_until(lambda: state(process.pid) == "Z")
    process.reap()
