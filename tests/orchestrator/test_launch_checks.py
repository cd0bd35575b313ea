"""What the launcher was told and what the recipe says: found out before anything starts."""

import dataclasses
import os

import pytest
import yaml

from cascade_rl.orchestrator.children import child_environment
from cascade_rl.orchestrator.launch_checks import check_launch, launch_of
from cascade_rl.recipe import load_recipe
from cascade_rl.recipe.launching import VARIABLE, Launch
from tests.messages import mentions

RECIPE = """\
name: demo
model: tiny-qwen3
dtype: float32
stages:
  - {name: a, kind: sft, data: [{source: rows.jsonl}], learning_rate: 1e-3, steps: 2, batch_size: 4, trainer: trl}
  - {name: c, kind: rl, data: [{source: rows.jsonl}], reward: {use: "mine:score"}, learning_rate: 1e-6, steps: 2}
"""


@pytest.fixture
def problems(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)

    def find(launch, *overrides, world_size=2):
        return [
            str(problem) for problem in check_launch(load_recipe(tmp_path / "r.yaml", overrides), launch, world_size)
        ]

    return find


def test_what_fits_together_is_fine(problems):
    assert problems(Launch()) == []
    assert problems(Launch("zero3", processes=2)) == []
    assert problems(Launch("zero3"), "stages.c.sharding={strategy: zero3, offload_parameters: true}") == []
    assert problems(Launch(), "stages.c.sharding={strategy: fsdp2, sequence_parallel: 2}") == []


@pytest.mark.parametrize(
    ("launch", "override", "where", "words"),
    [
        (Launch(refused=("no such thing",)), "seed=1", "launch", "config no such thing"),
        (Launch("zero3"), "stages.c.sharding={strategy: ddp}", "sharding.strategy", "ddp zero3"),
        (Launch(precision="bf16"), "seed=1", "dtype", "float32 bf16"),
        (
            Launch("zero2", gradient_clipping=0.1),
            "stages.a.grad_clip=0.1",
            "grad_clip",
            "1 0.1",
        ),
        (Launch(), "stages.c.sharding={offload_parameters: true}", "offload_parameters", "ddp whole"),
        (Launch("zero2", offload_parameters=True), "seed=1", "offload_parameters", "zero2 whole"),
        (Launch(), "stages.c.sharding={sequence_parallel: 3}", "sequence_parallel", "3 divide 2"),
        (Launch(), "stages.a.sharding={strategy: fsdp2}", "sharding.strategy", "trl data-parallel"),
        (Launch(), "stages.a.sharding={offload_activations: true}", "offload_activations", "trl offload"),
        (Launch(), "stages.a.sharding={sequence_parallel: 2}", "sequence_parallel", "trl data-parallel"),
    ],
)
def test_what_does_not_is_told_with_its_key(problems, launch, override, where, words):
    (problem,) = problems(launch, override)
    assert where in problem
    assert mentions(problem, *words.split()), problem


def test_the_masks_of_whole_rollouts_do_not_see_parts_of_them(problems):
    override = "stages.c.mismatch={mask: geometric, low: 0.9, high: 1.1}"
    (problem,) = problems(Launch(), "stages.c.sharding={sequence_parallel: 2}", override)
    assert mentions(problem, "stages.c.sharding.sequence_parallel", "geometric", "whole")


def test_zero_without_deepspeed_is_told(problems, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = problems(Launch("zero2"))
    assert mentions(problem, "zero2", "DeepSpeed", "installed")


def test_the_recipes_own_config_counts_before_anything_is_launched(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "r.yaml").write_text(RECIPE + "launch: {accelerate: own.yaml}\n")
    config = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3, "offload_param_device": "cpu"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    assert launch_of(load_recipe(tmp_path / "r.yaml")) == Launch("zero3", offload_parameters=True)
    monkeypatch.setenv("RANK", "0")  # launched: only what the launcher really did counts
    assert launch_of(load_recipe(tmp_path / "r.yaml")).strategy is None


def test_children_learn_what_was_asked_and_see_nothing_of_accelerate(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    environment = child_environment(1, 2, 1, "127.0.0.1", 29500)
    assert not [key for key in environment if key.startswith(("ACCELERATE_", "FSDP_"))]
    assert dataclasses.astuple(Launch.from_environment(environment))[:1] == ("fsdp2",)
    assert Launch.from_environment(environment) == Launch.from_environment(os.environ)


@pytest.mark.parametrize("kind", ["sft", "reward_model"])
def test_offline_stages_are_sharded_as_others_are(problems, kind):
    stage = ("stages.a.trainer=null", f"stages.a.kind={kind}")
    assert problems(Launch("zero3"), *stage) == []
    sharding = "stages.a.sharding={strategy: fsdp2, sequence_parallel: 2, offload_parameters: true}"
    assert problems(Launch(), *stage, sharding) == []
    (problem,) = problems(Launch(), *stage, "stages.a.sharding={sequence_parallel: 3}")
    assert mentions(problem, "stages.a.sharding.sequence_parallel", "3", "2")
