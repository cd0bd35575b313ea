"""SEARCH/REPLACE edits: read out of an answer, applied to files (grammar and rules: recipe.md section 7.3).

    ```diff
    ### path/to/file.py
    <<<<<<< SEARCH
    lines as they are
    =======
    lines as they shall be
    >>>>>>> REPLACE
    ```

Line ends ``\\r\\n`` of a file match ``\\n`` in an edit. ``apply`` leaves every line that it does not replace as it was,
and writes new lines with the ends that most lines of the file have.

A line ``=======`` may also be part of the text, such as the rule under a heading of reStructuredText. A block with
several such lines can be read in several ways; ``apply`` takes the one whose SEARCH is in the file (``_chosen``).
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
_BREAK = r"\r?\n"
MOST_DIVIDERS = 100
"""In one edit: each is a way to read it."""
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
    others: tuple[tuple[str, str | None], ...] = ()
    """SEARCH and REPLACE of the further ways to read a block with several dividers, the longer SEARCH later."""


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
    begin = _expect(lines, place + 1, SEARCH)
    end = _end(lines, _find(lines, begin, DIVIDE) + 1)
    dividers = [number for number in range(begin, end) if lines[number].rstrip() == DIVIDE]
    if len(dividers) > MOST_DIVIDERS:
        raise FormatError(f"line {begin}: more than {MOST_DIVIDERS} lines {DIVIDE} in an edit")
    (search, replace), *others = (
        ("\n".join(lines[begin:divide]), "\n".join(lines[divide + 1 : end]) if end > divide + 1 else None)
        for divide in dividers
    )
    return Edit(path, search, replace, tuple(others)), end + 2


def _end(lines: Sequence[str], place: int) -> int:
    """Where the mark of the end stands: the first from ``place`` on that is followed by the end of the code block."""
    first = end = _find(lines, place, REPLACE)
    while end + 1 >= len(lines) or lines[end + 1].rstrip() != "```":
        try:
            end = _find(lines, end + 1, REPLACE)
        except FormatError:
            raise FormatError(f"line {first + 2}: expected ```") from None
    return end


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
    changed = dict(files)
    for edit in edits:
        if edit.path not in changed:
            raise FormatError(f"{edit.path} is not among the files shown")
        changed[edit.path] = _edited(changed[edit.path], edit)
    return changed


def _edited(text: str, edit: Edit) -> str:
    search, replace = _chosen(text.replace("\r\n", "\n"), edit)
    if not search:
        return text + (replace or "")  # into an empty file
    before = "\n" + text
    lines = re.escape(search).replace("\\\n", _BREAK)
    pattern = _BREAK + lines
    times = sum(1 for _ in re.finditer(pattern, before))
    if len(before) + times * len(replace or "") > max(MOST_GROWN, 2 * len(before)):
        raise FormatError(f"{edit.path}: the search text occurs {times} times, and the file would grow beyond reason")
    if replace is None:
        whole = re.sub(rf"^{lines}(?:{_BREAK}|\Z)", "", text, flags=re.MULTILINE)
        if whole != text:
            return whole
    end = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    written = (replace or "").replace("\n", end)
    return re.sub(pattern, lambda found: found[0][: found[0].index("\n") + 1] + written, before)[1:]


def _chosen(text: str, edit: Edit) -> tuple[str, str | None]:
    """SEARCH and REPLACE of the way to read ``edit`` that fits ``text``. Raises FormatError where none does.

    A SEARCH that begins a fitting one fits too, so of several ways the one with the longest SEARCH is taken: it repeats
    the file's own rule and the lines after it, which a REPLACE would do by chance only. Where its last line is only the
    beginning of the file's line it may be such a chance, and the edit is refused.
    """
    found = [way for way in ((edit.search, edit.replace), *edit.others) if _occurs(way[0], text)]
    if not found:
        raise FormatError(f"{edit.path}: the search text does not occur in it")
    search, replace = found[-1]
    if len(found) > 1 and not _occurs(search + "\n", text + "\n"):
        raise FormatError(f"{edit.path}: ambiguous, the lines {DIVIDE} can be read in {len(found)} ways that fit")
    marks = {line for line in (replace or "").split("\n") if line.rstrip() in (SEARCH, REPLACE)}
    if not all(_occurs(mark + "\n", text + "\n") for mark in marks):
        raise FormatError(f"{edit.path}: a mark {SEARCH} or {REPLACE} within an edit, of a file that has none")
    return search, replace


def _occurs(search: str, text: str) -> bool:
    """Whether ``search`` stands in ``text`` from the beginning of a line on. An empty one is in an empty file only."""
    return "\n" + search in "\n" + text if search else not text
