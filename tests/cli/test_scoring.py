"""`cascade-rl score`: over a file, and over what a stage has stored."""

import json

import pytest

from cascade_rl.orchestrator.run import Wishes, prepare
from cascade_rl.recipe import load_recipe
from cascade_rl.rollout.archive import rows_of, write_rollouts
from cascade_rl.store import Store
from cascade_rl.types import Group, Prompt, Rollout, Score, Stop
from tests.cli.test_cli import QUICKSTART, ROOT, cli
from tests.messages import mentions

ROWS = [
    {"id": "right", "response": "<think>x</think>\\boxed{2}", "answer": "2"},
    {"response": "\\boxed{2}", "answer": "2"},
    {"response": "</think>\\boxed{3}", "answer": ""},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "broken\n")
    return str(path)


def test_a_file(rows):
    result = cli("score", "rewards.math:verify", rows, "--workers", "1")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [set(line) for line in lines] == [{"id", "value", "details", "error"}] * 4
    assert [(line["id"], line["value"]) for line in lines] == [("right", 1.0), (2, 0.0), (3, None), (4, None)]
    assert mentions(lines[2]["error"], "answer", "empty")
    assert mentions(result.stderr, f"{rows}:4", "JSON")
    assert mentions(result.stderr, "2 rows", "mean 0.5000", "1 malformed", "1 errors")


def test_instruct_mode_scores_the_whole_text(rows):
    lines = cli("score", "rewards.math:verify", rows, "--set", "mode=instruct").stdout.splitlines()
    assert json.loads(lines[1])["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rewards.math:verfy", "ROWS"), "'verfy' verify"),
        (("rewards.math:verify", "none.jsonl"), "none.jsonl file"),
        (("rewards.math:verify", "ROWS", "--set", "tolerance=1"), "`tolerance`"),
        (("rewards.math:verify", "ROWS", "--set", "timeout_s=soon"), "timeout_s number 'soon'"),
        (("rewards.math:verify", "ROWS", "--set", "mode=loud"), "mode thinking instruct"),
        (("rewards.math:verify", "ROWS", "--set", "use=other"), "use first"),
        (("rewards.math:verify", "ROWS", "--set", "timeout_s"), "key = value"),
        (("rewards.math:nesting", "ROWS"), "`text` column"),
        (("rewards.math:verify",), "either --run"),
        (("rewards.math:verify", "ROWS", "--run", "x", "--stage", "y"), "either --run"),
        (("rewards.math:verify", "--run", "x", "--stage", "y"), "run 'x'"),
    ],
)
def test_slips(rows, tmp_path, arguments, words):
    result = cli("score", *(rows if a == "ROWS" else a for a in arguments), "--root", str(tmp_path))
    assert result.returncode == 1
    assert mentions(result.stderr, *words.split()), result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def run(tmp_path):
    """A run whose math-rl has two steps of two groups in the store: answers 1 and 2, each asked of two rollouts."""
    plan = prepare(load_recipe(ROOT / QUICKSTART), Store(tmp_path), Wishes(), 1, lambda _: None)
    folder = plan.stage("math-rl").folder
    folder.begin({"name": "math-rl", "config": {"overlong": "penalise"}}, {})
    for step in (1, 2):
        groups = []
        for answer in ("1", "2"):
            prompt = Prompt(f"p{answer}", ({"role": "user", "content": "?"},), {"answer": answer})
            texts = ["</think>\\boxed{1}", "</think>\\boxed{2} and more"]
            rollouts = [Rollout(prompt.id, i, (5, 6), (0.0, 0.0), text, Stop.EOS, 0) for i, text in enumerate(texts)]
            rollouts.append(Rollout(prompt.id, 2, (5,), (0.0,), texts[0], Stop.LENGTH, 0))
            scores = [Score(float(answer in text)) for text in texts]
            groups.append(Group(prompt, (1,), rollouts, [*scores, Score(0.0, {"truncated": True})]))
        write_rollouts(folder.rollouts, step, rows_of(groups, step))
    return tmp_path


def test_the_same_reward_changes_nothing(run):
    result = cli("score", "rewards.math:verify", "--run", "quickstart", "--stage", "math-rl", "--root", str(run))
    assert result.returncode == 0, result.stderr
    flat = [line.split() for line in result.stdout.splitlines()]
    assert ["all", "12", "0.333", "->", "0.333", "0%", "->", "0%", "0.0%", "0"] in flat


