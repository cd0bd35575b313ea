"""SFT and RL stages of one recipe, as their processes load them: no prompt is in both."""

import io
import json

import pytest
import torch

from cascade_rl.data.template import Template
from cascade_rl.models.tiny_qwen3 import build_tokenizer
from cascade_rl.orchestrator.jobs import stage_job
from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.recipe import TemplateConfig, load_recipe
from cascade_rl.stages.context import Context, StopFlag
from cascade_rl.stages.onpolicy.prompts import load_prompts
from cascade_rl.stages.sft_rows import training_rows
from cascade_rl.store import Store
from cascade_rl.training.ranks import Ranks

RECIPE = """\
name: demo
model: tiny-qwen3
template: {mode: instruct}
stages:
  - name: sft
    kind: sft
    data: [{source: sft.jsonl}]
    exclude: [EXCLUDE]
    learning_rate: 1e-3
    steps: 2
    batch_size: 4
  - name: rl
    kind: rl
    data: [{source: rl.jsonl, prompt: "{problem}"}]
    exclude: [{stage: sft}]
    reward: {use: "rewards.math:verify"}
    learning_rate: 1e-6
    steps: 2
"""


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("exclude", ["", "{stage: rl}"])
def test_sft_and_rl_prompts_are_disjoint(tmp_path, tokenizer, exclude):
    template = Template(TemplateConfig(mode="instruct"), tokenizer)
    template.install()
    (tmp_path / "r.yaml").write_text(RECIPE.replace("EXCLUDE", exclude))
    both, own = [f"{i}+1?" for i in range(5)], [f"{i}+2?" for i in range(4)]
    sft = [{"prompt": f" {prompt} ", "response": "x"} for prompt in [*both, "only sft?"]]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sft))
    rl = [{"problem": prompt, "answer": "1"} for prompt in [*own, *both]]
    (tmp_path / "rl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rl))
    plan = make_plan(load_recipe(tmp_path / "r.yaml"), Store(tmp_path))
    said = io.StringIO()

    def context(name):
        return Context(stage_job(plan, plan.stage(name)), Ranks(0, 1, torch.device("cpu")), StopFlag(), said)

    first, second = context("sft"), context("rl")
    trained = [tokenizer.decode(row["prompt_ids"]) for row in training_rows(first, first.job.stage_config(), template)]
    prompts = [p.messages[0]["content"] for p in load_prompts(second, second.job.stage_config(), template).prompts]
    assert prompts == own
    assert not [prompt for prompt in prompts if any(prompt in text for text in trained)]
    assert len(trained) == (1 if exclude else 6)
    assert "stage sft: 5 of 9" in said.getvalue()
    assert ("stage rl: 5 of 6" in said.getvalue()) is bool(exclude)
