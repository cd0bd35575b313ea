"""Parameters by name: what a call receives, and what check says before there is one."""

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rl.rewarding.binding import GIVEN, call_arguments, check_binding, last_user_text
from cascade_rl.rewarding.loading import LoadedReward
from cascade_rl.rewarding.records import RewardSettings, ScoreCall

MESSAGES = (
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "hm"},
    {"role": "user", "content": "Q"},
)
CALL = ScoreCall("<think>t</think>\n\nA", MESSAGES, False, True, {"answer": "x", "level": 4, "prompt": "shadowed"})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("response", {"response": "A"}),
        ("completion", {"completion": "<think>t</think>\n\nA"}),
        ("prompt", {"prompt": "Q"}),  # the framework's, although the row has a column of that name
        ("messages", {"messages": MESSAGES}),
        ("truncated", {"truncated": False}),
        ("answer", {"answer": "x"}),
        ("*, answer", {"answer": "x"}),
        ("depth", {"depth": 3}),
        ("level", {"level": 4}),  # the row's, although the recipe has a key of that name
        ("missing=5", {}),
        ("answer=5", {"answer": "x"}),
        ("depth=5", {"depth": 3}),
        ("*args, answer", {"answer": "x"}),
        ("response, **rest", {"response": "A", "answer": "x", "level": 4, "depth": 3}),
        ("answer, **rest", {"answer": "x", "level": 4, "depth": 3}),
    ],
)
def test_binding(project, parameters, expected):
    reward = project.load(f"def score({parameters}): return 0", depth=3, level=1)
    assert call_arguments(reward, CALL) == expected


def test_a_row_without_a_needed_column_says_which(project):
    reward = project.load("def score(response, solution): return 0")
    with pytest.raises(TypeError, match=r"`solution`.*\(answer, level, prompt\)"):
        call_arguments(reward, CALL)


def test_keys_of_the_constructor_stay_out_of_double_star(project):
    source = "class A:\n    def __init__(self, model): pass\n    def score(self, response, **rest): return 0"
    reward = project.load(source, name="A", model="m", depth=3)
    assert call_arguments(reward, CALL) == {"response": "A", "answer": "x", "level": 4, "depth": 3}


@pytest.mark.parametrize(
    ("source", "keys", "columns", "problems"),
    [
        ("def score(response, *, answer): return 0", {}, {"answer"}, []),
        ("def score(response, answer, depth=1): return 0", {"depth": 2}, {"answer", "more"}, []),
        ("def score(answer): return 0", {"answer": 1}, set(), []),
        ("def score(**rest): return 0", {"any": 1}, set(), []),
        (
            "def score(response, answer): return 0",
            {},
            {"anwser", "id"},
            [r"needs `answer`.*\(anwser, id\).*columns: {answer: anwser}"],
        ),
        (
            "def score(response, answer): return 0",
            {},
            set(),
            ["needs `answer`.*none"],
        ),
        ("def score(depth=1): return 0", {"dept": 2}, set(), [r"`dept`.*\bdepth\b"]),
        ("def score(): return 0", {"timeout": 2}, set(), ["`timeout`.*timeout_s"]),
        ("def score(): return 0", {"xyz": 2}, set(), ["`xyz`"]),
        (
            "def score(prompt): return 0",
            {"prompt": "be brief"},
            set(),
            ["`prompt`.*framework"],
        ),
        (
            "class score:\n    def __init__(self, model): pass\n    def score(self, response): return 0",
            {"modell": 1},
            set(),
            [r"needs .*`model`.*\bmodell\b", r"`modell`.*\bmodel\b"],
        ),
        (
            "class score:\n    def __init__(self, **keys): pass\n    def score(self, response): return 0",
            {"anything": 1},
            set(),
            [],
        ),
        (
            "class score:\n    def __init__(self, k): pass\n    def score(self, k, k2): return 0",
            {"k": 1, "k2": 2},
            set(),
            [],
        ),
        ("def score(): return 0", {"concurrency": 2, "memory_limit_mib": 100}, set(), []),
    ],
)  # fmt: skip
def test_check_binding(project, source, keys, columns, problems):
    reward = project.load(source, **keys)
    found = check_binding(reward, columns)
    assert len(found) == len(problems), found
    for text, problem in zip(found, problems, strict=True):
        assert re.match(f"{project.module}:score.*{problem}", text)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((), ""),
        (({"role": "system", "content": "s"},), ""),
        (({"role": "user", "content": None},), ""),
        (({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},), "what is it?"),
    ],
)
def test_odd_prompts(messages, text):
    assert last_user_text(messages) == text


