"""Filters, exclusions and weights: what `check` says of them, and what of them names a stage's result."""

import json
import sys

import pytest

from cascade_rl.orchestrator.jobs import stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import RecipeError, load_recipe
from cascade_rl.store import Job, Store
from tests.messages import mentions

RECIPE = """\
name: demo
model: tiny-qwen3
template: {mode: instruct}
defaults: {rl: {learning_rate: 1e-6, steps: 2, prompts_per_step: 4, reward: {use: "selecting:score"}}}
stages:
  - {name: sft, kind: sft, data: [{source: sft.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4}
  - name: rl
    kind: rl
    data:
      - {source: rl.jsonl, keep: "selecting:keep"}
    exclude:
      - {stage: sft}
      - {data: [{source: bench.jsonl}], ngram: 9}
      - {where: {kind: [code]}}
"""
CODE = "def score(response): return float(bool(response))\ndef keep(row): return True\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    for name, rows in {
        "sft": [{"prompt": "q", "response": "a"}],
        "rl": [{"prompt": "r", "kind": "math"}],
        "bench": [{"prompt": "b"}],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "selecting.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("selecting", None)


def identities(folder, *changes):
    plan = make_plan(load_recipe(folder / "r.yaml", changes), Store(folder))
    return {stage.name: stage.identity for stage in plan.stages}


def problems(folder, *changes):
    with pytest.raises(RecipeError) as caught:
        preflight(load_recipe(folder / "r.yaml", changes), 1)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_the_recipe_as_it_is_passes(folder):
    preflight(load_recipe(folder / "r.yaml"), 1)


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        ("data.0.keep=selecting:kep", "data.0.keep", "'kep' keep"),
        ("data.0.keep=gone:keep", "data.0.keep", "module 'gone'"),
        ("data.0={source: some/hub, prompt: '{x}', keep: 'gone:keep'}", "data.0.keep", "module 'gone'"),
        ("exclude.2.where={knd: [code]}", "exclude.2.where.knd", "column 'knd' kind"),
        ("exclude.1.data.0.source=gone.jsonl", "exclude.1.data.0.source", "no gone.jsonl"),
        ("exclude.1.data.0.prompt='{}'", "exclude.1.data.0.prompt", "{} column"),
        ("exclude.1.data.0.prompt='{problem}'", "exclude.1.data.0", "column 'problem'"),
        ("exclude.1.data.0.keep=selecting:gone", "exclude.1.data.0.keep", "selecting 'gone'"),
        ("data=[{source: rl.jsonl, weight: 1000}, {source: bench.jsonl, weight: 1}]", "data.1.weight",
         "bench.jsonl 0.008 8 4"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_file_and_key(folder, change, place, words):
    if place == "data.1.weight":
        (folder / "r.yaml").write_text(RECIPE.replace("      - {where: {kind: [code]}}\n", ""))
    (found,) = problems(folder, f"stages.rl.{change}")
    assert f"stages.rl.{place}: " in found
    assert mentions(found.split(f"stages.rl.{place}: ")[1], *words.split()), found


def test_weights_are_for_rl(folder):
    (found,) = problems(folder, "stages.sft.data.0.weight=2")
    assert mentions(found, "stages.sft.data.0.weight", "sft", "`repeat`")
    assert "--set" in found


def test_a_line_is_named(folder):
    (folder / "r.yaml").write_text(RECIPE.replace("kind: [code]", "knd: [code]"))
    (found,) = problems(folder)
    assert found.startswith("r.yaml:14: stages.rl.exclude.2.where.knd: ")


def test_a_filter_that_keeps_nothing_is_told(folder):
    (folder / "selecting.py").write_text(CODE.replace("True", "False"))
    sys.modules.pop("selecting", None)
    assert any(mentions(line, "stages.rl.data.0", "selecting:keep", "none") for line in problems(folder))


def test_the_job_brings_the_data_of_excluded_stages(folder):
    plan = make_plan(load_recipe(folder / "r.yaml"), Store(folder))
    job = Job.model_validate_json(stage_job(plan, plan.stage("rl")).model_dump_json())
    assert [source.source for source in job.stages_data["sft"]] == ["sft.jsonl"]
    assert stage_job(plan, plan.stage("sft")).stages_data == {}


def test_excluded_data_is_part_of_the_identity_by_content(folder):
    alone = ["stages.rl.init=model"]  # so that sft reaches rl by its data only
    before = identities(folder, *alone)["rl"]
    (folder / "bench.jsonl").rename(folder / "moved.jsonl")
    assert identities(folder, *alone, "stages.rl.exclude.1.data.0.source=moved.jsonl")["rl"] == before
    (folder / "moved.jsonl").rename(folder / "bench.jsonl")
    assert identities(folder, *alone, "stages.sft.data.0.repeat=2")["rl"] == before  # asks the same, only more often
    assert identities(folder, *alone, "stages.sft.learning_rate=2e-3")["rl"] == before
    for change in ("exclude.1.ngram=8", "exclude.2.where.kind=[swe]", "exclude=[]"):
        assert identities(folder, *alone, f"stages.rl.{change}")["rl"] != before
    for name in ("bench", "sft"):
        with open(folder / f"{name}.jsonl", "a") as file:
            file.write('{"prompt": "new", "response": "r"}\n')
        after = identities(folder, *alone)["rl"]
        assert after != before
        before = after


def test_a_stage_without_exclusions_keeps_its_identity(folder):
    assert "exclude" not in make_plan(load_recipe(folder / "r.yaml"), Store(folder)).stage("sft").inputs
