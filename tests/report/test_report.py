"""What the report says equals what the store holds, however little that is."""

import io
import json

import pytest
from rich.console import Console

from cascade_rl.report import load_run, markdown, print_matrix, write_report
from cascade_rl.report.matrix import ROLLED_BACK, headline, matrix
from cascade_rl.rollout.archive import write_rollouts
from cascade_rl.types import CascadeError
from tests.messages import mentions


def measurement(value, stderr=0.02):
    return {
        "value": value,
        "stderr": stderr,
        "ci95": [value - 1.96 * stderr, value + 1.96 * stderr],
        "rows": 100,
        "samples": 1,
    }


@pytest.fixture
def root(tmp_path):
    stages = [("sft", "sft"), ("rl", "rl"), ("late", "rl")]
    run = {
        "name": "r", "recipe_path": "recipes/r.yaml", "seed": 1, "created": "c", "updated": "u", "branch_of": None,
        "base": {"name": "model", "model": "tiny", "identity": "b0", "directory": "store/base-b0"},
        "stages": [
            {"name": n, "kind": k, "identity": f"id-{n}", "parent": "model", "parent_identity": "b0", "directory": f"store/{n}-x"}
            for n, k in stages
        ],
        "benchmarks": [{"name": "sums", "identity": "e1", "samples": 1}, {"name": "other", "identity": "e2", "samples": 1}],
    }  # fmt: skip
    (tmp_path / "runs/r").mkdir(parents=True)
    (tmp_path / "runs/r/run.json").write_text(json.dumps(run))
    for folder, values in (("base-b0", (0.1, 0.5)), ("sft-x", (0.4, 0.3)), ("rl-x", (0.7, None))):
        evals = tmp_path / "store" / folder / "evals"
        evals.mkdir(parents=True)
        for name, identity, value in zip(("sums", "other"), ("e1", "e2"), values, strict=True):
            if value is not None:
                (evals / f"{name}-{identity}.json").write_text(json.dumps({"benchmark": name, **measurement(value)}))
    (tmp_path / "store/base-b0/stage.json").write_text(json.dumps({"status": "complete", "kind": "base"}))
    rl = tmp_path / "store/rl-x"
    rl.joinpath("stage.json").write_text(
        json.dumps({"status": "complete", "seconds": 60, "attempts": [], "config": {"steps": 3}})
    )
    rows = [{"step": s, "reward/mean": s / 10, "time/step_s": 1.0, "eval/sums": 0.5} for s in (1, 2, 3)]
    rl.joinpath("metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 4, "rew')
    write_rollouts(rl / "rollouts", 1, [
        {"step": 1, "prompt_id": "p", "index": i, "prompt": "1+<b>1", "completion": "<script>alert(1)</script>", "value": float(i),
         "details": "{}", "error": None, "stop": "eos", "length": 3, "version": 0, "columns": "{}"} for i in range(2)
    ])  # fmt: skip
    return tmp_path


def assert_headline(run, *parts):
    """It has these, in this order."""
    text = headline(run)
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_matrix_is_the_measurements(root):
    rows = dict(matrix(load_run(root, "r")))
    assert rows["model"]["sums"].measured.value == 0.1
    assert rows["rl"]["sums"].delta == pytest.approx(0.3)
    assert rows["sft"]["other"].forgotten == pytest.approx(0.2)  # 0.5 to 0.3, noise 1.96 * 0.028 = 0.055
    assert rows["rl"]["sums"].forgotten is None
    assert rows["late"] == {}
    assert "other" not in rows["rl"]


def test_the_page_shows_who_waited(root):
    spans = [["generate", 0.0, 2.0], ["wait for rewards", 2.0, 2.5]]
    lines = [json.dumps({"step": step, "rank": 0, "spans": spans}) for step in (1, 2)]
    (root / "store/rl-x/trace.jsonl").write_text("\n".join(lines))
    page = write_report(root, "r").read_text()
    assert 'alt="timeline of rl"' in page
    assert 'alt="timeline of late"' not in page


def test_a_drop_within_the_noise_is_not_forgetting(root):
    path = root / "store/sft-x/evals/other-e2.json"
    path.write_text(json.dumps({"benchmark": "other", **measurement(0.46)}))
    assert dict(matrix(load_run(root, "r")))["sft"]["other"].forgotten is None


def test_headline_and_tables(root):
    run = load_run(root, "r")
    assert_headline(run, "rl", "sums", "40.0%", "70.0%", "+30.0")
    assert "| rl | 70.0 (+30.0) ± 3.9 | - |" in markdown(run)
    out = io.StringIO()
    print_matrix(run, Console(file=out, width=100))
    assert "70.0  +30.0" in out.getvalue()


def test_the_page_is_whole_by_itself(root):
    path = write_report(root, "r")
    page = path.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "1+&lt;b&gt;1" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert page.count("data:image/png;base64,") == 3  # cascade, rl, time
    assert (path.parent / "figures/cascade.png").stat().st_size > 5000
    assert headline(load_run(root, "r")) in page
    assert "pending" in page


def test_a_failed_stage_shows_its_error(root):
    (root / "store/late-x").mkdir()
    (root / "store/late-x/stage.json").write_text(
        json.dumps({"status": "failed", "attempts": [{"outcome": "failed", "error": "why & how"}]})
    )
    assert "why &amp; how" in write_report(root, "r").read_text()


def test_a_run_that_has_only_just_begun(root):
    import shutil

    shutil.rmtree(root / "store")
    page = write_report(root, "r").read_text()
    assert headline(load_run(root, "r")) in page
    assert mentions(headline(load_run(root, "r")), "0", "3", "measured")


def decision(stage, verdict, **more):
    return {
        "stage": stage, "benchmark": "sums", "gate": 0, "verdict": verdict, "value": 40.0, "interval": 3.9,
        "compared_to": "model", "compared_value": 60.0, "compared_interval": 3.9, "drop": 20.0, "chance": 5.5,
        "allowed": 5.0, "min_value": None, "exception": None, "message": f"after {stage}: sums & more: {verdict}", **more,
    }  # fmt: skip


def with_gates(root, *decisions, rolled_back=()):
    path = root / "runs/r/run.json"
    record = json.loads(path.read_text())
    record["gates"] = list(decisions)
    for stage in record["stages"]:
        if stage["name"] in rolled_back:
            stage["rolled_back"] = True
    path.write_text(json.dumps(record))


def test_gates_are_marked_and_listed(root):
    with_gates(
        root, decision("sft", "warn"), decision("sft", "excepted", exception="known <one>"), decision("rl", "pass")
    )
    cells = dict(matrix(load_run(root, "r")))
    assert (cells["sft"]["sums"].gate, cells["sft"]["sums"].mark) == ("warn", "!")  # the gravest
    assert cells["rl"]["sums"].mark == ""
    page = write_report(root, "r").read_text()
    assert "<h2>Gates</h2>" in page
    section = page.split("<h2>Gates</h2>")[1].split("<table>")[0]
    assert mentions(section, "3", "1")
    assert "known &lt;one&gt;" in page
    assert 'title="gate: warn">!</b>' in page
    text = markdown(load_run(root, "r"))
    assert "| sft | 40.0! (+30.0)" in text
    assert "after sft: sums & more: warn" in text
    out = io.StringIO()
    print_matrix(load_run(root, "r"), Console(file=out, width=100))
    assert "40.0!" in out.getvalue()
    assert "after sft: sums & more: warn" in out.getvalue()


def test_later_stages_are_not_compared_with_a_rolled_back_one(root):
    with_gates(root, decision("sft", "rollback"), rolled_back=["sft"])
    run = load_run(root, "r")
    assert dict(matrix(run))["rl"]["sums"].delta == pytest.approx(0.6)  # since the model, not since sft
    assert_headline(run, "rl", "sums", "10.0%", "70.0%", "+60.0")
    assert f"| sft{ROLLED_BACK} | 40.0! (+30.0)" in markdown(run)
    page = write_report(root, "r").read_text()
    assert f"<td>sft{ROLLED_BACK}</td>" in page
    (node,) = (part for part in page.split('<div class="node')[1:] if "<b>sft</b>" in part)
    assert mentions(node.split("</div>")[0], "rolled")


def test_a_distillation_is_drawn_as_a_stage_that_samples(root):
    path = root / "runs/r/run.json"
    record = json.loads(path.read_text())
    record["stages"][1]["kind"] = "distill"
    path.write_text(json.dumps(record))
    rows = [{"step": s, "distill/advantage_mean": -1 / s, "distill/masked": 0.0, "time/step_s": 1.0} for s in (1, 2, 3)]
    (root / "store/rl-x/metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = write_report(root, "r").read_text()
    assert (root / "runs/r/report/figures/rl-rl.png").is_file()
    assert (root / "runs/r/report/figures/time.png").is_file()
    assert mentions(page.split("<h3>")[1].split("</h3>")[0], "1")  # the rollouts of step 1
    assert_headline(load_run(root, "r"), "rl", "sums", "40.0%", "70.0%", "+30.0")


def test_no_gates_no_section(root):
    assert "Gates" not in write_report(root, "r").read_text()


def test_no_such_run(tmp_path):
    with pytest.raises(CascadeError, match="'x'"):
        load_run(tmp_path, "x")
