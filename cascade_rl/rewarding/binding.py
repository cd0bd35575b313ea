"""Parameters by name: what one call of a reward receives, and whether it can receive it at all.

``response`` (the text after ``</think>``), ``completion`` (all of it), ``prompt`` (the last user message),
``messages`` and ``truncated`` come from the framework; any other name is a column of the row, or else a key of the
recipe's ``reward:`` section. ``**kwargs`` gets the columns and keys that no parameter names.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any

from cascade_rl.rewarding.loading import LoadedReward
from cascade_rl.rewarding.records import ScoreCall
from cascade_rl.rewarding.response import response_text
from cascade_rl.types import Message

GIVEN = ("response", "completion", "prompt", "messages", "truncated")
"""Names the framework fills in; a column of the same name cannot be had."""
SECTION_KEYS = ("timeout_s", "failure", "max_error_rate", "workers", "concurrency", "memory_limit_mib")
"""Keys of the section that are the framework's own, to be suggested for a misspelled one."""


def call_arguments(loaded: LoadedReward, call: ScoreCall) -> dict[str, Any]:
    """Keyword arguments for one call.

    Raises TypeError naming a required parameter that this row has no column for.
    """
    recipe = loaded.settings.params
    given: dict[str, Any] = {
        "response": response_text(call.completion, call.thinking),
        "completion": call.completion,
        "prompt": last_user_text(call.messages),
        "messages": call.messages,
        "truncated": call.truncated,
    }
    arguments: dict[str, Any] = {}
    takes_all = False
    for name, parameter in loaded.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            takes_all = True
        elif name in given:
            arguments[name] = given[name]
        elif name in call.columns:
            arguments[name] = call.columns[name]
        elif name in recipe:
            arguments[name] = recipe[name]
        elif parameter.default is Parameter.empty:
            found = ", ".join(sorted(call.columns))
            raise TypeError(f"needs `{name}`, which this row has no column for ({found}); a null counts as none")
    if takes_all:
        own = loaded.constructor_keys
        rest = {**{key: value for key, value in recipe.items() if key not in own}, **call.columns}
        arguments |= {name: value for name, value in rest.items() if name not in given and name not in arguments}
    return arguments


def last_user_text(messages: Sequence[Message]) -> str:
    """Text of the last user message, or nothing."""
    content = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), None)
    if isinstance(content, Sequence) and not isinstance(content, str):  # parts, as for models that see images
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content or ""


def check_binding(loaded: LoadedReward, columns: set[str]) -> list[str]:
    """What is wrong with the reward's parameters, given the columns that every row has. Empty when all are bound."""
    return [*_missing(loaded, columns), *_unused(loaded), *_of_another_type(loaded, columns)]


def unbound(loaded: LoadedReward, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the parameters of the reward find in no column of ``rows``, which are read as far as needed."""
    columns: set[str] = set()
    problems: list[str] = []
    known = -1
    for row in rows:
        columns |= row.keys()
        if len(columns) > known:
            known = len(columns)
            problems = check_binding(loaded, columns)
            if not problems:
                break
    return problems


def _missing(loaded: LoadedReward, columns: set[str]) -> Iterator[str]:
    use, keys = loaded.settings.use, set(loaded.settings.params)
    for name in _required(loaded.constructor or {}):
        if name not in keys:
            near = _nearest(name, keys)
            yield f"{use} needs the key `{name}` in this section" + (f"; did you mean {near} by it?" if near else "")
    for name in _required(loaded.parameters):
        if name in columns or name in keys or name in GIVEN:
            continue
        near = _nearest(name, columns)
        yield (
            f"{use} needs `{name}`, which is neither a column ({', '.join(sorted(columns)) or 'there are none'}) nor "
            "a key of this section" + (f"; map it with columns: {{{name}: {near}}}" if near else "")
        )


def without_domain(domain: str, known: Collection[str], what: str) -> str:
    """The sentence about rows of a ``domain`` for which a stage has no ``what`` (rewards, teachers)."""
    rows = f"are of domain {domain!r}" if domain else "have no `domain` (a key of their source, or a column)"
    return f"rows {rows}; the stage has {what} for: {', '.join(known)}"


def known_too_late(reward: str) -> str:
    """The sentence about ``dynamic_sampling`` beside a ``reward`` whose values it cannot wait for."""
    return (
        f"dynamic_sampling replaces groups without variance while others generate, but the values of {reward} are "
        "known only with all groups of the step (`combine`). Leave one of the two out; or, if `combine` looks at each "
        "group by itself, say so with `combines_groups_alone = True` on the reward's class"
    )


def _unused(loaded: LoadedReward) -> Iterator[str]:
    use, keys = loaded.settings.use, loaded.settings.params
    takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in loaded.parameters.values())
    named = set(loaded.parameters) - set(GIVEN)
    for key in sorted(set(keys) - loaded.constructor_keys - named):
        if key in GIVEN:
            yield f"{use}: `{key}` is filled in by the framework; a parameter of the recipe needs another name"
        elif not takes_all:
            near = _nearest(key, [*named, *(loaded.constructor or {}), *SECTION_KEYS])
            yield f"{use} takes no `{key}`" + (f"; did you mean {near}?" if near else "")


def _of_another_type(loaded: LoadedReward, columns: set[str]) -> list[str]:
    """Keys of the section that the reward annotates otherwise. Values of columns are judged row by row, by the call."""
    from cascade_rl.arguments import type_problems  # here, since workers import this module and must not load pydantic

    given, function = loaded.settings.params, loaded.target
    of_call = {key: value for key, value in given.items() if key not in columns and key not in GIVEN}
    found: list[str] = []
    if loaded.constructor is not None:
        found += type_problems(function, {key: given[key] for key in given if key in loaded.constructor_keys})
        function = function.score  # type: ignore[attr-defined]
    found += type_problems(function, of_call)
    return [f"{loaded.settings.use}: {message}" for message in dict.fromkeys(found)]  # both may take the same key


def _required(parameters: Mapping[str, Parameter]) -> list[str]:
    return [
        name
        for name, parameter in parameters.items()
        if parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD
    ]


def _nearest(name: str, among: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, sorted(among), n=1)
    return near[0] if near else None
