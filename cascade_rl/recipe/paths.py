"""Where files named in a recipe are looked for."""

from __future__ import annotations

import os
from pathlib import Path

FILE_ENDINGS = (".json", ".jsonl", ".parquet", ".yaml", ".yml", ".txt", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".zip")


def resolve_path(source: str, recipe_path: Path) -> Path | None:
    """The file or folder meant by ``source``: beside the recipe first, then in the working folder; None if neither.

    Never raises: what the system cannot even look up (a null byte, a name too long) is not there.
    """
    expanded = os.path.expanduser(source)
    # An absolute path stays itself when joined, so the first folder settles it. os.path, since pathlib raises here.
    for folder in (recipe_path.resolve().parent, Path.cwd()):
        if source and os.path.exists(os.path.join(folder, expanded)):
            return folder / expanded
    return None


def looks_like_path(source: str) -> bool:
    """True for what can only be a local path, so that a missing one is not taken for a hub id."""
    return source.startswith(("./", "../", "/", "~")) or source.endswith(FILE_ENDINGS)
