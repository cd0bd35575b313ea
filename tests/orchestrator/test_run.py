"""What a run would do, and when it refuses: everything short of starting processes."""

import json

import pytest

from cascade_rl.orchestrator.jobs import evaluate_job, stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.run import Wishes, _work, forget, prepare, set_aside
from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.store import Store
from cascade_rl.types import CascadeError
from tests.messages import mentions

RECIPE = """\
# test
name: demo
model: tiny-qwen3
stages:
  - {name: a, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4}
  - {name: b, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4}
  - {name: c, kind: rl, init: a, data: [{source: rows.jsonl, columns: {x: y}}], reward: {use: "mine:score"}, learning_rate: 1e-6, steps: 2}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    rows = [{"prompt": "q", "response": "a", "y": str(i)} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "mine.py").write_text("def score(response, x): return 1.0\n")
    return tmp_path


def plan_of(folder, *overrides, run=None):
    return make_plan(load_recipe(folder / "r.yaml", overrides), Store(folder), run)


def complete(stage):
    stage.folder.begin({"name": stage.name, "inputs": stage.inputs}, {})
    stage.folder.checkpoint.mkdir(parents=True)
    stage.folder.finish("complete", "complete")


def go(folder, *overrides, **wishes):
    said = []
    plan = prepare(load_recipe(folder / "r.yaml", overrides), Store(folder), Wishes(**wishes), 1, said.append)
    return plan, said


def identities(plan):
    return {stage.name: stage.identity for stage in plan.stages}


def test_a_change_reaches_what_follows_from_it_and_nothing_else(folder):
    before = identities(plan_of(folder))
    after = identities(plan_of(folder, "stages.b.steps=3"))
    assert {n for n in before if before[n] != after[n]} == {"b"}  # c starts from a
    after = identities(plan_of(folder, "stages.a.steps=3"))
    assert {n for n in before if before[n] != after[n]} == {"a", "b", "c"}


def test_changed_data_and_changed_rewards_are_changes(folder):
    before = identities(plan_of(folder))
    (folder / "mine.py").write_text("def score(response, x): return 0.5\n")
    import sys

    sys.modules.pop("mine", None)
    after = identities(plan_of(folder))
    assert {n for n in before if before[n] != after[n]} == {"c"}
    with open(folder / "rows.jsonl", "a") as file:
        file.write('{"prompt": "new", "response": "r", "y": "1"}\n')
    assert not set(identities(plan_of(folder)).values()) & set(after.values())


def test_a_stage_is_never_taken_for_another_by_its_name(folder):
    """Pitfall 2: progress is by identity; a finished stage of another recipe with the same name does not count."""
    plan, _ = go(folder)
    complete(plan.stage("a"))
    other = plan_of(folder, "name=other", "stages.a.learning_rate=0.1")
    assert [s.folder.status for s in other.stages][0] == "pending"
    same = plan_of(folder, "name=third")
    assert [s.folder.status for s in same.stages][0] == "complete"


def test_finished_work_is_not_recomputed_silently(folder):
    plan, _ = go(folder)
    for name in ("a", "c"):
        complete(plan.stage(name))
    with pytest.raises(CascadeError) as caught:
        go(folder, "stages.a.steps=5")
    text = str(caught.value)
    assert any(mentions(line, "anew", "a, c") for line in text.splitlines())
    assert "a: config.steps: 2 -> 5" in text
    assert "--accept-changes" in text
    assert "--branch NAME" in text
    _, said = go(folder, "stages.a.steps=5", accept_changes=True)
    assert "config.steps: 2 -> 5" in said[0]


def test_a_result_of_an_earlier_revision_is_named(folder, monkeypatch):
    plan, _ = go(folder)
    complete(plan.stage("a"))
    kind = type(plan.stage("a").config)
    later = max(kind.REVISIONS, default=1) + 1
    monkeypatch.setattr(kind, "REVISIONS", {**kind.REVISIONS, later: "weights are counted twice"})
    with pytest.raises(CascadeError) as caught:
        go(folder)
    assert mentions(str(caught.value), f"revision {later - 1}", f"revision {later}", "counted twice")


def test_an_unfinished_stage_may_change_freely(folder):
    plan, _ = go(folder)
    plan.stage("a").folder.begin({"name": "a", "inputs": {}}, {})
    changed, said = go(folder, "stages.a.steps=5")
    assert changed.stage("a").identity != plan.stage("a").identity
    assert said == []


def test_a_branch_is_a_run_of_its_own_that_shares(folder):
    plan, _ = go(folder)
    complete(plan.stage("a"))
    branched, _ = go(folder, "stages.b.steps=9", branch="try")
    assert branched.run == "try"
    assert branched.stage("a").folder.is_complete
    record = Store(folder).read_run("try")
    assert record["branch_of"] == "demo"
    with pytest.raises(CascadeError, match="'try'.*exists"):
        go(folder, branch="try")


def test_only_what_is_missing_is_done_and_until_stops(folder):
    plan, _ = go(folder)
    titles = [title for title, _, _ in _work(plan, Wishes())]
    assert [t.split()[1] for t in titles] == ["building", "a", "b", "c"]
    complete(plan.stage("a"))
    assert [t.split()[1] for t, _, _ in _work(plan, Wishes(until="b"))] == ["building", "b"]


def test_from_sets_aside_the_stage_and_its_descendants(folder):
    plan, _ = go(folder)
    for stage in plan.stages:
        complete(stage)
    said = []
    set_aside(plan, "b", said.append)
    assert [s.folder.status for s in plan.stages] == ["complete", "pending", "complete"]
    assert list((folder / "store").glob("b-*.superseded"))
    with pytest.raises(CascadeError, match="'x'"):
        go(folder, from_stage="x")


def test_fresh_forgets_what_no_other_run_uses(folder):
    plan, _ = go(folder)
    for stage in plan.stages:
        complete(stage)
    go(folder, "stages.b.steps=9", branch="try")
    forget(plan, lambda _: None)
    assert [s.folder.status for s in plan.stages] == ["complete", "pending", "complete"]  # a, c belong to try too
    assert Store(folder).read_run("demo") is None


def test_inheriting_an_optimizer_that_was_not_kept(folder):
    plan, _ = go(folder, "stages.b.optimizer_state=inherit")
    assert plan.stage("a").keep_optimizer
    complete(plan.stage("a"))
    with pytest.raises(CascadeError, match=r"(?s)keep.*--from a"):
        stage_job(plan, plan.stage("b"))


def test_a_parents_optimizer_is_taken_over_where_it_is_asked_for_only(folder):
    """Pitfall 1: also where a sibling has made the parent keep it."""
    plan, _ = go(folder, "stages.b.optimizer_state=inherit", "stages.b.init=a")
    complete(plan.stage("a"))
    plan.stage("a").folder.optimizer.touch()
    sibling = plan_of(folder, "stages.b.init=a").stage("b")
    assert stage_job(plan, plan.stage("b")).parent_optimizer == plan.stage("a").folder.optimizer
    assert stage_job(plan, sibling).parent_optimizer is None


def test_a_benchmark_is_measured_once_and_again_when_it_changes(folder):
    benchmark = 'evaluate.after_each_stage=[{name: m, data: [{source: rows.jsonl, columns: {x: y}}], reward: {use: "mine:score"}, samples: %d}]'
    plan = plan_of(folder, benchmark % 1)
    stage = plan.stages[0]
    job = evaluate_job(plan, stage)
    assert [b.config.name for b in job.benchmarks] == ["m"]
    stage.folder.evals.mkdir(parents=True)
    result = {"benchmark": "m", "value": 1.0, "stderr": 0.0, "ci95": [1.0, 1.0], "rows": 1, "samples": 1}
    (stage.folder.evals / f"{job.benchmarks[0].file_stem}.json").write_text(json.dumps(result))
    assert evaluate_job(plan, stage) is None
    assert evaluate_job(plan_of(folder, benchmark % 2), plan_of(folder, benchmark % 2).stages[0]) is not None
    assert plan_of(folder, benchmark % 2).stages[0].identity == stage.identity


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.c.reward.use=mine:scor", "stages.c.reward 'scor' score"),
        ("stages.c.reward.depth=1", "stages.c.reward `depth`"),
        ("stages.c.data.0.columns={}", "stages.c.reward mine:score `x` column"),
        ("stages.c.data.0.columns={x: z}", "stages.c.data.0 column 'z'"),
        ("stages.a.data.0.source=gone.jsonl", "stages.a.data.0.source gone.jsonl"),
        ("stages.a.data.0.columns={prompt2: prompt}", "stages.a.data.0 `messages` `prompt`"),
        ("stages.a.data.0.columns={other: response}", "stages.a.data.0 `response` nothing"),
        ("stages.a.data.0.source=rows.csv", "stages.a.data.0.source no rows.csv"),
        ("stages.a.data.0.prompt='{promt}'", "stages.a.data.0 column 'promt' prompt?"),
        ("stages.a.data.0.prompt='{prompt.x}'", "stages.a.data.0 `prompt` 'x'"),
        ("stages.a.data.0.source=empty.jsonl", "stages.a.data.0 empty.jsonl no rows"),
        ("evaluate.after_each_stage=[aime2]", "evaluate.after_each_stage.0 'aime2' aime25"),
    ],
)
def test_preflight_finds_it_before_anything_starts(folder, override, words):
    with pytest.raises(RecipeError) as caught:
        go(folder, override)
    assert any(mentions(str(problem), *words.split()) for problem in caught.value.problems), caught.value


def test_a_benchmark_longer_than_the_model(folder):
    with pytest.raises(RecipeError, match=r"evaluate\.after_each_stage\.0.*65536.*2048"):
        go(folder, "model=tiny-qwen3", "model_args={context: 2048}", "evaluate.after_each_stage=[aime24]")


def test_a_model_that_is_nowhere(folder):
    with pytest.raises(CascadeError, match=r"--set: .*'tiny-qwen'.* tiny-qwen3\b"):
        go(folder, "stages.a.init=model", "model=tiny-qwen")
    (folder / "empty").mkdir()
    with pytest.raises(CascadeError, match=r"config\.json"):
        go(folder, f"model={folder / 'empty'}")


def test_sharding_that_is_not_there_is_refused(folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    with pytest.raises(RecipeError, match="launch: .*ZeRO stage 1"):
        go(folder)
