"""Stored rollouts, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError


COLUMNS = frozenset(
    {"step", "prompt_id", "index", "prompt", "completion", "value", "details", "error", "stop", "length"}
)
"""What every version has stored of a rollout."""


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Rows of one step's file. Raises CascadeError for a file that is damaged or cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        rows = table.to_pylist()
    except FileNotFoundError:
        raise CascadeError(f"{path} is gone") from None
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise CascadeError(f"{path} is damaged, or no readable parquet file: {what}") from error
    if missing := sorted(COLUMNS - set(table.column_names)):
        raise CascadeError(f"{path} does not hold rollouts: it has no {', '.join(missing)}")
    return rows
