"""Laying one tree over another. Pure: arguments stay as they are, results share their branches."""

from __future__ import annotations

from typing import Any

from cascade_rl.recipe.tree import PlacedDict, PlacedList, stage_name


def merged(under: Any, over: Any) -> Any:
    """``over`` laid on ``under``: mappings key by key, anything else replaced. Keys of ``under`` come first."""
    if not (isinstance(under, PlacedDict) and isinstance(over, PlacedDict)):
        return over
    result = PlacedDict(over.place)
    for key, value in under.items():
        result.put(key, value, under.places[key])
    for key, value in over.items():
        result.put(key, merged(under[key], value) if key in under else value, over.places[key])
    return result


def merged_recipes(base: PlacedDict, child: PlacedDict) -> PlacedDict:
    """A recipe laid on its base: like ``merged``, but stages meet by name."""
    result = merged(base, child)
    under, over = base.get("stages"), child.get("stages")
    if isinstance(under, PlacedList) and isinstance(over, PlacedList):
        result.put("stages", merged_stages(under, over), child.places["stages"])
    return result


def merged_stages(base: PlacedList, child: PlacedList) -> PlacedList:
    """A child's stages laid on its base's, by name.

    Stages that both have take the slots they occupy in the base, in the child's order: listing one edits it where it
    stands, listing two the other way round swaps them. A new stage goes behind the stage before it in the child, or
    to the end when no stage of the base comes before it there. A second stage of the same name counts as new, and is
    reported once the recipe is whole.
    """
    places = {stage_name(stage): base.places[i] for i, stage in reversed(list(enumerate(base)))}
    in_base = {stage_name(stage): stage for stage in reversed(base) if stage_name(stage)}
    edited: list[tuple[Any, Any]] = []  # (stage, place) of those in both, in the child's order
    followers: dict[str | None, list[tuple[Any, Any]]] = {}  # name in both -> new stages behind it; None: at the end
    taken: set[str] = set()
    before: str | None = None
    for stage, place in zip(child, child.places, strict=True):
        name = stage_name(stage)
        if name is not None and name in in_base and name not in taken:
            edited.append((merged(in_base[name], stage), place if stage.keys() - {"name"} else places[name]))
            taken.add(name)
            before = name
        else:
            followers.setdefault(before, []).append((stage, place))
    result, queue, slots = PlacedList(child.place), iter(edited), set(taken)
    for stage, place in zip(base, base.places, strict=True):
        name = stage_name(stage)
        if name in slots:
            slots.remove(name)  # a second stage of that name in the base is no slot
            stage, place = next(queue)
            name = stage_name(stage)
        result.add(stage, place)
        for new in followers.pop(name, []) if name in taken else []:
            result.add(*new)
    for new in followers.pop(None, []):
        result.add(*new)
    return result
