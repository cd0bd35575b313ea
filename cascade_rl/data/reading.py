"""Rows as they lie in files, folders and on the hub, before a recipe's keys change them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade_rl.data.columnar import BATCH_ROWS, arrow_batches, parquet_batches, parquet_file, rows_of
from cascade_rl.data.lines import is_lines, not_utf8, numbered_lines, row_of
from cascade_rl.recipe import DataSource
from cascade_rl.rows import utf8_text
from cascade_rl.types import CascadeError

Row = dict[str, Any]
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow")


def file_rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from rows_of(parquet_batches(parquet_file(path), path))
        return
    if path.suffix == ".arrow":
        yield from rows_of(arrow_batches(path))
        return
    if path.suffix == ".json":
        raw = path.read_bytes()
        try:
            rows = json.loads(utf8_text(raw.removeprefix(codecs.BOM_UTF8)))
        except (ValueError, RecursionError) as error:
            lines = "; for one object a line call the file .jsonl" if raw.lstrip().startswith(b"{") else ""
            raise CascadeError(f"{path} is not valid JSON: {not_utf8(raw) or error}{lines}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise CascadeError(f"{path} must hold a list of objects; for one object a line use .jsonl")
        yield from rows
        return
    if not is_lines(path):
        raise CascadeError(f"{path}: data files end in {', '.join(ENDINGS)}")
    for number, line in numbered_lines(path):
        if line.strip():
            yield row_of(line, path, number)


def folder_rows(path: Path, split: str) -> Iterator[Row]:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        import datasets

        try:
            loaded = datasets.load_from_disk(str(path))
        except Exception as error:
            raise CascadeError(f"{path} is no readable data set: {type(error).__name__}: {error}") from error
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise CascadeError(
                    f"{path} has no split {split!r}; it has {', '.join(loaded) or 'none'}: name one as `split`"
                )
            loaded = loaded[split]
        yield from _rows_in(loaded)
        return
    for file in data_files(path):
        yield from file_rows(file)


def _rows_in(loaded: Any) -> Iterator[Row]:
    """The rows of a data set of ``datasets``, read from its Arrow tables as those of files are."""
    for table in loaded.with_format("arrow").iter(BATCH_ROWS):
        yield from rows_of(iter(table.to_batches()))


def data_files(path: Path) -> list[Path]:
    """Data files of a folder in a fixed order."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(ENDINGS))
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise CascadeError(f"folder {path} holds no data files ({', '.join(ENDINGS)})")
    return files


def hub_rows(source: DataSource) -> Iterator[Row]:
    import datasets

    try:
        loaded = datasets.load_dataset(source.source, source.config, split=source.split, revision=source.revision)
        yield from _rows_in(loaded)
    except Exception as error:
        raise CascadeError(
            f"data set {source.source} could not be loaded from the hub: {type(error).__name__}: {error}\n"
            "Check its name, configuration and split. Without a network, name a local file or folder as `source`."
        ) from error