names = st.sampled_from(["response", "prompt", "truncated", "a", "b", "c", "d", "e"])


@given(
    parameters=st.dictionaries(names, st.booleans(), max_size=6),
    columns=st.sets(names),
    keys=st.sets(st.sampled_from(["a", "b", "c", "d", "e"])),
    takes_all=st.booleans(),
)
def test_what_check_accepts_can_be_called(parameters, columns, keys, takes_all):
    """check and the call agree: no problem about a needed parameter means that the call binds, and the reverse."""
    signature = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if needed else "default"
        )
        for name, needed in parameters.items()
    }
    if takes_all:
        signature["rest"] = inspect.Parameter("rest", inspect.Parameter.VAR_KEYWORD)
    settings = RewardSettings("m:f", dict.fromkeys(keys, "recipe"), 1.0, 0.0)
    reward = LoadedReward(settings, (Path(),), print, signature, None, False, False)
    call = ScoreCall("text", MESSAGES, True, False, dict.fromkeys(columns, "row"))
    problems = check_binding(reward, set(columns))
    if any("needs" in problem for problem in problems):
        with pytest.raises(TypeError):
            call_arguments(reward, call)
        return
    bound = call_arguments(reward, call)
    inspect.Signature(list(signature.values())).bind(**bound)
    for name, value in bound.items():
        if name not in GIVEN:
            assert value == ("row" if name in columns else "recipe")
    if takes_all:
        assert set(bound) >= (columns | keys) - set(GIVEN)
        assert not any("takes no" in problem for problem in problems)


def test_a_part_whose_text_is_null_says_nothing():
    from cascade_rl.rewarding.binding import last_user_text

    parts = [{"type": "text", "text": None}, {"type": "text", "text": "hi"}, {"type": "image"}]
    assert last_user_text([{"role": "user", "content": parts}]) == "hi"


FUNCTION = """
from __future__ import annotations
from typing import Literal
def score(response, *, tol: float = 0.1, mode: Literal["a", "b"] = "a", names: list[str] | None = None, free=1): return 0
"""
CLASS = """
class score:
    def __init__(self, model: str, size: int = 1, **rest: float): pass
    def score(self, response, *, size: int, strict: bool = True): return 0
"""


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        (FUNCTION, {}),
        (FUNCTION, {"tol": 1, "mode": "b", "names": None, "free": [1]}),
        (FUNCTION, {"tol": 0.5, "names": ["x"], "free": "anything"}),
        (CLASS, {"model": "stage:rm", "size": 3, "strict": False, "rest": "a name, no parameter"}),
    ],
)
def test_options_of_the_annotated_type_pass(project, source, keys):
    assert check_binding(project.load(source, **keys), set()) == []


@pytest.mark.parametrize(
    ("source", "keys", "named"),
    [
        (FUNCTION, {"tol": "a"}, "`tol` must be a number"),
        (FUNCTION, {"tol": True}, "`tol` must be a number"),
        (FUNCTION, {"tol": None}, "`tol` must be a number"),
        (FUNCTION, {"mode": "c"}, "`mode` must be one of a or b"),
        (FUNCTION, {"names": "x"}, "`names` must be a list of text, or nothing"),
        (CLASS, {"model": 3, "size": 1}, "`model` must be text"),
        (CLASS, {"model": "m", "size": "big"}, "`size` must be a whole number"),  # of both, reported once
        (CLASS, {"model": "m", "size": 1, "strict": "no"}, "`strict` must be true or false"),
        ("def score(response, tol: float = 1.0): return 0", {"toll": "a"}, "takes no `toll`"),
    ],
)
def test_an_option_of_another_type_is_one_problem(project, source, keys, named):
    (found,) = check_binding(project.load(source, **keys), set())
    assert named in found


def test_a_column_of_the_same_name_is_given_instead_of_the_option(project):
    source = "def score(response, answer: float): return 0"
    assert check_binding(project.load(source, answer="x"), {"answer"}) == []
    assert len(check_binding(project.load(source, answer="x"), set())) == 1


def test_a_trl_function_is_judged_by_what_it_is_handed(project):
    source = "def score(completions, names: list[str], **kwargs): return [0.0]"
    assert check_binding(project.load(source, names="x"), set()) == []
    (found,) = check_binding(project.load(source, names="x", conversational="no"), set())
    assert "`conversational`" in found
