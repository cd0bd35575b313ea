"""The rewards of a recipe tried on its own rows."""

import json

import pytest

from cascade_rl.orchestrator.trials import try_rewards
from cascade_rl.recipe import RecipeError, load_recipe
from tests.messages import mentions

RECIPE = """\
name: demo
model: tiny-qwen3
template: {mode: instruct}
defaults: {rl: {learning_rate: 1e-6, steps: 2, data: [{source: rows.jsonl}]}}
stages:
  - {name: a, kind: rl, reward: {use: "graders_SUFFIX:blind"}}
  - {name: b, kind: rl, reward: {use: "graders_SUFFIX:sound"}}
evaluate:
  after_each_stage:
    - {name: same, data: [{source: rows.jsonl}], reward: {use: "graders_SUFFIX:blind"}}
"""
GRADERS = """\
def blind(response, answer): return 0.0
def sound(response, answer): return float(response == answer)
def broken(response, answer): raise KeyError("table")
"""


@pytest.fixture
def loaded(tmp_path, request):
    suffix = str(abs(hash(request.node.name)))  # modules stay imported
    (tmp_path / f"graders_{suffix}.py").write_text(GRADERS)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "q", "answer": "4"}) + "\n")
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("SUFFIX", suffix))
    return lambda *changes: load_recipe(path, [change.replace("SUFFIX", suffix) for change in changes])


def test_a_warning_names_the_place_and_comes_once(loaded):
    (warning,) = try_rewards(loaded())
    assert warning.key == "stages.a.reward"
    assert warning.line == 6
    assert mentions(warning.message, "blind", "0", "empty", "rows.jsonl")


def test_finished_stages_are_left_alone_but_benchmarks_go_on(loaded):
    (warning,) = try_rewards(loaded(), finished=["a"])
    assert warning.key == "evaluate.after_each_stage.0.reward"


def test_a_reward_that_can_score_nothing_stops_before_anything_starts(loaded):
    with pytest.raises(RecipeError, match=r"stages\.b\.reward: .*KeyError: 'table'"):
        try_rewards(loaded("stages.b.reward.use=graders_SUFFIX:broken"))
