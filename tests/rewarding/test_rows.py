"""Rows of a file: what is scored, in which order, and what is no row."""

import json
import re

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding import Scorer
from cascade_rl.rewarding.rows import MalformedRow, parse_row, rollout_of, score_lines
from cascade_rl.rows import present
from cascade_rl.types import Stop


def scored(project, lines, thinking=True, ahead=1024):
    project.write("""
        import time
        from cascade_rl.rewarding import Score
        def score(response, n, prompt="", truncated=False):
            time.sleep(0.2 if n == 0 else 0.0)  # the first is the last to be done
            if n == 3: raise RuntimeError("broken grader")
            return Score(float(n), {"saw": [response, prompt, truncated]})
    """)
    with Scorer(project.config(), [project.folder], 2, thinking) as scorer:
        return list(score_lines(scorer, lines, ahead))


@pytest.mark.parametrize("ahead", [0, 1, 1024])
def test_in_order_whatever_takes_long_or_fails(project, ahead):
    lines = [json.dumps({"response": "</think>x", "n": n}) + "\n" for n in range(5)]
    lines[2:2] = ["\n", "{broken\n"]
    results = scored(project, lines, ahead=ahead)
    assert [r.line for r in results] == [1, 2, 4, 5, 6, 7]  # blank lines are no rows
    assert [r.value for r in results] == [0.0, 1.0, None, 2.0, None, 4.0]
    assert [r.malformed for r in results] == [False, False, True, False, False, False]
    assert re.search("line 4.*JSON", results[2].error)
    assert "broken grader" in results[4].error


def test_modes_ids_and_given_columns(project):
    rows = [
        {"id": "a", "response": "no end of thinking", "n": 1},
        {"response": "a</think>b", "n": 1, "prompt": "why?", "truncated": True},
        {"response": "all of it", "n": 1, "thinking": False},
    ]
    results = scored(project, map(json.dumps, rows))
    assert [r.id for r in results] == ["a", 2, 3]
    assert [r.details["saw"] for r in results] == [["", "", False], ["b", "why?", True], ["all of it", "", False]]
    assert scored(project, map(json.dumps, rows[:1]), thinking=False)[0].details["saw"][0] == "no end of thinking"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"\blist\b"),
        ("nonsense", "JSON"),
        ('{"answer": 1}', "`response`.*none"),
        ('{"response": 3}', r"`response`.*\bint\b"),
        ('{"response": "x", "truncated": "no"}', "`truncated`"),
        ('{"response": "x", "messages": [1]}', "`messages`"),
    ],
)
def test_what_is_no_row(line, message):
    with pytest.raises(MalformedRow, match=message):
        rollout_of(parse_row(line), "1")


def test_what_is_one():
    prompt, rollout = rollout_of({"response": "x", "prompt": "q", "answer": 3, "truncated": True, "id": 7}, "7")
    assert prompt.columns == {"prompt": "q", "answer": 3, "id": 7}
    assert prompt.messages == ({"role": "user", "content": "q"},)
    assert (rollout.text, rollout.stop) == ("x", Stop.LENGTH)


def test_a_reward_that_hangs_costs_its_row_only(project):
    project.write("""
        import time
        def score(response): time.sleep(3600 if response == "hang" else 0); return 1.0
    """)
    lines = [json.dumps({"response": f"</think>{text}"}) for text in ("a", "hang", "b")]
    config = RewardConfig(use=f"{project.module}:score", blocked_s=0.5)
    with Scorer(config, [project.folder], 2, True) as scorer:
        assert [r.value for r in score_lines(scorer, lines)] == [1.0, 0.0, 1.0]


