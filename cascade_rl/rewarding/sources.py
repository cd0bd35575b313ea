"""What a reward is made of: the files behind it, and a hash of them for stage identities.

Files are found by their place, without importing anything: a module counts when its file lies beside the reward's own
top-level module or in a folder that was searched for it. Installed packages and cascade_rl itself are recorded by
version elsewhere. Modules imported by a computed name are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascade_rl.rewarding.loading import LoadedReward

FRAMEWORK = "cascade_rl"


def fingerprint(loaded: LoadedReward) -> str:
    """16 hex digits over the reward's import path, its parameters and all project files behind it."""
    settings = loaded.settings
    digest = hashlib.sha256()
    digest.update(json.dumps([settings.use, dict(settings.params)], sort_keys=True, default=repr).encode())
    for name, file in sorted(project_files(settings.use.partition(":")[0], loaded.search).items()):
        digest.update(b"\0" + name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def project_files(module: str, search: Sequence[Path]) -> dict[str, Path]:
    """Module name -> file, of ``module`` (imported before) and every project module it imports, transitively."""
    top = module.partition(".")[0]
    roots = _roots(top, search)
    files: dict[str, Path] = {}
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.partition(".")[0] == FRAMEWORK and name != module:
            continue
        file = _find(name, top, roots)
        if file is None:
            continue
        imported, has_code = _read(file.read_bytes(), name, is_package=file.name == "__init__.py")
        if has_code:
            files[name] = file
        # Importing a.b.c runs a/__init__.py and a/b/__init__.py first.
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        waiting += [*imported, *parents]
    return files


def _roots(top: str, search: Iterable[Path]) -> list[Path]:
    """Folders that modules are looked up in: those searched, and where the top-level module was found."""
    module = sys.modules.get(top)
    places = [Path(path) for path in getattr(module, "__path__", [])]
    if not places and getattr(module, "__file__", None):
        places = [Path(str(module.__file__))]  # type: ignore[union-attr]
    return list(dict.fromkeys(folder.resolve() for folder in [*search, *(place.parent for place in places)]))


def _find(name: str, top: str, roots: Iterable[Path]) -> Path | None:
    *folders, last = name.split(".")
    for root in roots:
        # Beside an installed reward lie all other installed packages: there, only its own package is the project's.
        if _is_installed(root) and name.partition(".")[0] != top:
            continue
        folder = root.joinpath(*folders)
        for file in (folder / last / "__init__.py", folder / f"{last}.py"):
            if file.is_file():
                return file
    return None


def _is_installed(root: Path) -> bool:
    return "site-packages" in root.parts or "dist-packages" in root.parts or root == Path(sysconfig.get_path("stdlib"))


def _read(source: bytes, module: str, *, is_package: bool) -> tuple[set[str], bool]:
    """Absolute names of all that ``source`` imports, and whether it is more than a docstring."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set(), True  # imported under a condition that does not hold here; its bytes still count
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}  # a name may itself be a module
    has_code = any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in tree.body)
    return names, has_code


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = node.level - 1 if is_package else node.level  # in a package's __init__, one dot is the package itself
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
