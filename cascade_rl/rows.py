"""What every reader of rows agrees on: a null is an absent column, and texts must be writable as UTF-8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNDECODABLE = "surrogateescape"
"""How files of rows are decoded where they are opened as text: as ``utf8_text`` does."""


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of ``row`` that hold a value.

    Merged JSON lines leave a column out where Arrow tables store a null, so both must mean the same. Values are left as
    they are: a null inside a list of tests, say, may be what a function has to return.
    """
    return {name: value for name, value in row.items() if value is not None}


def without_nulls(value: Any) -> Any:
    """``value`` without the nulls in its objects, at any depth; items of lists stay.

    For values whose keys the framework knows, such as messages: Arrow gives every object of a list the keys of all.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def plain_value(value: Any) -> Any:
    """``value`` with arrays as lists, scalars of numpy as Python's, and pandas' marks of absence as None, at any depth.

    Rows of a generator may come from numpy or pandas, whose arrays and marks cannot be asked whether they are empty.
    """
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    return [plain_value(item) for item in value] if isinstance(value, list) else value


def utf8_text(raw: bytes) -> str:
    """``raw`` decoded as UTF-8. A byte that is not UTF-8 becomes a lone surrogate (U+DC80 to U+DCFF, PEP 383), so that
    ``text_fault`` finds it in the one row that has it."""
    return raw.decode("utf-8", UNDECODABLE)


def text_fault(row: Mapping[str, Any]) -> str | None:
    """Which column of ``row`` holds a text that cannot be written as UTF-8, and what is wrong there; None for none.

    JSON can spell half of a surrogate pair (``\\ud83d``), which no tokenizer, file or database takes, and ``utf8_text``
    puts such halves in place of bytes that are not UTF-8.
    """
    for name, value in row.items():
        column = f"column `{writable(str(name))}`"
        try:
            half = _half_pair(str(name)) or _half_pair(value)
        except RecursionError:
            return f"{column} is nested too deeply"
        if half is not None and "\udc80" <= half <= "\udcff":
            byte = f"0x{ord(half) - 0xDC00:02x}"
            return f"{column} has the byte {byte}, which is not UTF-8, or half of a surrogate pair (\\u{ord(half):04x})"
        if half is not None:
            return f"{column} has half of a surrogate pair (\\u{ord(half):04x}), which is no text"
    return None


def _half_pair(value: Any) -> str | None:
    """The first half of a surrogate pair in the texts of ``value`` that stands by itself."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return value[error.start]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if half := _half_pair(key) or _half_pair(item):
                return half
    elif isinstance(value, list | tuple):
        for item in value:
            if half := _half_pair(item):
                return half
    return None


def writable(text: str) -> str:
    """``text`` with each half of a surrogate pair replaced by U+FFFD; any other text comes back unchanged."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
