"""What `check` says of rewards, rows and options that do not go together."""

import json
import sys

import pytest

from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import RecipeError, load_recipe
from tests.builders import rl_recipe
from tests.messages import mentions

RECIPE = rl_recipe("dynamic:score", "    prompts_per_step: 4\n")
CODE = """
def score(response): return 0.0
class Step:
    def score(self, response): return 0.0
    def combine(self, groups): return [[0.0 for _ in g.scores] for g in groups]
class ByGroup(Step):
    combines_groups_alone = True
"""
DYNAMIC = "stages.rl.dynamic_sampling={max_factor: 4}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "rl.jsonl").write_text(json.dumps({"prompt": "r"}) + "\n")
    (tmp_path / "dynamic.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("dynamic", None)


def problems(folder, *changes):
    with pytest.raises(RecipeError) as caught:
        preflight(load_recipe(folder / "r.yaml", changes), 1)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


@pytest.mark.parametrize("reward", ["dynamic:score", "dynamic:ByGroup"])
def test_rewards_that_know_a_group_by_itself_go_with_dynamic_sampling(folder, reward):
    preflight(load_recipe(folder / "r.yaml", (DYNAMIC, f"stages.rl.reward.use={reward}")), 1)


def test_rewards_that_need_the_whole_step_do_not(folder):
    (found,) = problems(folder, DYNAMIC, "stages.rl.reward.use=dynamic:Step")
    assert "stages.rl.dynamic_sampling" in found
    assert mentions(found, "dynamic:Step", "groups")
    preflight(load_recipe(folder / "r.yaml", ("stages.rl.reward.use=dynamic:Step",)), 1)


def test_the_limit_of_a_row_is_checked(folder):
    (folder / "rl.jsonl").write_text(json.dumps({"prompt": "r", "max_new_tokens": "many"}) + "\n")
    (found,) = problems(folder)
    assert mentions(found, "`max_new_tokens`", "whole", "1", "'many'")


@pytest.mark.parametrize("value", ["abc", "'512'", "[1]", "{a: 1}", "true", "0", "-5", "1.5", "null"])
def test_a_refused_context_is_one_problem(folder, value):
    (found,) = problems(folder, f"model_args.context={value}")
    assert mentions(found, "model_args.context", "whole")


def test_a_context_too_short_for_the_stage_is_reported(folder):
    (found,) = problems(folder, "model_args.context=512")
    assert mentions(found, "stages.rl.rollout.max_new_tokens", "1024", "512")


def test_rows_given_to_a_shipped_benchmark_are_checked(folder):
    benchmark = "evaluate.after_each_stage=[{use: aime24, source: mine.jsonl}]"
    (folder / "mine.jsonl").write_text(json.dumps({"question": "1+1?", "answer": 2}) + "\n")
    (found, *_) = problems(folder, benchmark)
    assert "evaluate.after_each_stage.0.source" in found
    assert mentions(found, "problem", "mine.jsonl")


def test_a_domain_that_is_a_number_has_its_reward(folder):
    """Rows and recipe name domains by text, so 7 is '7'."""
    (folder / "rl.jsonl").write_text(json.dumps({"prompt": "r", "domain": 7}) + "\n")
    (folder / "dynamic.py").write_text("def score(response, answer): return 0.0\n")
    found = problems(folder, "stages.rl.reward=null", "stages.rl.rewards={'7': {use: dynamic:score}}")
    assert any(mentions(problem, "stages.rl.rewards.7", "`answer`") for problem in found)
