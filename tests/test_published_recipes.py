"""The published recipes against the tables of P1 (arXiv 2512.13607, appendix), transcribed here by hand.

Rows: stage: (max response or length, batch, rollouts, learning rate, steps, temperature, top-p, overlong filtering).
"""

from pathlib import Path

import pytest

from cascade_rl.orchestrator.plan import make_plan
from cascade_rl.orchestrator.preflight import preflight
from cascade_rl.recipe import load_recipe
from cascade_rl.store import Store

RECIPES = Path(__file__).parents[1] / "recipes"
K = 1024

SFT = {  # table 14: length, batch, epochs, max and min rate, steps run
    "8b": {"sft-1": (16 * K, 256, 5e-5, 0, 20_000), "sft-2": (32 * K, 256, 2e-5, 0, 32_000)},
    "14b": {"sft-1": (16 * K, 256, 5e-5, 0, 22_000), "sft-2": (32 * K, 256, 5e-5, 0, 41_000)},
}
RL = {
    "8b": {
        "rlhf": (12 * K, 256, 8, 2e-6, 800, 0.6, 0.95, False),  # table 15
        "if-1": (8 * K, 256, 8, 2e-6, 2300, 0.6, 0.95, False),  # table 16
        "if-2": (8 * K, 256, 8, 2e-6, 800, 0.6, 0.95, False),
        "math-24k": (24 * K, 128, 8, 2e-6, 190, 1.0, 0.95, True),  # table 17
        "math-32k": (32 * K, 128, 8, 2e-6, 240, 1.0, 0.95, False),
        "math-40k": (40 * K, 128, 8, 2e-6, 70, 0.8, 0.95, False),
        "code": (44 * K, 128, 8, 4e-6, 64, 1.0, 0.95, False),  # table 19: 44K -> 48K, 1.0 -> 0.8, 90 steps
        "code-48k": (48 * K, 128, 8, 4e-6, 26, 0.8, 0.95, False),
        "swe-16k": (16 * K, 128, 16, 2.5e-6, 30, 1.0, 0.95, True),  # table 20
        "swe-24k": (16 * K, 128, 16, 2.5e-6, 30, 1.0, 0.95, False),
    },
    "8b-thinking": {
        "rlhf": (12 * K, 256, 8, 2e-6, 800, 0.6, 0.95, False),
        "if-1": (8 * K, 256, 8, 2e-6, 550, 0.6, 0.95, False),
        "if-2": (16 * K, 256, 8, 2e-6, 300, 0.6, 0.95, True),
        "math-24k": (24 * K, 128, 8, 2e-6, 190, 1.0, 0.95, True),
        "math-32k": (32 * K, 128, 8, 2e-6, 240, 1.0, 0.95, False),
        "math-40k": (40 * K, 128, 8, 2e-6, 70, 0.8, 0.95, False),
        "code": (44 * K, 128, 8, 4e-6, 64, 1.2, 0.95, False),
        "swe-16k": (16 * K, 128, 16, 2.5e-6, 30, 1.0, 0.95, True),
        "swe-24k": (16 * K, 128, 16, 2.5e-6, 30, 1.0, 0.95, False),
    },
    "14b-thinking": {
        "rlhf": (12 * K, 256, 8, 2e-6, 900, 0.6, 0.95, False),
        "if-1": (8 * K, 256, 8, 2e-6, 800, 0.6, 0.95, False),
        "if-2": (16 * K, 256, 8, 2e-6, 120, 0.6, 0.95, True),
        "math-28k": (28 * K, 128, 8, 2.5e-6, 120, 1.2, 0.95, True),  # table 18
        "math-40k": (40 * K, 128, 8, 2.5e-6, 100, 1.1, 0.95, False),
        "code": (56 * K, 128, 8, 4e-6, 64, 1.0, 0.95, False),
        "swe-32k": (16 * K, 128, 16, 2.5e-6, 120, 1.0, 0.95, True),
    },
}
INPUT = {"swe-16k": 16 * K, "swe-24k": 24 * K, "swe-32k": 32 * K}  # table 20, "input"
STEPS = {"8b": 4550, "8b-thinking": 2274, "14b-thinking": 2224}  # sums of the tables' RL steps
MODELS = {"8b": "Qwen/Qwen3-8B-Base", "8b-thinking": "Qwen/Qwen3-8B-Base", "14b-thinking": "Qwen/Qwen3-14B-Base"}
CONTINUED = {"if-2", "math-32k", "math-40k", "code-48k", "swe-24k"}
"""Sub-stages, which go on with the optimizer of the one before."""


