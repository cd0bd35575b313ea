"""A page of a run whose results are gone: the one from before stays, and a new one says what is missing."""

import json
import os
import shutil

import pytest

from cascade_rl.report import load_run, markdown, write_report
from cascade_rl.report.compare import compare_runs
from cascade_rl.report.kept import RECORD
from cascade_rl.report.matrix import MISSING, headline, matrix
from cascade_rl.store import StageFolder
from cascade_rl.store.inspection import note_results
from cascade_rl.types import CascadeError
from tests.report.test_report import root  # noqa: F401


def note_finished(root, *directories):  # noqa: F811
    path = root / "runs/r/run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": list(directories)}))


@pytest.mark.parametrize("noted", [True, False])
def test_a_good_page_outlives_the_store(root, noted):  # noqa: F811
    if noted:
        note_finished(root, "store/rl-x")
    before = write_report(root, "r").read_text()
    shutil.rmtree(root / "store")
    with pytest.raises(CascadeError, match="missing") as caught:
        write_report(root, "r")
    assert "store/rl-x" in str(caught.value)
    page = root / "runs/r/report/index.html"
    assert page.read_text() == before
    page.unlink()  # the way out that the message names
    assert "Missing or damaged" in write_report(root, "r").read_text() or not noted


def test_a_good_page_outlives_one_finished_stage(root):  # noqa: F811
    note_finished(root, "store/rl-x")
    before = write_report(root, "r").read_text()
    (root / "store/rl-x/stage.json").write_text("{")
    with pytest.raises(CascadeError, match=r"stage\.json"):
        write_report(root, "r")
    assert (root / "runs/r/report/index.html").read_text() == before


def test_a_stage_being_computed_anew_gets_a_new_page(root):  # noqa: F811
    before = write_report(root, "r").read_text()
    shutil.rmtree(root / "store/rl-x")  # as --from does, which takes it off the finished ones
    assert write_report(root, "r").read_text() != before


@pytest.mark.parametrize("cut", [0, 100])
def test_damaged_files_are_named_on_the_page(root, cut):  # noqa: F811
    os.truncate(root / "store/rl-x/rollouts/step-000001.parquet", cut)
    (root / "store/sft-x/evals/sums-e1.json").write_text('{"value": 0.')
    page = write_report(root, "r").read_text()
    assert "Missing or damaged" in page
    assert "sums-e1.json" in page
    assert "step-000001.parquet" in page
    assert "curves of rl" in page
    assert "sums" not in load_run(root, "r").stages[0].measurements


@pytest.mark.parametrize("text", ["", "[]", "null", '{"base": {"name": 1}, "stages": []}'])
def test_a_damaged_record_of_a_run(root, text):  # noqa: F811
    (root / "runs/r/run.json").write_text(text)
    with pytest.raises(CascadeError, match=r"run\.json"):
        load_run(root, "r")


