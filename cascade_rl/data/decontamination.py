"""Rows of training data that share n words in a row with a benchmark, found and left out.

Files of any size are read row by row; only digests of the benchmarks' n-grams are held in memory. How texts become
words, and what becomes of texts with fewer than n, is told in ``cascade_rl.data.ngrams``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rl.data.columnar import parquet_batches, parquet_file, rows_of
from cascade_rl.data.lines import is_lines, not_utf8, numbered_lines, row_of, writing
from cascade_rl.data.ngrams import NgramIndex, Overlap, Owner
from cascade_rl.data.questions import own_texts, spoken, text_of
from cascade_rl.data.reading import Row, file_rows, folder_rows
from cascade_rl.data.sources import stream_rows
from cascade_rl.recipe import DataSource
from cascade_rl.rows import text_fault, writable
from cascade_rl.types import CascadeError

FIELDS = ("messages", "conversations", "prompt", "problem", "question", "instruction", "query", "input")
"""Columns compared where none are named: those of them that a row has."""
SHOWN = 10
"""Examples of each benchmark, and numbers of malformed rows, that a report names."""


@dataclass(frozen=True)
class Reference:
    """A benchmark to compare with: for each row what it is called, and its texts."""

    name: str
    rows: Iterable[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Example:
    """One removed row, and why."""

    row: int
    """Line or row number in its file, from 1."""
    id: Any
    """Its column ``id``, if it has one."""
    benchmark: str
    benchmark_row: str
    ngram: str


@dataclass
class Tally:
    """What was found in one file. A row that overlaps with several benchmarks counts in each of them."""

    rows: int = 0
    removed: int = 0
    malformed: int = 0
    malformed_rows: list[int] = field(default_factory=list)
    """Numbers of the first ones."""
    by_benchmark: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    ngrams: dict[str, Counter[str]] = field(default_factory=dict)
    """By benchmark, how many rows were removed for which n-gram: one that took very many is boilerplate."""

    @property
    def kept(self) -> int:
        return self.rows - self.removed - self.malformed


def reference_of_file(path: Path, fields: Sequence[str] = ()) -> Reference:
    """Rows of a file or folder. Raises CascadeError, as they are read, for a row without any of ``fields``."""

    def rows() -> Iterator[tuple[str, Sequence[str]]]:
        for number, row in enumerate(folder_rows(path, "test") if path.is_dir() else file_rows(path), start=1):
            yield _name(number, row), texts_of(row, fields, f"row {number} of {path}", "--against-field")

    return Reference(str(path), rows())


def reference_of_sources(name: str, sources: Sequence[DataSource], recipe_path: Path) -> Reference:
    """Rows of a benchmark's sources: their own texts, without what a format string adds to each of them."""

    def rows() -> Iterator[tuple[str, Sequence[str]]]:
        number = itertools.count(1)
        for source in sources:
            for index, row in enumerate(stream_rows(source, recipe_path)):
                yield _name(next(number), row), own_texts(row, source, index)

    return Reference(name, rows())


def build_index(references: Iterable[Reference], n: int) -> tuple[NgramIndex, dict[str, int]]:
    """All n-grams of ``references``, and how many rows each has. Raises CascadeError for one without any text."""
    index, counts = NgramIndex(n), Counter[str]()
    for reference in references:
        has_text = False
        for row, texts in reference.rows:
            counts[reference.name] += 1
            owner = Owner(reference.name, row)
            for text in texts:
                index.add(text, owner)
                has_text = has_text or bool(text.strip())
        if not has_text:
            raise CascadeError(f"{reference.name} has no texts to compare with")
    return index, dict(counts)


def decontaminate(
    data: Path, out: Path | None, index: NgramIndex, fields: Sequence[str] = (), skip_malformed: bool = False
) -> Tally:
    """Write the rows of ``data`` that share nothing with ``index`` to ``out`` (None: only count), in their order.

    Lines of ``.jsonl`` files are copied byte for byte. Raises CascadeError naming file and row for the first row that
    cannot be read or has none of ``fields``; with ``skip_malformed`` these are left out and counted.
    """
    tally = Tally()
    if is_lines(data):
        with writing(out) if out else contextlib.nullcontext() as file:
            for line in _kept_lines(data, index, fields, skip_malformed, tally):
                if file is not None:
                    file.write(line)
    elif data.suffix == ".parquet":
        _decontaminate_parquet(data, out, index, fields, skip_malformed, tally)
    else:
        raise CascadeError(f"{data}: data to decontaminate ends in .jsonl, .jsonl.gz or .parquet")
    return tally


