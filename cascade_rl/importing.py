"""Functions named in a recipe as ``package.module:name``."""

from __future__ import annotations

import contextlib
import difflib
import importlib
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


def import_by_path(path: str, folders: Iterable[Path], what: str, must_be_callable: bool = True) -> Any:
    """The object ``package.module:name``. Raises CascadeError for each way in which it cannot be had."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise CascadeError(f"{what} {path!r} must look like package.module:function")
    if not all(module_name.split(".")):
        raise CascadeError(
            f"{what} {path!r}: {module_name!r} is no full name of a module; write package.module:function, "
            "with a name before and after each dot (relative names have no package to start from)"
        )
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
            place = last_place(error)
            raise CascadeError(
                f"{what} {path!r}: importing it failed: {type(error).__name__}: {error}{place}"
            ) from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CascadeError(f"{what} {path!r}: module {module_name} has no {name!r}{hint}")
    found = getattr(module, name)
    if must_be_callable and not callable(found):
        raise CascadeError(f"{what} {path!r} is {type(found).__name__}, not something that can be called")
    return found


def last_place(error: BaseException) -> str:
    """File and line where ``error`` was raised, in brackets after a space; empty where that is not known."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
