"""``--set stages.math-24k.steps=10`` — values from the command line, laid over the merged tree.

They come after ``base`` and ``extends``, so that each changes exactly the one value it names, and before ``defaults``
are laid under the stages, so that ``--set defaults.rl.group_size=4`` reaches all of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cascade_rl.recipe.problems import OVERRIDE, Place, Problem, RecipeError, suggestion
from cascade_rl.recipe.reading import parse
from cascade_rl.recipe.tree import PlacedDict, PlacedList, stage_names

PLACE = Place(OVERRIDE)


def with_overrides(root: PlacedDict, overrides: Sequence[str]) -> tuple[PlacedDict, list[Problem]]:
    """The tree with each ``path=value`` in its place, in order; and what is wrong with any of them."""
    problems: list[Problem] = []
    for text in overrides:
        try:
            root = _with_override(root, text)
        except _Refused as error:
            problems.append(Problem(PLACE, text.partition("=")[0].strip(), str(error)))
    return root, problems


class _Refused(Exception):
    """An override that cannot be applied; its text says why."""


def _with_override(root: PlacedDict, text: str) -> PlacedDict:
    path, equals, value_text = text.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise _Refused("expected key=value with a dotted key, such as stages.math-rl.steps=10")
    if parts[0] == "stages" and len(parts) > 1:
        parts = ["stages", *_stage_first(root, parts[1:])]
    if parts == ["base"] or (parts[0] == "stages" and parts[2:] == ["extends"]):
        raise _Refused(f"`{parts[-1]}` was followed before overrides are applied; change it in the file")
    try:
        value = parse(value_text, OVERRIDE, lines=False)
    except RecipeError as error:
        raise _Refused("; ".join(problem.message for problem in error.problems)) from None
    return _assigned(root, parts, value, ())


def _stage_first(root: PlacedDict, parts: list[str]) -> list[str]:
    """``parts`` with the stage's index first. A name may hold dots, so the longest name that fits is taken."""
    names = stage_names(root)
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in names:
            return [str(names.index(name)), *parts[length:]]
    if _index(parts[0]) is not None and int(parts[0]) < len(names):
        return parts
    hint = suggestion(parts[0], [name for name in names if name], "stages are")
    raise _Refused(f"there is no stage {parts[0]!r}; {hint}")


def _assigned(node: Any, parts: list[str], value: Any, above: tuple[str, ...]) -> Any:
    """A copy of ``node`` in which the value at ``parts`` is another; missing mappings on the way are made.

    Copies, since stages that extend one another share their branches.
    """
    if not parts:
        return value
    here, rest = parts[0], parts[1:]
    if node is None:
        node = PlacedDict(PLACE)
    if isinstance(node, PlacedDict):
        inner = _assigned(node.get(here), rest, value, (*above, here))
        return node.replaced(here, inner, node.places[here] if rest and here in node else PLACE)
    if isinstance(node, PlacedList):
        index = _index(here)
        if index is None or index >= len(node):
            has = f"entries 0 to {len(node) - 1}" if node else "no entries"
            raise _Refused(f"`{'.'.join(above)}` is a list with {has}; {here!r} is none of them")
        inner = _assigned(node[index], rest, value, (*above, here))
        return node.replaced(index, inner, node.places[index] if rest else PLACE)
    raise _Refused(f"`{'.'.join(above)}` is a single value ({node!r}), so it has no `{here}`")


def _index(part: str) -> int | None:
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else None
