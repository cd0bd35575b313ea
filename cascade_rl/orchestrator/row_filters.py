"""Which rows a stage takes, checked before anything starts: filters, exclusions, weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cascade_rl.data.questions import questions
from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import Row, columns_of, load_keep
from cascade_rl.orchestrator.row_checks import row_fault
from cascade_rl.recipe import DataSource, LoadedRecipe, Problem, StageConfig
from cascade_rl.recipe.measuring import BenchmarkConfig
from cascade_rl.recipe.problems import Keys, suggestion
from cascade_rl.types import CascadeError


def check_selection(loaded: LoadedRecipe) -> Iterator[Problem]:
    """Problems of ``keep``, ``weight`` and ``exclude`` in all stages, and of ``keep`` in benchmarks."""
    for stage in loaded.recipe.stages:
        keys: Keys = ("stages", stage.name)
        for key, sources in stage.data_lists.items():
            yield from _check_keeps(loaded, sources, (*keys, key))
        yield from _check_weights(loaded, stage, keys)
        for index, exclusion in enumerate(stage.exclude):
            inner = (*keys, "exclude", index)
            unloadable = list(_check_keeps(loaded, exclusion.data, (*inner, "data")))
            yield from unloadable or _check_excluded(loaded, exclusion.data, inner)
            for column in exclusion.where:
                yield from _check_column(loaded, stage, column, (*inner, "where", column))
    for index, entry in enumerate(loaded.recipe.evaluate.after_each_stage):
        if isinstance(entry, BenchmarkConfig):
            yield from _check_keeps(loaded, entry.data, ("evaluate", "after_each_stage", index, "data"))


def _check_keeps(loaded: LoadedRecipe, sources: list[DataSource], keys: Keys) -> Iterator[Problem]:
    """Filters can be loaded, those of hub data sets too."""
    for index, source in enumerate(sources):
        try:
            load_keep(source, loaded.path)
        except CascadeError as error:
            yield Problem.at(loaded, (*keys, index, "keep"), str(error))


def _check_weights(loaded: LoadedRecipe, stage: StageConfig, keys: Keys) -> Iterator[Problem]:
    """Weights are of stages that sample, and give every source a prompt."""
    total = sum(source.weight or 0.0 for source in stage.data)
    for index, source in enumerate(stage.data):
        if source.weight is None:
            continue
        message = None
        if stage.total_prompts is None:
            message = f"stages of kind {stage.kind} have no weights; `repeat` has rows occur more often in an epoch"
        elif (prompts := stage.total_prompts * source.weight / total) < 1:
            message = (
                f"gives {source.source} {prompts:.2g} of the stage's {stage.total_prompts} prompts "
                f"({stage.rows_per_step()[1]} a step): raise it, or leave the source out"
            )
        if message:
            yield Problem.at(loaded, (*keys, "data", index, "weight"), message)


def _check_excluded(loaded: LoadedRecipe, sources: list[DataSource], keys: Keys) -> Iterator[Problem]:
    """Excluded data can be read, and asks something."""
    for place, source in enumerate(sources):
        if fault := row_fault(loaded, source, _questions):
            yield Problem.at(loaded, (*keys, "data", place), fault)


def _questions(
    rows: Sequence[Row], source: DataSource, numbers: Sequence[int], refusals: Refusals
) -> Iterator[list[str]]:
    for number, row in zip(numbers, rows, strict=True):
        try:
            yield questions(row, source, number)
        except CascadeError as fault:
            refusals.add(fault)


def _check_column(loaded: LoadedRecipe, stage: StageConfig, column: str, keys: Keys) -> Iterator[Problem]:
    """Some row has the column. Where a source is not at hand (on the hub), the stage itself finds out."""
    found: set[str] = set()
    for source in stage.data:
        try:
            rows = columns_of(source, loaded.path)
            if rows is None:
                return
            found.update(name for row in rows for name in row)
        except CascadeError:
            return  # reported where the rows themselves are checked
    if column not in found:
        yield Problem.at(loaded, keys, f"no row has a column {column!r}; {suggestion(column, sorted(found), 'it has')}")
