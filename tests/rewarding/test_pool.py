"""Whatever a reward does, its verdict comes, nothing hangs, and no process stays behind."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import RewardError, Scorer
from cascade_rl.rewarding.pool import RewardPool
from cascade_rl.types import Group, Prompt, Rollout, Stop

PROMPT = Prompt("p", ({"role": "user", "content": "q"},), {"n": 3})
REWARDS = """
import os, signal, sys, time

def plain(response, n): return n + len(response)
def prints(response):
    print("noise" * 1000); sys.stdout.flush(); os.write(1, b"\\x00" * 100); return 1.0
def moody(response):
    if response == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
        while True: pass
    if response == "bigint": return float(len(str(9 ** 9 ** 9)))
    if response == "exit": os._exit(0)
    if response == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if response == "raise": raise KeyError("column")
    if response == "nan": return float("nan")
    if response == "memory": return float(len(bytearray(8 << 30)))
    if response == "close": os.close(3); os.close(4); return 1.0
    return 1.0
async def judged(response):
    import asyncio
    if response == "slow": await asyncio.sleep(60)
    if response == "down": raise ConnectionError("judge is down")
    return 0.25
class Relative:
    def score(self, response): return float(len(response))
    def combine(self, groups):
        return [[s.value - min(x.value for x in g.scores) for s in g.scores] for g in groups]
"""


def rollout(text, index=0):
    return Rollout("p", index, (1,), (0.0,), text, Stop.EOS, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards")
    (path / "pool_rewards.py").write_text(textwrap.dedent(REWARDS))
    return path


def scorer(folder, name, workers=1, **keys):
    return Scorer(RewardConfig(use=f"pool_rewards:{name}", **keys), [folder], workers, thinking_default=False)


def test_order_of_workers_does_not_matter(folder):
    texts = ["x" * (i % 7) for i in range(200)]
    with scorer(folder, "plain", workers=3) as pool:
        values = [f.result(30).value for f in [pool.submit(PROMPT, rollout(t)) for t in texts]]
    assert values == [3 + len(t) for t in texts]


def test_prints_cannot_forge_a_verdict(folder):
    with scorer(folder, "prints") as pool:
        assert pool.submit(PROMPT, rollout("x")).result(30).value == 1.0


@pytest.mark.parametrize(
    ("text", "mark"), [("hang", "timeout"), ("bigint", "timeout"), ("exit", "crashed"), ("kill", "crashed")]
)
def test_a_response_that_hangs_or_kills_has_earned_its_failure(folder, text, mark):
    with scorer(folder, "moody", timeout_s=0.7, failure=-1.0) as pool:
        score = pool.submit(PROMPT, rollout(text)).result(60)
        assert (score.value, dict(score.details), score.error) == (-1.0, {mark: True}, None)
        assert pool.submit(PROMPT, rollout("fine")).result(60).value == 1.0  # and the pool goes on
        assert pool._backend.counts["restarts"] == 2  # tried again once on a fresh worker


@pytest.mark.parametrize(
    ("text", "part"), [("raise", "KeyError: 'column'"), ("nan", "must be finite"), ("memory", "MemoryError")]
)
def test_a_fault_of_the_grader_is_an_error_not_a_zero(folder, text, part):
    with scorer(folder, "moody") as pool:
        score = pool.submit(PROMPT, rollout(text)).result(60)
    assert part in score.error
    assert "pool_rewards" in score.error


def test_a_reward_that_cannot_load_says_so_at_once(folder):
    with pytest.raises(RewardError, match="has no 'nothing'"):
        scorer(folder, "nothing")


def test_async_rewards_and_their_faults(folder):
    with scorer(folder, "judged", timeout_s=0.5) as pool:
        futures = {t: pool.submit(PROMPT, rollout(t)) for t in ("fine", "slow", "down")}
        assert futures["fine"].result(30).value == 0.25
        assert "gave no answer in 0.5 s" in futures["slow"].result(30).error
        assert "judge is down" in futures["down"].result(30).error


def test_combine_sees_whole_groups(folder):
    with scorer(folder, "Relative") as pool:
        rollouts = [rollout("a", 0), rollout("aaa", 1)]
        scores = [pool.submit(PROMPT, r).result(30) for r in rollouts]
        (group,) = pool.combine([Group(PROMPT, (1,), rollouts, scores)])
    assert [s.value for s in group.scores] == [0.0, 2.0]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds=20.0):
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def test_closing_reaps_everything_even_in_mid_call(folder):
    pool = RewardPool(RewardConfig(use="pool_rewards:moody", timeout_s=60), [folder], 2)
    from cascade_rl.rewarding.loading import ScoreCall

    for _ in range(2):
        pool.submit(ScoreCall("hang", PROMPT.messages, False, False, {}))
    deadline = time.monotonic() + 30
    while len(pool.pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = pool.pids
    pool.close()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # not even zombies


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses /proc")
def test_workers_die_with_a_killed_parent(folder):
    code = (
        "import sys, time; from pathlib import Path; from cascade_rl.recipe import RewardConfig\n"
        "from cascade_rl.rewarding.pool import RewardPool\n"
        "p = RewardPool(RewardConfig(use='pool_rewards:plain'), [Path(sys.argv[1])], 1)\n"
        "print(*p.pids, flush=True); time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert pids
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pids)