def without(*names):
    def act(root):  # noqa: F811
        for name in names:
            for path in (root / "store").glob(f"*/{name}"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def pending(root):  # noqa: F811
    (root / "store/rl-x/stage.json").write_text('{"status": "pending"}')


LOSSES = {
    "all but the records": (without("evals", "metrics.jsonl", "rollouts"), "metrics.jsonl"),
    "evaluations": (without("evals"), "evals"),
    "metrics": (without("metrics.jsonl"), "metrics.jsonl"),
    "the status": (pending, "pending"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_good_page_outlives_the_files_of_a_stage(root, name):  # noqa: F811
    act, message = LOSSES[name]
    note_finished(root, "store/rl-x")
    before = write_report(root, "r").read_text()
    act(root)
    with pytest.raises(CascadeError, match="rl") as caught:
        write_report(root, "r")
    assert message in str(caught.value)
    page = root / "runs/r/report/index.html"
    assert page.read_text() == before
    page.unlink()
    assert write_report(root, "r").is_file()


def test_another_stage_of_the_name_gets_a_new_page(root):  # noqa: F811
    """A changed recipe: the stage has another identity, is complete, and is not measured yet."""
    before = write_report(root, "r").read_text()
    path = root / "runs/r/run.json"
    path.write_text(path.read_text().replace("store/rl-x", "store/rl-y").replace("id-rl", "id-new"))
    shutil.copytree(root / "store/rl-x", root / "store/rl-y")
    shutil.rmtree(root / "store/rl-y/evals")
    assert write_report(root, "r").read_text() != before


def test_another_benchmark_gets_a_new_page(root):  # noqa: F811
    before = write_report(root, "r").read_text()
    path = root / "runs/r/run.json"
    path.write_text(path.read_text().replace('"e1"', '"e9"').replace('"e2"', '"e8"'))
    assert write_report(root, "r").read_text() != before


def cut(path, size):
    os.truncate(path, size)


@pytest.fixture
def no_figures(monkeypatch):
    """Pages without figures, which take nearly all of the time that a page takes."""
    for name in ("cascade_figure", "rl_figure", "loss_figure", "time_figure", "timeline_figure"):
        monkeypatch.setattr(f"cascade_rl.report.page.{name}", lambda *_: None)


BASE_RESULT, METRICS = "store/base-b0/evals/other-e2.json", "store/rl-x/metrics.jsonl"
ROLLOUTS = "store/rl-x/rollouts/step-000001.parquet"
PARTS = {
    "an evaluation gone": (lambda at: (at / BASE_RESULT).unlink(), "other-e2.json"),
    "an evaluation damaged": (lambda at: cut(at / BASE_RESULT, 9), "other-e2.json"),
    "steps of metrics": (lambda at: cut(at / METRICS, 90), "1 of the 3"),
    "rollouts gone": (lambda at: (at / ROLLOUTS).unlink(), "step 1"),
    "rollouts damaged": (lambda at: cut(at / ROLLOUTS, 90), "step 1"),
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", PARTS)
def test_a_good_page_outlives_a_part_of_what_it_shows(root, name):  # noqa: F811
    act, message = PARTS[name]
    before = write_report(root, "r").read_text()
    matrix = (root / "runs/r/report/matrix.md").read_text()
    act(root)
    with pytest.raises(CascadeError, match=message):
        write_report(root, "r")
    page = root / "runs/r/report/index.html"
    assert page.read_text() == before
    assert (root / "runs/r/report/matrix.md").read_text() == matrix
    page.unlink()
    left = write_report(root, "r").read_text()
    assert write_report(root, "r").read_text() == left  # it shows all that is left, and may be made again


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("damage", [os.unlink, lambda path: cut(path, 9)], ids=["gone", "damaged"])
def test_a_page_of_an_earlier_version_outlives_an_evaluation(root, damage):  # noqa: F811
    page = write_report(root, "r")
    page.write_text(RECORD.sub("", page.read_text()))
    before = page.read_text()
    damage(root / BASE_RESULT)
    with pytest.raises(CascadeError, match="other"):
        write_report(root, "r")
    assert page.read_text() == before


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("text", ["", "[]", '{"rl": 1}', '{"rl": {"identity": "id-rl"}}', "{", "[" * 100_000])
def test_a_page_with_a_damaged_record_is_compared_by_its_table(root, text):  # noqa: F811
    page = write_report(root, "r")
    page.write_text(RECORD.sub(f'<script type="application/json" id="shown">{text}</script>', page.read_text()))
    (root / BASE_RESULT).unlink()
    with pytest.raises(CascadeError, match="other"):
        write_report(root, "r")


@pytest.mark.usefixtures("no_figures")
def test_a_result_that_was_measured_is_shown_as_missing(root):  # noqa: F811
    folder = StageFolder(root / "store/base-b0")
    note_results(folder)
    (root / BASE_RESULT).unlink()
    view = load_run(root, "r")
    assert view.base.missing == {"other"}
    assert any("other-e2.json" in problem for problem in view.base.problems)
    page = write_report(root, "r").read_text()
    assert f'<td class="down">{MISSING}</td>' in page
    assert f"| model | 10.0 ± 3.9 | {MISSING} |" in markdown(view)


def test_the_change_of_a_lost_result_goes_to_no_other_stage(root):  # noqa: F811
    assert dict(matrix(load_run(root, "r")))["rl"]["sums"].delta == pytest.approx(0.3)
    cut(root / "store/sft-x/evals/sums-e1.json", 9)
    view = load_run(root, "r")
    assert dict(matrix(view))["rl"]["sums"].delta is None  # 0.6 since the base model is not the doing of rl
    assert "60.0" not in headline(view)


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_has_not_begun_gets_its_page_again(root):  # noqa: F811
    shutil.rmtree(root / "store")
    note_finished(root)
    assert write_report(root, "r") == write_report(root, "r")


@pytest.mark.usefixtures("no_figures")
def test_a_stage_computed_anew_may_have_less(root):  # noqa: F811
    """``stop_when`` may end it earlier than before."""
    before = write_report(root, "r").read_text()
    folder = StageFolder(root / "store/rl-x")
    folder.update(attempts=[{"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:01+00:00"}])
    cut(root / METRICS, 90)
    assert write_report(root, "r").read_text() != before


def test_the_last_stage_without_its_result_has_no_final_value(root):  # noqa: F811
    assert compare_runs(root, "r", "r")["final"]["sums"]["a"] == 70.0
    cut(root / "store/rl-x/evals/sums-e1.json", 9)
    assert "sums" not in compare_runs(root, "r", "r")["final"]  # 40.0 is another stage's
