"""Reading the rollouts that a stage stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_rollouts(path: Path, *, tokens: bool = False) -> list[dict[str, Any]]:
    """The rows of a file, one per rollout, in the order in which they were written.

    Columns that are lists (token ids and log-probs, many times larger than the texts) are read only with ``tokens``.
    Files that older versions wrote have none. Raises OSError, or pyarrow's errors for a damaged file.
    """
    import pyarrow.parquet
    import pyarrow.types

    with pyarrow.parquet.ParquetFile(path) as file:
        fields = [field for field in file.schema_arrow if tokens or not pyarrow.types.is_list(field.type)]
        return file.read(columns=[field.name for field in fields]).to_pylist()
