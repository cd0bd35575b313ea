"""Reading the rollouts that a stage stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cascade_rl.json_lines import json_text
from cascade_rl.types import CascadeError

COLUMNS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "prompt_id": (str,),
    "index": (int,),
    "prompt": (str,),
    "completion": (str,),
    "value": (int, float),
    "details": (str,),
    "error": (str, type(None)),
    "stop": (str,),
    "length": (int,),
}
"""What every version has stored of a rollout, and the types of the values."""


def read_rollouts(path: Path, *, tokens: bool = False) -> list[dict[str, Any]]:
    """The rows of one step's file, one per rollout, in the order in which they were written.

    Columns that are lists (token ids and log-probs, many times larger than the texts) are read only with ``tokens``.
    Files that older versions wrote have none, and no checksums of their pages. Raises CascadeError for a file that is
    gone, damaged, or something else.
    """
    names, table = _table(path, tokens)
    rows: list[dict[str, Any]] = table.to_pylist()
    if rows and (missing := sorted(set(COLUMNS) - set(names))):
        raise CascadeError(f"{path} does not hold rollouts: it has no {', '.join(missing)}")
    for number, row in enumerate(rows):
        for name, kinds in COLUMNS.items():
            if not isinstance(row[name], kinds):
                raise CascadeError(
                    f"{path} is damaged: `{name}` of row {number} is of type {type(row[name]).__name__}"
                )
    return rows


def rollouts_fault(path: Path) -> str | None:
    """What is wrong with one step's file, read whole; None where nothing is."""
    try:
        _table(path, tokens=True)
    except CascadeError as error:
        return str(error)
    return None


def details_text(row: dict[str, Any]) -> str:
    """A rollout's details as one line of JSON, empty where there are none. Damaged details are shown as they are."""
    try:
        details = json.loads(row["details"])
    except (ValueError, RecursionError):
        return f"(damaged, no JSON) {json_text(row['details'])}"
    return json_text(details) if details else ""


def _table(path: Path, tokens: bool) -> tuple[list[str], Any]:
    """Names of the columns, and the arrow table. Checks the checksums of the pages where the file has any."""
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            fields = [field for field in file.schema_arrow if tokens or not pyarrow.types.is_list(field.type)]
            names = [field.name for field in fields]
            table = file.read(columns=names)
            table.validate(full=True)  # a text that is no UTF-8
    except FileNotFoundError:
        raise CascadeError(f"{path} is gone") from None
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError, MemoryError) as error:
        what = " ".join(str(error).split())
        raise CascadeError(f"{path} is damaged, or no readable parquet file: {what}") from error
    return names, table
