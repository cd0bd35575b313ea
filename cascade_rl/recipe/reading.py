"""YAML that remembers where everything was written.

Scalars follow YAML 1.2: ``2e-6`` is a number, and only ``true`` and ``false`` are booleans, so that a domain called
``no`` or ``on`` stays a word.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cascade_rl.recipe.problems import Place, Problem, RecipeError


class Mapping(dict):
    """A dict that knows its own place and its keys' places."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[Any, Place] = {}

    def put(self, key: Any, value: Any, place: Place) -> None:
        self[key] = value
        self.places[key] = place


class Sequence(list):
    """A list that knows its own place and its items' places."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []

    def add(self, value: Any, place: Place) -> None:
        self.append(value)
        self.places.append(place)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path, shown: str) -> Mapping:
    """The file's top-level mapping. Raises RecipeError naming file, line and column of what cannot be read."""
    place = Place(shown)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError([Problem(place, "", "there is no such file")], shown) from None
    except IsADirectoryError:
        raise RecipeError([Problem(place, "", "is a folder; name the YAML file inside it")], shown) from None
    except UnicodeDecodeError as error:
        raise RecipeError([Problem(place, "", f"is not UTF-8 text (byte {error.start})")], shown) from None
    except OSError as error:
        raise RecipeError([Problem(place, "", f"cannot be read: {error.strerror}")], shown) from None
    value = parse(text, shown)
    if value is None:
        raise RecipeError([Problem(place, "", "is empty; a recipe needs at least name, model and stages")], shown)
    if not isinstance(value, Mapping):
        raise RecipeError([Problem(place, "", "must be a mapping of keys such as name, model, stages")], shown)
    return value


def parse(text: str, shown: str) -> Any:
    """A YAML text as Mapping, Sequence or scalar. Raises RecipeError for syntax errors and duplicate keys."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        problems: list[Problem] = []
        value = _build(loader, node, shown, "", problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"not valid YAML at column {column}: {error.problem or error.context}"
        raise RecipeError([Problem(Place(shown, line), "", message)], shown) from None
    except yaml.YAMLError as error:
        raise RecipeError([Problem(Place(shown), "", f"not valid YAML: {error}")], shown) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError([Problem(Place(shown), "", f"cannot be read: {error}")], shown) from None
    finally:
        loader.dispose()
    if problems:
        raise RecipeError(problems, shown)
    return value


def _build(loader: _Loader, node: yaml.Node, shown: str, path: str, problems: list[Problem]) -> Any:
    place = Place(shown, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping = Mapping(place)
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            where = Place(shown, key_node.start_mark.line + 1)
            name = f"{path}.{key}" if path else str(key)
            if not isinstance(key, str):
                problems.append(Problem(where, name, "keys must be words; put it in quotes"))
                key = str(key)
            if key in mapping:
                first = mapping.places[key].line
                problems.append(Problem(where, name, f"stands twice; the first one is on line {first}"))
            mapping.put(key, _build(loader, value_node, shown, name, problems), where)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        sequence = Sequence(place)
        for index, item in enumerate(node.value):
            where = Place(shown, item.start_mark.line + 1)
            sequence.add(_build(loader, item, shown, f"{path}.{index}", problems), where)
        return sequence
    return loader.construct_object(node, deep=True)
