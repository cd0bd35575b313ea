"""Whether the rows of a data source can be used, before a stage starts: judged by the first 1,000, as far as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cascade_rl.data.refusals import Refusals
from cascade_rl.data.sources import Row, columns_of, no_rows
from cascade_rl.recipe import DataSource, LoadedRecipe
from cascade_rl.types import CascadeError

Reader = Callable[[Sequence[Row], DataSource, Sequence[int], Refusals], Iterable[Any]]
"""Makes prompts, conversations or pairs of rows with these numbers; None for a row that has no use."""


def first_rows(loaded: LoadedRecipe, source: DataSource) -> Iterator[Row]:
    """The first rows of ``source`` up to one that cannot be read (``row_fault`` reports it); of a hub data set none."""
    try:
        yield from columns_of(source, loaded.path) or ()
    except CascadeError:
        return


def row_fault(
    loaded: LoadedRecipe, source: DataSource, read: Reader, needs: Callable[[set[str]], str | None] = lambda _: None
) -> str | None:
    """Why a stage cannot start from ``source``; None where one of its first rows is usable, or it is on the hub.

    ``needs`` says what is missing among the columns of all rows read; it is asked when no row was usable.
    """
    refusals = Refusals()
    columns: set[str] = set()
    total = 0
    try:
        rows = columns_of(source, loaded.path)
        if rows is None:
            return None
        for number, row in enumerate(rows):
            if any(made is not None for made in read([row], source, [number], refusals)):
                return None
            columns |= row.keys()
            total += 1
        if not total:
            return no_rows(source)
        if refusals.count == total and (missing := needs(columns)):
            return missing
        refusals.refuse_all(total)
    except CascadeError as error:
        return str(error)
    return None
