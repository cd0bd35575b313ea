"""Where files named in a recipe are looked for."""

from __future__ import annotations

from pathlib import Path

FILE_ENDINGS = (".json", ".jsonl", ".parquet", ".yaml", ".yml")


def resolve_path(source: str, recipe_path: Path) -> Path | None:
    """The file or folder meant by ``source``: beside the recipe first, then in the working folder; None if neither."""
    path = Path(source).expanduser()
    if path.is_absolute():
        return path if path.exists() else None
    for folder in (recipe_path.resolve().parent, Path.cwd()):
        if (folder / path).exists():
            return folder / path
    return None


def looks_like_path(source: str) -> bool:
    """True for what can only be a local path, so that a missing one is not taken for a hub id."""
    return source.startswith(("./", "../", "/", "~")) or source.endswith(FILE_ENDINGS)
