"""`cascade-rl diff`: two runs side by side, from hand-made results."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cascade_rl.cli.diffing import show_diff
from cascade_rl.report.compare import compare_runs
from cascade_rl.types import CascadeError
from tests.messages import mentions

ROOT = Path(__file__).parents[2]
RECIPE = """\
name: %s
model: tiny-qwen3
stages:
- {name: sft, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1.0e-3, steps: 3}
%s"""
RL = "- {name: %s, kind: rl, data: [{source: rows.jsonl}], reward: {use: 'm:s'}, learning_rate: 1e-6, steps: %d}\n"


def write_run(root, name, stages, values, benchmarks=("sums", "words"), recipe=""):
    """``stages``: (name, kind, identity, parent); ``values``: identity -> value of each benchmark, or None."""
    run = {
        "name": name, "recipe_path": f"recipes/{name}.yaml", "seed": 1, "created": "c", "updated": "u", "branch_of": None,
        "base": {"name": "model", "model": "tiny", "identity": "b0", "directory": "store/base-b0"},
        "stages": [
            {"name": n, "kind": k, "identity": i, "parent": p, "parent_identity": "p", "directory": f"store/{n}-{i}"}
            for n, k, i, p in stages
        ],
        "benchmarks": [{"name": b, "identity": f"id-{b}", "samples": 1} for b in benchmarks],
    }  # fmt: skip
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "recipe.yaml").write_text(recipe)
    for stage, identity in [("base", "b0"), *((n, i) for n, _, i, _ in stages)]:
        place = root / "store" / f"{stage}-{identity}"
        (place / "evals").mkdir(parents=True, exist_ok=True)
        (place / "stage.json").write_text(
            json.dumps({"status": "complete", "seconds": 60, "attempts": [], "config": {}})
        )
        for benchmark, value in zip(benchmarks, values.get(identity, (None,) * len(benchmarks)), strict=True):
            if value is not None:
                result = {"value": value, "stderr": 0.01, "ci95": [value - 0.02, value + 0.02], "rows": 9, "samples": 1}
                (place / "evals" / f"{benchmark}-id-{benchmark}.json").write_text(json.dumps(result))


@pytest.fixture
def root(tmp_path):
    values = {
        "b0": (0.1, 0.1),
        "s1": (0.5, 0.5),
        "m1": (0.8, 0.5),
        "w1": (0.78, 0.9),
        "w2": (0.5, 0.91),
        "m2": (0.9, 0.6),
    }
    forward = [("sft", "sft", "s1", "model"), ("math", "rl", "m1", "sft"), ("if", "rl", "w1", "math")]
    backward = [("sft", "sft", "s1", "model"), ("if", "rl", "w2", "sft"), ("math", "rl", "m2", "if")]
    write_run(tmp_path, "one", forward, values, recipe=RECIPE % ("one", RL % ("math", 5) + RL % ("if", 5)))
    write_run(tmp_path, "two", backward, values, recipe=RECIPE % ("two", RL % ("if", 5) + RL % ("math", 6)))
    return tmp_path


def test_the_facts(root):
    facts = compare_runs(root, "one", "two")
    assert [(stage["name"], stage["shared"]) for stage in facts["stages"]] == [
        ("model", True), ("sft", True), ("math", False), ("if", False),
    ]  # fmt: skip
    math = facts["stages"][2]["values"]["sums"]
    assert math == {
        "a": 80.0, "b": 90.0, "difference": 10.0, "chance": pytest.approx(2.7719), "beyond_chance": True,
    }  # fmt: skip
    assert facts["stages"][3]["values"]["words"]["beyond_chance"] is False  # 90 and 91
    assert facts["final"]["sums"]["difference"] == pytest.approx(12.0)  # after `if` in one, after `math` in the other
    assert facts["final"]["words"]["difference"] == pytest.approx(-30.0)
    assert facts["a"]["order"] == ["sft", "math", "if"]
    assert facts["b"]["seconds"] == 240
    order, *rest = facts["recipe"]
    assert "sft, math, if -> sft, if, math" in order
    assert rest == [
        'stages.if.init: "math" -> "sft"',
        'stages.math.init: "sft" -> "if"',
        "stages.math.steps: 5 -> 6",
    ]
    json.dumps(facts)


def test_what_is_shown(root):
    out = io.StringIO()
    show_diff(compare_runs(root, "one", "two"), Console(file=out, width=140))
    text = out.getvalue()
    flat = " ".join(text.split())
    assert "math 80.0 | 90.0 +10.0 50.0 | 60.0 +10.0" in flat
    assert "sft 50.0 | 50.0 same" in flat
    assert "end 78.0 | 90.0 +12.0 90.0 | 60.0 -30.0" in flat
    assert "shared" in text
    assert "stages.math.steps: 5 -> 6" in text


def test_stages_and_benchmarks_of_one_run_only(root):
    write_run(root, "three", [("sft", "sft", "s1", "model"), ("code", "rl", "c3", "sft")], {"c3": (0.3,)}, ("sums",))
    facts = compare_runs(root, "one", "three")
    assert facts["benchmarks"] == ["sums"]
    assert set(facts["not_comparable"]) == {"words"}
    assert mentions(facts["not_comparable"]["words"], "only", "one")
    assert facts["stages"][-1]["a"] is None
    (line,) = facts["recipe"]
    assert mentions(line, "runs/three/recipe.yaml")
    record = json.loads((root / "runs/two/run.json").read_text())
    record["benchmarks"][1]["identity"] = "other"
    (root / "runs/two/run.json").write_text(json.dumps(record))
    not_comparable = compare_runs(root, "one", "two")["not_comparable"]
    assert set(not_comparable) == {"words"}
    assert mentions(not_comparable["words"], "differently")
    show_diff(facts, Console(file=io.StringIO()))


def test_a_rolled_back_stage_is_not_the_end(root):
    record = json.loads((root / "runs/one/run.json").read_text())
    record["stages"][-1]["rolled_back"] = True
    (root / "runs/one/run.json").write_text(json.dumps(record))
    facts = compare_runs(root, "one", "two")
    assert facts["final"]["sums"]["a"] == 80.0
    out = io.StringIO()
    show_diff(facts, Console(file=out, width=160))
    assert mentions(out.getvalue(), "complete", "rolled")


def test_a_run_and_itself(root):
    facts = compare_runs(root, "one", "one")
    assert all(stage["shared"] for stage in facts["stages"])
    assert facts["recipe"] == []


def test_a_run_that_is_not_there(root):
    with pytest.raises(CascadeError, match="run 'none'"):
        compare_runs(root, "one", "none")


def cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cascade_rl", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_on_the_command_line(root):
    result = cli("diff", "one", "two", "--root", str(root), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["b"]["run"] == "two"
    assert "stages.math.steps: 5 -> 6" in cli("diff", "one", "two", "--root", str(root)).stdout
    result = cli("diff", "one", "tow", "--root", str(root))
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert mentions(result.stderr, "run", "'tow'", "one, two")
