"""Record batches of Parquet and Arrow files, small enough for Arrow to convert whatever a row holds.

Arrow counts the characters of a nested text column with 32 bits, so it cannot build a batch with 2 GiB of them. A batch
of fewer rows is tried where one is too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade_rl.rows import utf8_text
from cascade_rl.types import CascadeError

BATCH_ROWS = 1024
"""Rows of a batch, at most."""
SHRINK = 8
"""A batch that is too large is tried again with this part of its rows."""


def parquet_file(path: Path) -> Any:
    """The Parquet file at ``path``, opened. Raises CascadeError when it cannot be read."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise _unreadable(path, "parquet", error) from error


def parquet_batches(file: Any, path: Path, batch_rows: int = BATCH_ROWS) -> Iterator[Any]:
    """All rows of an opened Parquet ``file``, in order. Raises CascadeError naming ``path`` if it cannot be read."""
    row = 0
    for group in range(file.metadata.num_row_groups):
        for batch in _group_batches(file, group, path, row, batch_rows):
            row += batch.num_rows
            yield batch


def _group_batches(file: Any, group: int, path: Path, first: int, size: int) -> Iterator[Any]:
    """The rows of one row group, whose first row is number ``first`` of the file."""
    import pyarrow

    total, done = file.metadata.row_group(group).num_rows, 0
    while done < total:
        try:
            for batch in _from(file.iter_batches(size, row_groups=[group]), done):
                done += batch.num_rows
                yield batch
            return
        except (pyarrow.ArrowNotImplementedError, pyarrow.ArrowCapacityError) as error:
            if size == 1:
                where = f"row {first + done} of {path}"
                raise CascadeError(f"{where} is too large, or of a type that Arrow cannot read: {error}") from error
            size = max(1, size // SHRINK)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise _unreadable(path, "parquet", error) from error


def _from(batches: Iterator[Any], done: int) -> Iterator[Any]:
    """``batches`` without their first ``done`` rows."""
    for batch in batches:
        left = batch.slice(min(done, batch.num_rows))
        done -= batch.num_rows - left.num_rows
        if left.num_rows:
            yield left


def arrow_batches(path: Path, batch_rows: int = BATCH_ROWS) -> Iterator[Any]:
    """All rows of an Arrow file or stream, in order. Raises CascadeError when it cannot be read."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source:
            for batch in _record_batches(source):
                for start in range(0, batch.num_rows, batch_rows):
                    yield batch.slice(start, batch_rows)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, "arrow", error) from error


def _record_batches(source: Any) -> Iterator[Any]:
    import pyarrow

    try:
        file = pyarrow.ipc.open_file(source)
    except pyarrow.ArrowInvalid:  # a stream has no footer
        source.seek(0)
        yield from pyarrow.ipc.open_stream(source)
        return
    for number in range(file.num_record_batches):
        yield file.get_batch(number)


def rows_of(batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """The rows of ``batches`` as plain dicts. Text that is not UTF-8 is left for ``rows.text_fault`` to find, and what
    Python has no value for (a date in the year 0) is its text."""
    import pyarrow

    for batch in batches:
        try:
            rows = batch.to_pylist()
        except (ValueError, OverflowError, pyarrow.ArrowException):
            names = batch.schema.names
            rows = [{name: _plain(batch.column(name)[row]) for name in names} for row in range(batch.num_rows)]
        yield from rows


def _plain(scalar: Any) -> Any:
    """An Arrow scalar as Python has it, also where a text in it is not UTF-8 or a value is out of Python's range."""
    import pyarrow

    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pyarrow.ArrowException):  # UnicodeDecodeError is a ValueError
        if isinstance(scalar, pyarrow.DictionaryScalar | pyarrow.ExtensionScalar):
            return _plain(scalar.value)
        if isinstance(scalar, pyarrow.StructScalar):
            return {name: _plain(value) for name, value in scalar.items()}
        if isinstance(scalar, pyarrow.MapScalar):
            return [(_plain(entry["key"]), _plain(entry["value"])) for entry in scalar.values]
        if isinstance(scalar, pyarrow.ListScalar):  # large lists, list views and lists of fixed size are subclasses
            return [_plain(value) for value in scalar.values]
        if not hasattr(scalar, "as_buffer"):
            return scalar.cast(pyarrow.string()).as_py()
        return utf8_text(scalar.as_buffer().to_pybytes())


def _unreadable(path: Path, kind: str, error: Exception) -> CascadeError:
    return CascadeError(f"{path} is no readable {kind} file: {error}")
