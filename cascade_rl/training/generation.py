"""The generation settings that a model inherits from its checkpoint, made such that transformers saves them again.

transformers loads most settings that contradict each other (a temperature without sampling, early stopping without
beams) and refuses to save them, which would end a stage at its first checkpoint. No stage samples by these settings.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

FILE = "generation_config.json"
FIRST = ("do_sample", "num_beams")
"""Settings that decide which others are valid."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def valid_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``values`` that transformers takes together, token ids and sampling mode first.

    A setting that would not be used, such as a temperature beside ``do_sample: false``, is left out.
    """
    from transformers import GenerationConfig

    kept: dict[str, Any] = {}
    for name in sorted(values, key=lambda name: (name not in TOKENS, name not in FIRST)):
        if name.startswith("_") or name == "transformers_version" or values[name] is None:
            continue
        tried = {**kept, name: values[name]}
        with contextlib.suppress(Exception):  # each release of transformers refuses in its own ways
            GenerationConfig(**tried).validate(strict=True)
            kept = tried
    return kept


def inherited_generation(checkpoint: str | Path) -> Any:
    """The clean ``GenerationConfig`` of a checkpoint; None where it has no file with one."""
    from transformers import GenerationConfig
    from transformers.utils import cached_file

    try:
        found = cached_file(str(checkpoint), FILE)
        values = json.loads(Path(str(found)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return GenerationConfig(**valid_settings(values)) if isinstance(values, dict) else None


def clean_generation(model: Any) -> None:
    """Keep those of a loaded model's generation settings that can be saved; older models have some in config.json."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(**valid_settings(model.generation_config.to_dict()))
