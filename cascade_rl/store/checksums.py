"""Sizes and hashes of what a finished stage hands on, so that a damaged file is noticed before it is built upon.

``checksums.json`` in the stage's folder has them: ``{"checkpoint/model.safetensors": {"size": 1, "sha256": "..."}}``. It
is written just before the checkpoint is renamed into place, so wherever a checkpoint of ours is, it fits. Stages that
were finished by versions without checksums have no such file; of these only the presence of the files can be checked.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cascade_rl.store.files import publishing, read_json, write_json
from cascade_rl.store.records import StageFolder
from cascade_rl.types import CascadeError

THREADS = 4
"""Files hashed at the same time; hashlib runs without Python's lock."""
BLOCK = 1 << 22
WEIGHTS = (".safetensors", ".bin")
"""Endings of files with weights. Loaders may read every such file of a checkpoint's folder."""


@contextlib.contextmanager
def publishing_checkpoint(place: StageFolder) -> Iterator[Path]:
    """``publishing(place.checkpoint)`` that notes sizes and hashes, of the kept optimizer and the adapter too.

    Those two must be in place by then.
    """
    with publishing(place.checkpoint) as folder:
        yield folder
        files = {f"checkpoint/{name}": path for name, path in _below(folder)}
        files |= {f"adapter/{name}": path for name, path in _below(place.adapter)}
        if place.optimizer.is_file():
            files["optimizer.pt"] = place.optimizer
        write_json(place.checksums, dict(zip(files, _measured(files.values()), strict=True)))


def faults(place: StageFolder, *, hashes: bool, only: str = "") -> list[str]:
    """What is wrong with the files of a finished stage, one line each; empty where all is well or nothing is known.

    ``hashes``: read the files whole, at about 1 GB/s; else only their sizes are looked at. ``only``: names that start
    so, such as ``checkpoint/``.
    """
    try:
        expected = _expected(place)
    except CascadeError as error:
        return [str(error)]
    if expected is None:
        return []
    paths = {name: place.path / name for name in expected if name.startswith(only)}
    found = {name: fault for name, path in paths.items() if (fault := _size_fault(path, expected[name]["size"]))}
    whole = [name for name in paths if name not in found] if hashes else []
    for name, entry in zip(whole, _measured(paths[name] for name in whole), strict=True):
        if entry["sha256"] != expected[name]["sha256"]:
            found[name] = f"{paths[name]} is damaged: its content is not what was written"
    extra = [path for path in extra_files(place) if path.suffix in WEIGHTS and "checkpoint/".startswith(only)]
    return [found[name] for name in paths if name in found] + [extra_fault(path) for path in extra]


def extra_files(place: StageFolder) -> list[Path]:
    """Files in the checkpoint of ``place`` that the stage did not write, without hidden ones; none without checksums."""
    try:
        expected = _expected(place)
    except CascadeError:
        return []
    if expected is None or not place.checkpoint.is_dir():
        return []
    return [
        path
        for name, path in _below(place.checkpoint)
        if f"checkpoint/{name}" not in expected and not path.name.startswith(".")
    ]


def extra_fault(path: Path) -> str:
    """The message for one of ``extra_files``."""
    return f"{path} is a file that the stage did not write; move it out of the folder"


def missing_files(place: StageFolder) -> list[str]:
    """What a checkpoint without checksums lacks, one line each: the configuration, weights, shards of its index."""
    found = [] if (place.checkpoint / "config.json").is_file() else [f"{place.checkpoint / 'config.json'} is missing"]
    if not any(path.suffix in WEIGHTS for _, path in _below(place.checkpoint)):
        found.append(f"{place.checkpoint} has no file with weights")
    for index in sorted(place.checkpoint.glob("*.index.json")):
        try:
            record = read_json(index)
        except CascadeError as error:
            found.append(str(error))
            continue
        shards = record.get("weight_map") if isinstance(record, dict) else None
        if not isinstance(shards, dict):
            found.append(f"{index} is damaged: it has no `weight_map`")
            continue
        names = sorted({str(name) for name in shards.values()})
        found += [f"{index.parent / name} is missing" for name in names if not (index.parent / name).is_file()]
    return found


def verify(place: StageFolder, only: str = "") -> None:
    """Raise CascadeError naming the files of ``place`` that are not what was written."""
    if found := faults(place, hashes=True, only=only):
        raise CascadeError(damaged(place, found))


def damaged(place: StageFolder, found: Iterable[str]) -> str:
    """The message for ``faults``, with what to do."""
    lines = "\n".join(f"  {line}" for line in found)
    name = place.path.name.rpartition("-")[0]
    if name == "base":
        return f"the base model is damaged:\n{lines}\nMove the folder {place.path} away to have it built again."
    return (
        f"the result of stage {name} is damaged:\n{lines}\nRestore the files from a copy, or compute the stage anew with "
        f"--from {name}."
    )


def _expected(place: StageFolder) -> dict[str, dict[str, Any]] | None:
    """What was noted. Raises CascadeError where that itself is damaged."""
    noted = read_json(place.checksums)
    if noted is None and not place.checksums.exists():
        return None
    fits = isinstance(noted, dict) and noted and all(
        isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)
        for entry in noted.values()
    )
    if not fits:
        raise CascadeError(f"{place.checksums} is damaged: it does not hold sizes and hashes")
    return noted


def _size_fault(path: Path, size: int) -> str | None:
    try:
        there = path.stat().st_size if path.is_file() else None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if there is None:
        return f"{path} is missing"
    return None if there == size else f"{path} is damaged: it has {there} bytes, {size} were written"


def _below(folder: Path) -> list[tuple[str, Path]]:
    return [(str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _measured(paths: Iterable[Path]) -> list[Mapping[str, Any]]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(_entry, paths))


def _entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:  # a disk that cannot read a block any more
        return {"size": None, "sha256": f"cannot be read: {error.strerror}"}
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
