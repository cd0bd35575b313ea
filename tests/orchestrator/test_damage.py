"""Results that were damaged after they were finished: what a run does about them, and what it leaves alone."""

import json
import shutil

import pytest

from cascade_rl.cli.showing import show_verified
from cascade_rl.orchestrator.damage import Verified, refuse_damage, verify_all
from cascade_rl.orchestrator.jobs import evaluate_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.run import Wishes, _carry_out
from cascade_rl.recipe import load_recipe
from cascade_rl.rollout.archive import write_rollouts
from cascade_rl.store import Store
from cascade_rl.store.checksums import publishing_checkpoint
from cascade_rl.types import CascadeError
from tests.orchestrator.test_run import folder, go  # noqa: F401
from tests.orchestrator.test_shared_stages import Instant, carry_out

BENCHMARK = (
    'evaluate.after_each_stage=[{name: m, data: [{source: rows.jsonl, columns: {x: y}}], reward: {use: "mine:score"}}]'
)


def finish_base(plan):
    plan.base.folder.begin({"name": "model", "kind": "base"}, {})
    plan.base.folder.finish("complete", "complete")


def verified(plan):
    """What reading the stages has found, without the base model."""
    return [found for found in verify_all(plan) if found.name != "model"]


def finish(stage):
    """As a worker and its supervisor do."""
    stage.folder.begin({"name": stage.name, "kind": stage.config.kind, "inputs": stage.inputs}, {})
    with publishing_checkpoint(stage.folder) as checkpoint:
        (checkpoint / "model.safetensors").write_bytes(b"weights")
    stage.folder.finish("complete", "complete")


def cut(stage):
    (stage.folder.checkpoint / "model.safetensors").write_bytes(b"weig")


def test_a_damaged_parent_is_refused_before_anything_runs(folder):  # noqa: F811
    plan, _ = go(folder)
    finish(plan.stage("a"))
    cut(plan.stage("a"))
    with pytest.raises(CascadeError, match=r"model\.safetensors") as caught:
        go(folder)
    assert "--from a" in str(caught.value)
    go(folder, from_stage="a")  # the way out works
    assert plan.stage("a").folder.status == "pending"


def test_damage_to_what_is_needed_no_more_is_a_warning(folder):  # noqa: F811
    plan, _ = go(folder)
    for stage in plan.stages:
        finish(stage)
    cut(plan.stage("a"))
    _, said = go(folder)
    assert any("WARNING" in text and "model.safetensors" in text for text in said)


def test_a_damaged_result_that_is_not_measured_yet_is_needed(folder):  # noqa: F811
    plan, _ = go(folder, BENCHMARK)
    finish(plan.stage("c"))
    cut(plan.stage("c"))
    with pytest.raises(CascadeError, match="stage c"):
        refuse_damage(plan, lambda _: None)


def test_verify_reads_every_finished_stage(folder):  # noqa: F811
    plan, _ = go(folder)
    for name in ("a", "b"):
        finish(plan.stage(name))
    assert verified(plan) == [Verified("a", [], True), Verified("b", [], True)]
    (plan.stage("b").folder.checkpoint / "model.safetensors").write_bytes(b"Weights")
    plan.stage("c").folder.begin({"name": "c"}, {})
    assert [(found.name, len(found.problems)) for found in verified(plan)] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("content", ["", '{"benchmark": "m", "val', "[]", "{}"])
def test_a_damaged_evaluation_is_made_again(folder, content):  # noqa: F811
    plan, _ = go(folder, BENCHMARK, "gates=[{benchmark: m, min_value: 40, action: stop}]")
    for stage in plan.stages:
        finish(stage)
    job = evaluate_job(plan, plan.stage("a"))
    path = plan.stage("a").folder.evals / f"{job.benchmarks[0].file_stem}.json"
    path.parent.mkdir()
    path.write_text(content)
    assert [planned.config.name for planned in evaluate_job(plan, plan.stage("a")).benchmarks] == ["m"]
    go(folder, BENCHMARK, "gates=[{benchmark: m, min_value: 40, action: stop}]")  # gates wait for it


def test_a_finished_stage_whose_folder_is_gone_is_told(folder):  # noqa: F811
    plan, _ = go(folder)
    carry_out(plan, Instant())
    record = Store(folder).read_run("demo")
    assert sorted(record["finished"]) == sorted(entry["directory"] for entry in record["stages"])
    _, said = go(folder)
    assert said == []
    shutil.rmtree(plan.stage("b").folder.path)
    _, said = go(folder)
    assert len(said) == 1
    assert "b was finished" in said[0]
    supervisor = Instant()
    carry_out(plan, supervisor)
    assert supervisor.done == [("stage", "b")]