def test_a_null_in_a_row_is_an_absent_column(project):
    """A parameter's default counts, then the recipe's key; the framework's own columns as well."""
    project.write("""
        from cascade_rl.rewarding import Score
        def score(response, n=5.0, units="none", truncated=True, prompt="", **rest):
            return Score(n, {"saw": [response, units, truncated, prompt, sorted(rest)]})
    """)
    nulls = {"n": None, "units": None, "truncated": None, "thinking": None, "messages": None, "extra": None}
    rows = [{"response": "a</think>b", "prompt": "why?", **more} for more in ({}, nulls, {**nulls, "n": 2.0})]
    with Scorer(project.config(), [project.folder], 1, True) as scorer:
        plain, null, given = score_lines(scorer, map(json.dumps, rows))
    assert plain.details["saw"] == ["b", "none", False, "why?", []]
    assert (null.value, null.details) == (plain.value, plain.details)
    assert given.value == 2.0


def test_a_null_that_the_reward_needs_is_that_rows_error(project):
    rows = [{"response": "a", "n": 1}, {"response": "b", "n": None}, {"response": "c"}, {"response": "d", "n": 4}]
    first, null, absent, last = scored(project, map(json.dumps, rows))
    assert (first.value, last.value) == (1.0, 4.0)
    assert null.error == absent.error
    assert "`n`" in null.error
    assert not null.malformed


def test_prompts_scored_from_elsewhere_lose_their_nulls_too(project):
    from cascade_rl.types import Prompt, Rollout

    project.write("def score(response, n=5.0): return n")
    with Scorer(project.config(), [project.folder], 1, True) as scorer:
        prompt, rollout = Prompt("p", (), {"n": None}), Rollout("p", 0, (), (), "x", Stop.EOS, 0)
        assert scorer.submit(prompt, rollout).result().value == 5.0


@pytest.mark.parametrize("row", ['{"response": "\\ud83d", "n": 1}', '{"response": "x", "n": 1, "id": ["\\udc00"]}'])
def test_half_a_surrogate_pair_costs_its_own_row(project, row):
    good = '{"response": "\\ud83d\\ude00", "n": 1}'  # both halves are one character
    first, odd, last = scored(project, [good, row, good])
    assert (first.value, last.value) == (1.0, 1.0)
    assert odd.malformed
    assert "line 2" in odd.error
    odd.error.encode()


HELLO = [{"role": "user", "content": "hello"}]
ROWS = [
    {"prompt": "hello"},
    {"prompt": HELLO},
    {"messages": HELLO},
    {"messages": json.dumps(HELLO)},
    {"messages": [{"from": "human", "value": "hello"}]},
    {"conversations": [{"from": "human", "value": "hello"}]},
    {"messages": [], "prompt": "hello"},
    {"messages": None, "prompt": "hello"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    {"messages": [{"role": "user", "content": 3}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
    {"messages": [*HELLO, {"role": "assistant", "content": "hi"}]},
    {"prompt": ""},
    {"prompt": 5},
    {"prompt": "hello", "images": ["a.png"]},
    {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
]


def test_a_question_is_read_as_a_stage_reads_it(project):
    """The same rows, to a reward in ``score`` and as prompts of RL: the same text, or refused in both."""
    from cascade_rl.data.refusals import Refusals
    from cascade_rl.data.sources import to_prompts
    from cascade_rl.recipe import DataSource
    from cascade_rl.rewarding.binding import last_user_text

    project.write("def score(response, prompt): return float(len(prompt))")
    lines = [json.dumps({**row, "response": "x"}) for row in ROWS]
    with Scorer(project.config(), [project.folder], 1, True) as scorer:
        found = [result.value for result in score_lines(scorer, lines)]
    assert found == [5.0] * 9 + [None] * 7
    source, stage = DataSource(source="x"), []
    for row in ROWS:
        prompts = to_prompts([present(row)], source, refusals=Refusals())
        stage.append(float(len(last_user_text(prompts[0].messages))) if prompts else None)
    assert stage == found


def test_a_row_without_a_question_can_be_scored():
    prompt, _ = rollout_of({"response": "x", "answer": 3, "messages": []}, "7")
    assert prompt.messages == ()
