"""PyYAML's syntax errors in plain words, with line and column."""

from __future__ import annotations

import yaml

from cascade_rl.recipe.problems import SourceLine

SENTENCES = (
    ("found alias *", "aliases (*name) are not used in recipes; use base, extends or defaults, or quote the text"),
    (
        "mapping values are not allowed here",
        "a colon and a space stand in text without quotes, or the indentation is off",
    ),
    ("found character '\\t'", "a tab cannot indent YAML; use spaces"),
    ("found a tab character", "a tab cannot indent YAML; use spaces"),
    ("cannot start any token", "text that begins with this character needs quotes"),
    ("found unknown escape character", "in double quotes a backslash begins an escape; put patterns in single quotes"),
    (
        "could not find expected ':'",
        "a key without a colon after it, or a line that is not indented as far as it should be",
    ),
    ("found unexpected end of stream", "a quote is opened and never closed"),
    ("expected ',' or ']'", "a list is opened by [ and not closed, or lacks a comma"),
    ("expected ',' or '}'", "a mapping is opened by { and not closed, or lacks a comma"),
    ("expected <block end>", "this line is not indented like its neighbours, or a bracket or quote ends too early"),
    ("but found another document", "one file holds one recipe; remove the second `---`"),
    ("did not find expected alphabetic", "text that begins with * or & needs quotes"),
    ("expected alphabetic or numeric character", "text that begins with * or & needs quotes"),
    ("expected the node content", "a value is missing here, or text begins with a character that needs quotes"),
    ("special characters are not allowed", "a control character stands in the text; remove it"),
)
"""Part of PyYAML's message -> what the author should look for. The first that fits is taken."""


def in_plain_words(error: yaml.YAMLError, text: str, shown: str) -> tuple[SourceLine, str]:
    """Where a syntax error in ``text`` lies, and a sentence that says what to look for there."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = SourceLine(shown, mark.line + 1, mark.column + 1) if mark else SourceLine(shown)
        original = error.problem or error.context or "syntax error"
    elif isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = SourceLine(shown, before.count("\n") + 1, len(before) - before.rfind("\n"))
        original = error.reason
    else:
        place, original = SourceLine(shown), str(error)
    sentence = next((words for part, words in SENTENCES if part in original), None)
    return place, f"not valid YAML: {sentence} ({original})" if sentence else f"not valid YAML: {original}"