def test_a_stage_set_aside_is_not_taken_for_vanished(folder):  # noqa: F811
    plan, _ = go(folder)
    carry_out(plan, Instant())
    _, said = go(folder, from_stage="b")
    assert not any("gone" in text for text in said)
    _, said = go(folder)
    assert not any("gone" in text for text in said)


def test_half_written_results_of_a_killed_attempt_are_removed(folder):  # noqa: F811
    plan, _ = go(folder)
    stage = plan.stage("a").folder
    for leftover in (stage.path / ".checkpoint.tmp-1234", stage.state / ".step-000001.tmp-1234"):
        leftover.mkdir(parents=True)
    (stage.state / "step-000001").mkdir()

    class Looking(Instant):
        def run_job(self, job):
            if job.name == "a":
                assert sorted(path.name for path in stage.state.iterdir()) == ["step-000001"]
                assert not list(stage.path.glob(".checkpoint*"))
            super().run_job(job)

    assert _carry_out(plan, Wishes(), Looking(), NotStopped(), lambda _: None) == 0


class NotStopped:
    is_set = False


def test_what_a_finished_stage_has_recorded_is_noted(folder):  # noqa: F811
    plan = make_plan(load_recipe(folder / "r.yaml"), Store(folder))

    class Recording(Instant):
        def run_job(self, job):
            super().run_job(job)
            lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2)]
            job.stage_folder.metrics.write_text("\n".join(lines))

    carry_out(plan, Recording())
    assert plan.stage("a").folder.read()["inventory"] == {"last_step": 2, "metrics": 2, "rollouts": 0}


def test_a_result_without_checksums_is_not_called_compared(folder, capsys):  # noqa: F811
    plan, _ = go(folder)
    stage = plan.stage("a")
    finish_base(plan)
    finish(stage)
    stage.folder.checksums.unlink()
    assert show_verified(plan) == 1  # there is no config.json
    assert "config.json" in capsys.readouterr().out
    (stage.folder.checkpoint / "config.json").write_text("{}")
    assert verified(plan) == [Verified("a", [], False)]
    assert show_verified(plan) == 0
    out = capsys.readouterr().out
    assert "a: not compared" in out
    assert "as written" not in out


@pytest.mark.parametrize("name", ["other.safetensors", "notes.txt", "more/pytorch_model.bin"])
def test_a_file_that_nobody_wrote_is_named(folder, name):  # noqa: F811
    plan, _ = go(folder)
    finish(plan.stage("a"))
    (plan.stage("a").folder.checkpoint / ".nfs0001").touch()
    assert [found.problems for found in verified(plan)] == [[]]
    extra = plan.stage("a").folder.checkpoint / name
    extra.parent.mkdir(exist_ok=True)
    extra.write_bytes(b"x")
    ((problem,),) = (found.problems for found in verified(plan))
    assert str(extra) in problem
    if name != "notes.txt":  # an engine that reads every file with weights would load it
        with pytest.raises(CascadeError, match=extra.name):
            go(folder)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_verify_reads_the_stored_rollouts(folder, how):  # noqa: F811
    plan, _ = go(folder)
    place = plan.stage("a").folder
    finish(plan.stage("a"))
    path = write_rollouts(place.rollouts, 1, [{"step": 1, "completion": "text" * 100}])
    place.metrics.write_text('{"step": 1}\n')
    assert [found.problems for found in verified(plan)] == [[]]
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content if how == "flipped" else content[:-20])
    ((problem,),) = (found.problems for found in verified(plan))
    assert "step-000001" in problem


def finish_all(folder):  # noqa: F811
    """A plan whose base model and stages are complete, as the run has noted."""
    plan, _ = go(folder)
    finish_base(plan)
    for stage in plan.stages:
        finish(stage)
    return go(folder)[0]


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("gone", ["a", "model", "all"])
def test_verify_names_what_has_vanished(folder, capsys, gone, noted):  # noqa: F811
    plan = finish_all(folder)
    assert show_verified(plan) == 0
    if not noted:  # as earlier versions wrote it
        record = Store(folder).read_run("demo")
        del record["finished"]
        Store(folder).write_run("demo", record)
    places = {"model": plan.base.folder, **{stage.name: stage.folder for stage in plan.stages}}
    names = list(places) if gone == "all" else [gone]
    for name in names:
        shutil.rmtree(places[name].path)
    capsys.readouterr()
    assert show_verified(plan) == 1
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if "DAMAGED" in line] == names


def test_verify_names_a_record_that_is_complete_no_more(folder):  # noqa: F811
    plan = finish_all(folder)
    (plan.stage("c").folder.path / "stage.json").write_text('{"status": "pending"}')
    (found,) = (found for found in verify_all(plan) if found.problems)
    assert found.name == "c"


def test_verify_leaves_out_a_stage_set_aside(folder):  # noqa: F811
    plan = finish_all(folder)
    plan.stage("a").folder.path.rename(plan.stage("a").folder.superseded)
    assert show_verified(plan) == 0
