"""How much key-value cache an engine on a CPU can ever use."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade_rl.recipe import EngineConfig

CPU_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"
"""Gibibytes of key-value cache on a CPU as vLLM reads them; what a user sets there wins over the recipe."""
BLOCK_TOKENS = 128
"""Tokens of one cache block of vLLM on a CPU."""
SPARE_FACTOR = 2
"""Room for finished prompts, whose blocks the prefix cache keeps for the next request with the same prompt."""
GIB = 2**30


def cpu_cache_bytes(checkpoint: str | Path, config: EngineConfig, max_model_len: int, dtype: str) -> int:
    """Return the bytes of key-value cache to allocate: ``engine.cpu_kv_cache_gib``, or less where that is enough.

    vLLM clears the whole cache when it starts, so gibibytes that a tiny model can never fill cost each start a second.
    The need is that of ``max_num_seqs`` sequences of ``max_model_len`` tokens.
    """
    limit = config.cpu_kv_cache_gib * GIB
    try:
        model = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return limit  # the name of a hub model, or an error that the engine itself will explain
    per_token = _bytes_per_token(model, itemsize=4 if dtype == "float32" else 2)
    if per_token is None:
        return limit
    blocks = config.max_num_seqs * math.ceil(max_model_len / BLOCK_TOKENS) * SPARE_FACTOR
    return min(limit, blocks * BLOCK_TOKENS * per_token)


def _bytes_per_token(model: Mapping[str, Any], *, itemsize: int) -> int | None:
    """Keys and values of all layers for one token; None for a model that does not say how large they are."""
    try:
        layers, heads = int(model["num_hidden_layers"]), int(model["num_attention_heads"])
        key_value_heads = int(model.get("num_key_value_heads") or heads)
        head_size = int(model.get("head_dim") or model["hidden_size"] // heads)
    except (KeyError, TypeError, ValueError):
        return None
    return 2 * layers * key_value_heads * head_size * itemsize
