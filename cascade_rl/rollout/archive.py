"""Rollouts on disk: what was asked, answered and scored in each step.

Beside the texts, to look at, there are the tokens as they were sampled and the engine's log-probs of them: a text does
not always split into the same tokens again, so a step can be recomputed from these columns alone. A row's ``group``
numbers the prompts of the step from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy

from cascade_rl.json_lines import json_text
from cascade_rl.rows import writable
from cascade_rl.types import Group

TOKENS = ("prompt_token_ids", "token_ids", "logprobs", "kept_token_ids")
"""Columns with a list for each rollout: int32, int32, float32, and a list of int32 for each token (only where the stage
has ``mismatch.support: kept``). Older files lack them."""


def rows_of(groups: Iterable[Group], step: int) -> list[dict[str, Any]]:
    """One row per rollout, in prompt and rollout order: plain values, and arrays under ``TOKENS``."""
    return [
        {
            "step": step,
            "group": number,
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
            "prompt_token_ids": numpy.asarray(group.prompt_token_ids, numpy.int32),
            "token_ids": numpy.asarray(rollout.token_ids, numpy.int32),
            "logprobs": numpy.asarray(rollout.logprobs, numpy.float32),
            **({} if rollout.kept is None else {"kept_token_ids": [ids[ids >= 0] for ids in rollout.kept]}),
        }
        for number, group in enumerate(groups)
        for rollout, score in zip(group.rollouts, group.scores, strict=True)
    ]


def joined(shares: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of all ranks, with groups numbered from one share to the next."""
    rows: list[dict[str, Any]] = []
    first = 0
    for share in shares:
        rows += [{**row, "group": first + row["group"]} for row in share]
        first += max((row["group"] for row in share), default=-1) + 1
    return rows


def write_rollouts(folder: Path, step: int, rows: Sequence[dict[str, Any]]) -> Path:
    """Write ``folder/step-<step>.parquet`` atomically. Raises OSError when the disk is full."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    table = pyarrow.Table.from_pylist([{k: v for k, v in row.items() if k not in TOKENS} for row in rows])
    for name in (name for name in TOKENS if any(name in row for row in rows)):
        kind = pyarrow.list_(pyarrow.float32() if name == "logprobs" else pyarrow.int32())
        kind = pyarrow.list_(kind) if name == "kept_token_ids" else kind
        table = table.append_column(name, pyarrow.array([row.get(name) for row in rows], kind))
    try:
        encodings = _encodings(table.column_names)
        pyarrow.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True, **encodings)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encodings(names: Sequence[str]) -> dict[str, Any]:
    """How columns are encoded before they are compressed. Log-probs hardly repeat, so a dictionary of them is larger
    than they are, and the bytes of floats compress better apart."""
    if "logprobs" not in names:
        return {}
    plain = [name for name in names if name not in TOKENS]
    return {
        "use_dictionary": [*plain, *(f"{name}.list.element" for name in ("prompt_token_ids", "token_ids"))],
        "use_byte_stream_split": ["logprobs.list.element"],
    }
