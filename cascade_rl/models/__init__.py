"""Models that need no download: a recipe's ``model:`` may name them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade_rl.recipe.problems import suggestion

BUILT_IN = {
    "tiny-qwen3": "cascade_rl.models.tiny_qwen3",
    "smollm2-135m-instruct": "cascade_rl.models.smollm2",
}
"""Name in a recipe -> module with ``build(directory, *, seed, **args)``, which writes a checkpoint folder, and
``MULTIPLES``, argument -> what it must be a multiple of."""
# Not in the modules themselves: their source is part of the identity of every stage that starts from them.
LARGEST = {"hidden_size": 4096, "layers": 128, "intermediate_size": 16384, "context": 1 << 20}
"""Upper bounds of arguments. All together make 130 GB of weights, so a larger one is a mistyped number."""


def build(name: str, directory: Path, *, seed: int, args: dict[str, Any]) -> None:
    """Write the checkpoint of built-in model ``name`` into ``directory``."""
    importlib.import_module(BUILT_IN[name]).build(directory, seed=seed, **args)


def argument_problems(name: str, args: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for each of ``args`` that ``build`` of ``name`` would refuse. Imports no torch."""
    module = importlib.import_module(BUILT_IN[name])
    known = [key for key in inspect.signature(module.build).parameters if key not in ("directory", "seed")]
    for key, value in args.items():
        if key not in known:
            yield key, f"unknown argument of model {name}; {suggestion(key, known, 'there are')}"
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield key, f"must be a whole number, at least 1, not {value!r}"
        elif value % (multiple := module.MULTIPLES.get(key, 1)):
            yield key, f"must be a multiple of {multiple}, not {value}"
        elif value > (most := LARGEST.get(key, value)):
            yield key, f"must be at most {most}, not {value}"


def builder_fingerprint(name: str) -> str:
    """Hash of the builder's source: part of the base model's identity. Imports nothing."""
    spec = importlib.util.find_spec(BUILT_IN[name])
    assert spec is not None
    assert spec.origin is not None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]
