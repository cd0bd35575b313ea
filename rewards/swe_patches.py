"""Patches as one text a file, made the same way on both sides, and how much two of them agree."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import unidiff

from cascade_rl.types import Score
from rewards.limits import Budget, OutOfTime
from rewards.swe_edits import FormatError, apply, parse

T = TypeVar("T")
BROKEN, UNCHANGED = -1.0, 0.0
CONTEXT_LINES = 3
_NO_BREAK = "\\ No newline at end of file"
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
MOST_STEPS = 1e8
"""Length times length up to which diffs are compared by characters: some 2 s of computing."""
LIMIT_S = 5.0
"""Of computing for all files of one answer; past it they are compared by lines."""


def settled(response: str, files: Mapping[str, str], broken: float) -> tuple[Score | None, dict[str, str]]:
    """A verdict where the edits alone settle it (``broken``, or UNCHANGED), and the diff of each file."""
    try:
        after = apply(parse(response), files)
    except FormatError as error:
        return Score(broken, {"format": str(error)}), {}
    ours = changes(files, after)
    return (None if ours else Score(UNCHANGED, {"unchanged": True})), ours


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """A unified diff, without its two header lines, of each file that differs (a missing one is empty)."""
    found = {}
    for path in {**before, **after}:
        text = diff(_comparable(before.get(path, "")), _comparable(after.get(path, "")))
        if text:
            found[path] = text
    return found


def _comparable(text: str) -> str:
    """With line ends as ``\\n`` and a break after the last line: edits say nothing of either, so neither counts."""
    text = text.replace("\r\n", "\n")
    return text if not text or text.endswith("\n") else text + "\n"


def diff(before: str, after: str) -> str:
    """A unified diff without its two header lines and its last line break; empty for equal texts.

    ``patched`` makes ``after`` of ``before`` with it, whatever the two texts are.
    """
    lines = list(difflib.unified_diff(_kept_ends(before), _kept_ends(after), n=CONTEXT_LINES))[2:]
    return "".join(line if line.endswith("\n") else f"{line}\n{_NO_BREAK}\n" for line in lines).removesuffix("\n")


def _kept_ends(text: str) -> list[str]:
    """Lines with their ends, as git has them: a form feed or a lone carriage return ends none."""
    return _LINES.findall(text)


def _lines(text: str) -> tuple[list[str], bool]:
    """Lines without their ends, and whether the last one has no line break."""
    lines = text.split("\n")
    is_open = lines[-1] != ""
    return (lines if is_open else lines[:-1]), is_open


# --- The golden patch ------------------------------------------------------------------------------------------------

_PREFIX = re.compile(r"[abciow12]/")
_NOWHERE = "/dev/null"
_MOST_LOST_LINES = 3


def golden_changes(patch: str, files: Mapping[str, str]) -> dict[str, str]:
    """The golden patch as ``changes`` has them: applied to ``files`` and diffed again where that works, else in its own
    words. Binary files and changes of mode are left out; a rename has a line that says so.

    Raises ValueError for a text that is no patch: the row is at fault.
    """
    found: dict[str, str] = {}
    now = {path: _comparable(text) for path, text in files.items()}  # a patch may come back to a file
    # A row's text may have lost its last line break: then a carriage return at its end was half of one.
    for file in _parsed(patch.replace("\r\n", "\n").removesuffix("\r")):
        if file.is_binary_file:
            continue
        source, path = (_path(name, files) for name in (file.source_file, file.target_file))
        is_new = source == _NOWHERE
        if path == _NOWHERE or source == path:
            path = source
        elif source == _NOWHERE or (source not in files and path in files):
            source = path  # made, or compared with a copy (x.py.orig)
        after = patched("" if is_new else now.get(source, ""), file)
        if after is None:
            text = "\n".join(filter(None, (found.get(path), *map(_words, file))))
        else:
            now[path] = after
            text = diff(_comparable(files.get(source, "")), _comparable(after))
        if source != path:
            text = f"rename from {source}\nrename to {path}\n{text}".strip()
        if text:
            found[path] = text
    if not found:
        raise ValueError("golden_patch changes no text file")
    return found


def _parsed(patch: str) -> Any:
    """The files of a patch, each with its hunks.

    Blank lines of context at the very end may have been stripped from a row's text: they are put back.
    """
    problem: Exception | None = None
    for lost in range(_MOST_LOST_LINES + 1):
        try:
            return unidiff.PatchSet(patch.rstrip("\n") + "\n" + " \n" * lost if lost else patch)
        except Exception as error:  # it raises its own kinds, and Python's
            problem = problem or error
    raise ValueError(f"golden_patch is not a unified diff: {problem}") from None


def _path(name: str, files: Mapping[str, str]) -> str:
    """Without the prefix that git writes, unless the file is known by the name that has it; unquoted."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        with contextlib.suppress(UnicodeError):
            name = name[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1").decode()
    bare = name[2:] if _PREFIX.match(name) else name
    return name if name in files and bare not in files else bare.removeprefix("./")


def _words(hunk: Any) -> str:
    """A hunk as ``changes`` would write it."""
    sides = ((hunk.source_start, hunk.source_length), (hunk.target_start, hunk.target_length))
    before, after = (str(start) if length == 1 else f"{start},{length}" for start, length in sides)
    lines = [f"{line.line_type or ' '}{_bare(line)}" for line in hunk if line.line_type != "\\"]
    return "\n".join([f"@@ -{before} +{after} @@", *lines])


def _bare(line: Any) -> str:
    return str(line.value).removesuffix("\n")


def patched(source: str, hunks: Any) -> str | None:
    """``source`` after the hunks of one file, or None where they do not fit it.

    Their line numbers may be off, as for git. They may also be wrong about a break after the last line of ``source``:
    such a break stays as it is unless the hunks change it.
    """
    (old, is_open), new, place, shift = _lines(source), [], 0, 0
    open_before = open_after = False
    for hunk in hunks:
        stated = hunk.source_start - 1 if hunk.source_length else hunk.source_start
        before = [_bare(line) for line in hunk.source_lines()]
        start = _nearest(old, before, stated + shift, place)
        if start is None:
            return None
        new += old[place:start] + _target(hunk, old[start : start + len(before)])
        place, shift = start + len(before), start - stated
        open_before, open_after = _open_ends(hunk)
    if place == len(old) and open_before != open_after:
        is_open = open_after
    new += old[place:]
    return "\n".join(new) + ("\n" if new and not is_open else "")


def _open_ends(hunk: Any) -> tuple[bool, bool]:
    """Whether the last line before and the last line after have no break, as ``_NO_BREAK`` behind them says."""
    marked = {before.line_type for before, line in itertools.pairwise(hunk) if line.line_type == "\\"}
    return not marked.isdisjoint({" ", "-"}), not marked.isdisjoint({" ", "+"})


def _target(hunk: Any, source: list[str]) -> list[str]:
    """The lines of a hunk after it, those of context as ``source`` has them."""
    rest, found = iter(source), []
    for line in hunk:
        if line.is_context:
            found.append(next(rest))
        elif line.is_removed:
            next(rest)
        elif line.is_added:
            found.append(_bare(line))
    return found


def _nearest(lines: list[str], wanted: list[str], stated: int, least: int) -> int | None:
    """Where ``wanted`` stands in ``lines``, from ``least`` on, nearest to ``stated``.

    An empty line also stands for one of blanks: these are often lost from the lines of a patch, or from its end.
    """
    if least <= stated <= len(lines) and lines[stated : stated + len(wanted)] == wanted:
        return stated
    if not wanted:
        return None
    for same in (_is_same, _is_same_but_for_blanks):
        places = range(least, len(lines) - len(wanted) + 1)
        found = [start for start in places if all(map(same, lines[start : start + len(wanted)], wanted))]
        if found:
            return min(found, key=lambda start: abs(start - stated))
    return None


def _is_same(line: str, wanted: str) -> bool:
    return line == wanted


def _is_same_but_for_blanks(line: str, wanted: str) -> bool:
    return line == wanted or (not wanted and line.isspace())


# --- Agreement -------------------------------------------------------------------------------------------------------


def similarity(ours: Mapping[str, str], golden: Mapping[str, str]) -> float:
    """Mean over the union of files of how much the two diffs agree, from 0 to 1 (recipe.md section 7.4, from SWE-RL).

    A file that only one side changes counts 0.
    """
    paths = sorted({*ours, *golden})
    budget = Budget(LIMIT_S, LIMIT_S)
    return sum(_ratio(ours.get(path), golden.get(path), budget) for path in paths) / len(paths) if paths else 0.0


def _ratio(a: str | None, b: str | None, budget: Budget) -> float:
    if a is None or b is None:
        return 0.0
    if a == b:
        return 1.0
    if len(a) * len(b) <= MOST_STEPS:
        with contextlib.suppress(OutOfTime):
            return _bounded(budget, difflib.SequenceMatcher(None, a, b, autojunk=False).ratio)
    return _ratio_by_lines(a.split("\n"), b.split("\n"))


def _bounded(budget: Budget, call: Callable[[], T]) -> T:
    """Alarms reach the main thread only, which is where a worker scores."""
    return budget.run(call) if threading.current_thread() is threading.main_thread() else call()


def _ratio_by_lines(a: list[str], b: list[str]) -> float:
    """The same measure in units of lines, weighted by their lengths: comparing by characters is quadratic."""
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=True).get_matching_blocks()
    same = sum(len(line) + 1 for block in blocks for line in a[block.a : block.a + block.size])
    return 2 * same / (sum(map(len, a)) + len(a) + sum(map(len, b)) + len(b))