@pytest.fixture(scope="module", params=sorted(RL))
def published(request):
    return request.param, load_recipe(RECIPES / f"nemotron-cascade-{request.param}.yaml")


def stages(loaded):
    return {stage.name: stage for stage in loaded.recipe.stages}


def test_they_pass_check_without_data_or_network(published, tmp_path):
    name, loaded = published
    preflight(loaded, 1)
    assert make_plan(loaded, Store(tmp_path)).stages
    assert loaded.recipe.model == MODELS[name]


def test_every_stage_in_the_published_order(published):
    name, loaded = published
    assert [stage.name for stage in loaded.recipe.stages] == ["sft-1", "sft-2", "reward-model", *RL[name]]
    parents = {stage.name: stage.init for stage in loaded.recipe.stages}
    chain = ["sft-1", "sft-2", *RL[name]]
    assert [parents[stage] for stage in chain] == ["model", *chain[:-1]]
    assert parents["reward-model"] == "Qwen/Qwen2.5-72B-Instruct"


def test_sft_is_as_in_table_14(published):
    name, loaded = published
    for stage, row in SFT["14b" if name.startswith("14b") else "8b"].items():
        config = stages(loaded)[stage]
        got = (config.max_length, config.batch_size, config.learning_rate, config.min_learning_rate, config.steps)
        assert got == row, stage
        assert (config.lr_schedule, config.lr_horizon_steps) == ("cosine", 100_000)
        assert (config.betas, config.weight_decay) == ((0.9, 0.95), 1e-4)


def test_the_reward_model_is_as_published(published):
    config = stages(published[1])["reward-model"]
    assert (config.batch_size, config.learning_rate, config.epochs) == (256, 2e-6, 1)
    assert [source.source for source in config.data] == ["nvidia/Nemotron-Cascade-RM-Training"]


def test_rl_is_as_in_tables_15_to_20(published):
    name, loaded = published
    for stage, row in RL[name].items():
        config = stages(loaded)[stage]
        rollout = config.rollout
        got = (
            rollout.max_new_tokens, config.prompts_per_step, config.group_size, config.learning_rate, config.steps,
            rollout.temperature, rollout.top_p, config.overlong == "filter",
        )  # fmt: skip
        assert got == row, stage
        assert config.max_prompt_tokens == INPUT.get(stage), stage
        assert rollout.top_k == (20 if stage.startswith("if") else 0), stage
        assert (config.betas, config.advantage, config.lr_schedule) == ((0.9, 0.95), "group", "constant"), stage
        assert config.optimizer_state == ("inherit" if stage in CONTINUED and stage != _first(name, stage) else "fresh")
    assert sum(row[4] for row in RL[name].values()) == STEPS[name]


def _first(name, stage):
    """Of a domain's sub-stages the first one starts with a fresh optimizer."""
    return next(other for other in RL[name] if other.partition("-")[0] == stage.partition("-")[0])


def test_modes_and_rewards(published):
    name, loaded = published
    known = stages(loaded)
    unified = name == "8b"
    assert loaded.recipe.template.mode == ("unified" if unified else "thinking")
    assert known["rlhf"].modes == ("half" if unified else "thinking")
    assert {known[stage].modes for stage in ("if-1", "if-2")} == {"instruct" if unified else "thinking"}
    assert {config.modes for stage, config in known.items() if stage.startswith(("math", "code", "swe"))} == {
        "thinking"
    }
    assert known["rlhf"].overlong == "score"  # the reward model scores unfinished text
    gated = "rewards.instruction_following:verify" if unified else "rewards.preference:VerifiedPreference"
    assert {known[stage].reward.use for stage in ("if-1", "if-2")} == {gated}
    math = next(config for stage, config in known.items() if stage.startswith("math"))
    assert math.reward.params["mixed_language"] == -1.0  # overrides correctness
    assert known["code"].reward.params["mixed_language"] == 0.0  # -1 made coding worse


def test_code_is_judged_with_the_published_tolerance(published):
    code = [stage for stage in published[1].recipe.stages if stage.name.startswith("code")]
    assert code
    assert all(stage.reward.params["float_tolerance"] == 1e-6 for stage in code)
