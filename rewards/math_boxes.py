"""The boxes of a response: the last one, or the several that together close the answer.

Boxes with nothing but joining words, punctuation, line breaks, list marks, labels (``y_1 =``, or ``Area:`` after a
comma or a joining word) and the unit of the box before between them belong together. Any other text between two boxes
ends the group, so that boxes of earlier reasoning stay out of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rewards.math_spelling import SHORT_UNITS

MAX_BOXES = 50
"""Boxes with different content are read up to one beyond this number."""
_MAX_GAP = 200
"""Characters between two boxes of a group."""
_MAX_DEPTH = 20
_MAX_SPANS = 1000
"""Boxes of a group that are read, whatever they hold."""


@dataclass(frozen=True)
class Box:
    """One box of a group."""

    text: str
    """What is in the box, without the boxes around it."""
    label: str = ""
    """``y_1`` for ``y_1 = \\boxed{5}``."""
    alternative: bool = False
    """Whether the word before the box is "or" (or a union sign)."""
    conjunction: bool = False
    """Whether the word before the box is "and" (or its sign)."""


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
        for box in reversed(_contents(text, span, label, joiner or _NO_JOINER, depth)):
            if len(found) < MAX_BOXES or (box.label, box.text) not in distinct:
                found.append(box)
            distinct.add((box.label, box.text))
        if joiner is None or place == 0 or len(distinct) > MAX_BOXES or len(spans) - place >= _MAX_SPANS:
            break
    if len(found) > MAX_BOXES:
        found = list({(box.label, box.text): box for box in found}.values())
    return found[::-1]


def _contents(text: str, span: _Span, label: str, joiner: _Joiner, depth: int) -> list[Box]:
    while span.inner and depth >= _MAX_DEPTH:
        span = span.inner[-1]
    if span.inner:
        return _group(text, span.inner, span.begin, depth + 1)
    return [Box(text[span.begin : span.end].strip(), label, joiner.alternative, joiner.conjunction)]


# --- What stands between boxes ---------------------------------------------------------------------------------------

_NAME = r"(?:[a-zA-Z]|[A-Z]{2,3}|\\[a-z]{2,7})(?:_(?:\w|\{\w{1,5}\}))?(?:\^\{?\w\}?)?'?(?:\(\w{1,3}\))?"
_LABEL = re.compile(
    rf"(?P<label>{_NAME}|\(\s*{_NAME}(?:\s*,\s*{_NAME}){{1,4}}\s*\))\s*(?:=|\\(?:in|approx)(?![a-zA-Z])|:)"
)
_WORDS = (
    r"and\s*/\s*or|and also|as well as|and|or|either|else|alternatively|equivalently|maybe|perhaps|possibly|和|或|及"
)
_FONT = r"\\(?:text|textbf|textit|textrm|textsf|emph|mathrm|mathbf|mathit|mbox)\s*\{"
_SPACE = r"(?:\s|~|\\[,;:! ])*"
_DOTS = r"\\(?:[lc]?dots|dots[bcimo])(?![a-zA-Z])|…"
_JOINER = re.compile(
    r"\s+|~|\\[,;:! \\()\[\]&]|\\(?:quad|qquad|newline|displaystyle)(?![a-zA-Z])"  # space, mathematics begins or ends
    rf"|\\hspace\*?\{{[^{{}}]{{0,10}}\}}|(?P<comma>\\(?:text|mbox)\s*\{{[\s,;]*\}}|[,;、，；](?:\s*\.{{3}})?)|\$|\*\*|&|{_DOTS}"
    rf"|(?:{_FONT}{_SPACE})?(?:\*|_)?[,;]?\s*(?<![a-zA-Z])(?P<word>(?i:{_WORDS}))(?![a-zA-Z]){_SPACE},?(?:\*|_)?\}}?"
    r"|(?P<sign>\\(?:lor|vee|cup|land|wedge)(?![a-zA-Z]))"
    rf"|{_LABEL.pattern}|[()/|]"
)
_LIST_MARK = re.compile(r"\.?[^\S\n]*\n\s*(?:[-*•]|\\item|\(?(?:\d{1,2}|[a-h]|[ivx]{1,4})[.)])(?=\s|\$|\\)")
_INLINE_MARK = re.compile(r"\((?:\d{1,2}|[a-h]|[ivx]{1,4})\)(?=\s|\$|\\)")
_ALTERNATIVES = frozenset(
    ("or", "either", "else", "alternatively", "maybe", "perhaps", "possibly", "或", "\\lor", "\\vee", "\\cup")
)
_CONJUNCTIONS = frozenset(("and", "and also", "as well as", "和", "及", "\\land", "\\wedge"))
_LONG_UNITS = (
    r"(?:centi|milli|kilo|deci)?(?:met(?:er|re)|gram|lit(?:er|re))s?|inch(?:es)?|f(?:oo|ee)t|yards?|miles?|seconds?|minutes?|"
    r"hours?|days?|weeks?|months?|years?|degrees?|radians?|percent|dollars?|cents?|euros?|units?|pounds?|points?"
)
_UNIT_WORD = rf"(?:square |cubic )?(?:{'|'.join(sorted(SHORT_UNITS, key=len, reverse=True))}|{_LONG_UNITS})(?![a-zA-Z])"
_UNIT = rf"{_UNIT_WORD}(?:\^\{{?-?\d\}}?)?(?:(?:\s*/\s*| per ){_UNIT_WORD}(?:\^\{{?-?\d\}}?)?)*"
_DEGREES = r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z])"
_UNIT_AFTER = re.compile(
    rf"(?:\s|~|\\[,;:! ]|\$)*(?:{_DEGREES}|\\?%|\\\$|{_FONT}{_SPACE}{_UNIT}{_SPACE}\}}(?:\^\{{?-?\d\}}?)?"
    rf"|{_UNIT}(?!{_SPACE}[=:]))"
)
_WORD_LABEL = re.compile(
    rf"(?:{_FONT}|\*\*)?{_SPACE}(?P<words>[a-zA-Z]+(?:[ -][a-zA-Z]+){{0,3}}(?: \d{{1,2}})?){_SPACE}"
    rf"(?:[=:](?:\*\*|{_SPACE}\}})?|(?:\*\*|\}}){_SPACE}[=:])"
)
_LATER = frozenset(
    "so thus hence therefore then finally final answer answers result solution total gives giving get but wait no not "
    "actually correction step check now we is are".split()
)
"""A label with one of these words begins a new answer, unless the word before it is "or"."""


@dataclass(frozen=True)
class _Joiner:
    label: str
    alternative: bool
    conjunction: bool


_NO_JOINER = _Joiner("", False, False)


def _read_joiner(gap: str) -> _Joiner | None:
    """The text between two boxes, or None where it is more than a joiner."""
    label, alternative, conjunction, joined = "", False, False, False
    gap = gap.replace("&=", "=")  # aligned equations
    unit = _UNIT_AFTER.match(gap)
    place = unit.end() if unit else 0
    while place < len(gap):
        found = _LIST_MARK.match(gap, place) or _INLINE_MARK.match(gap, place) or _JOINER.match(gap, place)
        if not found and joined and (words := _WORD_LABEL.match(gap, place)):
            found = words if alternative or _LATER.isdisjoint(words["words"].lower().split()) else None
        if not found:
            return None
        place = found.end()
        groups = found.groupdict()
        if groups.get("label"):
            label = groups["label"]
        word = (groups.get("word") or groups.get("sign") or "").lower()
        alternative |= word.split("/")[-1].strip() in _ALTERNATIVES
        conjunction |= word in _CONJUNCTIONS
        joined |= bool(word or groups.get("comma"))
    return _Joiner(label, alternative, conjunction)


def _label_at_end(text: str) -> str | None:
    """The label right before the first box of a group, after whatever else."""
    found = re.search(rf"(?<![a-zA-Z\\]){_LABEL.pattern}\s*$", text[-60:].replace("&=", "="))
    return found["label"] if found else None
