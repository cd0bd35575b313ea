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
