"""What is wrong with a reward-model stage is found before anything starts, with the line and the key."""

import json
import shutil

import pytest

from cascade_rl.models import tiny_qwen3
from cascade_rl.orchestrator.jobs import evaluate_job
from cascade_rl.orchestrator.pair_checks import head_problems, tokenizer_problems
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import RecipeError, TemplateConfig, load_recipe
from cascade_rl.store import Store
from tests.messages import mentions, says

RECIPE = """\
name: demo
model: tiny-qwen3
stages:
  - name: rm
    kind: reward_model
    data: [{source: rows.jsonl}]
    learning_rate: 1e-3
    steps: 2
    batch_size: 2
    max_length: 64
    evaluate:
      - rewardbench
      - {name: ours, data: [{source: rows.jsonl}]}
"""
PAIR = {"prompt": "1+1?", "chosen": "2", "rejected": "3"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    from cascade_rl.stages.checkpoints.handover import install_contract

    folder = tmp_path_factory.mktemp("parent")
    tiny_qwen3.build(folder, seed=1, hidden_size=64, layers=1, intermediate_size=64, context=128)
    install_contract(folder, TemplateConfig())
    return folder


@pytest.fixture
def folder(tmp_path, parent):
    (tmp_path / "r.yaml").write_text(RECIPE)
    write(tmp_path, PAIR, {**PAIR, "rejected": "4"})
    shutil.copytree(parent, tmp_path / "parent")
    return tmp_path


def write(folder, *rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(file, **keys):
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def problems(folder, *overrides):
    try:
        preflight(load_recipe(folder / "r.yaml", overrides), 1)
    except RecipeError as error:
        return [str(problem).removeprefix(f"{folder}/") for problem in error.problems]
    return []


def test_a_good_recipe_passes(folder):
    assert problems(folder) == []
    assert problems(folder, "stages.rm.init=./parent") == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "rejected": "2"}, "equal"),
        ({**PAIR, "chosen": ""}, "empty"),
        ({"prompt": "1+1?", "chosen": "2"}, "rejected"),
        (
            {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "2"}],
             "rejected": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "3"}]},
            "different",
        ),
    ],
)  # fmt: skip
def test_rows_that_are_no_pairs(folder, row, message):
    write(folder, row)
    found = problems(folder)
    assert "r.yaml:6: stages.rm.data.0" in found[0]
    assert message in found[0]
    write(folder, row, PAIR)  # the stage drops and counts the one, and trains on the other
    assert problems(folder) == []


def test_benchmarks(folder):
    found = problems(folder, "stages.rm.evaluate.0=rewardbensh")
    assert len(found) == 1
    says(found[0], "--set: stages.rm.evaluate.0", "'rewardbensh'", "rewardbench")
    found = problems(folder, "stages.rm.evaluate.1=rewardbench")
    assert mentions(found[0], "stages.rm.evaluate.1", "another", "rewardbench")
    found = problems(folder, "stages.rm.evaluate.1.data.0.source=gone.jsonl")
    assert mentions(found[0], "stages.rm.evaluate.1.data.0.source", "no", "gone.jsonl")
    (folder / "other.jsonl").write_text(json.dumps({"prompt": "1+1?"}) + "\n")
    found = problems(folder, "stages.rm.evaluate.1.data.0.source=other.jsonl")
    assert "r.yaml" in found[0] or "--set" in found[0]
    assert "stages.rm.evaluate.1.data.0" in found[0]
    assert mentions(found[0], "no", "`chosen`")


def test_another_template_than_the_parents(folder):
    found = problems(folder, "stages.rm.template.mode=native")
    assert mentions(found[0], "stages.rm.template", "parent")
    assert problems(folder, "stages.rm.template.mode=native", "stages.rm.init=./parent") == []


def test_a_parent_with_another_head(folder):
    labels = {str(n): f"LABEL_{n}" for n in range(5)}
    change(folder / "parent/config.json", architectures=["Qwen3ForSequenceClassification"], id2label=labels)
    found = problems(folder, "stages.rm.init=./parent")
    assert "stages.rm.init: " in found[0]
    assert mentions(found[0], "5 labels", "Qwen3ForSequenceClassification")


@pytest.mark.parametrize(
    ("config", "labels"), [({}, 2), ({"id2label": {"0": "LABEL_0"}}, None), ({"num_labels": 1}, None)]
)
def test_labels_as_transformers_writes_them(tmp_path, config, labels):
    values = {"architectures": ["LlamaForSequenceClassification"], **config}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = list(head_problems(tmp_path))
    assert bool(found) == (labels is not None)
    assert not found or f"{labels} labels" in found[0]


def test_a_parent_with_another_tokenizer(folder):
    assert list(tokenizer_problems(folder / "parent")) == []
    tokenizer = json.loads((folder / "parent/tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 447, "content": "<new>"})
    (folder / "parent/tokenizer.json").write_text(json.dumps(tokenizer))
    found = problems(folder, "stages.rm.init=./parent")
    assert mentions(found[0], "stages.rm.init", "another", "tokenizer")
    tokenizer["added_tokens"].append({"id": 9999, "content": "<newer>"})
    (folder / "parent/tokenizer.json").write_text(json.dumps(tokenizer))
    assert mentions(problems(folder, "stages.rm.init=./parent")[0], "stages.rm.init", "9999", "448")
    for file in (folder / "parent").glob("tokenizer*"):
        file.unlink()
    assert mentions(problems(folder, "stages.rm.init=./parent")[0], "stages.rm.init", "no", "tokenizer")


def test_longer_pairs_than_the_parent_reads(folder):
    found = problems(folder, "stages.rm.init=./parent", "stages.rm.max_length=256")
    assert mentions(found[0], "stages.rm.max_length", "256", "128", "./parent")


def plan_of(folder, *overrides):
    return make_plan(load_recipe(folder / "r.yaml", overrides), Store(folder))


def test_what_is_measured_is_no_part_of_the_identity_but_what_is_held_out_is(folder):
    (before,) = plan_of(folder).stages
    assert plan_of(folder, "stages.rm.evaluate=[]").stages[0].identity == before.identity
    assert plan_of(folder, "stages.rm.held_out=1").stages[0].identity != before.identity


def test_only_what_is_not_measured_yet_is_a_job(folder):
    from cascade_rl.evals.registry import pairs_identity, resolve_pairs

    plan = plan_of(folder)
    stage = plan.stages[0]
    job = evaluate_job(plan, stage)
    assert (job.task, job.stage["kind"], job.checkpoint) == ("evaluate", "reward_model", str(stage.folder.checkpoint))
    stage.folder.evals.mkdir(parents=True)
    for entry in stage.config.evaluate:
        benchmark = resolve_pairs(entry)
        identity = pairs_identity(benchmark, folder / "r.yaml")
        (stage.folder.evals / f"{benchmark.name}.json").write_text(
            json.dumps({"identity": identity, "value": 1.0, "stderr": 0.0, "ci95": [1, 1], "rows": 1, "samples": 1})
        )
    assert evaluate_job(plan, stage) is None
    write(folder, PAIR)  # the data of `ours` changed, and that of the stage too, hence its folder
    changed = plan_of(folder)
    assert evaluate_job(changed, changed.stages[0]) is not None
