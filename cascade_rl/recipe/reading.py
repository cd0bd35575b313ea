"""YAML that remembers where everything was written.

Scalars follow YAML 1.2: ``2e-6`` is a number, and only ``true`` and ``false`` are booleans, so that ``no`` and ``on``
stay words. Aliases, merge keys and tags are refused: recipes are reused by ``base``, ``extends`` and ``--set``, and
an alias of aliases could grow without bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cascade_rl.recipe.problems import Keys, Problem, RecipeError, SourceLine, nearest
from cascade_rl.recipe.syntax import in_plain_words
from cascade_rl.recipe.tree import PlacedDict, PlacedList, dotted

LARGEST_INT = 2**63 - 1
MAX_DEPTH = 50
"""Levels of nesting; recipes need about six, and Python's stack ends at a few hundred."""

SCALARS: tuple[tuple[str, str, list[str]], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
"""Tag, pattern and possible first characters of what is not text when written without quotes."""

COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            message = f"found alias *{event.anchor}"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}  # the class's own, without those of YAML 1.1
for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)


def read_yaml(path: Path, shown: str) -> PlacedDict:
    """The file's top-level mapping; ``shown`` is the name its places carry.

    Raises RecipeError for a file that is absent, is a folder, is not UTF-8, is empty, has no mapping at its top, or
    breaks the rules that ``parse`` names.
    """
    value = parse(_text_of(path, shown), shown)
    if value is None:
        raise _error(SourceLine(shown), "the file is empty; a recipe needs at least name, model and stages")
    if not isinstance(value, PlacedDict):
        found = "a list" if isinstance(value, PlacedList) else "a single value"
        raise _error(
            SourceLine(shown, 1), f"the file must be a mapping of keys such as name, model and stages, not {found}"
        )
    return value


def _text_of(path: Path, shown: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _error(SourceLine(shown), f"there is no such file{_nearest_file(path)}") from None
    except IsADirectoryError:
        raise _error(SourceLine(shown), "this is a folder; name the YAML file inside it") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _error(
            SourceLine(shown), f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = SourceLine(shown, data.count(b"\n", 0, error.start) + 1)
        raise _error(place, f"the file is not UTF-8 text: byte 0x{data[error.start]:02x}; save it as UTF-8") from None


def _nearest_file(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
    except OSError:
        return f"; there is no folder {path.parent} either"
    near = nearest(path.name, names)
    return f"; did you mean {path.parent / near}?" if near else ""


def parse(text: str, shown: str, *, lines: bool = True) -> Any:
    """A YAML text as PlacedDict, PlacedList or scalar. With ``lines=False`` its places name the file only.

    Raises RecipeError for a syntax error, or for every key that stands twice or is no text, every tag, and every
    number or character that cannot be represented.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        builder = _Builder(loader, lambda mark: SourceLine(shown, mark.line + 1) if lines else SourceLine(shown))
        value = builder.build(node, ())
    except yaml.YAMLError as error:
        place, message = in_plain_words(error, text, shown)
        raise _error(place if lines else SourceLine(shown), message) from None
    except RecursionError:
        raise _error(SourceLine(shown), f"nested deeper than {MAX_DEPTH} levels") from None
    if builder.problems:
        root = value if isinstance(value, PlacedDict) else PlacedDict(SourceLine(shown))
        found = [Problem(place, dotted(root, keys), message) for place, keys, message in builder.problems]
        raise RecipeError(found, shown)
    return value


class _Builder:
    """Turns nodes into a tree; collects what is wrong, so that all of it is reported at once."""

    def __init__(self, loader: _Loader, place_of: Callable[[yaml.Mark], SourceLine]) -> None:
        self.loader = loader
        self.place_of = place_of
        self.problems: list[tuple[SourceLine, Keys, str]] = []

    def build(self, node: yaml.Node, keys: Keys) -> Any:
        place = self.place_of(node.start_mark)
        if len(keys) > MAX_DEPTH:
            self.problems.append((place, keys[:4], f"nested deeper than {MAX_DEPTH} levels"))
            return None
        if isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTIONS:
            self.problems.append((place, keys, f"the tag {node.tag} is not used here; write a plain value"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, keys)
        if isinstance(node, yaml.SequenceNode):
            sequence = PlacedList(place)
            for index, item in enumerate(node.value):
                sequence.add(self.build(item, (*keys, index)), self.place_of(item.start_mark))
            return sequence
        return self._scalar(node, place, keys)

    def _mapping(self, node: yaml.MappingNode, place: SourceLine, keys: Keys) -> PlacedDict:
        mapping = PlacedDict(place)
        for key_node, value_node in node.value:
            where = self.place_of(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append((where, keys, "must be a word, as all keys, not a list or a mapping"))
                continue
            key = key_node.value  # as written: `on` and `1` are words where keys stand
            value = self.build(value_node, (*keys, key))
            if key == "<<" and key_node.style is None:
                self.problems.append(
                    (where, (*keys, key), "merge keys are not used here; use base, extends or defaults")
                )
            elif key in mapping:
                first = mapping.places[key].line
                message = "stands twice" + (f"; the first one is on line {first}" if first else "")
                self.problems.append((where, (*keys, key), message))
            elif self._is_text(key, where, keys):
                mapping.put(key, value, where)
        return mapping

    def _scalar(self, node: yaml.Node, place: SourceLine, keys: Keys) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "str":
            return node.value if self._is_text(node.value, place, keys) else None
        try:
            if kind == "int":
                return self._int(node.value)
            if kind == "float" and not math.isfinite(number := self.loader.construct_object(node)):
                self.problems.append((place, keys, f"must be a finite number, not {number}"))
                return None
            if kind in ("float", "bool", "null"):
                return self.loader.construct_object(node)
        except (ValueError, KeyError):  # only under an explicit tag: `!!int ten`
            self.problems.append((place, keys, f"must be a number of at most {LARGEST_INT}, not {node.value[:40]}"))
            return None
        self.problems.append((place, keys, f"the tag {node.tag} is not used here; write a plain value"))
        return None

    @staticmethod
    def _int(text: str) -> int:
        """YAML 1.2: ``010`` is ten, ``0o10`` is eight. Raises ValueError for what is no number or too large."""
        digits = text.lstrip("+-").lower()
        base = {"0x": 16, "0o": 8}.get(digits[:2], 10)
        number = int(text, base)
        if abs(number) > LARGEST_INT:
            raise ValueError(text)
        return number

    def _is_text(self, text: str, place: SourceLine, keys: Keys) -> bool:
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.problems.append((place, keys, "holds half of a surrogate pair; write the character itself"))
            return False
        if "\0" in text:
            self.problems.append((place, keys, "holds a null character, which no name or path may have"))
            return False
        return True


def _error(place: SourceLine, message: str) -> RecipeError:
    return RecipeError([Problem(place, "", message)], place.file)
