"""A checkpoint with more positions than it was made for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import RopeScaling
from cascade_rl.stages.checkpoints.rope import stretched
from cascade_rl.types import CascadeError

YARN = RopeScaling(factor=4.0, original_max_position_embeddings=64)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    tiny_qwen3.build(folder, seed=3, hidden_size=64, layers=2, intermediate_size=96, context=64)
    return folder


def test_the_config_says_it_and_the_weights_are_the_same(checkpoint, tmp_path):
    folder = stretched(str(checkpoint), YARN, tmp_path / "long")
    before, after = (json.loads((place / "config.json").read_text()) for place in (checkpoint, folder))
    assert after["max_position_embeddings"] == 256
    assert after["rope_parameters"] == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        "rope_theta": before["rope_parameters"]["rope_theta"],
    }  # fmt: skip
    assert {name for name in after if after[name] != before.get(name)} == {"max_position_embeddings", "rope_parameters"}
    assert (folder / "model.safetensors").resolve() == (checkpoint / "model.safetensors").resolve()
    assert stretched(str(checkpoint), YARN, tmp_path / "long") == folder  # a second attempt finds it


def test_old_configs_keep_their_theta(tmp_path):
    (tmp_path / "old").mkdir()
    old = {"rope_theta": 5e5, "rope_scaling": None, "max_position_embeddings": 64}
    (tmp_path / "old" / "config.json").write_text(json.dumps(old))
    config = json.loads((stretched(str(tmp_path / "old"), YARN, tmp_path / "long") / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 5e5
    assert "rope_scaling" not in config


def test_a_folder_without_a_config(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(CascadeError, match=r"/none .*config\.json"):
        stretched(str(tmp_path / "none"), YARN, tmp_path / "long")


BOTH = """
import sys, torch
from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, SamplingConfig
from cascade_rl.recipe.parts import OptimizerConfig
from cascade_rl.rollout.vllm_engine import VllmEngine
from cascade_rl.stages.checkpoints.handover import probe_logprobs
from cascade_rl.training.policy import Policy
from cascade_rl.training.ranks import Ranks
short, long = sys.argv[1:3]
engine = VllmEngine(
    long, EngineConfig(max_num_seqs=4), dtype="float32", cpu=True, world_size=1, max_model_len=220, renormalised=True,
    temperature=1.0, tokenizer=tiny_qwen3.build_tokenizer(),
)
for folder in (long, short):
    policy = Policy(folder, OptimizerConfig(learning_rate=1e-3), ranks=Ranks(0, 1, torch.device("cpu")),
                    dtype="float32", total_steps=1, gradient_checkpointing=False, chunk_tokens=64)
    engine.load_weights(policy.named_weights(), version=0)
    prompts = [tuple((i * 7 + j) % 300 for i in range(200)) for j in range(3)]
    print("GAP", probe_logprobs(policy, engine, prompts, sampling=SamplingConfig(max_new_tokens=8), engine_temperature=1.0), flush=True)
"""


@pytest.mark.slow
def test_trainer_and_engine_stretch_alike_beyond_the_models_own_positions(checkpoint, tmp_path):
    folder = stretched(str(checkpoint), YARN, tmp_path / "long")
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(checkpoint), str(folder)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    same, other = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("GAP"))
    assert same < 1e-4  # 200 positions where 64 were learned
    assert other > 1e-2  # the same weights without the scaling are another model there
