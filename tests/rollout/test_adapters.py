"""Adapters in a vLLM engine: what it is started with, which one it serves, and what it says with it."""

import json
import os
from pathlib import Path

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.recipe import EngineConfig, LoraConfig, SamplingConfig
from cascade_rl.rollout.adapters import Adapter, engine_arguments
from cascade_rl.types import CascadeError


def test_room_for_the_rank():
    assert engine_arguments(None) == {}
    assert engine_arguments(LoraConfig(rank=4)) == {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8}
    assert engine_arguments(LoraConfig(rank=64))["max_lora_rank"] == 64
    with pytest.raises(CascadeError, match="512.*513"):
        engine_arguments(LoraConfig(rank=513))


class Told:
    """vLLM's engine as far as adapters go: it reads the folder when it is told of it."""

    def __init__(self, takes=True):
        self.takes, self.log = takes, []

    def add_lora(self, request):
        from safetensors.torch import load_file

        folder = Path(request.lora_path)
        tensors = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        self.log.append(("add", request.lora_int_id, sorted(tensors), config["r"], config["lora_alpha"]))
        self.folder = folder
        return self.takes

    def remove_lora(self, identifier):
        self.log.append(("remove", identifier))


def test_each_version_takes_the_place_of_the_one_before():
    engine = Told()
    adapter = Adapter(engine, LoraConfig(rank=2, alpha=3.0))
    assert adapter.request is None
    adapter.load([("a", torch.ones(2)[::1])], version=0)
    adapter.load(iter([("a", torch.zeros(4)[::2]), ("b", torch.zeros(1))]), version=7)
    adapter.load([("a", torch.ones(1))], version=7)  # the same version again, after a bad sync
    assert engine.log == [
        ("add", 1, ["a"], 2, 3.0), ("remove", 1), ("add", 8, ["a", "b"], 2, 3.0), ("remove", 8), ("add", 8, ["a"], 2, 3.0)
    ]  # fmt: skip
    assert adapter.request.lora_int_id == 8
    assert not engine.folder.exists()


def test_an_adapter_that_is_not_taken_is_not_served():
    adapter = Adapter(Told(takes=False), LoraConfig())
    with pytest.raises(CascadeError, match="step 3"):
        adapter.load([("a", torch.ones(1))], version=3)
    assert adapter.request is None


@pytest.mark.slow
def test_trainer_and_engine_agree_about_each_version(tmp_path):
    """Also at another temperature, and after the adapter has changed; without it the two are far apart."""
    from cascade_rl.rollout.vllm_engine import VllmEngine
    from cascade_rl.stages.checkpoints.handover import probe_logprobs
    from cascade_rl.training import lora
    from tests.training.test_lora import learn
    from tests.training.test_update import make_policy

    os.environ["OMP_NUM_THREADS"] = "1"
    tiny_qwen3.build(tmp_path / "m", seed=3, hidden_size=64, layers=2, intermediate_size=96)
    config = LoraConfig(rank=4, alpha=6.0)
    engine = VllmEngine(
        tmp_path / "m", EngineConfig(max_num_seqs=16), dtype="float32", cpu=True, world_size=1, max_model_len=96,
        renormalised=False, temperature=0.8, tokenizer=tiny_qwen3.build_tokenizer(), lora=config,
    )  # fmt: skip
    policy = make_policy(tmp_path / "m")
    lora.wrap_model(policy.model, config, seed=1)

    def gap(tokens=8):
        prompts = [tuple(range(30, 50)), tuple(range(60, 75))]
        sampling = SamplingConfig(max_new_tokens=tokens, temperature=0.8)
        return probe_logprobs(
            policy, engine, prompts, tokens=tokens, sampling=sampling, engine_temperature=engine.logprob_temperature
        )

    assert gap() < 2e-5  # nothing loaded yet: both are the base
    learn(policy.model)
    assert gap() > 0.01
    for version in (1, 2):
        engine.load_weights(lora.adapter_weights(policy.model.named_parameters()), version)
        assert gap() < 2e-5
        assert engine.version == version
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(-2.0)
    engine.close()
