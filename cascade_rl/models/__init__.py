"""Models that need no download: a recipe's ``model:`` may name them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

BUILT_IN = {
    "tiny-qwen3": "cascade_rl.models.tiny_qwen3",
    "smollm2-135m-instruct": "cascade_rl.models.smollm2",
}
"""Name in a recipe -> module with ``build(directory, *, seed, **args)``, which writes a checkpoint folder."""


def build(name: str, directory: Path, *, seed: int, args: dict[str, Any]) -> None:
    """Write the checkpoint of built-in model ``name`` into ``directory``."""
    importlib.import_module(BUILT_IN[name]).build(directory, seed=seed, **args)


def builder_fingerprint(name: str) -> str:
    """Hash of the builder's source: part of the base model's identity. Imports nothing."""
    spec = importlib.util.find_spec(BUILT_IN[name])
    assert spec is not None
    assert spec.origin is not None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]
