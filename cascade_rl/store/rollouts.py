"""Stored rollouts, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Rows of one step's file. Raises CascadeError for a file that is damaged or cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except FileNotFoundError:
        raise CascadeError(f"{path} is gone") from None
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise CascadeError(f"{path} is damaged, or no readable parquet file: {what}") from error
