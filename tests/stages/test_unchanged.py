"""What a stage's process says of files that were edited after its run was planned."""

import io
import json
import os
import sys

import pytest
import torch

from cascade_rl.orchestrator.gates import settled
from cascade_rl.orchestrator.jobs import evaluate_job, stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.rollback import without
from cascade_rl.recipe import load_recipe
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.offline.dataset import tokenised
from cascade_rl.stages.unchanged import refuse_changes, refuse_changes_here, refuse_damage
from cascade_rl.store import Job, Store
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.training.ranks import Ranks
from cascade_rl.types import CascadeError

RECIPE = """\
name: demo
model: ./base
stages:
  - {name: a, kind: sft, data: [{source: rows.jsonl, keep: "kept:keep"}], learning_rate: 1e-3, steps: 2, batch_size: 4}
  - name: b
    kind: rl
    data: [{source: "made:rows", args: {count: 4, more: {1: 2}}}]
    exclude: [{data: [{source: held_out.jsonl}]}]
    reward: {use: "mine:score", weight: {2: 0.5}}
    learning_rate: 1e-6
    steps: 2
  - {name: c, kind: distill, data: [{source: rows.jsonl}], teacher: {model: ./teacher}, learning_rate: 1e-6, steps: 2}
  - {name: d, kind: distill, data: [{source: rows.jsonl}], teacher: {model: "stage:b"}, learning_rate: 1e-6, steps: 2}
evaluate:
  every_steps: 1
  after_each_stage: [{name: m, data: [{source: bench.jsonl}], reward: {use: "judge:score"}}]
"""
MODULES = {
    "kept": "def keep(row): return True\n",
    "made": "def rows(split, count, more): return [{'prompt': str(n)} for n in range(count)]\n",
    "helper": "VALUE = 1.0\n",
    "mine": "import helper\ndef score(response, weight): return helper.VALUE\n",
    "judge": "def score(response): return 1.0\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # which a loaded reward adds its folder to
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    rows = [{"prompt": f"q{i}", "response": "a"} for i in range(4)]
    for name in ("rows", "held_out", "bench"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("base", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "r.yaml").write_text(RECIPE)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def plan_of(folder):
    return make_plan(load_recipe(folder / "r.yaml"), Store(folder))


def handed_on(job):
    """As a stage's process gets it."""
    return Job.model_validate_json(job.model_dump_json())


def alone():
    return Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("stage", ["a", "b", "c", "d"])
def test_files_that_stay_as_they_are_pass(folder, stage):
    plan = plan_of(folder)
    refuse_changes(handed_on(stage_job(plan, plan.stage(stage))), alone())
    refuse_changes(handed_on(evaluate_job(plan, plan.stage(stage))), alone())


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("a", "rows.jsonl"),
        ("a", "kept.py"),
        ("a", "base/config.json"),
        ("a", "base/model.safetensors"),
        ("b", "held_out.jsonl"),
        ("b", "made.py"),
        ("b", "mine.py"),
        ("b", "helper.py"),
        ("b", "bench.jsonl"),
        ("c", "teacher/model.safetensors"),
        ("d", "rows.jsonl"),
    ],
)
@pytest.mark.parametrize("how", ["edited", "removed"])
def test_a_changed_file_is_named(folder, stage, name, how):
    plan = plan_of(folder)
    job = handed_on(stage_job(plan, plan.stage(stage)))
    if how == "edited":
        with open(folder / name, "a") as file:
            file.write("\n")
    else:
        (folder / name).unlink()
    with pytest.raises(CascadeError) as caught:
        refuse_changes(job, alone())
    assert os.path.basename(name).removesuffix(".py") in str(caught.value)
    assert job.identity in str(caught.value)


def test_a_file_of_the_same_size_that_changed_at_once_is_seen(folder):
    plan = plan_of(folder)
    job = handed_on(stage_job(plan, plan.stage("a")))
    text = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(text.replace("q0", "q9"))
    with pytest.raises(CascadeError, match=r"rows\.jsonl"):
        refuse_changes(job, alone())
    (folder / "rows.jsonl").write_text(text)
    refuse_changes(job, alone())  # the old content is what counts, not the file's times


def test_a_file_that_appears_in_a_models_folder_is_a_change(folder):
    plan = plan_of(folder)
    job = handed_on(stage_job(plan, plan.stage("a")))
    (folder / "base/generation_config.json").write_text("{}")
    with pytest.raises(CascadeError, match="generation_config"):
        refuse_changes(job, alone())


def test_what_the_stage_does_not_read_may_change(folder):
    plan = plan_of(folder)
    job = handed_on(stage_job(plan, plan.stage("c")))
    for name in ("held_out.jsonl", "mine.py", "made.py", "base/config.json"):
        (folder / name).write_text("{}")
    refuse_changes(job, alone())


