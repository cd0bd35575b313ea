"""A page of a run whose results are gone: the one from before stays, and a new one says what is missing."""

import json
import os
import shutil

import pytest

from cascade_rl.report import load_run, write_report
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
