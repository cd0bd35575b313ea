"""Mappings and lists that remember where they were written. Apart from that they are ordinary dicts and lists.

A scalar's place is that of its key (or of its entry in a list), so that every value can be found in its file. Nothing
here changes a tree it is given, since stages share branches once one extends another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cascade_rl.recipe.problems import Keys, Problem, SourceLine


class PlacedDict(dict[str, Any]):
    """A mapping: ``place`` is where it begins, ``places`` says where each key stands."""

    def __init__(self, place: SourceLine) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, SourceLine] = {}

    def put(self, key: str, value: Any, place: SourceLine) -> None:
        self[key] = value
        self.places[key] = place

    def without(self, *keys: str) -> PlacedDict:
        """A copy that lacks ``keys``."""
        copy = PlacedDict(self.place)
        for key, value in self.items():
            if key not in keys:
                copy.put(key, value, self.places[key])
        return copy

    def replaced(self, key: str, value: Any, place: SourceLine) -> PlacedDict:
        """A copy in which ``key`` has another value, or is new."""
        copy = self.without()
        copy.put(key, value, place)
        return copy


class PlacedList(list[Any]):
    """A list: ``place`` is where it begins, ``places`` says where each entry does."""

    def __init__(self, place: SourceLine) -> None:
        super().__init__()
        self.place = place
        self.places: list[SourceLine] = []

    def add(self, value: Any, place: SourceLine) -> None:
        self.append(value)
        self.places.append(place)

    def replaced(self, index: int, value: Any, place: SourceLine) -> PlacedList:
        """A copy in which one entry is another."""
        copy = PlacedList(self.place)
        for i, entry in enumerate(self):
            copy.add(value if i == index else entry, place if i == index else self.places[i])
        return copy


def plain(value: Any) -> Any:
    """A tree as ordinary dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def stages_of(root: PlacedDict) -> PlacedList:
    """The list under ``stages``; an empty one where there is none."""
    stages = root.get("stages")
    return stages if isinstance(stages, PlacedList) else PlacedList(root.place)


def stage_name(stage: Any) -> str | None:
    """The name in a stage's tree, or None where there is no such text."""
    name = stage.get("name") if isinstance(stage, PlacedDict) else None
    return name if isinstance(name, str) else None


def stage_names(root: PlacedDict) -> list[str | None]:
    """The name of each stage, in order."""
    return [stage_name(stage) for stage in stages_of(root)]


def place_of(root: PlacedDict, keys: Keys) -> SourceLine:
    """Where ``keys`` lead, as far as they are known. A stage goes by its number or its name (the first so called)."""
    return [root.place, *_places_along(root, keys)][-1]


def _places_along(root: PlacedDict, keys: Keys) -> Iterator[SourceLine]:
    node: Any = root
    for depth, key in enumerate(keys):
        if depth == 1 and keys[0] == "stages" and isinstance(key, str) and key in stage_names(root):
            key = stage_names(root).index(key)
        known = isinstance(node, PlacedDict) and key in node
        if isinstance(node, PlacedList):
            known = isinstance(key, int) and 0 <= key < len(node)
        if not known:
            return
        yield node.places[key]
        node = node[key]


def dotted(root: PlacedDict, keys: Keys) -> str:
    """``keys`` as the user would write them: joined by dots, a stage by its name rather than its number."""
    parts = [str(key) for key in keys]
    if len(keys) > 1 and keys[0] == "stages" and isinstance(keys[1], int):
        names = stage_names(root)
        parts[1] = (names[keys[1]] if keys[1] < len(names) else None) or parts[1]
    return ".".join(parts)


def problem_at(root: PlacedDict, keys: Keys, message: str) -> Problem:
    """A problem with the value that ``keys`` lead to."""
    return Problem(place_of(root, keys), dotted(root, keys), message)
