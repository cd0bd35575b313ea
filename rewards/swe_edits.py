"""SEARCH/REPLACE edits: read out of an answer, applied to files (grammar and rules: recipe.md section 7.3).

    ```diff
    ### path/to/file.py
    <<<<<<< SEARCH
    lines as they are
    =======
    lines as they shall be
    >>>>>>> REPLACE
    ```

Texts are compared with line ends as ``\\n``; ``apply`` gives a file back with the line ends it had.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEARCH, DIVIDE, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_OPEN, _CLOSE = "<solution>", "</solution>"
MOST_GROWN = 16 << 20
"""Characters that a file may have after an edit: a short text found everywhere could ask for any amount."""


class FormatError(ValueError):
    """An answer that is not edits, or edits that do not fit the files: what the reward gives -1 for."""


@dataclass(frozen=True)
class Edit:
    path: str
    search: str
    replace: str | None
    """None: no line at all, not even an empty one. Then the lines that were found go with their line breaks."""


def files_of(contents: Any) -> dict[str, str]:
    """The prompt's files by path, from a mapping, a list of ``{path, content}``, or JSON of either.

    Raises ValueError for anything else: the row is at fault.
    """
    if isinstance(contents, str):
        try:
            contents = json.loads(contents)
        except ValueError as error:
            raise ValueError(f"relevant_file_contents is text, but not JSON: {error}") from None
    if isinstance(contents, Mapping):
        pairs = [(path, text) for path, text in contents.items() if text is not None]  # Arrow names all rows' paths
    elif isinstance(contents, Sequence) and all(isinstance(one, Mapping) for one in contents):
        pairs = [(one.get("path"), one.get("content")) for one in contents]
    else:
        raise ValueError("relevant_file_contents must be a mapping of paths or a list of {path, content}")
    if not pairs or not all(isinstance(path, str) and isinstance(text, str) for path, text in pairs):
        raise ValueError("relevant_file_contents needs at least one file, each with a path and a content as text")
    return {_normal(path): text for path, text in pairs}


def parse(answer: str) -> list[Edit]:
    """The edits of an answer, in order. Raises FormatError.

    They stand between ``<solution>`` and ``</solution>``, each exactly once, or anywhere where neither tag occurs.
    """
    text = answer.replace("\r\n", "\n")
    if _OPEN in text or _CLOSE in text:
        if text.count(_OPEN) != 1 or text.count(_CLOSE) != 1 or text.index(_OPEN) > text.index(_CLOSE):
            raise FormatError("<solution> and </solution> must each occur once, in this order")
        text = text[text.index(_OPEN) + len(_OPEN) : text.index(_CLOSE)]
    edits: list[Edit] = []
    lines = text.split("\n")
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        if line in (SEARCH, REPLACE):
            raise FormatError(f"line {place + 1}: {line} outside of a code block that names a file")
        if not line.startswith("```"):
            place += 1
        elif place + 1 < len(lines) and lines[place + 1].startswith("### "):
            edit, place = _edit(lines, place + 1)
            edits.append(edit)
        else:
            place = _skip(lines, place)
    if not edits:
        raise FormatError("no SEARCH/REPLACE edit")
    return edits


def _edit(lines: Sequence[str], place: int) -> tuple[Edit, int]:
    """The edit whose ``### path`` stands at ``place``, and the place after its code block."""
    path = _checked_path(lines[place][4:].strip())
    place = _expect(lines, place + 1, SEARCH)
    divide = _find(lines, place, DIVIDE)
    end = _find(lines, divide + 1, REPLACE)
    after = _expect(lines, end + 1, "```")
    replace = "\n".join(lines[divide + 1 : end]) if end > divide + 1 else None
    return Edit(path, "\n".join(lines[place:divide]), replace), after


def _expect(lines: Sequence[str], place: int, mark: str) -> int:
    if place >= len(lines) or lines[place].rstrip() != mark:
        raise FormatError(f"line {place + 1}: expected {mark}")
    return place + 1


def _find(lines: Sequence[str], place: int, mark: str) -> int:
    for number in range(place, len(lines)):
        if lines[number].rstrip() == mark:
            return number
    raise FormatError(f"no {mark} after line {place}")


def _skip(lines: Sequence[str], place: int) -> int:
    """Past a code block that is no edit. One with an edit's marks in it is a broken edit."""
    for number in range(place + 1, len(lines)):
        line = lines[number].strip()
        if line in (SEARCH, REPLACE):
            raise FormatError(f"line {number + 1}: {line} in a code block that does not begin with ### and a path")
        if line.startswith("```"):
            return number + 1 if line == "```" else number
    return len(lines)


def _checked_path(path: str) -> str:
    normal = _normal(path)
    if not path or path.startswith(("/", "\\", "~")) or ":" in path.split("/")[0] or normal.split("/")[0] == "..":
        raise FormatError(f"path {path[:200]!r} leaves the repository")
    return normal


def _normal(path: str) -> str:
    return posixpath.normpath(path)


def apply(edits: Sequence[Edit], files: Mapping[str, str]) -> dict[str, str]:
    """All of ``files`` with the edits made, one after the other. Raises FormatError.

    A search text begins at the beginning of a line, is found with its exact spaces, and is replaced wherever it
    occurs (Agentless and SWE-RL; recipe.md section 7.3). A file that was not shown cannot be edited or made.
    """
    changed = {path: _plain(text) for path, text in files.items()}
    for edit in edits:
        if edit.path not in changed:
            raise FormatError(f"{edit.path} is not among the files shown")
        changed[edit.path] = _edited(changed[edit.path], edit)
    return {path: _with_ends_of(files[path], text) for path, text in changed.items()}


def _edited(text: str, edit: Edit) -> str:
    before, search = "\n" + text, "\n" + edit.search
    times = before.count(search)
    if not times:
        raise FormatError(f"{edit.path}: the search text does not occur in it")
    if len(before) + times * len(edit.replace or "") > max(MOST_GROWN, 2 * len(before)):
        raise FormatError(f"{edit.path}: the search text occurs {times} times, and the file would grow beyond reason")
    if edit.replace is None and edit.search:
        whole = re.sub(rf"^{re.escape(edit.search)}(?:\n|\Z)", "", text, flags=re.MULTILINE)
        return whole if whole != text else before.replace(search, "\n")[1:]
    return before.replace(search, "\n" + (edit.replace or ""))[1:]


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n")


def _with_ends_of(original: str, text: str) -> str:
    return text.replace("\n", "\r\n") if original.count("\r\n") * 2 > original.count("\n") else text