def texts_of(row: Row, fields: Sequence[str], where: str, option: str) -> list[str]:
    """What is compared of a row: texts, what the user says in lists of messages, and each of a list of texts.

    ``fields`` may lead into objects (``extra.problem``). Raises CascadeError naming ``where`` and ``option`` for a row
    that has none of them.
    """
    found = [value for name in fields or FIELDS if (value := _value(row, name)) is not None]
    if not found:
        raise CascadeError(
            f"{where} has none of the fields {', '.join(fields or FIELDS)} (it has {', '.join(sorted(row))}); "
            f"name some with {option}"
        )
    return [text for value in found for text in _texts(value)]


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and ("role" in item or "from" in item):
            message = spoken(item)
            if message["role"] == "user":
                yield text_of(message["content"])
        elif item is not None:
            yield str(item)


def _value(row: Row, name: str) -> Any:
    value: Any = row
    for key in [name] if name in row else name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _name(number: int, row: Row) -> str:
    return f"row {number}" + (f" (id {writable(str(row['id']))})" if row.get("id") is not None else "")


def _kept_lines(
    data: Path, index: NgramIndex, fields: Sequence[str], skip_malformed: bool, tally: Tally
) -> Iterator[bytes]:
    for number, line in numbered_lines(data):
        if not line.strip():
            yield line  # no row, and no harm
            continue
        tally.rows += 1
        try:
            row = row_of(line, data, number)
            if fault := not_utf8(line):
                raise CascadeError(f"{data}:{number}: {fault}")
            texts = texts_of(row, fields, f"{data}:{number}", "--field")
        except CascadeError as error:
            _note_malformed(error, number, skip_malformed, tally)
            continue
        if _stays(row, texts, number, index, tally):
            yield line


def _decontaminate_parquet(
    data: Path, out: Path | None, index: NgramIndex, fields: Sequence[str], skip_malformed: bool, tally: Tally
) -> None:
    import pyarrow.parquet

    file = parquet_file(data)
    names = {name.partition(".")[0] for name in fields or FIELDS} | set(fields) | {"id"}
    columns = [name for name in file.schema_arrow.names if name in names]
    with contextlib.ExitStack() as closing:
        writer = out and closing.enter_context(
            pyarrow.parquet.ParquetWriter(out, file.schema_arrow, compression=_compression(file))
        )
        number = 0
        for batch in parquet_batches(file, data):
            mask = []
            for row in rows_of(iter([batch.select(columns)])) if columns else [{}] * batch.num_rows:
                number, tally.rows = number + 1, tally.rows + 1
                try:
                    if fault := text_fault(row):
                        raise CascadeError(f"row {number} of {data}: {fault}")
                    texts = texts_of(row, fields, f"row {number} of {data}", "--field")
                    mask.append(_stays(row, texts, number, index, tally))
                except CascadeError as error:
                    _note_malformed(error, number, skip_malformed, tally)
                    mask.append(False)
            if writer and any(mask):
                writer.write_batch(batch.filter(pyarrow.array(mask)))


def _compression(file: Any) -> str:
    """That of the file's first column."""
    groups, columns = file.metadata.num_row_groups, file.metadata.num_columns
    name = file.metadata.row_group(0).column(0).compression if groups and columns else "SNAPPY"
    return "NONE" if name == "UNCOMPRESSED" else name


def _note_malformed(error: CascadeError, number: int, skip: bool, tally: Tally) -> None:
    if not skip:
        raise CascadeError(f"{error}\nMend the row, or leave such rows out with --skip-malformed.") from None
    tally.malformed += 1
    if len(tally.malformed_rows) < SHOWN:
        tally.malformed_rows.append(number)


def _stays(row: Row, texts: Sequence[str], number: int, index: NgramIndex, tally: Tally) -> bool:
    overlaps: dict[str, Overlap] = {}
    for text in texts:
        overlaps = index.overlaps(text) | overlaps  # the first text's counts
    for benchmark, overlap in overlaps.items():
        tally.by_benchmark[benchmark] += 1
        tally.ngrams.setdefault(benchmark, Counter())[overlap.ngram] += 1
        examples = tally.examples.setdefault(benchmark, [])
        if len(examples) < SHOWN:
            name = row.get("id")
            name = writable(name) if isinstance(name, str) else name
            examples.append(Example(number, name, benchmark, overlap.owner.row, overlap.ngram))
    tally.removed += bool(overlaps)
    return not overlaps
