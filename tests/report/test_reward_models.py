"""A reward model in the report: what was measured on pairs, held-out ones first."""

import json
from pathlib import Path

import pytest

from cascade_rl.evals.pairs import JudgedPair, aggregate_pairs
from cascade_rl.report import write_report
from cascade_rl.report.load import load_run
from cascade_rl.report.reward_models import pair_results


@pytest.fixture
def root(tmp_path):
    run = {
        "name": "r", "recipe_path": "r.yaml", "seed": 1,
        "base": {"name": "model", "model": "tiny", "identity": "b0", "directory": "store/base-b0"},
        "stages": [{"name": "judge", "kind": "reward_model", "identity": "i", "parent": "model", "parent_identity": "b0",
                    "directory": "store/judge-i"}],
        "benchmarks": [],
    }  # fmt: skip
    (tmp_path / "runs/r").mkdir(parents=True)
    (tmp_path / "runs/r/run.json").write_text(json.dumps(run))
    stage = tmp_path / "store/judge-i"
    (stage / "evals").mkdir(parents=True)
    (stage / "stage.json").write_text(json.dumps({"status": "complete", "seconds": 60, "attempts": []}))
    pairs = [JudgedPair("easy <b>", 2.0, 1.0), JudgedPair("easy <b>", 2.0, 1.5), JudgedPair("hard", 0.0, 1.0)]
    for name, sections in (("held-out", None), ("bench", {"all": ["easy <b>", "hard"]})):
        (stage / f"evals/{name}.json").write_text(json.dumps(aggregate_pairs(name, pairs, sections)))
    (stage / "evals/torn.json").write_text("{")
    (stage / "evals/other.json").write_text('{"benchmark": "sums"}')
    rows = [{"step": s, "loss": 0.7 / s, "accuracy": 0.5, "margin": 0.1 * s} for s in (1, 2, 3)]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_results_on_pairs_and_nothing_else(root):
    (stage,) = load_run(root, "r").stages
    assert [result["benchmark"] for result in pair_results(stage)] == ["held-out", "bench"]


def test_the_page_shows_them(root):
    page = write_report(root, "r").read_text()
    assert "<h2>judge</h2>" in page
    assert "<b>held-out</b></td><td>66.7 <small>± " in page
    assert "easy &lt;b&gt;</td><td>100.0" in page
    assert "hard</td><td>0.0" in page
    assert " all</td><td>66.7</td>" in page
    for name in ("reward-model-judge", "margins-judge"):
        assert (root / f"runs/r/report/figures/{name}.png").stat().st_size > 1000


def test_a_stage_that_has_not_begun_says_so(root):
    for file in Path(root / "store/judge-i").rglob("*.json*"):
        file.unlink()
    page = write_report(root, "r").read_text()
    assert "pending" in page.split("<h2>judge</h2>")[1].split("<h2>")[0]
    assert not (root / "runs/r/report/figures/reward-model-judge.png").exists()
