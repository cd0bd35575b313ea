"""Exceptions as a few lines: what, and where in the user's own files."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from traceback import FrameSummary
from types import TracebackType

_NOT_THEIRS = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))
_OURS = str(Path(__file__).parent)


def short_trace(error: BaseException, places: int = 3) -> str:
    """Type and text of ``error``, then its innermost places as file:line, one a line."""
    frames = [f for f in _frames(error.__traceback__) if not f.filename.startswith(_OURS)][-places:]
    return "\n".join([_headline(error), *(f"  {f.filename}:{f.lineno} in {f.name}" for f in frames)])


def one_line(error: BaseException) -> str:
    """Type, text and the innermost place outside of installed packages: ``ValueError: no (rewards/a.py:3)``."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [f for f in _frames(error.__traceback__) if not f.filename.startswith(("<frozen", *_NOT_THEIRS))]
    frame = (frames or _frames(error.__traceback__))[-1:]
    return _headline(error) + "".join(f" ({f.filename}:{f.lineno})" for f in frame)


def _headline(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an exception of the user's whose own __str__ fails must not hide the first fault
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text[:2000]}"


def _frames(trace: TracebackType | None) -> list[FrameSummary]:
    # lookup_lines would read source files; only numbers are shown.
    return list(traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False))
