"""``--set stages.math-24k.steps=10`` — values from the command line, as if the merged file were edited by hand.

They come after ``base`` and before ``extends`` and ``defaults``: stages that extend the changed one follow it, and
``--set defaults.rl.group_size=4`` reaches all of a kind. What a stage inherits can be addressed in it all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cascade_rl.recipe.problems import OVERRIDE, Problem, RecipeError, SourceLine, suggestion
from cascade_rl.recipe.reading import parse
from cascade_rl.recipe.stages import with_extends
from cascade_rl.recipe.tree import PlacedDict, PlacedList, stage_names

PLACE = SourceLine(OVERRIDE)


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
        raise _Refused("must look like --set stages.math-rl.steps=10: a dotted key, = and a value")
    if parts == ["base"]:
        raise _Refused("`base` was followed before overrides are applied; change it in the file")
    try:
        value = parse(value_text, OVERRIDE, lines=False)
    except RecipeError as error:
        raise _Refused("; ".join(problem.message for problem in error.problems)) from None
    if parts[0] == "stages" and len(parts) > 1:
        parts = ["stages", *_stage_first(root, parts[1:])]
    return _assigned(root, with_extends(root)[0], parts, value, ())


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
    raise _Refused(f"there is no item {parts[0]!r}; {hint}")


def _assigned(node: Any, resolved: Any, parts: list[str], value: Any, above: tuple[str, ...]) -> Any:
    """A copy of ``node`` in which the value at ``parts`` is another; missing mappings on the way are made.

    ``resolved`` is the same node after ``extends``: a list that a stage inherits becomes its own before one entry is
    changed. Copies throughout, since the stages would share that list.
    """
    if not parts:
        return value
    here, rest = parts[0], parts[1:]
    if node is None:
        node = PlacedDict(PLACE) if resolved is None or isinstance(resolved, PlacedDict) else resolved
    if isinstance(node, PlacedDict):
        below = resolved.get(here) if isinstance(resolved, PlacedDict) else None
        inner = _assigned(node.get(here), below, rest, value, (*above, here))
        return node.replaced(here, inner, node.places[here] if rest and here in node else PLACE)
    if isinstance(node, PlacedList):
        index = _index(here)
        if index is None or index >= len(node):
            has = f"entries 0 to {len(node) - 1}" if node else "no entries"
            raise _Refused(f"`{'.'.join(above)}` is a list with {has}; {here!r} is none of them")
        below = resolved[index] if isinstance(resolved, PlacedList) and index < len(resolved) else None
        inner = _assigned(node[index], below, rest, value, (*above, here))
        return node.replaced(index, inner, node.places[index] if rest else PLACE)
    raise _Refused(f"`{'.'.join(above)}` is a single value ({node!r}), so it has no `{here}`")


def _index(part: str) -> int | None:
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else None
