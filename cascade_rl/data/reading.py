"""Rows as they lie in files, folders and on the hub, before a recipe's keys change them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade_rl.data.columnar import arrow_batches, parquet_batches, parquet_file, rows_of
from cascade_rl.data.lines import is_lines, numbered_lines, row_of
from cascade_rl.recipe import DataSource
from cascade_rl.types import CascadeError

Row = dict[str, Any]
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow")


def file_rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from rows_of(parquet_batches(parquet_file(path), path), path)
        return
    if path.suffix == ".arrow":
        yield from rows_of(arrow_batches(path), path)
        return
    if path.suffix == ".json":
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CascadeError(f"{path} is not valid JSON: {error}") from None
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

        loaded = datasets.load_from_disk(str(path))
        yield from loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        return
    for file in data_files(path):
        yield from file_rows(file)


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
        yield from datasets.load_dataset(source.source, source.config, split=source.split, revision=source.revision)
    except Exception as error:
        raise CascadeError(
            f"data set {source.source} could not be loaded from the hub: {type(error).__name__}: {error}\n"
            "Check its name, configuration and split. Without a network, name a local file or folder as `source`."
        ) from error
