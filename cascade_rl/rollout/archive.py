"""Rollouts on disk: what was asked, answered and scored in each step, to look at afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.rows import json_text, writable
from cascade_rl.types import Group


def rows_of(groups: Iterable[Group], step: int) -> list[dict[str, Any]]:
    """One plain row per rollout, in prompt and rollout order."""
    return [
        {
            "step": step,
            "prompt_id": group.prompt.id,
            "index": rollout.index,
            "prompt": next((m["content"] for m in reversed(group.prompt.messages) if m["role"] == "user"), ""),
            "messages": json_text(list(group.prompt.messages)),
            "thinking": group.prompt.thinking,
            "completion": writable(rollout.text),
            "value": float(score.value),
            "details": json_text(dict(score.details)),
            "error": None if score.error is None else writable(score.error),
            "stop": str(rollout.stop),
            "length": len(rollout.token_ids),
            "version": rollout.version,
            "columns": json_text(dict(group.prompt.columns)),
        }
        for group in groups
        for rollout, score in zip(group.rollouts, group.scores, strict=True)
    ]


def write_rollouts(folder: Path, step: int, rows: Sequence[dict[str, Any]]) -> Path:
    """Write ``folder/step-<step>.parquet`` atomically. Raises OSError when the disk is full."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
