import textwrap

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import RewardError, ScoreCall, as_score, check_binding, fingerprint, load_reward
from cascade_rl.rewarding.response import response_text
from cascade_rl.types import Score


@pytest.fixture
def load(tmp_path, request):
    module = f"reward_{abs(hash(request.node.nodeid))}"

    def make(source, name="score", **keys):
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        return load_reward(RewardConfig(use=f"{module}:{name}", **keys), [tmp_path])

    make.module, make.folder = module, tmp_path
    return make


CALL = ScoreCall(
    "<think>t</think>\n\nA", ({"role": "user", "content": "Q"},), False, True, {"answer": "x", "response": "shadowed"}
)


def test_parameters_bind_by_name(load):
    reward = load("def score(response, completion, prompt, truncated, answer, depth, extra=5): return 0", depth=3)
    assert reward.arguments(CALL) == {
        "response": "A", "completion": "<think>t</think>\n\nA", "prompt": "Q", "truncated": False, "answer": "x", "depth": 3,
    }  # fmt: skip
    assert check_binding(reward, {"answer"}) == []


def test_what_does_not_bind_is_said(load):
    reward = load("def score(response, answer, depth=1): return 0", dept=3)
    missing, unknown = check_binding(reward, {"anwser"})
    assert "needs `answer`" in missing
    assert "columns: {answer: anwser}" in missing
    assert "takes no `dept`; did you mean depth?" in unknown


def test_double_star_takes_everything(load):
    reward = load("def score(response, **rest): return 0", any_key=1)
    assert check_binding(reward, set()) == []
    assert reward.arguments(CALL)["any_key"] == 1


def test_classes_take_recipe_keys_in_their_constructor(load):
    reward = load(
        """
        class Judge:
            def __init__(self, model): self.model = model
            def score(self, response): return len(self.model)
            def combine(self, groups): return []
        """,
        name="Judge",
        model="abc",
    )
    assert reward.function(**reward.arguments(CALL)) == 3
    assert reward.combine is not None
    assert check_binding(reward, set()) == []


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("def score(response): return 0", "scor", "did you mean score"),
        ("score = 3", "score", "is int, not something that can be called"),
        ("import no_such_package", "score", "needs 'no_such_package', which is not installed"),
        ("1 / 0", "score", "importing it failed: ZeroDivisionError"),
        ("class A: pass", "A", "without a method `score`"),
        (
            "class A:\n    def __init__(self): raise OSError('x')\n    def score(self): pass",
            "A",
            "cannot be constructed",
        ),
    ],
)
def test_what_cannot_be_loaded(load, source, name, message):
    with pytest.raises(RewardError, match=message):
        load(source, name=name)


def test_no_such_module(tmp_path):
    with pytest.raises(RewardError, match="no module 'nowhere'"):
        load_reward(RewardConfig(use="nowhere:score"), [tmp_path])
    with pytest.raises(RewardError, match="must look like"):
        load_reward(RewardConfig(use="nowhere"), [tmp_path])


def test_the_fingerprint_follows_the_source_and_its_neighbours(load):
    (load.folder / "neighbour.py").write_text("X = 1\n")
    source = "import neighbour\ndef score(response): return neighbour.X\n"
    before = fingerprint(load(source))
    assert fingerprint(load(source)) == before
    (load.folder / "neighbour.py").write_text("X = 2\n")
    assert fingerprint(load(source)) != before


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), [1]])
def test_scores_must_be_finite_numbers(value):
    with pytest.raises((TypeError, ValueError), match="reward r:f"):
        as_score(value, "r:f")


def test_numbers_become_scores():
    assert as_score(True, "r").value == 1.0
    assert as_score(Score(0.5, {"a": 1}), "r").details == {"a": 1}


@pytest.mark.parametrize(
    ("completion", "thinking", "expected"),
    [
        ("<think>\nx\n</think>\n\nA", True, "A"),
        ("never ends", True, ""),
        ("plain", False, "plain"),
        ("a</think>b</think>c", True, "c"),
        ("<think>x</think>y", False, "y"),
    ],
)
def test_response_text(completion, thinking, expected):
    assert response_text(completion, thinking) == expected
