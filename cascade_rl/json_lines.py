"""JSON Lines files that this framework writes and reads back: samples, metrics, traces.

A line ends at ``\\n`` alone. ``str.splitlines`` and files opened as text end one at other characters too (``\\r``,
U+0085, U+2028, form feeds), all of which may stand inside a JSON text, some of them inside its strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What ``json.dumps`` leaves as it is: further line ends of other readers, and surrogates, which UTF-8 cannot hold."""


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ``\\n``; bytes that are not UTF-8 become U+FFFD.

    A last line without ``\\n`` counts as a line. Raises OSError when the file cannot be read.
    """
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    return lines if lines[-1] else lines[:-1]


def records(path: Path) -> list[Any]:
    """The values of a file's lines, in order; a line that is no JSON is skipped (a kill may tear the last one).

    Raises OSError when the file cannot be read.
    """
    found = []
    for line in text_lines(path):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found


def json_text(value: Any, default: Callable[[Any], Any] = str) -> str:
    """``value`` as JSON that is one line for every reader, can be written as UTF-8, and reads back the same.

    ``default`` makes JSON values of what JSON does not know, as in ``json.dumps``.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def line_of(value: Any) -> str:
    """``json_text`` with its ``\\n``: one line of a file."""
    return json_text(value) + "\n"