def test_another_reward_shows_what_would_change(run):
    (run / "mine.py").write_text("def long(response, *, answer): return 1.0 if 'more' in response else 0.5\n")
    arguments = ("--run", "quickstart", "--stage", "math-rl", "--root", str(run))
    result = cli("score", "mine:long", *arguments, cwd=run)
    assert result.returncode == 0, result.stderr
    flat = [line.split() for line in result.stdout.splitlines()]
    # Of three, the truncated one fails whatever the reward: (0.5 + 1 + 0) / 3. Changed: 1 -> 0.5, 0 -> 1 and 0 -> 0.5.
    assert ["all", "12", "0.333", "->", "0.500", "0%", "->", "0%", "50.0%", "0"] in flat
    assert "0 -> 1  step 1, p1 #1" in result.stdout
    (run / "mine.py").write_text("def same(response): return 1.0\n")
    flat = [line.split() for line in cli("score", "mine:same", *arguments, cwd=run).stdout.splitlines()]
    assert ["1", "6", "0.333", "->", "0.667", "0%", "->", "0%", "33.3%", "0"] in flat


def test_stages_without_rollouts(run):
    result = cli("score", "rewards.math:verify", "--run", "quickstart", "--stage", "sft-1", "--root", str(run))
    assert mentions(result.stderr, "sft-1", "quickstart", "rollouts")
    result = cli("score", "rewards.math:verify", "--run", "quickstart", "--stage", "x", "--root", str(run))
    assert mentions(result.stderr, "'x'", "sft-1, sft-2, reward-model, rlhf, if-rl, math-rl")


def test_rollouts_are_looked_at_with_the_worst_first(run):
    result = cli("rollouts", "quickstart", "math-rl", "--worst", "--limit", "5", "--root", str(run))
    assert result.returncode == 0, result.stderr
    heads = [line for line in result.stdout.splitlines() if line.startswith("---")]
    assert [line.split("score ")[1].split()[0] for line in heads] == ["0", "0", "0", "0", "1"]
    assert all(line.startswith("--- step 2  p") for line in heads), "the last step, unless another is asked for"
    assert "> ?\n</think>\\boxed{2} and more" in result.stdout  # the prompt and the completion of the row
    assert 'details: {"truncated": true}' in result.stdout


def test_odd_texts_and_nulls_cost_their_own_row(tmp_path):
    (tmp_path / "odd.py").write_text("def score(response, n=2.0): return n\n")
    rows = ['{"response": "</think>x", "n": null}', '{"response": "</think>\\ud83d", "n": 1, "id": "\\udc00"}',
            '{"response": "</think>\\ud83d\\ude00", "n": 1.0}']  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    result = cli("score", "odd:score", "rows.jsonl", cwd=tmp_path)
    assert [json.loads(line)["value"] for line in result.stdout.splitlines()] == [2.0, None, 1.0]
    assert "rows.jsonl:2" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_column_that_is_null_or_absent_at_first_is_no_slip(tmp_path):
    (tmp_path / "late.py").write_text("def score(response, answer): return float(response == answer)\n")
    for odd in ({"response": "a", "answer": None}, {"response": "a", "source": "x"}):
        rows = [odd] * 150 + [{"response": "</think>b", "answer": "b"}]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = cli("score", "late:score", "rows.jsonl", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert [json.loads(line)["value"] for line in result.stdout.splitlines()] == [None] * 150 + [1.0]


def test_bytes_that_are_not_utf_8_cost_their_own_row(tmp_path):
    (tmp_path / "plain.py").write_text("def score(response): return 1.0\n")
    lines = [b'{"response": "a"}', b'{"response": "\xed\xa0\xbd"}', b'{"response": "\xff"}', b'{"response": "b"}']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    result = cli("score", "plain:score", "rows.jsonl", cwd=tmp_path)
    assert [json.loads(line)["value"] for line in result.stdout.splitlines()] == [1.0, None, None, 1.0]
    assert mentions(result.stderr, "rows.jsonl:2", "rows.jsonl:3", "UTF-8")
