"""Examples as token ids in an Arrow file: written once by the main rank, mapped into memory by all."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from cascade_rl.stages.context import Context
from cascade_rl.stages.unchanged import refuse_changes_here
from cascade_rl.store.files import publishing_file
from cascade_rl.types import CascadeError

FOLDER = "data"
"""Below the stage's folder, until the stage is finished."""


def tokenised(
    context: Context, schema: pyarrow.Schema, rows: Iterator[Mapping[str, Any]], name: str = "rows"
) -> pyarrow.Table:
    """``rows``, from the file of an earlier attempt where there is one. A collective call.

    Raises CascadeError when there is not one row, or a file has changed while it was read.
    """
    path = written(context, schema, rows, name)
    with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as reader:
        return reader.read_all()


def written(context: Context, schema: pyarrow.Schema, rows: Iterator[Mapping[str, Any]], name: str = "rows") -> Path:
    """The Arrow file that ``tokenised`` reads. A collective call with the same errors."""
    path = context.job.stage_folder.path / FOLDER / f"{name}.arrow"
    if context.ranks.is_main and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with publishing_file(path) as temporary:
            if _write_arrow(temporary, schema, rows) == 0:
                raise CascadeError(
                    f"stage {context.job.name} has no rows to train on; raise max_length or check its data"
                )
            refuse_changes_here(context.job)
    context.ranks.barrier()
    return path


def remove_tokenised(context: Context) -> None:
    """Delete the files, which a finished stage needs no more."""
    shutil.rmtree(context.job.stage_folder.path / FOLDER, ignore_errors=True)


def _write_arrow(path: Path, schema: pyarrow.Schema, rows: Iterator[Mapping[str, Any]], batch_rows: int = 1000) -> int:
    """Write rows as an Arrow stream, a batch in memory at a time; returns their number."""
    count = 0
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        while batch := list(itertools.islice(rows, batch_rows)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
            count += len(batch)
    return count
