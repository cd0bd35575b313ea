"""The three ways of reuse: ``base:`` (another file), ``extends:`` (another stage), ``--set`` (the command line)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade_rl.recipe.problems import Place, Problem, RecipeError, nearest
from cascade_rl.recipe.reading import Mapping, Sequence, parse, read_yaml


def merged(under: Any, over: Any) -> Any:
    """``over`` laid on ``under``: mappings key by key, anything else replaced. Neither argument is changed."""
    if not (isinstance(under, Mapping) and isinstance(over, Mapping)):
        return over
    result = Mapping(over.place)
    for key, value in under.items():
        result.put(key, value, under.places[key])
    for key, value in over.items():
        result.put(key, merged(under[key], value) if key in under else value, over.places[key])
    return result


def read_with_bases(path: Path, shown: str, chain: tuple[Path, ...] = ()) -> tuple[Mapping, list[Path]]:
    """The file laid on its ``base`` (relative to itself), and all files read, itself first."""
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(p.name for p in (*chain, resolved))
        raise RecipeError([Problem(Place(shown), "base", f"goes round in a circle: {names}")], shown)
    top = read_yaml(path, shown)
    if "base" not in top:
        return top, [path]
    place, name = top.places["base"], top.pop("base")
    if not isinstance(name, str):
        raise RecipeError([Problem(place, "base", "must be the path of another recipe")], shown)
    base_path = path.parent / name
    if not base_path.is_file():
        raise RecipeError([Problem(place, "base", f"there is no file {base_path}")], shown)
    below, files = read_with_bases(base_path, str(base_path), (*chain, resolved))
    stages = merge_stages(below.get("stages"), top.get("stages"))
    result = merged(below, top)
    if stages is not None:
        result["stages"] = stages
    return result, [path, *files]


def merge_stages(base: Any, child: Any) -> Any:
    """A child's stages laid on its base's, by name.

    Stages the child lists take the places those hold in the base, in the child's order: one listed is edited where
    it stands, two listed the other way round are swapped. New ones go behind the listed one before them (the end,
    if none). ``skip: true`` takes a stage out.
    """
    if not isinstance(base, Sequence) or not isinstance(child, Sequence):
        return child if child is not None else base
    if not all(isinstance(stage, Mapping) for stage in (*base, *child)):
        return child
    names = [stage.get("name") for stage in base]
    listed = [stage for stage in child if stage.get("name") in names]
    queue = iter(listed)
    order: list[Mapping] = []
    listed_names = {stage.get("name") for stage in listed}
    for stage in base:
        if stage.get("name") in listed_names:
            over = next(queue)
            order.append(merged(base[names.index(over["name"])], over))
        else:
            order.append(stage)
    previous: Any = None
    for stage in child:
        if stage.get("name") not in names:
            at = next((i for i, s in enumerate(order) if s.get("name") == previous), len(order) - 1)
            order.insert(at + 1, stage)
        previous = stage.get("name")
    result = Sequence(child.place)
    for stage in order:
        if stage.get("skip") is not True:
            result.add(without(stage, "skip"), stage.place)
    return result


def without(mapping: Mapping, *keys: str) -> Mapping:
    result = Mapping(mapping.place)
    for key, value in mapping.items():
        if key not in keys:
            result.put(key, value, mapping.places[key])
    return result


def resolve_extends(stages: Sequence) -> list[Problem]:
    """Lay every stage with ``extends`` on the stage it names, in place; returns what is wrong."""
    problems: list[Problem] = []
    by_name = {stage["name"]: stage for stage in stages if isinstance(stage, Mapping) and _named(stage)}
    finished: dict[str, Mapping] = {}

    def resolve(stage: Mapping, chain: tuple[str, ...]) -> Mapping:
        name, wanted = stage.get("name"), stage.get("extends")
        if name in finished:
            return finished[name]
        result = stage
        if wanted is not None:
            place, key = stage.places["extends"], f"stages.{name}.extends"
            result = without(stage, "extends")
            if wanted in (*chain, name):
                round_trip = " -> ".join((*chain, str(name), str(wanted)))
                problems.append(Problem(place, key, f"goes round in a circle: {round_trip}"))
            elif wanted not in by_name:
                near = nearest(str(wanted), by_name)
                hint = f"did you mean {near}?" if near else f"stages: {', '.join(by_name)}"
                problems.append(Problem(place, key, f"there is no stage {wanted!r}; {hint}"))
            else:
                parent = resolve(by_name[wanted], (*chain, str(name)))
                result = merged(without(parent, "name", "init"), result)
        if isinstance(name, str):
            finished[name] = result
        return result

    for index, stage in enumerate(stages):
        if isinstance(stage, Mapping):
            stages[index] = resolve(stage, ())
    return problems


def _named(stage: Mapping) -> bool:
    return isinstance(stage.get("name"), str)


def apply_override(top: Mapping, text: str) -> Problem | None:
    """``--set a.b.c=value`` on the merged tree, in place; returns what is wrong with it, if anything.

    A stage is addressed by name or index, a list item by index; the value is YAML; missing mappings are made.
    """
    place = Place(f"--set {text}")
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return Problem(place, "", "must look like --set stages.math-rl.steps=10")
    try:
        value = parse(value_text, str(place))
    except RecipeError as error:
        return error.problems[0]
    holder: Any = top
    for depth, key in enumerate(keys[:-1]):
        found = _step(holder, keys, depth)
        if isinstance(found, Problem):
            return Problem(place, found.key, found.message)
        if found is None and isinstance(holder, Mapping):
            found = Mapping(place)
            holder.put(key, found, place)
        holder = found
    if isinstance(holder, Mapping):
        holder.put(keys[-1], value, place)
        return None
    if isinstance(holder, Sequence):
        index = _index(holder, keys[-1])
        if index is not None:
            holder[index] = value
            holder.places[index] = place
            return None
        return Problem(place, ".".join(keys), f"the list has items 0 to {len(holder) - 1}")
    return Problem(place, ".".join(keys), f"{'.'.join(keys[:-1])} is a single value and has no keys")


def _step(holder: Any, keys: list[str], depth: int) -> Any:
    """What ``keys[depth]`` names in ``holder``: a value, None where a mapping may be made, or a Problem."""
    key, path = keys[depth], ".".join(keys[: depth + 1])
    if isinstance(holder, Mapping):
        return holder.get(key)
    if isinstance(holder, Sequence):
        index = _index(holder, key)
        if index is not None:
            return holder[index]
        names = [item["name"] for item in holder if isinstance(item, Mapping) and "name" in item]
        near = nearest(key, map(str, names))
        hint = f"; did you mean {near}?" if near else f"; there are: {', '.join(map(str, names))}" if names else ""
        return Problem(Place(""), path, f"there is no item {key!r}{hint}")
    return Problem(Place(""), path, f"{'.'.join(keys[:depth])} is a single value and has no keys")


def _index(sequence: Sequence, key: str) -> int | None:
    for index, item in enumerate(sequence):
        if isinstance(item, Mapping) and item.get("name") == key:
            return index
    if key.isdigit() and int(key) < len(sequence):
        return int(key)
    return None