def test_an_evaluation_reads_its_benchmarks_again(folder):
    plan = plan_of(folder)
    job = handed_on(evaluate_job(plan, plan.stage("a")))
    (folder / "rows.jsonl").write_text("{}")
    refuse_changes(job, alone())
    (folder / "judge.py").write_text("def score(response): return 0.5\n")
    with pytest.raises(CascadeError, match=r"judge\.py"):
        refuse_changes(job, alone())


def test_a_base_model_elsewhere_is_compared_when_measured(folder):
    plan = plan_of(folder)
    job = handed_on(evaluate_job(plan, None))
    refuse_changes(job, alone())
    (folder / "base/model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(CascadeError, match=r"model\.safetensors"):
        refuse_changes(job, alone())


def test_a_stage_moved_by_a_gate_is_compared_with_its_plan(folder):
    plan = without(settled(plan_of(folder))[0], ["a"])
    assert plan.stage("b").parent == "model"
    for name in ("b", "d"):
        refuse_changes(handed_on(stage_job(plan, plan.stage(name))), alone())
    (folder / "base/config.json").write_text('{"x": 1}')
    with pytest.raises(CascadeError, match=r"config\.json"):
        refuse_changes(handed_on(stage_job(plan, plan.stage("b"))), alone())


def test_every_rank_raises_what_the_main_rank_found(folder):
    """The others do not read: each hash is made once."""

    class Second(Ranks):
        def gather(self, value):
            assert value is None
            return ["what the main rank found", None]

    plan = plan_of(folder)
    (folder / "rows.jsonl").unlink()
    with pytest.raises(CascadeError, match="the main rank"):
        refuse_changes(stage_job(plan, plan.stage("a")), Second(1, 2, torch.device("cpu")))


def test_rows_edited_while_they_are_read_are_not_kept(folder):
    """The file is as planned when the stage starts; the rows that are written down are another file's."""
    import pyarrow

    plan = plan_of(folder)
    job = handed_on(stage_job(plan, plan.stage("a")))
    refuse_changes(job, alone())

    def rows():
        yield {"x": 1}
        with open(folder / "rows.jsonl", "a") as file:
            file.write("\n")

    context = Context(job, alone(), StopFlag(), io.StringIO())
    with pytest.raises(CascadeError, match=r"rows\.jsonl"):
        tokenised(context, pyarrow.schema([("x", pyarrow.int64())]), rows())
    assert not list((job.folder / "data").glob("*"))
    with pytest.raises(CascadeError, match=r"rows\.jsonl"):
        refuse_changes_here(job)


def finish(stage):
    stage.folder.begin({"name": stage.name, "inputs": {}}, {})
    stage.folder.optimizer.write_bytes(b"moments")
    with publishing_checkpoint(stage.folder) as checkpoint:
        (checkpoint / "model.safetensors").write_bytes(b"weights")
    stage.folder.finish("complete", "complete")


@pytest.mark.parametrize("of", ["parent", "teacher", "reward model", "itself"])
def test_a_damaged_result_is_not_built_upon(folder, of):
    plan = plan_of(folder)
    for name in ("a", "b", "c", "d"):
        finish(plan.stage(name))
    job = {
        "parent": lambda: stage_job(plan, plan.stage("b")),
        "teacher": lambda: stage_job(plan, plan.stage("d")),
        "reward model": lambda: stage_job(plan, plan.stage("a")).model_copy(
            update={"stage": {"rewards": [{"model": str(plan.stage("b").folder.checkpoint)}]}}
        ),
        "itself": lambda: evaluate_job(plan, plan.stage("b")),
    }[of]()
    job = handed_on(job)
    refuse_damage(job, alone())
    damaged = plan.stage("a" if of == "parent" else "b").folder
    (damaged.checkpoint / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(CascadeError, match=r"model\.safetensors") as caught:
        refuse_damage(job, alone())
    assert str(damaged.path) in str(caught.value)


def test_moments_are_verified_where_they_are_inherited(folder):
    plan = plan_of(folder)
    finish(plan.stage("a"))
    job = handed_on(stage_job(plan, plan.stage("b")))
    plan.stage("a").folder.optimizer.write_bytes(b"Moments")
    refuse_damage(job, alone())
    with pytest.raises(CascadeError, match=r"optimizer\.pt"):
        refuse_damage(job.model_copy(update={"parent_optimizer": plan.stage("a").folder.optimizer}), alone())


def test_a_parent_of_an_earlier_version_has_nothing_to_verify(folder):
    plan = plan_of(folder)
    finish(plan.stage("a"))
    plan.stage("a").folder.checksums.unlink()
    refuse_damage(handed_on(stage_job(plan, plan.stage("b"))), alone())
