import json

import pytest

from cascade_rl.recipe import EngineConfig
from cascade_rl.rollout.kv_cache import GIB, cpu_cache_bytes

MODEL = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "hidden_size": 64}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return tmp_path


def test_a_small_model_gets_what_its_requests_can_fill(checkpoint):
    # 2 (keys, values) * 2 layers * 1 head * 16 numbers * 4 bytes = 256 bytes a token; 200 tokens take 2 blocks of 128.
    need = 8 * 2 * 128 * 256
    assert cpu_cache_bytes(checkpoint, EngineConfig(max_num_seqs=8), 200, "float32") == 2 * need
    assert cpu_cache_bytes(checkpoint, EngineConfig(max_num_seqs=8), 200, "bfloat16") == need


def test_the_recipe_is_the_limit(checkpoint):
    large = EngineConfig(max_num_seqs=4096, cpu_kv_cache_gib=3)
    assert cpu_cache_bytes(checkpoint, large, 32768, "float32") == 3 * GIB


@pytest.mark.parametrize("text", [None, "{}", "not json", '{"num_hidden_layers": "many"}'])
def test_a_model_of_unknown_size_gets_the_limit(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert cpu_cache_bytes(tmp_path, EngineConfig(), 64, "float32") == GIB
