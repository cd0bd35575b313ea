"""The code behind ``package.module:name`` of a recipe: its files, and a hash of them for stage identities.

Files are found by their place, without importing anything: a module counts when its file lies beside the named one's
top-level module or in a folder that was searched for it. Installed packages and cascade_rl itself (but for
the module named, and those below it) are recorded by version elsewhere. Modules imported by a
computed name are not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cascade_rl.fingerprints import content_of
from cascade_rl.importing import searched_first

FRAMEWORK = "cascade_rl"
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def source_fingerprint(path: str, search: Sequence[Path]) -> str:
    """16 hex digits over all project files behind ``package.module:name``."""
    digest = hashlib.sha256()
    for name, file in sorted(project_files(path.partition(":")[0], search).items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content_of(file)).digest())
    return digest.hexdigest()[:16]


def function_fingerprint(use: str, keys: Mapping[str, Any], search: Sequence[Path]) -> str:
    """16 hex digits over all project files behind a function named by a recipe, and behind those of its ``keys`` that
    are import paths themselves."""
    paths = [value for value in keys.values() if isinstance(value, str) and IMPORT_PATH.fullmatch(value)]
    sources = [source_fingerprint(path, search) for path in [use, *sorted(paths)]]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def project_files(module: str, search: Sequence[Path]) -> dict[str, Path]:
    """Module name -> file, of ``module`` and every project module it imports, transitively."""
    top = module.partition(".")[0]
    roots = _roots(top, search)
    files: dict[str, Path] = {}
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.partition(".")[0] == FRAMEWORK and name != module and not name.startswith(f"{module}."):
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


def _roots(top: str, search: Sequence[Path]) -> list[Path]:
    """Folders that modules are looked up in: those searched, and where the top-level module was found."""
    with searched_first(search):
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
    # Once imported, a package may have joined more folders to itself, as `rewards` does.
    joined = getattr(sys.modules.get(top), "__path__", []) or (spec and spec.submodule_search_locations) or []
    places = [Path(place) for place in joined]
    if not places and spec and spec.origin and spec.has_location:
        places = [Path(spec.origin)]
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
    return "site-packages" in root.parts or "dist-packages" in root.parts or root == _standard_library()


@functools.cache
def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


# A recipe names the same few modules in many stages and benchmarks. The key is the text itself: an edited file is new.
@functools.lru_cache(maxsize=1024)
def _read(source: bytes, module: str, *, is_package: bool) -> tuple[frozenset[str], bool]:
    """Absolute names of all that ``source`` imports, and whether it is more than a docstring."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset(), True  # imported under a condition that does not hold here; its bytes still count
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, is_package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}  # a name may itself be a module
    has_code = any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in tree.body)
    return frozenset(names), has_code


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = node.level - 1 if is_package else node.level  # in a package's __init__, one dot is the package itself
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
