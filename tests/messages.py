"""Checks of messages by place, key, name, number or single word, so that their prose can be rewritten."""

from __future__ import annotations

import re


def mentions(text: str, *words: str) -> bool:
    """Whether all ``words`` occur in ``text``, each of them whole (``1`` is not in ``10`` or ``0.1``), in any order.

    Tests ask for keys, names, numbers and quoted text, or else for one word, so that messages can be rewritten.
    """
    return all(re.search(_whole(word), text) for word in words)


def _whole(word: str) -> str:
    start, end = (re.fullmatch(r"\w", letter) for letter in (word[0], word[-1]))
    return (r"(?<![\w.-])" if start else "") + re.escape(word) + (r"(?![.-]?\w)" if end else "")


def says(found: str, place: str, *words: str) -> None:
    """Assert that the problem ``found`` is at ``place`` and that its message has all ``words``, in any order.

    ``place`` is the whole of what comes before the message: ``recipe.yaml:9: stages.math.steps``.
    """
    assert found.startswith(f"{place}: "), f"not at {place}: {found}"
    message = found.removeprefix(f"{place}: ")
    missing = [word for word in words if not mentions(message, word)]
    assert not missing, f"no {missing} in: {message}"


def says_each(found: list[str], *expected: tuple[str, ...]) -> None:
    """Assert that there is one problem for each of ``expected`` (its place, then words) in this order, and no other."""
    assert len(found) == len(expected), found
    for problem, (place, *words) in zip(found, expected, strict=True):
        says(problem, place, *words)
