"""Functions named in a recipe as ``package.module:name``: finding them, and hashing what they are made of."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cascade_rl.types import CascadeError


@contextlib.contextmanager
def searched_first(folders: Iterable[Path]) -> Iterator[None]:
    """Look for modules in ``folders`` before anywhere else, while the block runs."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def import_by_path(path: str, folders: Iterable[Path], what: str) -> Any:
    """The object ``package.module:name``. Raises CascadeError for each way in which it cannot be had."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise CascadeError(f"{what} {path!r} must look like package.module:function")
    with searched_first(folders):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                raise CascadeError(
                    f"{what} {path!r}: no module {error.name!r} beside the recipe, in this folder, or installed"
                ) from None
            raise CascadeError(f"{what} {path!r}: its module needs {error.name!r}, which is not installed") from error
        except CascadeError:
            raise
        except Exception as error:
            place = _last_place(error)
            raise CascadeError(
                f"{what} {path!r}: importing it failed: {type(error).__name__}: {error}{place}"
            ) from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CascadeError(f"{what} {path!r}: module {module_name} has no {name!r}{hint}")
    found = getattr(module, name)
    if not callable(found):
        raise CascadeError(f"{what} {path!r} is {type(found).__name__}, not something that can be called")
    return found


def _last_place(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def source_fingerprint(path: str, folders: Iterable[Path]) -> str:
    """Hash of the sources behind ``package.module:name``: its module and what that imports of the same package.

    Modules of other packages do not count: they are recorded by version, not hashed.
    """
    module_name = path.partition(":")[0]
    top = module_name.partition(".")[0]
    digest = hashlib.sha256()
    with searched_first(folders):
        waiting, seen = [module_name], set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            file = _source_file(current)
            if file is None:
                continue
            source = file.read_bytes()
            digest.update(current.encode() + b"\0" + hashlib.sha256(source).digest())
            waiting += sorted(n for n in _imports(source, current) if _same_project(n, top, file))
    return digest.hexdigest()[:16]


def _same_project(name: str, top: str, importer: Path) -> bool:
    if name.partition(".")[0] == top:
        # The framework's own modules are versioned as a whole; only a domain's own helpers are its source.
        return top != "cascade_rl"
    return (importer.parent / f"{name.partition('.')[0]}.py").is_file()


def _source_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(source: bytes, module: str) -> set[str]:
    """Absolute names of everything ``source`` imports (a name imported from a package may itself be a module)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, base]) if base else ".".join(package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names
