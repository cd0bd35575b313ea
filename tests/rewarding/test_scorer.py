"""What a stage uses, over all kinds of rewards."""

import re
import threading
from concurrent.futures import CancelledError

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import RewardError, Scorer
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop
from tests.rewarding.conftest import wait_until

MESSAGES = ({"role": "system", "content": "s"}, {"role": "user", "content": "Q"})
PROMPT = Prompt("p", MESSAGES, {"answer": "x"})
SOURCE = """
import asyncio, time
from cascade_rl.rewarding import Score

def seen(response, completion, prompt, messages, truncated, answer, depth):
    return Score(1.0, {"seen": [response, completion, prompt, len(messages), truncated, answer, depth]})

under_way = most = 0
async def judged(response, depth=0):
    global under_way, most
    under_way += 1
    most = max(most, under_way)
    try:
        if response == "slow": await asyncio.sleep(3600)
        if response == "down": raise ConnectionError("judge is down")
        if response == "own time-out": raise TimeoutError("of its own")
        if response == "nan": return float("nan")
        if response == "stubborn":
            for _ in range(50):
                try: await asyncio.sleep(0.2)
                except asyncio.CancelledError: pass
        await asyncio.sleep(0.001)
        return Score(0.25, {"most": most, "set": {2, 1}})
    finally:
        under_way -= 1

class Relative:
    def __init__(self, scale=1.0): self.scale = scale
    def score(self, response):
        if response == "bad": raise ValueError("unreadable")
        return Score(float(len(response)), {"n": len(response)})
    def combine(self, groups):
        return [[self.scale * (s.value - min(x.value for x in g.scores)) for s in g.scores] for g in groups]

class AsyncRelative(Relative):
    def __init__(self):
        super().__init__(2.0)
        self.loop = asyncio.get_running_loop()
    async def score(self, response):
        assert asyncio.get_running_loop() is self.loop
        return float(len(response))

class NoKey:
    def __init__(self): raise OSError("no API key")
    async def score(self, response): return 1.0

class Combines:
    def __init__(self, returns): self.returns = returns
    def score(self, response): return 0.0
    def combine(self, groups):
        if self.returns == "raise": raise ValueError("cannot")
        return eval(self.returns)
"""


def rollout(text, index=0, stop=Stop.EOS):
    return Rollout("p", index, (1,), (0.0,), text, stop, 0)


@pytest.fixture
def scorer(project):
    """``scorer(name, workers=1, **keys)``, closed at the end."""
    made = []

    def make(name, workers=1, thinking=False, **keys):
        project.write(SOURCE)
        made.append(Scorer(project.config(name, **keys), [project.folder], workers, thinking))
        return made[-1]

    yield make
    for one in made:
        one.close()


def group(scorer, *texts):
    rollouts = [rollout(text, index) for index, text in enumerate(texts)]
    return Group(PROMPT, (1,), rollouts, [scorer.submit(PROMPT, r).result(60) for r in rollouts])


def values(groups):
    return [[score.value for score in group.scores] for group in groups]


@pytest.mark.parametrize(
    ("default", "own", "text", "response"),
    [
        (True, None, "no end", ""),
        (True, None, "<think>a</think>\nb", "b"),
        (False, None, "no end", "no end"),
        (True, False, "no end", "no end"),  # the row's own mode wins
        (False, True, "no end", ""),
    ],
)
def test_what_a_reward_sees(scorer, default, own, text, response):
    one = scorer("seen", thinking=default, depth=3)
    prompt = Prompt("p", MESSAGES, {"answer": "x"}, thinking=own)
    score = one.submit(prompt, rollout(text, stop=Stop.LENGTH)).result(60)
    assert score.details["seen"] == [response, text, "Q", 2, True, "x", 3]


def test_a_context_manager_that_counts(project):
    project.write(SOURCE)
    with Scorer(project.config("Relative"), [project.folder], 2, False) as one:
        assert [one.submit(PROMPT, rollout(t)).result(60).error is None for t in ("a", "bad", "b")] == [
            True,
            False,
            True,
        ]
        assert one.summary() == {"calls": 3, "timeouts": 0, "crashes": 0, "errors": 1, "restarts": 0}
    with pytest.raises(RuntimeError, match="closed"):
        one.submit(PROMPT, rollout("a"))


# --- async -----------------------------------------------------------------------------------------------------------


