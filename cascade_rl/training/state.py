"""Resumable states of a stage: published whole, verified before use, the newest two kept."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from cascade_rl.types import CascadeError

MANIFEST = "manifest.json"
KEPT = 2


def rng_states() -> dict[str, Any]:
    """States of every global random generator of this process."""
    import numpy

    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: Mapping[str, Any]) -> None:
    """Undo to ``rng_states()``."""
    import numpy

    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def manifest_of(folder: Path, paths: Iterable[Path] | None = None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of ``paths``; default: of every file below ``folder`` but the manifest itself."""
    manifest = {}
    for path in sorted(folder.rglob("*") if paths is None else paths):
        if path.is_file() and path.name != MANIFEST:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
            manifest[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": digest.hexdigest()}
    return manifest


def newest_valid(
    folder: Path, read_manifest: Callable[[Path], Any], warn: Callable[[str], None]
) -> tuple[int, Path] | None:
    """(step, folder) of the newest state whose files are what its manifest says, or None.

    A damaged one is named in a warning and passed over. Raises CascadeError when states exist but none is whole:
    starting over silently would throw away work that may be repairable.
    """
    candidates = sorted(folder.glob("step-??????"), reverse=True) if folder.is_dir() else []
    for candidate in candidates:
        try:
            expected = read_manifest(candidate / MANIFEST)
            if expected and expected == manifest_of(candidate):
                return int(candidate.name.removeprefix("step-")), candidate
        except (OSError, CascadeError):
            pass
        warn(f"state {candidate} is damaged (its files differ from its manifest); looking for an older one")
    if candidates:
        raise CascadeError(
            f"no state in {folder} is whole. Restore one from a backup, or delete the folder {folder} to start this "
            "stage from its first step."
        )
    return None


def drop_old(folder: Path) -> None:
    """Delete all but the newest states."""
    for old in sorted(folder.glob("step-??????"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
