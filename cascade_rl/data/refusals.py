"""Rows that cannot be used: they are left out, counted and named, and the other rows go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cascade_rl.types import CascadeError

SHOWN = 5
"""Refused rows that the log names."""


class OddRow(dict[str, Any]):
    """A row that the keys of its source do not fit. Readers of rows refuse it, and the others go on."""

    def __init__(self, row: Mapping[str, Any], fault: str) -> None:
        super().__init__(row)
        self.fault = fault


class Refusals:
    """The rows that one reader refused."""

    def __init__(self) -> None:
        self.count = 0
        self.faults: list[str] = []
        """Of the first ``SHOWN`` rows: which row it is, and what is wrong with it."""

    def add(self, fault: CascadeError) -> None:
        """Count a row; ``fault`` names it."""
        self.count += 1
        if self.count <= SHOWN:
            self.faults.append(str(fault))

    def report(self, say: Callable[[str], object], total: int) -> None:
        """Tell ``say`` how many of ``total`` rows were refused, and name the first ones."""
        if self.count:
            rest = f"\n  and {self.count - SHOWN} more" if self.count > SHOWN else ""
            say(f"{self.count} of {total} rows cannot be used and were left out:\n  " + "\n  ".join(self.faults) + rest)

    def refuse_all(self, total: int) -> None:
        """Raise CascadeError when not one of ``total`` rows is left."""
        if self.count and self.count == total:
            more = f"\n(the other {total - 1} rows cannot be used either)" if total > 1 else ""
            raise CascadeError(self.faults[0] + more)


def refuse(fault: CascadeError, refusals: Refusals | None) -> None:
    """Count the row that ``fault`` names, or raise ``fault`` where nobody counts."""
    if refusals is None:
        raise fault
    refusals.add(fault)
