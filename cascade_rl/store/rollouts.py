"""Reading the rollouts that a stage stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError

COLUMNS = frozenset(
    {"step", "prompt_id", "index", "prompt", "completion", "value", "details", "error", "stop", "length"}
)
"""What every version has stored of a rollout."""


def read_rollouts(path: Path, *, tokens: bool = False) -> list[dict[str, Any]]:
    """The rows of one step's file, one per rollout, in the order in which they were written.

    Columns that are lists (token ids and log-probs, many times larger than the texts) are read only with ``tokens``.
    Files that older versions wrote have none. Raises CascadeError for a file that is gone, damaged, or something else.
    """
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if tokens or not pyarrow.types.is_list(field.type)]
            names = [field.name for field in fields]
            rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
    except FileNotFoundError:
        raise CascadeError(f"{path} is gone") from None
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise CascadeError(f"{path} is damaged, or no readable parquet file: {what}") from error
    if rows and (missing := sorted(COLUMNS - set(names))):
        raise CascadeError(f"{path} does not hold rollouts: it has no {', '.join(missing)}")
    return rows
