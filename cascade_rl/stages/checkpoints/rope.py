"""More positions than a checkpoint was made for: the same weights beside a config that says how to stretch them.

Everything that reads a checkpoint (transformers, vLLM, the hand-over checks) reads its ``config.json``, so a folder of
links with another one in it means the same to all; and a stage's own checkpoint is written with what it was trained
with, so that the stages after it keep it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cascade_rl.recipe import RopeScaling
from cascade_rl.store.files import publishing
from cascade_rl.types import CascadeError


def stretched(checkpoint: str, scaling: RopeScaling, folder: Path) -> Path:
    """``checkpoint`` (a folder or hub id) with ``scaling`` in its config, as a folder of links at ``folder``.

    Raises CascadeError when it cannot be read. Call on one rank; the others wait for it.
    """
    source = _local(checkpoint)
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CascadeError(f"checkpoint {checkpoint} has no readable config.json: {error}") from None
    if folder.exists():
        return folder
    with publishing(folder) as temporary:
        for file in source.iterdir():
            if file.name != "config.json":
                os.symlink(file.resolve(), temporary / file.name)
        (temporary / "config.json").write_text(json.dumps(_with(config, scaling), indent=2), encoding="utf-8")
    return folder


def _with(config: dict, scaling: RopeScaling) -> dict:
    """Old checkpoints say ``rope_theta`` and ``rope_scaling``, new ones have both in ``rope_parameters``."""
    new = scaling.model_dump()
    theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta"))
    rest = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_parameters")}
    return {
        **rest,
        "max_position_embeddings": scaling.positions,
        "rope_parameters": {**new, **({"rope_theta": theta} if theta is not None else {})},
    }


def _local(checkpoint: str) -> Path:
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint))
    except Exception as error:
        raise CascadeError(f"checkpoint {checkpoint} could not be loaded from the hub: {error}") from error