def test_async_scores_and_faults(scorer, project):
    one = scorer("judged", timeout_s=0.5, failure=-1.0)
    texts = ("fine", "slow", "down", "own time-out", "nan", "stubborn")
    scores = {t: one.submit(PROMPT, rollout(t)).result(60) for t in texts}
    assert (scores["fine"].value, scores["fine"].details["set"], scores["fine"].error) == (0.25, [1, 2], None)
    use = f"reward {project.module}:judged"
    assert re.fullmatch(f"{use} .* 0.5 s", scores["slow"].error)
    assert re.fullmatch(f"{use} .* 0.5 s", scores["stubborn"].error)  # though it refuses to be cancelled
    assert re.search(f"{use} .*ConnectionError: judge is down\n", scores["down"].error)
    assert "TimeoutError: of its own" in scores["own time-out"].error
    assert "returned nan" in scores["nan"].error
    assert all(scores[t].value == -1.0 for t in texts[1:])
    assert one.summary() == {"calls": 6, "timeouts": 2, "crashes": 0, "errors": 5, "restarts": 0}


@pytest.mark.parametrize(("keys", "most"), [({"concurrency": 3}, 3), ({}, 64)])
def test_concurrency_has_a_limit(scorer, keys, most):
    one = scorer("judged", **keys)
    scores = [f.result(60) for f in [one.submit(PROMPT, rollout("x")) for _ in range(200)]]
    assert max(s.details["most"] for s in scores) == most


def test_closing_lets_go_of_those_who_wait(scorer):
    one = scorer("judged", timeout_s=3600, concurrency=1)
    futures = [one.submit(PROMPT, rollout("slow")) for _ in range(3)]
    one.close()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(30)
    with pytest.raises(RuntimeError, match="closed"):
        one.submit(PROMPT, rollout("fine"))
    assert wait_until(lambda: "async-reward" not in {t.name for t in threading.enumerate()})


def test_an_async_class_is_constructed_on_its_loop(scorer):
    one = scorer("AsyncRelative")
    assert values(one.combine([group(one, "a", "aaa")])) == [[0.0, 4.0]]


def test_an_async_class_that_cannot_be_constructed(scorer):
    with pytest.raises(RewardError, match="OSError: no API key"):
        scorer("NoKey")


# --- combine ---------------------------------------------------------------------------------------------------------


def test_combine_sees_whole_groups_and_keeps_the_rest(scorer):
    one = scorer("Relative", scale=0.5)
    (first, second) = one.combine([group(one, "aa", "aaaa"), group(one, "bad", "a")])
    assert values([first, second]) == [[0.0, 1.0], [0.0, 0.5]]
    assert [s.details for s in first.scores] == [{"n": 2}, {"n": 4}]
    assert "ValueError: unreadable" in second.scores[0].error
    assert second.scores[1].error is None


def test_without_combine_groups_stay_as_they_are(scorer):
    groups = [Group(PROMPT, (1,), [rollout("a")], [Score(1.0)])]
    assert scorer("judged").combine(groups) == groups


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("raise", r"Combines.combine.*ValueError: cannot\n.*in combine"),
        ("[[1.0]]", r"\[2\].*\[1\]"),
        ("[]", r"\[2\].*\[\]"),
        ("[[1.0, float('nan')]]", r"\bnan\b"),
        ("[[1.0, None]]", "combine.*TypeError"),
        ("None", "combine.*TypeError"),
    ],
)
def test_what_combine_may_not_do(scorer, returns, message):
    one = scorer("Combines", returns=returns)
    with pytest.raises(RewardError, match=message):
        one.combine([group(one, "a", "b")])


def test_numbers_of_any_kind_from_combine(scorer):
    one = scorer("Combines", returns="[(True, 2)]")
    assert values(one.combine([group(one, "a", "b")])) == [[1.0, 2.0]]


def test_a_constructor_that_computes_too_long_is_given_up(project, monkeypatch):
    from cascade_rl.rewarding import asynchronous

    project.write("""
        import time
        class score:
            def __init__(self):
                end = time.thread_time() + 0.6
                while time.thread_time() < end: pass
            async def score(self, response): return 1.0
    """)
    monkeypatch.setattr(asynchronous, "START_COMPUTING_S", 0.2)
    with pytest.raises(RewardError, match="constructed"):
        Scorer(project.config(), [project.folder], 1, False)


def test_no_worker_scores_by_an_edited_source(tmp_path):
    """A worker that dies is started anew, and would import what the file has become by then."""
    path = tmp_path / "edited.py"
    source = "import os\ndef score(response):\n    if response == 'die': os._exit(1)\n    return %s\n"
    path.write_text(source % 1.0)
    with Scorer(RewardConfig(use="edited:score"), [tmp_path], 1, False, watched=True) as scorer:
        assert scorer.submit(PROMPT, rollout("fine")).result(60).value == 1.0
        path.write_text(source % 0.5)
        assert scorer.submit(PROMPT, rollout("fine")).result(60).value == 1.0, "the worker is the one from before"
        with pytest.raises(RewardError, match=str(path)):
            scorer.submit(PROMPT, rollout("die")).result(60)
