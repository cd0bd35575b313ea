"""Where files named in a recipe are looked for."""

from __future__ import annotations

import os
import re
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


_HUB_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?:({_HUB_WORD})/)?{_HUB_WORD}")
_GENERATOR = re.compile(r"\w+(?:\.\w+)*:\w+")


def is_hub_id(text: str) -> bool:
    """Whether ``text`` can name a model or data set of the hub: ``name`` or ``owner/name``. No owner is called like a
    file (``rows.jsonl/x``)."""
    found = _HUB_ID.fullmatch(text)
    return found is not None and not looks_like_path(text) and not looks_like_path(found.group(1) or "")


def is_generator(text: str) -> bool:
    """Whether ``text`` is ``package.module:function``."""
    return bool(_GENERATOR.fullmatch(text))
