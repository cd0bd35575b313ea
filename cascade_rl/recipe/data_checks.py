"""What can be wrong inside one data source: its format string and its regular expressions."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from cascade_rl.recipe.parts import DataSource
from cascade_rl.recipe.problems import Keys

WIDEST = 10_000
"""Largest number in a format spec: a width or precision of more makes prompts that no model reads."""
BRACES = r"braces that belong to the text are written twice, as in \boxed{{}}"


def source_problems(source: DataSource) -> Iterator[tuple[Keys, str]]:
    """Keys within the source, and what is wrong there."""
    if not source.source.strip():
        yield ("source",), "is empty; name a file, a hub data set, or a generator as package.module:function"
    for key in ("split", "config", "revision", "domain"):
        text = getattr(source, key)
        if text is not None and not text.strip():
            yield (key,), "is empty; write a name, or leave the key out"
    if source.prompt is not None and (wrong := format_problem(source.prompt)):
        yield ("prompt",), wrong
    for column, pattern in source.extract.items():
        if wrong := pattern_problem(pattern):
            yield ("extract", column), wrong


def format_problem(text: str) -> str | None:
    """Why ``text`` is no format string over named columns; None when it is one."""
    if not text.strip():
        return "is empty; write a format string over columns, such as {question}, or leave the key out"
    try:
        fields = list(_fields(text))
        if not fields:
            return "names no column, so every row would ask the same; write {question}, say, where the row's text goes"
        for name, conversion, spec in fields:
            if not re.split(r"[.\[]", name, maxsplit=1)[0] or re.match(r"\d+(?:[.\[]|$)", name):
                what = f"{{{name}}}" if name else "an empty {}"
                return f"has {what}, which names no column; write {{question}}, say; {BRACES}"
            if conversion not in (None, "r", "s", "a"):
                return f"has {{{name}!{conversion}}}, an unknown conversion; r, s and a exist; {BRACES}"
            if "{" in spec:  # a row would decide how long its prompt is
                return f"has {{{name}:{spec}}}, which takes a width from another column, {{}}; write a number; {BRACES}"
            if any(int(number) > WIDEST for number in re.findall(r"\d+", spec)):
                return f"has {{{name}:{spec[:80]}}}, whose format spec has a number above {WIDEST}"
    except ValueError as error:
        return f"is no format string ({error}); {BRACES}"
    return None


def _fields(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Name, conversion and format spec of every field."""
    for _, name, spec, conversion in string.Formatter().parse(text):
        if name is not None:
            yield name, conversion or None, spec or ""


def pattern_problem(pattern: str) -> str | None:
    """Why ``pattern`` cannot extract a value; None when it can."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    return None if groups else "needs a group (...) around the part that is kept"
