"""Finding a reward, and every message when it cannot be had."""

import subprocess
import sys

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import RewardError, load_reward
from cascade_rl.types import CascadeError


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("def score(response): return 0", "scor", r"'scor'.*\bscore\b"),
        ("score = 3", "score", r"\bint\b"),
        ("import no_such_package", "score", r"no_such_package.*\(.*/reward_under_test_\d+.py:1\)"),
        ("\n\n1 / 0", "score", r"ZeroDivisionError: division by zero \(.*under_test_\d+.py:3\)"),
        ("def score(:", "score", r"SyntaxError: .* \(.*under_test_\d+.py:1\)"),
        ("import json\njson.loads('{')", "score", r"JSONDecodeError: .* \(.*under_test_\d+.py:2\)"),
        ("raise SystemExit(3)", "score", "sys.exit"),
        ("class A: pass", "A", "class.*`score`"),
        ("def score(response, /): return 0", "score", "`response`.*positional-only"),
        ("class A:\n    def score(self, response, /): return 0", "A", "`response`.*positional-only"),
        ("score = dict.fromkeys", "score", "positional-only|without names"),
    ],
)
def test_what_cannot_be_loaded(project, source, name, message):
    with pytest.raises(RewardError, match=message):
        project.load(source, name=name)


def test_messages_are_for_users(project):
    assert issubclass(RewardError, CascadeError)  # shown without a stack trace
    with pytest.raises(RewardError) as caught:
        project.load("1 / 0")
    assert "\n" not in str(caught.value)
    assert f"reward '{project.module}:score'" in str(caught.value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("nowhere_at_all:score", "'nowhere_at_all'"),
        ("nowhere", "package.module:function"),
        (":score", "package.module:function"),
        ("rewards.maths:verify", r"'rewards.maths'.*\brewards.math\b"),
        ("my_reward:score", r"'my_reward'.*\bmy_rewards\b"),
    ],
)
def test_no_such_module(tmp_path, use, message):
    (tmp_path / "my_rewards.py").write_text("")
    with pytest.raises(RewardError, match=message):
        load_reward(RewardConfig(use=use), [tmp_path])


def test_a_class_is_not_constructed_by_loading(project):
    reward = project.load(
        "class A:\n    def __init__(self, model): raise OSError('no such checkpoint yet')\n    def score(self): pass",
        name="A",
        model="stage:reward-model",
    )
    with pytest.raises(RewardError, match=r"OSError: no such checkpoint yet\n.*py:2 in __init__"):
        _ = reward.function


def test_a_class_is_constructed_once(project):
    reward = project.load(
        """
        class Judge:
            def __init__(self, model, *, size=2): self.model, self.size = model, size
            def score(self, response): return len(self.model) * self.size
            def combine(self, groups): return self
        """,
        name="Judge",
        model="abc",
    )
    assert reward.function(response="x") == 6
    assert reward.combine([]) is reward.function.__self__


@pytest.mark.parametrize(
    ("source", "name", "is_async"),
    [
        ("def score(response): return 0", "score", False),
        ("async def score(response): return 0", "score", True),
        ("class A:\n    async def score(self, response): return 0", "A", True),
        ("class A:\n    @staticmethod\n    def score(response): return 0", "A", False),
        ("class A:\n    @classmethod\n    def score(cls, response): return 0", "A", False),
        ("class A:\n    async def __call__(self, response): return 0\nscore = A()", "score", True),
        ("import functools\nasync def f(response, k): return 0\nscore = functools.partial(f, k=1)", "score", True),
        ("def f(k):\n    def g(response): return k\n    return g\nscore = f(1)", "score", False),
    ],
)
def test_every_kind_of_callable(project, source, name, is_async):
    reward = project.load(source, name=name)
    assert reward.is_async is is_async
    assert "response" in reward.parameters
    assert "self" not in reward.parameters


def test_siblings_imported_late_are_found(project):
    project.write("X = 7\n", f"{project.module}_sibling")
    reward = project.load(f"def score():\n    import {project.module}_sibling as s\n    return s.X")
    assert reward.function() == 7


def test_settings_are_not_parameters(project):
    reward = project.load("def score(response): return 0", concurrency=3, memory_limit_mib=100, depth=2)
    assert (reward.settings.concurrency, reward.settings.memory_limit_mib) == (3, 100)
    assert dict(reward.settings.params) == {"depth": 2}


def test_workers_import_nothing_heavy():
    code = (
        "import sys, cascade_rl.rewarding.worker, rewards.math\n"
        "print([m for m in ('torch', 'transformers', 'pydantic', 'yaml', 'numpy', 'sympy', 'asyncio', 'math_verify')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "[]"


def test_a_reward_may_name_its_own_deadline(project):
    source = "def score(response): return 1.0\nscore.timeout_s = 77\ndef plain(response): return 1.0\n"
    assert project.load(source).settings.timeout_s == 77
    assert project.load(source, timeout_s=3).settings.timeout_s == 3
    assert project.load(source, "plain").settings.timeout_s == 10
