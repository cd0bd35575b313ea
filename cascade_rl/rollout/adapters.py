"""A low-rank adapter in a vLLM engine of this process: the base's weights stay, each version is an adapter of its own.

vLLM reads adapters from a folder. It is written for the moment of reading, into memory where the system has a place for
that; a rank of 16 is about a two-hundredth of the weights.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade_rl.recipe import LoraConfig
from cascade_rl.types import CascadeError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM can be told to have room for."""
IN_MEMORY = Path("/dev/shm")


def engine_arguments(lora: LoraConfig | None) -> dict[str, Any]:
    """What vLLM is started with, to take adapters of ``lora``. Raises CascadeError for a rank beyond its largest."""
    if lora is None:
        return {}
    if lora.rank > RANKS[-1]:
        raise CascadeError(f"vLLM takes adapters up to rank {RANKS[-1]}, not {lora.rank}: use lora.sync: merged")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(rank for rank in RANKS if rank >= lora.rank)}


class Adapter:
    """The adapter that an engine serves: none before the first ``load``."""

    def __init__(self, engine: Any, lora: LoraConfig) -> None:
        """``engine``: vLLM's ``LLMEngine``."""
        self._engine = engine
        self._settings = json.dumps({"peft_type": "LORA", **lora.peft_settings})
        self._request: Any = None

    @property
    def request(self) -> Any:
        """What goes along with every prompt."""
        return self._request

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Serve ``weights`` (names as in a peft checkpoint) in place of the adapter before.

        Raises CascadeError when vLLM does not take them.
        """
        from safetensors.torch import save_file
        from vllm.lora.request import LoRARequest

        if self._request is not None:
            self._engine.remove_lora(self._request.lora_int_id)
            self._request = None
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights}
        with tempfile.TemporaryDirectory(dir=_place(sum(t.nbytes for t in tensors.values()))) as folder:
            save_file(tensors, Path(folder) / "adapter_model.safetensors")
            (Path(folder) / "adapter_config.json").write_text(self._settings, encoding="utf-8")
            request = LoRARequest(f"version-{version}", version + 1, folder)  # ids begin at 1
            if not self._engine.add_lora(request):
                raise CascadeError(f"vLLM did not take the adapter of step {version}; use lora.sync: merged")
        self._request = request


def _place(size: int) -> Path | None:
    """Where ``size`` bytes fit in memory; None for the usual place of temporary files. Containers often give 64 MiB."""
    fits = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 2 * size
    return IN_MEMORY if fits else None
