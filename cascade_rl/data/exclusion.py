"""Rows of a stage that are left out because another stage, other data or a category has them.

Exactly equal means: the same words of the user up to an answer, case and white space apart, as rendered by each
source's format string. ``ngram`` compares the rows' own texts (``cascade_rl.data.ngrams``), without what a format
string adds to each of them, since all prompts that ask for a boxed answer would overlap in that; rows whose texts are
shorter than n words are compared whole, as rendered.

What a stage asks is what its ``data`` asks, before its own exclusions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rl.data.ngrams import NgramIndex, Owner, digest
from cascade_rl.data.questions import own_texts, questions
from cascade_rl.data.reading import Row
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import fingerprint, load_rows, stream_rows
from cascade_rl.recipe import DataSource, Exclusion, StageConfig
from cascade_rl.types import CascadeError

ANYONE = Owner("", "")
StagesData = Mapping[str, Sequence[DataSource]]
"""Stage name -> its data, of each stage that an exclusion names."""


@dataclass(frozen=True)
class SourceRows:
    """What is left of a source, and which rows of it these are: places in what ``load_rows`` gives."""

    source: DataSource
    rows: list[Row]
    numbers: list[int]


def load_stage_rows(
    config: StageConfig, recipe_path: Path, stages_data: StagesData, say: Callable[[str], object]
) -> Iterator[SourceRows]:
    """The stage's rows, source by source, without the excluded ones; ``say`` is told how many each exclusion took.

    Raises CascadeError for files that cannot be read; for excluded data of which no row can be read; for a column of
    ``where`` that no row has; and at the end, when no row is left.
    """
    rules = [_rule(exclusion, stages_data, recipe_path) for exclusion in config.exclude]
    total = left = 0
    for source in config.data:
        rows = load_rows(source, recipe_path)
        once = len(rows) // source.repeat
        kept = [i for i in range(once) if not any(rule.takes(rows[i], source, i) for rule in rules)]
        total, left = total + once, left + len(kept)
        numbers = [repeat * once + i for repeat in range(source.repeat) for i in kept]
        yield SourceRows(source, [rows[i] for i in numbers], numbers)
    for rule in rules:
        say(f"exclude {rule.label}: {rule.taken} of {total} rows left out")
    if not left:
        taken = ", ".join(f"{rule.label} took {rule.taken}" for rule in rules)
        raise CascadeError(f"stage {config.name} has no rows left: of {total} rows, exclude {taken}")
    for rule in rules:
        rule.refuse_unseen(config.name)


def stages_data(config: StageConfig, stages: Iterable[StageConfig]) -> dict[str, list[DataSource]]:
    """The data of each of ``stages`` that ``config`` excludes by name."""
    named = {exclusion.stage for exclusion in config.exclude}
    return {stage.name: list(stage.data) for stage in stages if stage.name in named}


def exclusion_inputs(exclusion: Exclusion, data: StagesData, recipe_path: Path) -> dict[str, Any]:
    """What of an exclusion a stage's result depends on: the excluded data, not what its stage is called."""
    inputs = {
        "data": [fingerprint(_once(source), recipe_path) for source in _sources(exclusion, data)],
        "ngram": exclusion.ngram,
        "where": exclusion.where,
    }
    return {key: value for key, value in inputs.items() if value}


def _once(source: DataSource) -> DataSource:
    """Without what says how often rows occur, and for what: they ask the same."""
    return source.model_copy(update={"repeat": 1, "weight": None, "domain": None})


def _sources(exclusion: Exclusion, data: StagesData) -> Sequence[DataSource]:
    return data[exclusion.stage] if exclusion.stage is not None else exclusion.data


@dataclass
class _Rule:
    """One exclusion, with its count."""

    label: str
    matches: Callable[[Row, DataSource, int], bool]
    unseen: set[str] = field(default_factory=set)
    """Columns that no row has had."""
    taken: int = 0

    def takes(self, row: Row, source: DataSource, index: int) -> bool:
        self.unseen -= row.keys()
        try:
            if not self.matches(row, source, index):
                return False
        except CascadeError:
            return False  # the reader of the stage's rows refuses it, and names it
        self.taken += 1
        return True

    def refuse_unseen(self, stage: str) -> None:
        for column in sorted(self.unseen):
            raise CascadeError(f"stage {stage}: exclude {self.label}: no row looked at has a column {column!r}")


def _rule(exclusion: Exclusion, data: StagesData, recipe_path: Path) -> _Rule:
    if exclusion.where:
        label = "where " + " and ".join(f"{column} is one of {values}" for column, values in exclusion.where.items())
        return _Rule(label, lambda row, *_: has_values(row, exclusion.where), set(exclusion.where))
    sources = _sources(exclusion, data)
    what = f"stage {exclusion.stage}" if exclusion.stage else f"data {', '.join(source.source for source in sources)}"
    asked = _asked(sources, recipe_path)
    if exclusion.ngram is None:
        return _Rule(what, _same(asked))
    return _Rule(f"{what} ({exclusion.ngram}-grams)", _overlapping(asked, exclusion.ngram))


def has_values(row: Row, where: Mapping[str, Sequence[Any]]) -> bool:
    """Whether each column of ``where`` has one of its values; in a list, one of the items must be one of them."""
    return all(
        any(_equal(item, value) for item in _items(row.get(column)) for value in values)
        for column, values in where.items()
    )


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _equal(item: Any, value: Any) -> bool:
    return bool(item == value) and isinstance(item, bool) == isinstance(value, bool)  # True is no 1 here


def _asked(sources: Iterable[DataSource], recipe_path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Questions and own texts of each row that has some. Raises CascadeError when no row of a source can be read."""
    for source in sources:
        refusals, index = Refusals(), -1
        for index, row in enumerate(stream_rows(source, recipe_path)):
            try:
                found = questions(row, source, index), own_texts(row, source, index)
            except CascadeError as fault:
                refusals.add(fault)
            else:
                yield found
        refusals.refuse_all(index + 1)


def _same(asked: Iterable[tuple[list[str], list[str]]]) -> Callable[[Row, DataSource, int], bool]:
    theirs = {_exact(question) for questions_, _ in asked for question in questions_}
    return lambda row, source, index: any(_exact(question) in theirs for question in questions(row, source, index))


def _exact(question: str) -> bytes:
    return digest(" ".join(question.casefold().split()))


def _overlapping(asked: Iterable[tuple[list[str], list[str]]], n: int) -> Callable[[Row, DataSource, int], bool]:
    index = NgramIndex(n)
    for questions_, texts in asked:
        for question in questions_:
            index.add_whole(question, ANYONE)
        for text in texts:
            if index.long_enough(text):
                index.add(text, ANYONE)

    def matches(*row: Any) -> bool:
        return any(index.has_whole(question) for question in questions(*row)) or any(
            index.long_enough(text) and index.touches(text) for text in own_texts(*row)
        )

    return matches
