"""What a model inherits from its parent's generation settings can be saved again, and says the same."""

import json
import shutil

import pytest
import torch

from cascade_rl.models import tiny_qwen3
from cascade_rl.training.generation import valid_settings
from cascade_rl.training.model import load_model
from cascade_rl.training.reward_model import load_reward_model

CPU = torch.device("cpu")
TOKENS = {"eos_token_id": [2, 0], "pad_token_id": 0, "bos_token_id": 1}
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    tiny_qwen3.build(folder, seed=1, hidden_size=64, layers=1, intermediate_size=64)
    return folder


def test_valid_settings_stay_as_they_are():
    assert valid_settings({**SAMPLING, **TOKENS}) == {**SAMPLING, **TOKENS}
    beams = {"num_beams": 4, "early_stopping": True, "length_penalty": 0.8}
    assert valid_settings({"early_stopping": True, **beams, **TOKENS}) == {**beams, **TOKENS}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"do_sample": False, "temperature": 0.6}, {"do_sample": False}),
        ({"temperature": 0.6, "top_p": 0.9, "top_k": 5, "min_p": 0.1}, {}),
        ({"num_beams": 1, "early_stopping": True, "length_penalty": 2.0}, {"num_beams": 1}),
        ({**SAMPLING, "early_stopping": True}, SAMPLING),
        ({"early_stopping": "sometimes"}, {}),
        ({"cache_implementation": "none such"}, {}),
        ({"max_new_tokens": 0, "max_length": 64}, {"max_length": 64}),
        ({"num_return_sequences": 3}, {}),
        ({"watermarking_config": {"greenlist_ratio": 5}}, {}),
        ({"output_scores": True, "return_dict_in_generate": False}, {"return_dict_in_generate": False}),
    ],
)
def test_a_parents_settings_can_be_saved_again(parent, tmp_path, given, kept):
    """Settings that would not be used are gone; token ids and all that is valid are as the parent had them."""
    folder = tmp_path / "parent"
    shutil.copytree(parent, folder)
    (folder / "generation_config.json").write_text(json.dumps({**given, **TOKENS}))
    load_model(folder, CPU).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/generation_config.json").read_text())
    assert {name: saved[name] for name in TOKENS} == TOKENS
    assert {name: saved[name] for name in given if name in saved} == kept
    load_reward_model(str(folder), CPU, 1, 0).save_pretrained(tmp_path / "reward model")


def test_settings_in_an_old_models_configuration_count_too(parent, tmp_path):
    folder = tmp_path / "parent"
    shutil.copytree(parent, folder)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "temperature": 0.6, "early_stopping": True}))
    model = load_model(folder, CPU)
    model.save_pretrained(tmp_path / "saved")
    assert model.generation_config.eos_token_id == config["eos_token_id"]
