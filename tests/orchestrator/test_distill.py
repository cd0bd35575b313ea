"""A distillation stage in a recipe: who may teach, and what its result depends on."""

import json

import pytest

from cascade_rl.orchestrator.jobs import stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.orchestrator.rollback import without
from cascade_rl.orchestrator.run import set_aside
from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.store import Job, Store
from tests.messages import mentions

RECIPE = """\
name: demo
model: tiny-qwen3
model_args: {context: 512}
stages:
  - {name: sft, kind: sft, max_length: 256, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4}
  - {name: rm, kind: reward_model, max_length: 256, data: [{source: pairs.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4, held_out: 0}
  - {name: math, kind: rl, init: sft, data: [{source: rows.jsonl}], reward: {use: "mine:score"}, learning_rate: 1e-6, steps: 2, rollout: {max_new_tokens: 100}}
  - {name: student, kind: distill, init: sft, data: [{source: rows.jsonl}], learning_rate: 1e-6, steps: 2, teacher: {model: "stage:math"}, rollout: {max_new_tokens: 100}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    rows = [{"prompt": "q", "response": "a", "domain": "math" if i else "code"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pairs = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in pairs))
    (tmp_path / "mine.py").write_text("def score(response): return 1.0\n")
    return tmp_path


def plan_of(folder, *overrides):
    return make_plan(load_recipe(folder / "r.yaml", overrides), Store(folder))


def problems(folder, *overrides):
    with pytest.raises(RecipeError) as caught:
        preflight(load_recipe(folder / "r.yaml", overrides), 1)
    return str(caught.value)


def identity(folder, *overrides):
    return plan_of(folder, *overrides).stage("student").identity


def test_it_depends_on_its_teacher_through_the_teachers_stage(folder):
    preflight(load_recipe(folder / "r.yaml"), 1)
    before = identity(folder)
    assert identity(folder, "stages.math.steps=3") != before
    assert identity(folder, "stages.student.teacher.model=stage:sft") != before
    assert identity(folder, "stages.rm.steps=3") == before
    assert identity(folder, "stages.student.sharding.offload_reference=true") == before
    assert identity(folder, "stages.student.ratio_high=3") != before


def test_a_folder_is_known_by_its_content_and_a_server_by_its_address(folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    by_model = [identity(folder, f"stages.student.teacher.model={folder / name}") for name in ("a", "b")]
    assert by_model[0] == by_model[1]
    (folder / "b" / "config.json").write_text('{"x": 1}')
    assert identity(folder, f"stages.student.teacher.model={folder / 'b'}") != by_model[0]
    servers = ['stages.student.teacher={url: "http://a/v1"}', 'stages.student.teacher={url: "http://b/v1"}']
    assert len({identity(folder, "stages.student.teacher=null", key) for key in servers}) == 2


def test_the_stage_gets_the_teachers_checkpoint(folder):
    (folder / "outside").mkdir()
    (folder / "outside/config.json").write_text("{}")
    plan = plan_of(folder)
    job = Job.model_validate_json(stage_job(plan, plan.stage("student")).model_dump_json())
    assert job.stage_config().teacher.model == str(plan.stage("math").folder.checkpoint)
    two = 'stages.student.teachers={math: {model: "stage:math"}, code: {model: outside}}'
    plan = plan_of(folder, "stages.student.teacher=null", two)
    teachers = stage_job(plan, plan.stage("student")).stage_config().teachers
    assert teachers["math"].model == str(plan.stage("math").folder.checkpoint)
    assert teachers["code"].model == str(folder / "outside")  # as the processes find it, wherever they start


def test_a_rolled_back_stage_still_teaches(folder):
    """It is what its domain has; only what would start from it goes elsewhere."""
    plan = plan_of(folder, "stages.student.init=math")
    moved = without(plan, ["math"]).stage("student")
    assert moved.parent == "sft"
    assert moved.inputs["teacher"] == {"stage": plan.stage("math").identity}


def test_a_teacher_done_anew_has_its_students_done_anew(folder):
    plan = plan_of(folder)
    for stage in plan.stages:
        stage.folder.begin({"name": stage.name, "inputs": {}}, {})
        stage.folder.checkpoint.mkdir(parents=True)
        stage.folder.finish("complete", "complete")
    set_aside(plan, "math", lambda text: None)
    assert [stage.name for stage in plan.stages if stage.folder.is_complete] == ["sft", "rm"]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("teacher.model=stage:rm", "rm kind reward_model"),
        ("teacher.model=stage:student", "student earlier sft math"),
        ("teacher.model=stage:mth", "'stage:mth' math"),
        ("teacher={url: 'http://a/v1', model: x}", "one `model` `url`"),
        ("teachers={math: {model: 'stage:math'}}", "one `teacher` `teachers`"),
        ("reward={use: 'mine:score'}", "stages.student.reward unknown"),
    ],
)  # fmt: skip
def test_who_may_teach(folder, key, words):
    with pytest.raises(RecipeError) as caught:
        preflight(load_recipe(folder / "r.yaml", [f"stages.student.{key}"]), 1)
    found = str(caught.value)
    assert mentions(found, *words.split()), found
    assert "stages.student" in found


def test_a_server_must_have_an_address_and_temperature_1(folder):
    told = problems(
        folder, "stages.student.teacher=null", "stages.student.rollout.temperature=0.6",
        "stages.student.teachers={math: {url: 'localhost:80'}, code: {model: 'stage:sft'}}",
    )  # fmt: skip
    assert mentions(told, "stages.student.teachers.math", "http://", "'localhost:80'")
    assert mentions(told, "temperature", "1", "0.6")


def test_every_row_has_a_teacher(folder):
    told = problems(folder, "stages.student.teacher=null", "stages.student.teachers={math: {model: 'stage:math'}}")
    assert mentions(told, "stages.student.data.0", "'code'", "math")


def test_a_teacher_must_have_room_for_what_the_student_writes(folder):
    scaling = "{factor: 4, original_max_position_embeddings: 512}"
    told = problems(
        folder, f"stages.student.rope_scaling={scaling}", "stages.student.rollout.max_new_tokens=600",
    )  # fmt: skip
    assert mentions(told, "stages.student.teacher", "math", "512", "601")


def test_a_missing_teacher_folder_is_found_before_anything_starts(folder):
    from cascade_rl.types import CascadeError

    with pytest.raises(CascadeError, match=r"teacher.*nowhere"):
        plan_of(folder, "stages.student.teacher.model=nowhere")


def test_what_a_step_is_made_of(folder):
    text = plan_of(folder).stage("student").config.arithmetic(1)
    assert mentions(text, "2 steps", "128 prompts x 4 = 512 rollouts", "100 tokens", "512 per rank", "1 update")
