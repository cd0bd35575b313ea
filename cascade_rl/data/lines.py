"""Lines of ``.jsonl`` and ``.jsonl.gz`` files, one in memory at a time, and the rows they hold."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from cascade_rl.rows import utf8_text
from cascade_rl.types import CascadeError

ENDINGS = (".jsonl", ".jsonl.gz")


def is_lines(path: Path) -> bool:
    """Whether ``path`` is named as one JSON object a line."""
    return path.name.endswith(ENDINGS)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line as it is, with its number from 1. Raises CascadeError for a file that is no whole gzip file."""
    number = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CascadeError(f"{path}: no whole gzip file; broken after line {number}: {error}") from None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """``path`` to write bytes to, through gzip where its name says so: the same bytes give the same file."""
    with open(path, "wb") as file:
        if not path.name.endswith(".gz"):
            yield file
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(IO[bytes], packed)


def row_of(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The object of one line. Raises CascadeError naming file and line for what is none.

    Bytes within its texts that are not UTF-8 are left for ``rows.text_fault`` to find, since they spoil this row alone.
    """
    try:
        row = json.loads(utf8_text(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line))
    except (ValueError, RecursionError) as error:
        raise CascadeError(f"{path}:{number}: not valid JSON: {not_utf8(line) or error}") from None
    if not isinstance(row, dict):
        raise CascadeError(f"{path}:{number}: a row must be an object, this is {type(row).__name__}")
    return row


def not_utf8(raw: bytes) -> str:
    """Where ``raw`` is not UTF-8, as a part of an error's text; empty where it is."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}: {error.reason}"
    return ""
