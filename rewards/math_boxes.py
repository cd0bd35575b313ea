"""The boxes of a response: the last one, or the several that together close the answer.

Boxes with nothing but joining words, punctuation, line breaks, list marks or labels (``y_1 =``) between them belong
together. Any other text between two boxes ends the group, so that boxes of earlier reasoning stay out of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_BOXES = 50
"""Boxes with different content are read up to one beyond this number."""
_MAX_GAP = 200
"""Characters between two boxes of a group."""
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Box:
    """One box of a group."""

    text: str
    """What is in the box, without the boxes around it."""
    label: str = ""
    """``y_1`` for ``y_1 = \\boxed{5}``."""
    alternative: bool = False
    """Whether the word before the box is "or" (or a union sign)."""


@dataclass
class _Span:
    start: int
    """Where ``\\boxed`` begins."""
    begin: int
    end: int
    """Where the content begins and ends."""
    inner: list[_Span] = field(default_factory=list)


# In this order: an opening box; a line break of LaTeX (unless it is a doubled backslash before "boxed"); an escaped
# brace, which is a character of the answer; a brace. Each character is read once, so a megabyte of braces is no trap.
_TOKEN = re.compile(r"\\boxed\s*\{|\\\\(?!boxed)|\\[{}]|[{}]")


def last_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` whose braces balance, or None. Of nested boxes, the inner one."""
    spans = _spans(text)
    if not spans:
        return None
    while spans[-1].inner:
        spans = spans[-1].inner
    return text[spans[-1].begin : spans[-1].end].strip()


def closing_boxes(text: str) -> list[Box]:
    """The last box and those before it that are joined to it, in order. Empty without a box.

    Of more than ``MAX_BOXES`` boxes, each content is there once.
    """
    return _group(text, _spans(text), 0, 0)


def nesting(text: str) -> int:
    """Deepest nesting of brackets of any kind."""
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return deepest


def _spans(text: str) -> list[_Span]:
    """The balanced boxes that stand in no other balanced box, in order."""
    first = text.find("\\boxed")
    if first < 0:
        return []
    open_braces: list[_Span | None] = []  # None for braces that are no box
    closed: list[_Span] = []
    for token in _TOKEN.finditer(text, first):
        kind = token.group()
        if kind == "{":
            open_braces.append(None)
        elif kind == "}":
            span = open_braces.pop() if open_braces else None
            if span is not None:
                span.end = token.start()
                while closed and closed[-1].start > span.start:
                    span.inner.append(closed.pop())
                span.inner.reverse()
                closed.append(span)
        elif kind.startswith("\\boxed"):
            open_braces.append(_Span(token.start(), token.end(), -1))
    return closed


def _group(text: str, spans: list[_Span], start: int, depth: int) -> list[Box]:
    """The closing group of ``spans``, which stand in the part of ``text`` that begins at ``start``."""
    found: list[Box] = []
    distinct: set[tuple[str, str]] = set()
    for place in range(len(spans) - 1, -1, -1):
        span = spans[place]
        after = spans[place - 1].end + 1 if place else max(start, span.start - _MAX_GAP)
        gap = text[after : span.start] if span.start - after <= _MAX_GAP else None
        joiner = None if gap is None else _read_joiner(gap)
        label = (joiner.label if joiner else _label_at_end(gap or text[span.start - _MAX_GAP : span.start])) or ""
        alternative = joiner is not None and joiner.alternative
        for box in reversed(_contents(text, span, label, alternative, depth)):
            if len(found) < MAX_BOXES or (box.label, box.text) not in distinct:
                found.append(box)
            distinct.add((box.label, box.text))
        if joiner is None or place == 0 or len(distinct) > MAX_BOXES:
            break
    if len(found) > MAX_BOXES:
        found = list({(box.label, box.text): box for box in found}.values())
    return found[::-1]


def _contents(text: str, span: _Span, label: str, alternative: bool, depth: int) -> list[Box]:
    while span.inner and depth >= _MAX_DEPTH:
        span = span.inner[-1]
    if span.inner:
        return _group(text, span.inner, span.begin, depth + 1)
    return [Box(text[span.begin : span.end].strip(), label, alternative)]


# --- What stands between boxes ---------------------------------------------------------------------------------------

_NAME = r"(?:[a-zA-Z]|[A-Z]{2,3}|\\[a-z]{2,7})(?:_(?:\w|\{\w{1,5}\}))?(?:\^\{?\w\}?)?'?(?:\(\w{1,3}\))?"
_LABEL = re.compile(
    rf"(?P<label>{_NAME}|\(\s*{_NAME}(?:\s*,\s*{_NAME}){{1,4}}\s*\))\s*(?:=|\\(?:in|approx)(?![a-zA-Z])|:)"
)
_WORDS = r"and also|as well as|and|or|和|或|及"
_JOINER = re.compile(
    r"\s+|~|\\[,;:! \\()\[\]&]|\\(?:quad|qquad|newline|displaystyle)(?![a-zA-Z])"  # space, mathematics begins or ends
    r"|\\hspace\*?\{[^{}]{0,10}\}|\\(?:text|mbox)\s*\{[\s,;]*\}|\$|\*\*|[,;&、，；]"
    rf"|(?:\\(?:text|textbf|textrm|mathrm|mbox)\s*\{{\s*)?[,;]?\s*(?<![a-zA-Z])(?P<word>{_WORDS})(?![a-zA-Z])\s*,?\s*\}}?"
    r"|(?P<sign>\\(?:lor|vee|cup|land|wedge)(?![a-zA-Z]))"
    rf"|{_LABEL.pattern}"
)
_LIST_MARK = re.compile(r"\.?\s*\n\s*(?:[-*•]|\\item|\(?(?:\d{1,2}|[a-h]|[ivx]{1,4})[.)])(?=\s|\$|\\)")
_INLINE_MARK = re.compile(r"\((?:\d{1,2}|[a-h]|[ivx]{1,4})\)(?=\s|\$|\\)")
_ALTERNATIVES = frozenset(("or", "或", "\\lor", "\\vee", "\\cup"))


@dataclass(frozen=True)
class _Joiner:
    label: str
    alternative: bool


def _read_joiner(gap: str) -> _Joiner | None:
    """The text between two boxes, or None where it is more than a joiner."""
    place, label, alternative = 0, "", False
    gap = gap.replace("&=", "=")  # aligned equations
    while place < len(gap):
        found = _LIST_MARK.match(gap, place) or _JOINER.match(gap, place) or _INLINE_MARK.match(gap, place)
        if not found:
            return None
        place = found.end()
        groups = found.groupdict()
        if groups.get("label"):
            label = groups["label"]
        alternative |= (groups.get("word") or groups.get("sign")) in _ALTERNATIVES
    return _Joiner(label, alternative)


def _label_at_end(text: str) -> str | None:
    """The label right before the first box of a group, after whatever else."""
    found = re.search(rf"(?<![a-zA-Z\\]){_LABEL.pattern}\s*$", text[-60:].replace("&=", "="))
    return found["label"] if found else None
